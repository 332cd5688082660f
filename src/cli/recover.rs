//! `larder token recover`

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::duration::moment;
use crate::cli::exit::{Complaint, Exit};
use crate::cli::output;
use crate::daemon::{Recovered, ServeOverrides, Settings, recover_admin_token};

#[derive(Serialize)]
struct Made {
    admin_token_file: String,
    token: i64,
    personal: Vec<Personal>,
}

/// A personal token of before.
#[derive(Serialize)]
struct Personal {
    id: i64,
    label: String,
    created_at: u64,
    last_used_at: Option<u64>,
}

/// Makes a personal token in the data folder of a stopped box.
pub(super) async fn run(context: &Context, data: Option<PathBuf>) -> anyhow::Result<Exit> {
    let overrides = ServeOverrides { data, ..ServeOverrides::default() };
    let settings = Settings::read(context.config.as_deref(), overrides)?;
    let folder = &settings.store.folder;
    if !folder.join("VERSION").is_file() {
        let message = format!("there is no data folder of a box at {}", folder.display());
        return Err(Complaint::new(Exit::NotFound, message)
            .with_hint("--data DIR says where it is")
            .into());
    }
    let Recovered { file, id, personal } = recover_admin_token(settings.store).await?;
    let personal = personal.into_iter().map(|token| Personal {
        id: token.id.0,
        label: token.label,
        created_at: token.created_at,
        last_used_at: token.last_used_at,
    });
    let personal: Vec<_> = personal.collect();
    let made = Made { admin_token_file: file.display().to_string(), token: id.0, personal };
    context.output.data(&made, text)?;
    if !made.personal.is_empty() {
        context.output.note(
            "start the box, and revoke those of them that somebody else may have: larder token \
             revoke ID",
        );
    }
    Ok(Exit::Done)
}

fn text(made: &Made) -> String {
    let Made { admin_token_file, token, personal } = made;
    let mut text = format!("made the personal token {token}; it is in {admin_token_file}\n");
    if !personal.is_empty() {
        text.push_str("\nThese personal tokens are still good:\n");
        let heads = ["ID", "LABEL", "CREATED", "LAST USED"].map(str::to_owned).to_vec();
        let row = |token: &Personal| {
            let used = token.last_used_at.map_or_else(|| "never".to_owned(), moment);
            vec![token.id.to_string(), token.label.clone(), moment(token.created_at), used]
        };
        let rows: Vec<_> = std::iter::once(heads).chain(personal.iter().map(row)).collect();
        text.push_str(&output::table(&rows));
    }
    text
}
