//! `larder pin`

use std::env;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::cli::args::{NewPinArgs, PinArgs, PinCommand};
use crate::cli::context::Context;
use crate::cli::duration::moment;
use crate::cli::exit::{Complaint, Exit};
use crate::cli::output;
use crate::client::administration::{Administration, NewPin, PinFacts, PinPage};
use crate::client::nix_store::{Location, NixStore};
use crate::formats::{CacheName, StorePath};

#[derive(Serialize)]
struct Pins {
    pins: Vec<ShownPin>,
}

/// A revision with the URLs of its artifacts.
#[derive(Serialize)]
struct ShownPin {
    #[serde(flatten)]
    facts: PinFacts,
    urls: Vec<String>,
}

#[derive(Serialize)]
struct Removed {
    name: String,
    revisions: u64,
}

pub(super) async fn run(context: &Context, args: PinArgs) -> anyhow::Result<Exit> {
    let path = match &args.new {
        Some(new) => Some(store_path(new.path.clone()).await?),
        None => None,
    };
    let connector = context.connector()?;
    let connection = connector.connect().await?;
    let welcome = connection.welcome();
    let host = connector.target.substituter_host(&welcome.box_name);
    let base = format!("http://{host}:{}", welcome.http_port);
    let show = |facts: PinFacts| {
        let url = |path: &String| format!("{base}{path}");
        let urls = facts.artifacts.iter().map(|artifact| url(&artifact.url_path)).collect();
        ShownPin { facts, urls }
    };
    let administration = Administration::over(connection);
    let done = match (args.command, args.new.zip(path)) {
        (Some(PinCommand::List { cache }), _) => list(context, &administration, &cache, show).await,
        (Some(PinCommand::Remove { cache, name }), _) => {
            remove(context, &administration, &cache, name.as_str()).await
        }
        (None, Some((new, path))) => pin(context, &administration, new, &path, show).await,
        (None, None) => Err(Complaint::usage("say which path of which cache to pin").into()),
    };
    administration.close().await;
    done.map(|()| Exit::Done)
}

/// The path that is meant. One that is named in full need not be on this machine.
async fn store_path(argument: PathBuf) -> anyhow::Result<StorePath> {
    let named = argument.to_str().map(|text| text.strip_suffix('/').unwrap_or(text));
    if let Some(Ok(path)) = named.map(StorePath::from_absolute) {
        return Ok(path);
    }
    let resolved = spawn_blocking(move || {
        let location = Location::from_variables(|name| env::var_os(name))?;
        let here = env::current_dir().context("cannot tell the current folder")?;
        Ok(NixStore::open(location)?.resolve(&argument, &here)?)
    });
    resolved.await.context("reading the local store failed; this is a defect of larder")?
}

async fn pin(
    context: &Context,
    administration: &Administration,
    args: NewPinArgs,
    path: &StorePath,
    show: impl Fn(PinFacts) -> ShownPin,
) -> anyhow::Result<()> {
    let keep = args.keep();
    let NewPinArgs { cache, name, artifacts, .. } = args;
    let new = NewPin { name, path: path.to_absolute(), artifacts, keep };
    let made = show(administration.pin(&cache, &new).await?);
    context.output.data(&made, text)?;
    Ok(())
}

async fn list(
    context: &Context,
    administration: &Administration,
    cache: &CacheName,
    show: impl Fn(PinFacts) -> ShownPin,
) -> anyhow::Result<()> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let PinPage { pins, next } = administration.pins(cache, after.as_deref()).await?;
        all.extend(pins.into_iter().map(&show));
        after = next;
        if after.is_none() {
            break;
        }
    }
    context.output.data(&Pins { pins: all }, |Pins { pins }| table(pins))?;
    Ok(())
}

async fn remove(
    context: &Context,
    administration: &Administration,
    cache: &CacheName,
    name: &str,
) -> anyhow::Result<()> {
    let revisions = administration.remove_pin(cache, name).await?;
    let many =
        if revisions == 1 { "1 revision".to_owned() } else { format!("{revisions} revisions") };
    context.output.note(&format!("removed the pin '{name}' with {many}"));
    if context.output.is_json() {
        let removed = Removed { name: name.to_owned(), revisions };
        context.output.data(&removed, |_| String::new())?;
    }
    Ok(())
}

fn text(pin: &ShownPin) -> String {
    let ShownPin { facts, urls } = pin;
    let mut shown = vec![
        ("pin", facts.name.clone()),
        ("revision", facts.revision.to_string()),
        ("path", facts.path.clone()),
        ("kept", facts.keep.to_string()),
    ];
    if !urls.is_empty() {
        shown.push(("artifacts", urls.join("\n")));
    }
    output::facts(&shown)
}

/// A line for each revision, and below it one for each artifact.
fn table(pins: &[ShownPin]) -> String {
    if pins.is_empty() {
        return String::new();
    }
    let heads = ["NAME", "REVISION", "PINNED", "KEPT", "PATH AND ARTIFACTS"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for ShownPin { facts, urls } in pins {
        rows.push(vec![
            facts.name.clone(),
            facts.revision.to_string(),
            moment(facts.pinned_at),
            facts.keep.to_string(),
            facts.path.clone(),
        ]);
        let below = |url: &String| {
            let mut row = vec![String::new(); heads.len() - 1];
            row.push(format!("  {url}"));
            row
        };
        rows.extend(urls.iter().map(below));
    }
    output::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Keep;

    fn shown(name: &str, revision: u32, urls: &[&str]) -> ShownPin {
        let facts = PinFacts {
            name: name.into(),
            revision,
            path: "/nix/store/x-hello".into(),
            artifacts: Vec::new(),
            keep: Keep::Forever,
            pinned_at: 60,
            token: 2,
            token_label: None,
        };
        ShownPin { facts, urls: urls.iter().map(|url| (*url).to_owned()).collect() }
    }

    #[test]
    fn a_revision_is_a_line_with_its_artifacts_below() {
        let expected = "\
NAME  REVISION  PINNED                KEPT     PATH AND ARTIFACTS
v1    2         1970-01-01 00:01 UTC  forever  /nix/store/x-hello
                                                 http://box:5273/main/pin/v1/bin/hello
v1    1         1970-01-01 00:01 UTC  forever  /nix/store/x-hello
";
        let urls = ["http://box:5273/main/pin/v1/bin/hello"];
        assert_eq!(table(&[shown("v1", 2, &urls), shown("v1", 1, &[])]), expected);
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn what_was_pinned_is_told() {
        let expected = "\
pin        v1
revision   3
path       /nix/store/x-hello
kept       forever
artifacts  http://a
           http://b
";
        assert_eq!(text(&shown("v1", 3, &["http://a", "http://b"])), expected);
    }
}
