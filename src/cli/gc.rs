//! `larder gc`

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;

use crate::cli::args::GcArgs;
use crate::cli::context::Context;
use crate::cli::exit::{Complaint, Exit};
use crate::cli::output::{bytes, counted};
use crate::client::administration::{Administration, EndedCollection, NewCollection};

/// How often the box is asked whether it is done.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Has the running box take away what nobody needs, and waits for the end.
pub(super) async fn run(context: &Context, args: GcArgs) -> anyhow::Result<Exit> {
    let GcArgs { dry_run, cache, target_free } = args;
    let target_free_bytes = target_free.map(|size| size.as_u64());
    let new = NewCollection { cache, target_free_bytes, dry_run };
    let ended = context.administer(async |administration| {
        let bar = context.output.progress();
        let ended = watched(administration, &new).await;
        bar.clear();
        ended
    });
    let ended = ended.await?;
    if let Some(error) = &ended.error {
        let message = format!("the collection ended early: {error}");
        return Err(Complaint::new(Exit::Failed, message)
            .with_hint("nothing that is needed was taken away; the box's log tells more")
            .into());
    }
    context.output.data(&ended, text)?;
    Ok(Exit::Done)
}

async fn watched(
    administration: &Administration,
    new: &NewCollection,
) -> anyhow::Result<EndedCollection> {
    let mut state = administration.start_collection(new).await?;
    let ours = state.running_since;
    while state.running_since.is_some() && state.running_since == ours {
        sleep(ASK_EVERY).await;
        state = administration.collection().await?;
    }
    state.last.context("the box has forgotten the collection; was it restarted?")
}

fn text(ended: &EndedCollection) -> String {
    let mut lines: Vec<_> = ended
        .paths
        .iter()
        .map(|leaving| {
            let size = bytes(leaving.file_size);
            format!("{}  {}  {size}  {}", leaving.cache, leaving.path, why(&leaving.reason))
        })
        .collect();
    let named = u64::try_from(ended.paths.len()).unwrap_or(u64::MAX);
    if ended.paths_count > named {
        lines.push(format!("and {} more", ended.paths_count - named));
    }
    let (paths, chunks) = (counted(ended.paths_count, "path"), counted(ended.chunks, "chunk"));
    let freed = bytes(ended.freed_bytes);
    lines.push(if ended.dry_run {
        format!("{paths} would leave; some {freed} in {chunks} would be free, as packs are emptied")
    } else {
        let packs = counted(ended.packs, "pack");
        let moved = bytes(ended.moved_bytes);
        format!("{paths} left; {freed} became free in {packs} ({chunks}; {moved} written anew)")
    });
    lines.join("\n")
}

/// Why a path leaves, for people.
fn why(reason: &str) -> &str {
    match reason {
        "retention" => "not read for as long as the cache keeps paths",
        "quota" => "the cache is beyond its quota",
        "box-quota" => "the box is beyond its quota",
        "space" => "room is wanted on the disk",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::administration::LeavingPath;

    #[test]
    fn what_left_is_listed_and_what_became_free_is_said() {
        let path = "/nix/store/syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl".to_owned();
        let mut ended = EndedCollection {
            started_at: 1,
            ended_at: 2,
            dry_run: true,
            error: None,
            paths: vec![LeavingPath {
                cache: "main".to_owned(),
                path,
                file_size: 2048,
                reason: "quota".to_owned(),
            }],
            paths_count: 3,
            nars: 3,
            chunks: 1,
            packs: 1,
            freed_bytes: 1 << 20,
            moved_bytes: 4096,
        };
        assert_eq!(
            text(&ended),
            "main  /nix/store/syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl  2.0 KiB  the cache is \
             beyond its quota\nand 2 more\n\
             3 paths would leave; some 1.0 MiB in 1 chunk would be free, as packs are emptied"
        );
        ended.dry_run = false;
        let expected =
            "3 paths left; 1.0 MiB became free in 1 pack (1 chunk; 4.0 KiB written anew)";
        assert_eq!(text(&ended).lines().last(), Some(expected));
    }
}
