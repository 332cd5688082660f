//! `larder cache`

use serde::Serialize;

use crate::cli::args::{CacheCommand, CacheCommonArgs, CacheCreateArgs, CacheSetArgs, OrNone};
use crate::cli::context::Context;
use crate::cli::duration::moment;
use crate::cli::exit::{Complaint, Exit};
use crate::cli::key;
use crate::cli::output::{self, bytes, counted};
use crate::client::administration::{
    Administration, CacheChanges, CacheFacts, NewCache, RootPlace, SigningMode,
};
use crate::formats::signature::PublicKey;

#[derive(Serialize)]
struct Caches {
    caches: Vec<ShownCache>,
}

/// A cache with the URL that Nix takes as a substituter.
#[derive(Serialize)]
struct ShownCache {
    url: String,
    #[serde(flatten)]
    facts: CacheFacts,
}

#[derive(Serialize)]
struct Deleted {
    deleted: ShownCache,
}

pub(super) async fn run(context: &Context, command: CacheCommand) -> anyhow::Result<Exit> {
    let connector = context.connector()?;
    let connection = connector.connect().await?;
    let welcome = connection.welcome();
    let host = connector.target.substituter_host(&welcome.box_name);
    let base = format!("http://{host}:{}", welcome.http_port);
    let show = |facts: CacheFacts| ShownCache { url: format!("{base}{}", facts.url_path), facts };
    let administration = Administration::over(connection);
    let done = administer(context, &administration, command, show).await;
    administration.close().await;
    done
}

async fn administer(
    context: &Context,
    administration: &Administration,
    command: CacheCommand,
    show: impl Fn(CacheFacts) -> ShownCache,
) -> anyhow::Result<Exit> {
    match command {
        CacheCommand::Create(args) => {
            let made = show(administration.create_cache(&new_cache(args)?).await?);
            context.output.data(&made, |made| {
                output::facts(&[
                    ("URL", made.url.clone()),
                    ("public key", made.facts.public_keys.join("\n")),
                ])
            })?;
        }
        CacheCommand::List => {
            let caches = administration.caches().await?.into_iter().map(&show).collect();
            context.output.data(&Caches { caches }, |Caches { caches }| list(caches))?;
        }
        CacheCommand::Show { name } => {
            let cache = show(administration.cache(&name).await?);
            context.output.data(&cache, text)?;
        }
        CacheCommand::Set(args) => {
            let name = args.name.clone();
            let changed = show(administration.change_cache(&name, &changes(args)?).await?);
            context.output.data(&changed, text)?;
        }
        CacheCommand::Delete { name, yes } => {
            let facts = administration.cache(&name).await?;
            if !yes && !is_confirmed(context, &facts)? {
                context.output.note("nothing was deleted");
                return Ok(Exit::Failed);
            }
            let deleted = show(administration.delete_cache(&name).await?);
            context.output.note(&farewell(&deleted.facts));
            if context.output.is_json() {
                context.output.data(&Deleted { deleted }, |_| String::new())?;
            }
        }
        CacheCommand::RotateKey { name, retire_after } => {
            key::rotate(context, administration, &name, retire_after).await?;
        }
        CacheCommand::Key(command) => key::run(context, administration, command).await?,
    }
    Ok(Exit::Done)
}

fn new_cache(args: CacheCreateArgs) -> Result<NewCache, Complaint> {
    let CacheCreateArgs { name, private, self_signed, public_keys, common } = args;
    let changes = CacheChanges {
        public: private.then_some(false),
        signing: self_signed.then_some(SigningMode::SelfSigned),
        public_keys: parsed(&public_keys)?,
        ..common_changes(common)
    };
    Ok(NewCache { name, changes })
}

fn changes(args: CacheSetArgs) -> Result<CacheChanges, Complaint> {
    let common = common_changes(args.common);
    let managed = args.managed.then_some(SigningMode::Managed);
    Ok(CacheChanges {
        public: args.private.then_some(false).or(args.public.then_some(true)),
        signing: managed.or(args.self_signed.then_some(SigningMode::SelfSigned)),
        public_keys: parsed(&args.public_keys)?,
        root_position: args.no_root.then_some(RootPlace::Out).or(common.root_position),
        force: args.force,
        ..common
    })
}

fn parsed(keys: &[String]) -> Result<Vec<PublicKey>, Complaint> {
    keys.iter().map(|key| key::parse(key)).collect()
}

fn common_changes(args: CacheCommonArgs) -> CacheChanges {
    CacheChanges {
        description: args.description,
        priority: args.priority,
        root_position: args.root.map(|place| place.map_or(RootPlace::Last, RootPlace::At)),
        retention_days: args.retention.map(|OrNone(days)| days),
        quota_bytes: args.quota.map(|OrNone(size)| size.map(|size| size.as_u64())),
        ..CacheChanges::default()
    }
}

/// Asks on the terminal whether a cache is to go; where there is none, `--yes` has to be said.
fn is_confirmed(context: &Context, facts: &CacheFacts) -> anyhow::Result<bool> {
    let CacheFacts { name, paths_visible, paths_hidden, .. } = facts;
    let question = format!(
        "the cache '{name}' goes for good, with {paths_visible} paths that are served and \
         {paths_hidden} that are hidden, its keys, and what tokens may do with it"
    );
    let Some(answer) = context.output.ask(&question, "type its name to delete it: ")? else {
        let message = format!("{question}; nobody can be asked here, so say --yes");
        return Err(Complaint::usage(message).into());
    };
    Ok(answer == *name)
}

fn farewell(facts: &CacheFacts) -> String {
    format!(
        "deleted the cache '{}' with {} paths; the room they took is given back when the store is \
         collected",
        facts.name,
        facts.paths_visible + facts.paths_hidden
    )
}

fn list(caches: &[ShownCache]) -> String {
    let heads = ["NAME", "READERS", "PATHS", "HIDDEN", "PRIORITY", "URL"];
    let heads = heads.map(str::to_owned).to_vec();
    let row = |cache: &ShownCache| {
        vec![
            cache.facts.name.clone(),
            readers(&cache.facts).to_owned(),
            cache.facts.paths_visible.to_string(),
            cache.facts.paths_hidden.to_string(),
            cache.facts.priority.to_string(),
            cache.url.clone(),
        ]
    };
    output::table(&std::iter::once(heads).chain(caches.iter().map(row)).collect::<Vec<_>>())
}

const fn readers(facts: &CacheFacts) -> &'static str {
    if facts.public { "public" } else { "private" }
}

fn text(cache: &ShownCache) -> String {
    let ShownCache { url, facts } = cache;
    let root = facts.root_position.map_or("no".to_owned(), |place| format!("yes, place {place}"));
    let mut shown = vec![("name", facts.name.clone())];
    if !facts.description.is_empty() {
        shown.push(("description", facts.description.clone()));
    }
    shown.extend([
        ("URL", url.clone()),
        ("public key", facts.public_keys.join("\n")),
        ("kind", format!("{}, {}", readers(facts), facts.signing)),
        ("priority", facts.priority.to_string()),
        ("at the root", root),
        ("paths", format!("{} visible, {} hidden", facts.paths_visible, facts.paths_hidden)),
        ("size", size(facts)),
    ]);
    shown.extend(facts.retention_days.map(|days| ("retention", retention(days))));
    shown.push(("created", moment(facts.created_at)));
    output::facts(&shown)
}

fn size(facts: &CacheFacts) -> String {
    let stored = bytes(facts.stored_bytes);
    match facts.quota_bytes {
        None => stored,
        Some(quota) if facts.stored_bytes > quota => {
            format!("{stored}, BEYOND its quota of {}", bytes(quota))
        }
        Some(quota) => format!("{stored} of a quota of {}", bytes(quota)),
    }
}

fn retention(days: u32) -> String {
    format!("paths leave that nobody has read for {}", counted(days.into(), "day"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> ShownCache {
        let facts = CacheFacts {
            name: "main".into(),
            url_path: "/main".into(),
            public: true,
            signing: "managed".into(),
            public_keys: vec!["main.office.local-1:AAAA".into()],
            priority: 30,
            root_position: Some(1),
            description: String::new(),
            retention_days: Some(30),
            quota_bytes: Some(4 << 30),
            created_at: 0,
            paths_visible: 12,
            paths_hidden: 1,
            stored_bytes: 3 << 30,
        };
        ShownCache { url: "http://office.local:5273/main".into(), facts }
    }

    #[test]
    fn a_cache_is_shown_with_what_nix_needs() {
        let expected = "\
name         main
URL          http://office.local:5273/main
public key   main.office.local-1:AAAA
kind         public, managed
priority     30
at the root  yes, place 1
paths        12 visible, 1 hidden
size         3.0 GiB of a quota of 4.0 GiB
retention    paths leave that nobody has read for 30 days
created      1970-01-01 00:00 UTC
";
        assert_eq!(text(&cache()), expected);
    }

    #[test]
    fn a_list_of_caches_has_a_line_each() {
        let expected = "\
NAME  READERS  PATHS  HIDDEN  PRIORITY  URL
main  public   12     1       30        http://office.local:5273/main
";
        assert_eq!(list(&[cache()]), expected);
    }
}
