//! `larder backup`

use std::path::Path;

use serde::Serialize;
use tokio::signal;

use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::output::bytes;
use crate::client::backup::{BackupPlace, FetchedBackup};

#[derive(Serialize)]
struct Written {
    file: String,
    bytes: u64,
    made_at: u64,
}

/// Has the box make a backup, and writes it to `file`.
pub(super) async fn run(context: &Context, file: &Path) -> anyhow::Result<Exit> {
    let place = BackupPlace::new(file)?;
    let bar = context.output.progress();
    let fetched = context.administer(async |administration| {
        Ok(place.fetch(administration, |done, total| bar.place(done, total)).await?)
    });
    let fetched = tokio::select! {
        fetched = fetched => fetched,
        // What was begun beside FILE goes with what is let go here.
        Ok(()) = signal::ctrl_c() => {
            bar.clear();
            context.output.note("interrupted; nothing was written");
            return Ok(Exit::Interrupted);
        }
    };
    bar.clear();
    let FetchedBackup { bytes, made_at } = fetched?;
    let written = Written { file: file.display().to_string(), bytes, made_at };
    context.output.data(&written, text)?;
    context.output.note(
        "the box's keys and tokens are in it: keep it where nobody else reads it. The packs are not \
         in it; copy them too (docs/operations.md)",
    );
    Ok(Exit::Done)
}

fn text(written: &Written) -> String {
    let Written { file, bytes: size, .. } = written;
    format!("wrote {file} ({}): index, identity, tokens and settings", bytes(*size))
}
