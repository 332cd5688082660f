//! `larder cache key` and `larder cache rotate-key`

use serde::Serialize;

use crate::cli::args::KeyCommand;
use crate::cli::context::Context;
use crate::cli::exit::Complaint;
use crate::cli::output;
use crate::client::administration::{Administration, KeyFacts};
use crate::formats::CacheName;
use crate::formats::signature::PublicKey;

const DAY_SECONDS: u64 = 86_400;

#[derive(Serialize)]
struct Keys {
    keys: Vec<KeyFacts>,
}

#[derive(Serialize)]
struct Named {
    key: String,
}

pub(super) async fn run(
    context: &Context,
    administration: &Administration,
    command: KeyCommand,
) -> anyhow::Result<()> {
    match command {
        KeyCommand::Add { name, key } => {
            let added = administration.register_key(&name, &parse(&key)?).await?;
            context.output.note(&format!("users of '{name}' trust this key from now on"));
            context.output.data(&added, |added| format!("{}\n", added.public_key))?;
        }
        KeyCommand::List { name } => {
            let keys = administration.keys(&name).await?;
            context.output.data(&Keys { keys }, |Keys { keys }| list(keys))?;
        }
        KeyCommand::Remove { name, key } => {
            administration.remove_key(&name, &key).await?;
            done(context, key, "took away")?;
        }
        KeyCommand::Restore { name, key } => {
            administration.restore_key(&name, &key).await?;
            done(context, key, "restored")?;
        }
    }
    Ok(())
}

pub(super) async fn rotate(
    context: &Context,
    administration: &Administration,
    name: &CacheName,
    retire_after_days: u32,
) -> anyhow::Result<()> {
    let made = administration.rotate_key(name, retire_after_days).await?;
    context.output.note(&format!(
        "the keys before it sign for {retire_after_days} days more; let users add the new one to \
         'trusted-public-keys' meanwhile"
    ));
    context.output.data(&made, |made| format!("{}\n", made.public_key))?;
    Ok(())
}

/// A public key as it was typed. An error does not repeat it: it may be the wrong half.
pub(super) fn parse(text: &str) -> Result<PublicKey, Complaint> {
    text.parse().map_err(|error| Complaint::usage(format!("this is no public key: {error}")))
}

fn done(context: &Context, key: String, what: &str) -> anyhow::Result<()> {
    context.output.note(&format!("{what} the key {key}"));
    if context.output.is_json() {
        context.output.data(&Named { key }, |_| String::new())?;
    }
    Ok(())
}

fn list(keys: &[KeyFacts]) -> String {
    let heads = ["STATE", "KEY"].map(str::to_owned).to_vec();
    let row = |key: &KeyFacts| vec![state(key), key.public_key.to_string()];
    output::table(&std::iter::once(heads).chain(keys.iter().map(row)).collect::<Vec<_>>())
}

fn state(key: &KeyFacts) -> String {
    match key.seconds_left.filter(|left| *left > 0) {
        Some(left) => format!("signs for {} days more", left.div_ceil(DAY_SECONDS)),
        None => key.state.clone(),
    }
}
