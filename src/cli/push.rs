//! `larder push`

mod arguments;

use std::env;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::cli::args::PushArgs;
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, bytes};
use crate::cli::progress::Progress;
use crate::client::nix_store::{Location, NixStore};
use crate::client::push::{Attachments, Push, PushEvent, PushOptions, PushReport, Tell};
use crate::formats::PathInfo;
use crate::formats::realisation::Realisation;

/// Large paths at a time where nobody says: more would only take memory.
const JOBS_MAX: u32 = 8;

pub(super) async fn run(context: &Context, args: PushArgs) -> anyhow::Result<Exit> {
    let location = Location::from_variables(|name| env::var_os(name))?;
    let connector = context.connector()?;
    let PushArgs {
        cache,
        paths,
        jobs,
        compression_level,
        omit_deriver,
        no_logs,
        no_closure,
        sign_known,
        dry_run,
    } = args;
    let signing_keys = context.signing_keys()?;
    let (store, output) = (location.clone(), context.output.clone());
    let (closure, realisations) =
        spawn_blocking(move || closure(store, paths, no_closure, &output))
            .await
            .context("reading the local store failed; this is a defect of larder")??;
    let jobs = jobs.unwrap_or_else(jobs_default);
    let logs = (!no_logs).then(|| location.clone());
    let attachments = Arc::new(Attachments::new(logs, realisations));
    let options = PushOptions {
        cache,
        jobs,
        compression_level,
        omit_deriver,
        signing_keys,
        sign_known,
        attachments,
    };
    let bar = context.output.progress();
    let tell = Tell::to(draw(bar.clone()));
    let push = Push::begin(connector, location, closure, options, tell).await?;
    let total_bytes = push.lacking().map(|info| info.nar_size).sum();
    if dry_run {
        show_plan(context, &push)?;
        push.leave().await;
        return Ok(Exit::Done);
    }
    bar.place(0, total_bytes);
    let report = push.run().await;
    bar.clear();
    show_report(context, &report)
}

/// The facts of all paths that are meant, references first, and their realisations. Blocking.
fn closure(
    location: Location,
    arguments: Vec<PathBuf>,
    no_closure: bool,
    output: &Output,
) -> anyhow::Result<(Vec<PathInfo>, Vec<Realisation>)> {
    let arguments = arguments::read(arguments)?;
    let here = env::current_dir().context("cannot tell the current folder")?;
    let store = NixStore::open(location)?;
    let roots = arguments::resolve(&store, &arguments, &here, output)?;
    let closure = if no_closure { store.path_infos(&roots)? } else { store.closure(&roots)? };
    let mut realisations = Vec::new();
    for info in &closure {
        realisations.extend(store.realisations(&info.store_path)?);
    }
    Ok((closure, realisations))
}

/// Twice the processors: some read while others compress.
fn jobs_default() -> NonZero<u32> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let jobs = u32::try_from(processors.saturating_mul(2)).unwrap_or(JOBS_MAX).min(JOBS_MAX);
    NonZero::new(jobs).unwrap_or(NonZero::<u32>::MIN)
}

fn draw(bar: Progress) -> impl Fn(PushEvent) + Send + Sync + 'static {
    move |event| match event {
        PushEvent::Read { bytes } => bar.advance(bytes),
        PushEvent::Unread { bytes } => bar.retreat(bytes),
        PushEvent::Finished { path } => bar.message(path.name()),
        PushEvent::LeftBehind { what, why } => {
            let line = format!("{what} was not sent along: {why}");
            bar.line(&line);
        }
        PushEvent::Reconnecting { attempt, pause, why } => {
            let seconds = pause.as_secs_f32();
            let line = format!("{why}; try {attempt} in {seconds:.1} s");
            bar.line(&line);
        }
    }
}

#[derive(Serialize)]
struct Plan {
    known: usize,
    paths: Vec<PlannedPath>,
}

#[derive(Serialize)]
struct PlannedPath {
    path: String,
    nar_size: u64,
}

fn show_plan(context: &Context, push: &Push) -> anyhow::Result<()> {
    let planned = |info: &PathInfo| PlannedPath {
        path: info.store_path.to_absolute(),
        nar_size: info.nar_size,
    };
    let plan = Plan { known: push.known(), paths: push.lacking().map(planned).collect() };
    let total = plan.paths.iter().map(|path| path.nar_size).sum();
    context.output.data(&plan, |plan| {
        plan.paths.iter().map(|planned| format!("{}\n", planned.path)).collect()
    })?;
    let (count, known) = (plan.paths.len(), plan.known);
    context.output.note(&format!("would send {count} ({} of NARs), known {known}", bytes(total)));
    Ok(())
}

/// A push for programs: how many paths ended how, and each that did not end well.
#[derive(Serialize)]
struct ShownReport {
    stored: usize,
    known: usize,
    hidden: usize,
    kept_first: usize,
    failed: usize,
    not_sent: usize,
    sent_bytes: u64,
    seconds: f64,
    paths: Vec<ShownPath>,
    error: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct ShownPath {
    path: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl ShownReport {
    fn new(report: &PushReport) -> Self {
        let shown = |path: String, state| ShownPath { path, state, missing: vec![], error: None };
        let hidden = report.hidden.iter().map(|hidden| ShownPath {
            missing: hidden.missing.clone(),
            ..shown(hidden.path.to_absolute(), "hidden")
        });
        let kept_first =
            report.kept_first.iter().map(|path| shown(path.to_absolute(), "kept_first"));
        let failed = report.failed.iter().map(|failed| {
            let error = chain(&failed.why);
            ShownPath { error: Some(error), ..shown(failed.path.to_absolute(), "failed") }
        });
        let not_sent =
            report.not_sent.iter().map(|info| shown(info.store_path.to_absolute(), "not_sent"));
        Self {
            stored: report.stored,
            known: report.known,
            hidden: report.hidden.len(),
            kept_first: report.kept_first.len(),
            failed: report.failed.len(),
            not_sent: report.not_sent.len(),
            sent_bytes: report.sent_bytes,
            seconds: report.took.as_secs_f64(),
            paths: hidden.chain(kept_first).chain(failed).chain(not_sent).collect(),
            error: report.stopped.as_ref().map(|error| chain(error)),
        }
    }

    /// `stored N, known M, hidden K`, what else there was, and what it took.
    fn summary(&self) -> String {
        let mut line =
            format!("stored {}, known {}, hidden {}", self.stored, self.known, self.hidden);
        for (name, count) in [
            ("kept the first", self.kept_first),
            ("failed", self.failed),
            ("not sent", self.not_sent),
        ] {
            if count > 0 {
                line.push_str(&format!(", {name} {count}"));
            }
        }
        format!("{line}; sent {} in {:.1} s", bytes(self.sent_bytes), self.seconds)
    }
}

impl ShownPath {
    /// A line for a person about a path that did not end well; those that nobody got to are
    /// counted and not listed.
    fn line(&self) -> Option<String> {
        let Self { path, missing, error, .. } = self;
        match self.state {
            "hidden" => {
                Some(format!("{path}: hidden until these are pushed: {}", missing.join(" ")))
            }
            "kept_first" => {
                Some(format!("{path}: another build of it is in the cache; kept the first"))
            }
            "failed" => Some(format!("{path}: {}", error.as_deref().unwrap_or_default())),
            _ => None,
        }
    }
}

fn show_report(context: &Context, report: &PushReport) -> anyhow::Result<Exit> {
    let shown = ShownReport::new(report);
    for line in shown.paths.iter().filter_map(ShownPath::line) {
        context.output.warn(&line);
    }
    if let Some(error) = &shown.error {
        context.output.warn(error);
    }
    context.output.note(&shown.summary());
    if context.output.is_json() {
        context.output.data(&shown, |_| String::new())?;
    }
    Ok(exit_of(report))
}

fn exit_of(report: &PushReport) -> Exit {
    if let Some(error) = &report.stopped {
        return Exit::of_cause(error);
    }
    let arrived = report.stored + report.known + report.kept_first.len() + report.hidden.len();
    match report.failed.first() {
        // Nothing came of it at all: then the reason says more than "in part".
        Some(failed) if arrived == 0 => Exit::of_cause(&failed.why),
        None if report.hidden.is_empty() => Exit::Done,
        _ => Exit::Partly,
    }
}

/// The whole chain of an error on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::box_client::ReachError;
    use crate::client::host::HostError;
    use crate::client::push::{FailedPath, HiddenPath, PushError};
    use crate::formats::StorePath;
    use crate::transports::quic::RequestError;
    use crate::wire::{Refusal, RefusalCode};

    fn path(name: &str) -> StorePath {
        format!("{}-{name}", "0".repeat(32)).parse().unwrap()
    }

    fn refused(code: RefusalCode) -> RequestError {
        RequestError::Refused(Refusal::new(code, "because"))
    }

    fn report() -> PushReport {
        let took = Duration::from_millis(1230);
        PushReport { stored: 3, known: 2, sent_bytes: 2048, took, ..PushReport::default() }
    }

    #[test]
    fn the_summary_is_one_line() {
        let shown = ShownReport::new(&report());
        assert_eq!(shown.summary(), "stored 3, known 2, hidden 0; sent 2.0 KiB in 1.2 s");
        assert_eq!(exit_of(&report()), Exit::Done);
    }

    #[test]
    fn what_did_not_end_well_is_listed() {
        let mut report = report();
        report.hidden.push(HiddenPath { path: path("a"), missing: vec!["b".into(), "c".into()] });
        report.kept_first.push(path("k"));
        let why = refused(RefusalCode::WrongNarHash);
        report.failed.push(FailedPath { path: path("f"), why });

        let shown = ShownReport::new(&report);
        let lines: Vec<_> = shown.paths.iter().filter_map(ShownPath::line).collect();
        let in_store = |name: &str| path(name).to_absolute();
        assert_eq!(
            lines,
            [
                format!("{}: hidden until these are pushed: b c", in_store("a")),
                format!("{}: another build of it is in the cache; kept the first", in_store("k")),
                format!("{}: the box refused: because", in_store("f")),
            ]
        );
        assert_eq!(
            shown.summary(),
            "stored 3, known 2, hidden 1, kept the first 1, failed 1; sent 2.0 KiB in 1.2 s"
        );
    }

    #[test]
    fn the_exit_code_is_by_kind() {
        let with = |change: &dyn Fn(&mut PushReport)| {
            let mut report = report();
            change(&mut report);
            exit_of(&report)
        };
        let failed = |code| FailedPath { path: path("f"), why: refused(code) };
        let hidden = || HiddenPath { path: path("h"), missing: vec!["b".into()] };
        assert_eq!(with(&|it| it.hidden.push(hidden())), Exit::Partly);
        assert_eq!(with(&|it| it.failed.push(failed(RefusalCode::BadNar))), Exit::Partly);
        let nothing_else = |code| {
            with(&|it| {
                (it.stored, it.known) = (0, 0);
                it.failed.push(failed(code));
            })
        };
        assert_eq!(nothing_else(RefusalCode::WrongNarHash), Exit::Verification);
        assert_eq!(nothing_else(RefusalCode::Internal), Exit::Failed);
        let changed = with(&|it| {
            (it.stored, it.known) = (0, 0);
            let why = RequestError::Source("it changed".into());
            it.failed.push(FailedPath { path: path("f"), why });
        });
        assert_eq!(changed, Exit::Partly);
        let stopped = |code| with(&|it| it.stopped = Some(refused(code).into()));
        assert_eq!(stopped(RefusalCode::NoSpace), Exit::NoSpace);
        assert_eq!(stopped(RefusalCode::Forbidden), Exit::NotAuthorised);
        let lost = ReachError::Host(HostError::NoBox);
        assert_eq!(
            exit_of(&PushReport { stopped: Some(PushError::Reach(lost)), ..report() }),
            Exit::Unreachable
        );
    }
}
