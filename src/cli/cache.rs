//! `larder cache`

use serde::Serialize;

use crate::cli::args::{CacheCommand, CacheCreateArgs};
use crate::cli::context::Context;
use crate::cli::duration::moment;
use crate::cli::exit::Exit;
use crate::cli::key;
use crate::cli::output;
use crate::client::administration::{Administration, CacheFacts, NewCache};

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

pub(super) async fn run(context: &Context, command: CacheCommand) -> anyhow::Result<Exit> {
    let connector = context.connector()?;
    let connection = connector.connect().await?;
    let base = connector.target.substituter_base(&connection.welcome().box_name);
    let show = |facts: CacheFacts| ShownCache { url: format!("{base}{}", facts.url_path), facts };
    let administration = Administration::over(connection);
    match command {
        CacheCommand::Create(args) => {
            let CacheCreateArgs { name, priority, description, self_signed, public_keys } = args;
            let signing = self_signed.then_some("self-signed");
            let public_keys = public_keys.iter().map(|key| key::parse(key));
            let public_keys = public_keys.collect::<Result<_, _>>()?;
            let new = NewCache { name, description, priority, signing, public_keys };
            let made = show(administration.create_cache(&new).await?);
            context.output.data(&made, |made| {
                output::facts(&[
                    ("URL", made.url.clone()),
                    ("public key", made.facts.public_keys.join("\n")),
                ])
            })?;
        }
        CacheCommand::List => {
            let caches = administration.caches().await?.into_iter().map(show).collect();
            context.output.data(&Caches { caches }, |Caches { caches }| list(caches))?;
        }
        CacheCommand::Show { name } => {
            let cache = show(administration.cache(&name).await?);
            context.output.data(&cache, text)?;
        }
        CacheCommand::RotateKey { name, retire_after } => {
            key::rotate(context, &administration, &name, retire_after).await?;
        }
        CacheCommand::Key(command) => key::run(context, &administration, command).await?,
    }
    administration.close().await;
    Ok(Exit::Done)
}

fn list(caches: &[ShownCache]) -> String {
    let heads = ["NAME", "PATHS", "HIDDEN", "PRIORITY", "URL"].map(str::to_owned).to_vec();
    let row = |cache: &ShownCache| {
        vec![
            cache.facts.name.clone(),
            cache.facts.paths_visible.to_string(),
            cache.facts.paths_hidden.to_string(),
            cache.facts.priority.to_string(),
            cache.url.clone(),
        ]
    };
    output::table(&std::iter::once(heads).chain(caches.iter().map(row)).collect::<Vec<_>>())
}

fn text(cache: &ShownCache) -> String {
    let ShownCache { url, facts } = cache;
    let readers = if facts.public { "public" } else { "private" };
    let root = facts.root_position.map_or("no".to_owned(), |place| format!("yes, place {place}"));
    let mut shown = vec![("name", facts.name.clone())];
    if !facts.description.is_empty() {
        shown.push(("description", facts.description.clone()));
    }
    shown.extend([
        ("URL", url.clone()),
        ("public key", facts.public_keys.join("\n")),
        ("kind", format!("{readers}, {}", facts.signing)),
        ("priority", facts.priority.to_string()),
        ("at the root", root),
        ("paths", format!("{} visible, {} hidden", facts.paths_visible, facts.paths_hidden)),
        ("created", moment(facts.created_at)),
    ]);
    output::facts(&shown)
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
            created_at: 0,
            paths_visible: 12,
            paths_hidden: 1,
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
created      1970-01-01 00:00 UTC
";
        assert_eq!(text(&cache()), expected);
    }

    #[test]
    fn a_list_of_caches_has_a_line_each() {
        let expected = "\
NAME  PATHS  HIDDEN  PRIORITY  URL
main  12     1       30        http://office.local:5273/main
";
        assert_eq!(list(&[cache()]), expected);
    }
}
