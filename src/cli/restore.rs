//! `larder restore`

use std::path::Path;

use serde::Serialize;

use crate::cli::args::RestoreArgs;
use crate::cli::context::Context;
use crate::cli::duration::moment;
use crate::cli::exit::{Complaint, Exit};
use crate::cli::output::counted;
use crate::daemon::{ServeOverrides, Settings, restore_backup};
use crate::store::{RestoreOptions, RestoreReport};

#[derive(Serialize)]
struct Restored {
    data: String,
    made_at: u64,
    caches: u64,
    tokens: u64,
    paths: u64,
    packs: u64,
    from_packs: bool,
    damaged: Vec<String>,
    made_private: Vec<String>,
    revoked: u64,
    settings: Option<String>,
    kept: Vec<String>,
}

/// Puts a backup into the data folder of a stopped box.
pub(super) fn run(context: &Context, args: RestoreArgs) -> anyhow::Result<Exit> {
    let RestoreArgs { file, data, yes, other_store } = args;
    let overrides = ServeOverrides { data, ..ServeOverrides::default() };
    let folder = Settings::read(context.config.as_deref(), overrides)?.store.folder;
    if !yes && is_used(&folder) && !is_confirmed(context, &folder)? {
        let message = "nothing was restored".to_owned();
        return Err(Complaint::new(Exit::Failed, message).into());
    }
    let bar = context.output.progress();
    let options = RestoreOptions { backup: file, folder, other_store };
    let report = restore_backup(&options, &|progress| {
        bar.place(progress.done_bytes, progress.total_bytes);
    });
    bar.clear();
    let restored = Restored::new(&options.folder, report?);
    context.output.data(&restored, text)?;
    advise(context, &restored);
    Ok(if restored.damaged.is_empty() { Exit::Done } else { Exit::Partly })
}

impl Restored {
    fn new(folder: &Path, report: RestoreReport) -> Self {
        let shown = |path: &Path| path.display().to_string();
        Self {
            data: shown(folder),
            made_at: report.made_at,
            caches: report.caches,
            tokens: report.tokens,
            paths: report.paths,
            packs: report.packs,
            from_packs: report.from_packs,
            damaged: report.damaged,
            made_private: report.made_private.iter().map(ToString::to_string).collect(),
            revoked: report.revoked,
            settings: report.settings.as_deref().map(shown),
            kept: report.kept.iter().map(|path| shown(path)).collect(),
        }
    }
}

/// Whether a box has been at home there.
fn is_used(folder: &Path) -> bool {
    ["VERSION", "larder.db", "identity.key"].iter().any(|name| folder.join(name).exists())
}

fn is_confirmed(context: &Context, folder: &Path) -> anyhow::Result<bool> {
    let question = format!(
        "index, identity, tokens and settings in {} are replaced; what is there stays beside them",
        folder.display()
    );
    let Some(answer) = context.output.ask(&question, "type yes to go on: ")? else {
        let message = format!("{question}; nobody can be asked here, so say --yes");
        return Err(Complaint::usage(message).into());
    };
    Ok(answer == "yes")
}

fn text(restored: &Restored) -> String {
    let Restored { data, made_at, caches, tokens, paths, packs, .. } = restored;
    let mut lines: Vec<_> =
        restored.damaged.iter().map(|what| format!("damaged: {what}")).collect();
    lines.push(format!(
        "restored the backup of {} into {data}: {}, {} and {} of {}",
        moment(*made_at),
        counted(*caches, "cache"),
        counted(*tokens, "token"),
        counted(*paths, "path"),
        counted(*packs, "pack"),
    ));
    lines.join("\n")
}

/// What whoever restores has to know, on standard error.
fn advise(context: &Context, restored: &Restored) {
    let Restored { data, packs, kept, made_private, settings, revoked, .. } = restored;
    let note = |text: &str| context.output.note(text);
    if !kept.is_empty() {
        note(&format!("what was there before is in {}", kept.join(", ")));
    }
    if let Some(settings) = settings {
        note(&format!("the box's settings are in {settings}; 'larder serve --config' reads them"));
    }
    if *packs == 0 {
        context.output.warn(&format!(
            "there are no packs in {data}/packs, so no path is there: copy the packs to that place \
             before the box is started, or push again"
        ));
    } else if restored.from_packs {
        note(
            "packs that the backup's index counts on are gone or shorter, so the index was made anew \
             from those that there are",
        );
    }
    if !made_private.is_empty() {
        context.output.warn(&format!(
            "private now, as nothing says for certain that they still were public: {}; 'larder cache \
             set NAME --public' makes one public again",
            made_private.join(", ")
        ));
    }
    if *revoked > 0 {
        note(&format!("{} revoked since the backup stays revoked", counted(*revoked, "token")));
    }
    note(
        "keys and tokens are those of the backup: later ones are gone, and a token that was revoked \
         later may be good again; look at 'larder token list'",
    );
}
