//! `larder log`

use serde::Serialize;

use crate::cli::args::LogArgs;
use crate::cli::context::Context;
use crate::cli::duration::{Since, moment};
use crate::cli::exit::{Complaint, Exit};
use crate::cli::output;
use crate::client::administration::{Administration, LogPage, PushRecord};
use crate::formats::{CacheName, StorePathHash};
use crate::services::clock;

#[derive(Serialize)]
struct Pushes {
    pushes: Vec<PushRecord>,
}

pub(super) async fn run(context: &Context, args: LogArgs) -> anyhow::Result<Exit> {
    let path = args.path.as_deref().map(parse_path).transpose()?;
    let since = args.since.map_or(0, |since: Since| since.before(clock::now()));
    let pushes = context.administer(async |administration| match path {
        Some(path) => Ok(administration.log_of(&args.cache, path, since).await?.pushes),
        None => all(context, administration, &args.cache, since).await,
    });
    let pushes = pushes.await?;
    if context.output.is_json() || !pushes.is_empty() {
        context.output.data(&Pushes { pushes }, |Pushes { pushes }| table(pushes, true))?;
    }
    Ok(Exit::Done)
}

/// Prints a page at a time, for a log may be long; as JSON it is one line, and so one value.
async fn all(
    context: &Context,
    administration: &Administration,
    cache: &CacheName,
    since: u64,
) -> anyhow::Result<Vec<PushRecord>> {
    let (mut collected, mut after, mut is_first) = (Vec::new(), None, true);
    loop {
        let LogPage { pushes, next } = administration.log(cache, since, after.as_deref()).await?;
        if context.output.is_json() {
            collected.extend(pushes);
        } else {
            let page = Pushes { pushes };
            context.output.data(&page, |page| table(&page.pushes, is_first))?;
        }
        (after, is_first) = (next, false);
        if after.is_none() {
            return Ok(collected);
        }
    }
}

/// A store path, its base name, or the hash part of it.
pub(super) fn parse_path(text: &str) -> anyhow::Result<StorePathHash> {
    let base_name = text.trim_end_matches('/').rsplit('/').next().unwrap_or(text);
    let hash = base_name.split('-').next().unwrap_or(base_name);
    let wrong = |error| Complaint::usage(format!("'{text}' is no store path: {error}"));
    Ok(hash.parse().map_err(wrong)?)
}

fn table(pushes: &[PushRecord], with_heads: bool) -> String {
    let heads = with_heads.then(|| ["WHEN", "TOKEN", "DEVICE", "PATH"].map(str::to_owned).to_vec());
    let row = |push: &PushRecord| {
        let label = push.token_label.as_deref().filter(|label| !label.is_empty());
        let label = label.map_or_else(String::new, |label| format!(" ({label})"));
        let hidden = if push.visible { "" } else { " (hidden)" };
        vec![
            moment(push.pushed_at),
            format!("{}{label}", push.token),
            push.device.clone(),
            format!("{}{hidden}", push.path),
        ]
    };
    output::table(&heads.into_iter().chain(pushes.iter().map(row)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_a_line_for_each_path() {
        let push = PushRecord {
            path: "/nix/store/x-hello".into(),
            nar_size: 1,
            visible: true,
            pushed_at: 60,
            token: 2,
            token_label: Some("CI".into()),
            device: "abcd".into(),
        };
        let hidden = PushRecord { visible: false, token_label: None, ..push.clone() };
        let shown = table(&[push, hidden], true);
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines[0].starts_with("WHEN"), "{shown}");
        assert!(lines[1].starts_with("1970-01-01 00:01 UTC  2 (CI)"), "{shown}");
        assert!(lines[2].ends_with("/nix/store/x-hello (hidden)"), "{shown}");
        assert_eq!(table(&[], false), "");
    }

    #[test]
    fn a_path_is_read_in_all_its_forms() {
        let hash = "0".repeat(32);
        for text in
            [hash.clone(), format!("{hash}-a-b"), format!("/nix/store/{hash}-a/"), hash.clone()]
        {
            assert_eq!(parse_path(&text).unwrap().to_string(), hash, "{text}");
        }
        for text in ["", "/", "hello", "/nix/store/hello-1"] {
            assert!(parse_path(text).is_err(), "{text}");
        }
    }
}
