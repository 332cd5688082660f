//! `larder remove`

use std::collections::BTreeSet;
use std::env;

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::args::{MeantCache, RemoveArgs};
use crate::cli::context::Context;
use crate::cli::exit::{Complaint, Exit};
use crate::cli::nix_changes::{self, ShownPlan};
use crate::client::nix_config::{Machine, Mode, Plan, UsedCache, Wish, used_in};

#[derive(Serialize)]
struct Removed {
    cache: String,
    device_id: String,
    dry_run: bool,
    places: Vec<ShownPlan>,
}

pub(super) fn run(context: &Context, args: RemoveArgs) -> anyhow::Result<Exit> {
    let machine = Machine::look(|name| env::var_os(name));
    let wish = args.place.into_wish().context("cannot tell the current folder")?;
    let found = find(&args.cache, &wish, &machine)?;
    let used = only_one(&args.cache, &found)?;
    let mut places = Vec::new();
    let mut failures = Vec::new();
    for (mode, _) in found {
        let plan = Plan::to_remove(&used, mode, &wish, &machine)?;
        match if args.dry_run { Ok(()) } else { plan.apply() } {
            Ok(()) => places.push(ShownPlan::new(&plan)),
            Err(error) => failures.push(error),
        }
    }
    if places.is_empty()
        && let Some(error) = failures.pop()
    {
        return Err(error.into());
    }
    let (cache, device_id) = (used.cache.to_string(), used.device_id.to_string());
    let removed = Removed { cache, device_id, dry_run: args.dry_run, places };
    context.output.data(&removed, |removed| {
        removed.places.iter().map(|plan| nix_changes::text(plan, args.dry_run)).collect()
    })?;
    for failure in &failures {
        let left = format!("{:#}", anyhow::anyhow!("{failure}"));
        context.output.warn(&format!("it is left in one place: {left}"));
    }
    Ok(if failures.is_empty() { Exit::Done } else { Exit::Partly })
}

/// Where caches of that name are used, and whose.
fn find(
    meant: &MeantCache,
    wish: &Wish,
    machine: &Machine,
) -> anyhow::Result<Vec<(Mode, UsedCache)>> {
    let mut found = Vec::new();
    for mode in modes(wish, machine) {
        let all = used_in(mode, wish, machine)?;
        let fits = |used: &UsedCache| {
            used.cache == meant.cache && meant.device_id.is_none_or(|id| id == used.device_id)
        };
        found.extend(all.into_iter().filter(fits).map(|used| (mode, used)));
    }
    Ok(found)
}

fn modes(wish: &Wish, machine: &Machine) -> Vec<Mode> {
    match wish {
        Wish { directory: Some(_), .. } => vec![Mode::Directory],
        Wish { mode: Some(mode), .. } => vec![*mode],
        Wish { nixos_folder: Some(_), .. } => vec![Mode::Nixos],
        _ => {
            let user = (!machine.user_files.is_empty()).then_some(Mode::UserNixconf);
            user.into_iter().chain([Mode::RootNixconf, Mode::Nixos]).collect()
        }
    }
}

fn only_one(meant: &MeantCache, found: &[(Mode, UsedCache)]) -> anyhow::Result<UsedCache> {
    let distinct: BTreeSet<_> = found.iter().map(|(_, used)| used).collect();
    let mut distinct = distinct.into_iter();
    match (distinct.next(), distinct.next()) {
        (Some(used), None) => Ok(used.clone()),
        (None, _) => {
            let message = format!(
                "'larder use' added no cache '{}' to Nix's configuration here",
                meant.cache
            );
            Err(Complaint::new(Exit::NotFound, message)
                .with_hint("--mode, --nixos-folder and --output-directory say where to look")
                .into())
        }
        (Some(first), Some(second)) => {
            let message = format!("caches of several boxes have that name: {first}, {second}");
            Err(Complaint::usage(message).with_hint("say which, as CACHE@DEVICEID").into())
        }
    }
}
