//! `larder use`

use std::env;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::args::UseArgs;
use crate::cli::context::Context;
use crate::cli::exit::{Complaint, Exit};
use crate::cli::near::near;
use crate::cli::nix_changes::{self, ShownPlan};
use crate::client::acquaintance::{Acquaintance, Asker};
use crate::client::config::ClientConfig;
use crate::client::device_key;
use crate::client::host::{Host, Target};
use crate::client::nix_config::{
    Machine, Mode, NIX_MIN, NoMode, Plan, PlanError, Use, UsedCache, Wish,
};
use crate::client::places::{BOX_FOLDER, Places};
use crate::client::tokens::{self, Purpose, TokensError};
use crate::formats::signature::PublicKey;
use crate::wire::hello::CacheAccess;
use crate::wire::{DeviceId, TokenText};

#[derive(Serialize)]
struct Used<'a> {
    cache: String,
    device_id: String,
    url: &'a str,
    public_keys: &'a [String],
    /// Whether the files are changed, or would be.
    dry_run: bool,
    #[serde(flatten)]
    plan: ShownPlan,
}

pub(super) async fn run(context: &Context, args: UseArgs) -> anyhow::Result<Exit> {
    let machine = Machine::look(|name| env::var_os(name));
    check_nix(&machine)?;
    // The machine's files can be changed without a home.
    let places = context.places().ok();
    let mut config = match &places {
        Some(places) => ClientConfig::read(&places.config_file)?,
        None => ClientConfig::default(),
    };
    let tokens = tokens(&config)?;
    let target = target(context, &config, &tokens, args.cache.device_id);
    let found = ask(places.as_ref(), &config, &tokens, &target, args.cache.device_id).await?;
    let access = access(&args, &found)?.clone();
    let keys = if args.public_key.is_empty() {
        if !found.is_known {
            confirm(context, &args, &found, &access)?;
        }
        access.public_keys.clone()
    } else {
        warn_of_other_keys(context, &args.public_key, &access);
        args.public_key.clone()
    };
    if !access.is_public {
        check_login(&found, &access)?;
    }
    let wanted = wanted(&args, &target, &found, &access, &keys).await?;
    let wish = args.place.into_wish().context("cannot tell the current folder")?;
    let plan = plan(&wanted, &wish, &machine)?;
    if !args.dry_run {
        plan.apply()?;
        let is_confirmed = !found.is_known && args.public_key.is_empty();
        if let Some(places) = places.filter(|_| is_confirmed) {
            keep_pairing(context, &places, &mut config, &target, &found);
        }
    }
    show(context, &wanted, &plan, args.dry_run)?;
    Ok(Exit::Done)
}

fn check_nix(machine: &Machine) -> anyhow::Result<()> {
    let Some(version) = machine.nix_version.filter(|version| *version < NIX_MIN) else {
        return Ok(());
    };
    let message = format!(
        "this machine has Nix {}.{}, and caches are added to Nix {}.{} or newer",
        version.0, version.1, NIX_MIN.0, NIX_MIN.1
    );
    Err(Complaint::new(Exit::Failed, message).with_hint("update Nix").into())
}

/// A public cache takes none.
fn tokens(config: &ClientConfig) -> Result<Vec<TokenText>, TokensError> {
    let box_folder = Path::new(BOX_FOLDER);
    match tokens::at_hand(|name| env::var_os(name), config, box_folder, Purpose::Use) {
        Err(TokensError::None | TokensError::Unreadable { .. }) => Ok(Vec::new()),
        tokens => tokens,
    }
}

fn target(
    context: &Context,
    config: &ClientConfig,
    tokens: &[TokenText],
    said: Option<DeviceId>,
) -> Target {
    let is_box_here = Path::new(BOX_FOLDER).join("VERSION").exists();
    match (said, &context.host) {
        (Some(device_id), None) => {
            let is_own = tokens.iter().any(|token| token.device_id() == device_id);
            Target::of_device(device_id, config, is_box_here && is_own)
        }
        (_, host) => Target::choose(host.clone(), config, is_box_here),
    }
}

async fn ask(
    places: Option<&Places>,
    config: &ClientConfig,
    tokens: &[TokenText],
    target: &Target,
    said: Option<DeviceId>,
) -> anyhow::Result<Acquaintance> {
    let is_token_given = tokens::is_given(|name| env::var_os(name));
    let asker = Asker { target, said, config, tokens, is_token_given };
    let places = places.filter(|_| !tokens.is_empty());
    let seed =
        places.map(|places| device_key::load_or_make(&places.device_key_file)).transpose()?;
    Ok(asker.ask(seed).await?)
}

/// What the box says of the cache.
fn access<'a>(args: &UseArgs, found: &'a Acquaintance) -> anyhow::Result<&'a CacheAccess> {
    let caches = &found.welcome.caches;
    let name = &args.cache.cache;
    let access = caches.iter().find(|access| access.name == *name && access.may_read);
    access.ok_or_else(|| {
        let readable = caches.iter().filter(|access| access.may_read);
        let names: Vec<_> = readable.map(|access| access.name.to_string()).collect();
        let (whose, hint) = match found.token {
            Some(_) => ("that your token may read", "the owner of the box grants tokens"),
            None => (
                "that everybody may read",
                "a private cache takes a token for this box: save one with 'larder authtoken', or \
                 set LARDER_AUTH_TOKEN",
            ),
        };
        let others = if names.is_empty() {
            "none at all".to_owned()
        } else {
            format!("only {}", names.join(", "))
        };
        let box_name = &found.welcome.box_name;
        let mut message = format!("the box {box_name} has no cache '{name}' {whose}, {others}");
        if let Some(near) = near(&name.to_string(), names) {
            message.push_str(&format!("; did you mean '{near}'?"));
        }
        Complaint::new(Exit::NotFound, message).with_hint(hint).into()
    })
}

/// A netrc is sent in clear to whoever has the host's name. Boxes take no personal token that way,
/// except from their own machine, where nobody listens.
fn check_login(found: &Acquaintance, access: &CacheAccess) -> anyhow::Result<()> {
    if !found.welcome.personal || found.address.ip().is_loopback() {
        return Ok(());
    }
    let message = format!(
        "the token at hand may do everything on the box {}, and does not belong into a netrc",
        found.welcome.box_name
    );
    let hint = format!(
        "make one for reading, 'larder token create --cache {}:read', and set LARDER_AUTH_TOKEN \
         to it",
        access.name
    );
    Err(Complaint::new(Exit::NotAuthorised, message).with_hint(hint).into())
}

/// Has a person compare the ID, unless it was said that nobody needs to.
fn confirm(
    context: &Context,
    args: &UseArgs,
    found: &Acquaintance,
    access: &CacheAccess,
) -> anyhow::Result<()> {
    let keys: Vec<_> = access.public_keys.iter().map(PublicKey::to_string).collect();
    let facts = format!(
        "the box at {} is not known to this machine; it shows\n\n  device ID   {}\n  public key  \
         {}\n\nWhoever holds that key can give this machine any program.",
        found.address,
        found.device_id,
        keys.join("\n              ")
    );
    if args.trust_on_first_use {
        context.output.warn(&facts);
        return Ok(());
    }
    let prompt = "'larder status' on the box shows its device ID. Are they the same? [y/N] ";
    let message = match context.output.ask(&facts, prompt)?.as_deref() {
        Some("y" | "Y" | "yes") => return Ok(()),
        Some(_) => "nothing was changed: nobody confirmed the device ID".to_owned(),
        None => format!("{facts} There is no terminal to confirm it on"),
    };
    let hint = format!(
        "compare the ID with what 'larder status' shows on the box, and say it: larder use {}@{}; \
         or say the key: --public-key KEY",
        access.name, found.device_id
    );
    Err(Complaint::new(Exit::NotAuthorised, message).with_hint(hint).into())
}

fn warn_of_other_keys(context: &Context, said: &[PublicKey], access: &CacheAccess) {
    if !access.public_keys.iter().any(|key| said.contains(key)) {
        let theirs: Vec<_> = access.public_keys.iter().map(PublicKey::to_string).collect();
        let theirs = theirs.join(" ");
        context.output.warn(&format!("the box signs this cache with other keys: {theirs}"));
    }
}

async fn wanted(
    args: &UseArgs,
    target: &Target,
    found: &Acquaintance,
    access: &CacheAccess,
    keys: &[PublicKey],
) -> anyhow::Result<Use> {
    let host = target.reachable_host(&found.welcome.box_name, found.address).await;
    let url = format!("http://{host}:{}/{}", found.welcome.http_port, access.name);
    // curl compares with the host without its brackets.
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let login = |token: &TokenText| (bare, token.clone());
    let login = found.token.as_ref().filter(|_| !access.is_public).map(login);
    let used = UsedCache { cache: args.cache.cache.clone(), device_id: found.device_id };
    Ok(Use { used, url, keys: keys.iter().map(PublicKey::to_string).collect(), login })
}

fn plan(wanted: &Use, wish: &Wish, machine: &Machine) -> anyhow::Result<Plan> {
    Plan::to_use(wanted, wish, machine).map_err(|error| match error {
        PlanError::Mode(no_mode) => {
            let hint = nix_changes::way_out(no_mode, &wanted.used);
            let exit = match no_mode {
                NoMode::NoHome => Exit::Usage,
                _ => Exit::NotAuthorised,
            };
            Complaint::new(exit, no_mode.to_string()).with_hint(hint).into()
        }
        error @ PlanError::Config(_) => error.into(),
    })
}

/// From now on nobody else is accepted there. Nix is configured by now, so a home that cannot be
/// written to costs no more than being asked again.
fn keep_pairing(
    context: &Context,
    places: &Places,
    config: &mut ClientConfig,
    target: &Target,
    found: &Acquaintance,
) {
    let host = match target {
        Target::Named(host) => host.clone(),
        Target::Here | Target::OnlyOne => {
            found.welcome.box_name.parse().unwrap_or(Host::Address(found.address))
        }
    };
    config.save_pairing(host, found.device_id);
    if let Err(error) = config.write(&places.config_file) {
        let error = anyhow::Error::from(error);
        context.output.warn(&format!("the box will have to be confirmed again: {error:#}"));
    }
}

fn show(context: &Context, wanted: &Use, plan: &Plan, dry_run: bool) -> anyhow::Result<()> {
    if plan.mode == Mode::UserNixconf && plan.is_overlooked {
        context.output.warn(&format!(
            "Nix will overlook this: you are not one of its trusted-users; root can do it for \
             everybody: sudo larder use {}",
            wanted.used
        ));
    }
    let used = Used {
        cache: wanted.used.cache.to_string(),
        device_id: wanted.used.device_id.to_string(),
        url: &wanted.url,
        public_keys: &wanted.keys,
        dry_run,
        plan: ShownPlan::new(plan),
    };
    context.output.data(&used, |used| {
        let head = format!("{}, signed by {}\n", used.url, used.public_keys.join(" "));
        head + &nix_changes::text(&used.plan, dry_run)
    })?;
    Ok(())
}
