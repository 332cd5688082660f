//! `larder generate-keypair`

use serde::Serialize;

use crate::cli::args::GenerateKeypairArgs;
use crate::cli::context::Context;
use crate::cli::exit::{Complaint, Exit};
use crate::client::administration::Administration;
use crate::client::signing_keys::SigningKeys;
use crate::formats::CacheName;
use crate::formats::signature::{PublicKey, SecretKey};
use crate::transports::quic::BoxConnection;
use crate::wire::RefusalCode;
use crate::wire::hello::{CacheAccess, Signing};

/// The only place where a secret key is shown.
#[derive(Serialize)]
struct Made {
    public_key: PublicKey,
    secret_key: String,
    file: String,
    registered: bool,
}

pub(super) async fn run(context: &Context, args: GenerateKeypairArgs) -> anyhow::Result<Exit> {
    let keys = context.signing_keys()?;
    let connection = context.connector()?.connect().await?;
    let made = make(context, &connection, &keys, args).await;
    connection.close().await;
    made
}

async fn make(
    context: &Context,
    connection: &BoxConnection,
    keys: &SigningKeys,
    args: GenerateKeypairArgs,
) -> anyhow::Result<Exit> {
    let GenerateKeypairArgs { cache, another } = args;
    let (device, welcome) = (connection.device_id(), connection.welcome());
    let access = access(&welcome.caches, &cache)?;
    let saved = keys.saved(device, &cache)?;
    if let Some(key) = saved.last().filter(|_| !another) {
        return Err(already_there(&cache, key, &access.public_keys).into());
    }
    let taken = saved.iter().map(SecretKey::name);
    let taken = taken.chain(access.public_keys.iter().map(PublicKey::name));
    let name = free_name(&cache, &welcome.box_name, taken);
    let is_owner = welcome.personal;
    // First saved, then registered: a key that users trust is never lost.
    let (key, file) = keys.make(device, &cache, &name)?;
    let public_key = key.public_key();
    let mut made = Made {
        public_key: public_key.clone(),
        secret_key: key.to_secret_text(),
        file: file.display().to_string(),
        registered: false,
    };
    let register = format!("larder cache key add {cache} {public_key}");
    if is_owner {
        let administration = Administration::over(connection.clone());
        let registered = administration.register_key(&cache, &public_key).await;
        made.registered = registered.is_ok();
        if let Err(error) = registered {
            context.output.warn(&format!("the key is saved in {}, not registered", made.file));
            return Err(error.into());
        }
    }
    show(context, &made)?;
    if made.registered {
        return Ok(Exit::Done);
    }
    let why = "the key is not registered, for that takes a personal token: whoever registers a \
               key decides what users trust. Ask the owner of the box to run";
    Err(Complaint::new(Exit::NotAuthorised, format!("{why}: {register}")).into())
}

fn access<'a>(caches: &'a [CacheAccess], cache: &CacheName) -> Result<&'a CacheAccess, Complaint> {
    let access = caches.iter().find(|access| access.name == *cache).ok_or_else(|| {
        let exit = Exit::from_number(RefusalCode::NoSuchCache.exit_code());
        Complaint::new(exit, format!("there is no cache called '{cache}' for this token"))
    })?;
    match access.signing {
        Signing::SelfSigned => Ok(access),
        Signing::Managed => Err(Complaint::usage(format!(
            "the box keeps the key of the cache '{cache}' and signs; nothing needs to be made"
        ))),
    }
}

fn already_there(cache: &CacheName, key: &SecretKey, registered: &[PublicKey]) -> Complaint {
    let public_key = key.public_key();
    let text = if registered.contains(&public_key) {
        format!("this machine signs for '{cache}' with '{}' already", key.name())
    } else {
        format!(
            "'{}' is saved on this machine and not registered; the owner of the box does that \
             with: larder cache key add {cache} {public_key}",
            key.name()
        )
    };
    Complaint::new(Exit::Failed, text).with_hint("--another makes a further key; none is lost")
}

/// `CACHE.BOX.local-N`, one more than the highest number.
fn free_name<'a>(
    cache: &CacheName,
    box_name: &str,
    taken: impl Iterator<Item = &'a str>,
) -> String {
    let start = format!("{cache}.{box_name}.local-");
    let number = |name: &str| name.strip_prefix(&start)?.parse::<u64>().ok();
    let highest = taken.filter_map(number).max().unwrap_or(0);
    format!("{start}{}", highest.saturating_add(1))
}

fn show(context: &Context, made: &Made) -> anyhow::Result<()> {
    context.output.note(&format!(
        "saved in {}; shown this once. Back it up: without it nobody can push to the cache, and \
         whoever has it can give the cache's users any path",
        made.file
    ));
    context.output.data(made, |made| format!("{}\n", made.secret_key))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_free() {
        let team = "team".parse().unwrap();
        let name = |taken: &[&str]| free_name(&team, "office", taken.iter().copied());
        assert_eq!(name(&[]), "team.office.local-1");
        assert_eq!(
            name(&["x-7", "team.office.local-2", "team.office.local-a"]),
            "team.office.local-3"
        );
    }
}
