//! `larder version`

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::exit::Exit;

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

pub(super) fn run(context: &Context) -> anyhow::Result<Exit> {
    let version = Version { version: env!("CARGO_PKG_VERSION") };
    context.output.data(&version, |it| format!("larder {}", it.version))?;
    Ok(Exit::Done)
}
