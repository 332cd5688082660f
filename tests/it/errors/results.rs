//! What the longer form has been through: a file with a line for each case.

use std::any::Any;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::errors::Outcome;

/// The lines of one commit: `COMMIT CASE RESULT SECONDS WHAT`, parted by tabs.
pub(super) struct Results {
    commit: String,
    file: Option<PathBuf>,
    done: HashMap<String, Done>,
    /// When no further case is begun.
    until: Option<Instant>,
}

/// What came of a case that need not be done again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Done {
    /// All promises were kept.
    Held,
    /// The same, and no call failed: there are not so many.
    Last,
}

impl Results {
    pub(super) fn open() -> Self {
        let described = Command::new("git")
            .args(["describe", "--always", "--dirty", "--abbrev=12"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output();
        let commit = described.map_or_else(|_| Vec::new(), |output| output.stdout);
        let commit = String::from_utf8(commit).unwrap().trim().to_owned();
        let file = std::env::var_os("LARDER_ERRORS_RESULTS").map(PathBuf::from);
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let done = text.lines().filter_map(|line| {
            let mut fields = line.split('\t');
            let (of, case, result) = (fields.next()?, fields.next()?, fields.next()?);
            let done = if result == "end" { Done::Last } else { Done::Held };
            (of == commit && result != "failed").then(|| (case.to_owned(), done))
        });
        let seconds = std::env::var("LARDER_ERRORS_SECONDS").ok();
        let until = seconds.map(|it| Instant::now() + Duration::from_secs(it.parse().unwrap()));
        Self { done: done.collect(), commit, file, until }
    }

    /// Whether the time is over: `LARDER_ERRORS_SECONDS`.
    pub(super) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() > until)
    }

    /// Whether the scene is among those that are wanted: `LARDER_ERRORS_SCENES`, parted by
    /// commas; all if there is none.
    pub(super) fn wants(&self, scene: &str) -> bool {
        std::env::var("LARDER_ERRORS_SCENES")
            .map_or(true, |wanted| wanted.split(',').any(|it| it == scene))
    }

    /// What came of a case, if that is known.
    pub(super) fn of(&self, case: &str) -> Option<Done> {
        self.done.get(case).copied()
    }

    /// Writes a case down; why it failed, if it did.
    pub(super) fn note(
        &self,
        case: &str,
        outcome: Result<Outcome, Box<dyn Any + Send>>,
        took: Duration,
    ) -> Result<(), String> {
        let (result, what) = match &outcome {
            Ok(Outcome { hit: Some(hit), said }) => ("held", format!("{hit}: {said:?}")),
            Ok(Outcome { hit: None, .. }) => ("end", String::new()),
            Err(panic) => ("failed", message_of(&**panic)),
        };
        let what = what.replace(['\n', '\t'], " ");
        let line =
            format!("{}\t{case}\t{result}\t{:.1}\t{what}\n", self.commit, took.as_secs_f64());
        print!("{line}");
        if let Some(file) = &self.file {
            let mut file = File::options().create(true).append(true).open(file).unwrap();
            file.write_all(line.as_bytes()).unwrap();
        }
        outcome.map(drop).map_err(|_panic| what)
    }
}

pub(super) fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
