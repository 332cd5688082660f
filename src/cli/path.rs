//! `larder path`

use crate::cli::args::{PathCommand, PathRmArgs};
use crate::cli::context::Context;
use crate::cli::duration::moment;
use crate::cli::exit::Exit;
use crate::cli::log::parse_path;
use crate::cli::output::{bytes, counted, facts};
use crate::client::administration::{PathFacts, RemovedPaths};

pub(super) async fn run(context: &Context, command: PathCommand) -> anyhow::Result<Exit> {
    match command {
        PathCommand::Show { cache, path } => {
            let path = parse_path(&path)?;
            let found = context
                .administer(async |administration| Ok(administration.path(&cache, path).await?));
            context.output.data(&found.await?, shown)?;
        }
        PathCommand::Rm(PathRmArgs { cache, path, with_referrers, purge }) => {
            let path = parse_path(&path)?;
            let removed = context.administer(async |administration| {
                Ok(administration.remove_path(&cache, path, with_referrers, purge).await?)
            });
            context.output.data(&removed.await?, |removed| text(removed, purge))?;
        }
    }
    Ok(Exit::Done)
}

fn shown(path: &PathFacts) -> String {
    let state = match (path.visible, path.damaged) {
        (_, true) => "damaged: not served until it is pushed again".to_owned(),
        (true, false) => "served".to_owned(),
        (false, false) => "hidden: it waits for what is missing".to_owned(),
    };
    let mut shown = vec![
        ("path", path.path.clone()),
        ("state", state),
        ("NAR", format!("{}, {} as stored", bytes(path.nar_size), bytes(path.file_size))),
        ("NarHash", path.nar_hash.clone()),
    ];
    for (name, lines) in [
        ("references", &path.references),
        ("missing", &path.missing),
        ("signatures", &path.signatures),
    ] {
        if !lines.is_empty() {
            shown.push((name, lines.join("\n")));
        }
    }
    shown.extend(path.deriver.clone().map(|deriver| ("deriver", deriver)));
    shown.extend(path.ca.clone().map(|ca| ("content", ca)));
    if let Some(push) = &path.push {
        let label = push.token_label.as_deref().filter(|label| !label.is_empty());
        let label = label.map_or_else(String::new, |label| format!(" ({label})"));
        let at = moment(push.pushed_at);
        shown
            .push(("pushed", format!("{at}, token {}{label}, device {}", push.token, push.device)));
    }
    facts(&shown)
}

fn text(removed: &RemovedPaths, purge: bool) -> String {
    let mut lines = removed.paths.clone();
    let count = counted(u64::try_from(removed.paths.len()).unwrap_or(u64::MAX), "path");
    lines.push(if purge {
        format!("removed {count}; {} became free", bytes(removed.freed_bytes))
    } else {
        format!("removed {count}; their room becomes free when the store is collected")
    });
    lines.join("\n")
}
