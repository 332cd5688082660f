//! `larder fsck`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::sleep;

use crate::cli::context::Context;
use crate::cli::exit::{Complaint, Exit};
use crate::cli::output::{Output, bytes, counted};
use crate::client::administration::{AdminError, Administration, EndedCheck};
use crate::daemon::{ServeOverrides, Settings};
use crate::store::rebuild_index as rebuild;

/// How often the box is asked how far it has come.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// The status of an answer that says that a check runs already.
const CONFLICT: u16 = 409;

#[derive(Serialize)]
struct Findings {
    records: u64,
    bytes: u64,
    paths: u64,
    damaged: Vec<String>,
}

/// Has the running box check its store, and waits for the end.
pub(super) async fn check(context: &Context) -> anyhow::Result<Exit> {
    let ended =
        context.administer(async |administration| watched(administration, &context.output).await);
    let ended = ended.await?;
    if let Some(error) = ended.error {
        return Err(
            Complaint::new(Exit::Failed, format!("the check could not be made: {error}")).into()
        );
    }
    let EndedCheck { records, bytes, paths, damaged, .. } = ended;
    report(context, Findings { records, bytes, paths, damaged })
}

async fn watched(administration: &Administration, output: &Output) -> anyhow::Result<EndedCheck> {
    let mut state = match administration.start_check().await {
        // Somebody else's check tells as much.
        Err(AdminError::Refused { status: CONFLICT, .. }) => administration.check().await?,
        started => started?,
    };
    let ours = state.running.map(|running| running.started_at);
    let bar = output.progress();
    while let Some(running) = state.running.filter(|running| Some(running.started_at) == ours) {
        bar.place(running.done_bytes, running.total_bytes);
        sleep(ASK_EVERY).await;
        state = administration.check().await?;
    }
    bar.clear();
    state.last.context("the box has forgotten the check; was it restarted?")
}

/// Makes the index of a stopped box anew from its packs.
pub(super) fn rebuild_index(context: &Context, data: Option<PathBuf>) -> anyhow::Result<Exit> {
    let overrides = ServeOverrides { data, ..ServeOverrides::default() };
    let settings = Settings::read(context.config.as_deref(), overrides)?;
    let folder = &settings.store.folder;
    if !folder.is_dir() {
        let message = format!("there is no data folder at {}", folder.display());
        return Err(Complaint::new(Exit::NotFound, message)
            .with_hint("--data DIR says where it is")
            .into());
    }
    let bar = context.output.progress();
    let report_back = rebuild(settings.store.clone(), &|progress| {
        bar.place(progress.done_bytes, progress.total_bytes);
    })?;
    bar.clear();
    let (records, bytes, paths) = (report_back.records, report_back.bytes, report_back.paths);
    report(context, Findings { records, bytes, paths, damaged: report_back.damaged })
}

fn report(context: &Context, findings: Findings) -> anyhow::Result<Exit> {
    context.output.data(&findings, text)?;
    Ok(if findings.damaged.is_empty() { Exit::Done } else { Exit::Verification })
}

fn text(findings: &Findings) -> String {
    let Findings { records, paths, damaged, .. } = findings;
    let read = bytes(findings.bytes);
    let mut lines: Vec<String> = damaged.iter().map(|what| format!("damaged: {what}")).collect();
    let verdict = match damaged.len() {
        0 => "all is well".to_owned(),
        count => format!("{count} damaged; push the paths again to mend them"),
    };
    lines.push(format!(
        "read {} ({read}) of {}: {verdict}",
        counted(*records, "record"),
        counted(*paths, "path")
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_stands_last() {
        let mut findings = Findings { records: 3, bytes: 2048, paths: 1, damaged: Vec::new() };
        assert_eq!(text(&findings), "read 3 records (2.0 KiB) of 1 path: all is well");
        findings.damaged.push("pack 1 at 64: a chunk".to_owned());
        assert_eq!(
            text(&findings),
            "damaged: pack 1 at 64: a chunk\n\
             read 3 records (2.0 KiB) of 1 path: 1 damaged; push the paths again to mend them"
        );
    }
}
