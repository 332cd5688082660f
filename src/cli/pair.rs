//! `larder pair`

use std::io::{self, BufRead, IsTerminal};
use std::net::SocketAddr;

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::args::PairArgs;
use crate::cli::context::Context;
use crate::cli::exit::{Complaint, Exit};
use crate::cli::output;
use crate::client::box_client::AGENT;
use crate::client::config::ClientConfig;
use crate::client::host::{Host, Target};
use crate::transports::quic::{ConnectError, meet, pair};
use crate::wire::DeviceId;

#[derive(Serialize)]
struct PairedBox {
    host: String,
    address: String,
    device_id: String,
    token: bool,
    file: String,
}

pub(super) async fn run(context: &Context, args: PairArgs) -> anyhow::Result<Exit> {
    let places = context.places()?;
    let mut config = ClientConfig::read(&places.config_file)?;
    let said = args.host.or_else(|| context.host.clone());
    let target = Target::choose(said, &config, false);
    let addresses = target.addresses().await?;
    let (address, found) = meet(&addresses).await?;
    let host = match &target {
        Target::Named(host) => host.clone(),
        Target::Here | Target::OnlyOne => Host::Address(address),
    };
    let before = config.paired(&host);
    match args.device_id {
        Some(expected) if expected != found => {
            let expected = vec![expected];
            return Err(ConnectError::WrongDevice { address, expected, found }.into());
        }
        Some(_) => {}
        None => ask(&host, address, found, before)?,
    }
    if let Some(code) = args.code {
        let (_, token) = pair(&[address], found, code, AGENT.to_owned()).await?;
        config.save_token(token, Some(host.clone()));
    }
    config.save_pairing(host.clone(), found);
    config.write(&places.config_file)?;
    let token = config.tokens.contains_key(&found);
    let file = places.config_file.display().to_string();
    context.output.note(&format!("paired with the box {found} in {file}"));
    if !token {
        context.output.note("there is no token for it yet: see 'larder authtoken'");
    }
    if context.output.is_json() {
        let (host, address, device_id) = (host.to_string(), address.to_string(), found.to_string());
        let paired = PairedBox { host, address, device_id, token, file };
        context.output.data(&paired, |_| String::new())?;
    }
    Ok(Exit::Done)
}

/// Has a person compare the ID, once.
fn ask(
    host: &Host,
    address: SocketAddr,
    found: DeviceId,
    before: Option<DeviceId>,
) -> anyhow::Result<()> {
    if before == Some(found) {
        return Ok(());
    }
    let mut question = format!("{host} at {address} shows the device ID\n\n  {found}\n\n");
    if let Some(before) = before {
        question.push_str(&format!(
            "It was paired with another one before:\n\n  {before}\n\nIf the box was not set up \
             anew, somebody is in its place.\n\n"
        ));
    }
    question.push_str("'larder status' on the box shows its own. Are they the same? [y/N] ");
    if !io::stdin().is_terminal() {
        let message = format!(
            "the box at {address} shows the device ID {found}{}, and there is no terminal to \
             confirm it on",
            before.map(|before| format!(", but was paired as {before}")).unwrap_or_default()
        );
        return Err(Complaint::new(Exit::NotAuthorised, message)
            .with_hint(
                "compare it with what 'larder status' shows on the box, and say it: --device-id ID",
            )
            .into());
    }
    output::ask(&question);
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Complaint::new(Exit::NotAuthorised, "not paired: nobody confirmed the device ID").into())
}
