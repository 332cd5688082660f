//! `larder authtoken`

use std::io::Read;

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::args::AuthtokenArgs;
use crate::cli::context::Context;
use crate::cli::exit::{Complaint, Exit};
use crate::client::config::ClientConfig;
use crate::client::device_key;
use crate::formats::signature::SecretKey;
use crate::wire::{DeviceId, TokenText};

/// More than a token and the spaces that somebody may have pasted along.
const STDIN_BYTES_MAX: u64 = 4096;

#[derive(Serialize)]
struct Saved {
    device_id: String,
    file: String,
    this_device: String,
}

pub(super) fn run(context: &Context, args: &AuthtokenArgs) -> anyhow::Result<Exit> {
    let text = match &args.token {
        Some(token) => token.clone(),
        None => {
            let mut text = String::new();
            let mut input = std::io::stdin().lock().take(STDIN_BYTES_MAX);
            input.read_to_string(&mut text).context("cannot read the token")?;
            text
        }
    };
    let token: TokenText = text.trim().parse().map_err(|error| {
        Complaint::usage(format!("this is no token: {error}"))
            .with_hint("the owner of the box makes one with 'larder token create'")
    })?;
    let places = context.places()?;
    let mut config = ClientConfig::read(&places.config_file)?;
    let seed = device_key::load_or_make(&places.device_key_file)?;
    let own =
        DeviceId::of_public_key(SecretKey::from_seed("device", &seed)?.public_key().as_bytes());
    let device_id = token.device_id();
    config.save_token(token, context.host.clone());
    config.write(&places.config_file)?;
    let file = places.config_file.display().to_string();
    context.output.note(&format!("saved the token for the box {device_id} in {file}"));
    context.output.note(&format!("this device is {own}"));
    let saved = Saved { device_id: device_id.to_string(), file, this_device: own.to_string() };
    if context.output.is_json() {
        context.output.data(&saved, |_| String::new())?;
    }
    Ok(Exit::Done)
}
