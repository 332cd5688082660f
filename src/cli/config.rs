//! `larder config`

use serde::Serialize;

use crate::cli::args::{ConfigCommand, ConfigKey};
use crate::cli::context::Context;
use crate::cli::exit::{Complaint, Exit};
use crate::client::config::ClientConfig;
use crate::client::host::Host;

#[derive(Serialize)]
struct Shown {
    file: String,
    host: Option<String>,
    boxes: Vec<Place>,
    tokens: Vec<Place>,
}

/// Where a box is.
#[derive(Serialize)]
struct Place {
    host: Option<String>,
    device_id: String,
}

#[derive(Serialize)]
struct Value {
    key: String,
    value: String,
}

pub(super) fn run(context: &Context, command: ConfigCommand) -> anyhow::Result<Exit> {
    let file = context.places()?.config_file;
    let mut config = ClientConfig::read(&file)?;
    match command {
        ConfigCommand::List => {
            let shown = shown(&config, file.display().to_string());
            context.output.data(&shown, text)?;
            return Ok(Exit::Done);
        }
        ConfigCommand::Get { key } => {
            let value = get(&config, &key).ok_or_else(|| not_set(&key))?;
            let value = Value { key: key.to_string(), value };
            context.output.data(&value, |value| value.value.clone())?;
            return Ok(Exit::Done);
        }
        ConfigCommand::Set { key: ConfigKey::Host, value } => config.host = Some(value),
        ConfigCommand::Set { key, .. } => {
            let by = match key {
                ConfigKey::Token(_) => "'larder authtoken' saves a token",
                _ => "'larder pair' compares the ID with you and keeps it",
            };
            return Err(Complaint::usage(format!("{key} is not set by hand")).with_hint(by).into());
        }
        ConfigCommand::Unset { key } => unset(&mut config, &key)?,
    }
    config.write(&file)?;
    context.output.note(&format!("changed {}", file.display()));
    Ok(Exit::Done)
}

fn get(config: &ClientConfig, key: &ConfigKey) -> Option<String> {
    match key {
        ConfigKey::Host => config.host.as_ref().map(Host::to_string),
        ConfigKey::Box(host) => config.paired(host).map(|id| id.to_string()),
        ConfigKey::Token(id) => {
            let saved = config.tokens.get(id)?;
            Some(saved.host.as_ref().map(Host::to_string).unwrap_or_default())
        }
    }
}

fn unset(config: &mut ClientConfig, key: &ConfigKey) -> Result<(), Complaint> {
    let was_set = match key {
        ConfigKey::Host => config.host.take().is_some(),
        ConfigKey::Box(host) => config.forget_pairing(host),
        ConfigKey::Token(id) => config.forget_token(*id),
    };
    if was_set { Ok(()) } else { Err(not_set(key)) }
}

fn not_set(key: &ConfigKey) -> Complaint {
    Complaint::new(Exit::NotFound, format!("{key} is not set"))
        .with_hint("'larder config list' shows what is")
}

fn shown(config: &ClientConfig, file: String) -> Shown {
    let boxes = config.boxes.iter();
    let boxes = boxes
        .map(|(host, id)| Place { host: Some(host.clone()), device_id: id.to_string() })
        .collect();
    let tokens = config.tokens.iter();
    let tokens = tokens
        .map(|(id, saved)| Place {
            host: saved.host.as_ref().map(Host::to_string),
            device_id: id.to_string(),
        })
        .collect();
    Shown { file, host: config.host.as_ref().map(Host::to_string), boxes, tokens }
}

/// `KEY = VALUE` lines, with keys as `larder config get` takes them.
fn text(shown: &Shown) -> String {
    let host = shown.host.iter().map(|host| format!("host = {host}\n"));
    let boxes = shown.boxes.iter().map(|place| {
        let host = place.host.as_deref().unwrap_or_default();
        format!("boxes.{host} = {}\n", place.device_id)
    });
    let tokens = shown.tokens.iter().map(|place| {
        let host = place.host.as_deref().unwrap_or("(wherever the box is found)");
        format!("tokens.{} = {host}\n", place.device_id)
    });
    host.chain(boxes).chain(tokens).collect()
}
