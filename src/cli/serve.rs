//! `larder serve`

use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;

use crate::cli::args::ServeArgs;
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::daemon::logging::{self, LogFilter};
use crate::daemon::settings::{DATA_DEFAULT, PORT_DEFAULT};
use crate::daemon::{ServeOverrides, Settings, Summary};

/// What programs that start a box want to know, on one line.
#[derive(Serialize)]
struct Started {
    /// An address of HTTP, without a scheme.
    http: String,
    /// An address of QUIC.
    quic: String,
    name: String,
    device_id: String,
    public_key: Option<String>,
    admin_token_file: Option<String>,
    data: String,
    /// URLs of the root substituter.
    urls: Vec<String>,
}

pub(super) async fn run(
    context: &Context,
    args: ServeArgs,
    filter: Option<LogFilter>,
) -> anyhow::Result<Exit> {
    let ServeArgs { data, listen, quic_listen, no_mdns, name } = args;
    let overrides = ServeOverrides { data, listen, quic_listen, no_mdns, name };
    let mut settings = Settings::read(context.config.as_deref(), overrides)?;
    if let Some(filter) = filter {
        settings.log.filter = filter;
    }
    logging::start(&settings.log);
    let mut printed = Ok(());
    crate::daemon::run(settings, |summary| {
        let started = Started::new(summary);
        printed = context.output.data(&started, text);
    })
    .await?;
    printed?;
    Ok(Exit::Done)
}

impl Started {
    fn new(summary: &Summary) -> Self {
        let urls = summary.http_addresses.clone();
        let addresses = urls.iter().filter_map(|url| url.strip_prefix("http://")?.parse().ok());
        let local = SocketAddr::from(([127, 0, 0, 1], summary.http_port));
        let http: SocketAddr = { addresses }.next().unwrap_or(local);
        Self {
            http: http.to_string(),
            quic: SocketAddr::new(http.ip(), summary.quic_port).to_string(),
            name: summary.name.to_string(),
            device_id: summary.device_id.to_string(),
            public_key: summary.public_key.as_ref().map(ToString::to_string),
            admin_token_file: summary
                .admin_token_file
                .as_ref()
                .map(|file| file.display().to_string()),
            data: summary.data.display().to_string(),
            urls,
        }
    }
}

fn text(started: &Started) -> String {
    let mut shown = vec![
        ("box", format!("{}, larder {}", started.name, env!("CARGO_PKG_VERSION"))),
        ("URL", started.urls.join("\n")),
        ("device ID", started.device_id.clone()),
    ];
    shown.extend(started.public_key.clone().map(|key| ("public key", key)));
    let token = started.admin_token_file.clone();
    shown.extend(token.map(|file| ("token", format!("{file} (may do everything; keep it safe)"))));
    shown.push(("data", started.data.clone()));
    let mut text = output::facts(&shown);
    if let (Some(url), Some(key)) = (started.urls.first(), &started.public_key) {
        text.push_str(&format!(
            "\nTry next, with the path of something you built for PATH:\n  \
             {}\n  \
             nix-store -r PATH --option substituters {url} --option trusted-public-keys {key}\n",
            push_command(started)
        ));
    }
    text
}

/// What pushes from this folder: `larder` finds a box by itself whose data is in ./larder-data
/// and that listens at the usual port.
fn push_command(started: &Started) -> String {
    let usual_port = format!(":{PORT_DEFAULT}");
    if Path::new(&started.data) != Path::new(DATA_DEFAULT) {
        let saved = started.admin_token_file.as_ref();
        let save = saved.map(|file| format!("larder authtoken --stdin < {file}\n  "));
        format!("{}larder --host {} push main PATH", save.unwrap_or_default(), started.quic)
    } else if !started.quic.ends_with(&usual_port) {
        format!("larder --host {} push main PATH", started.quic)
    } else {
        "larder push main PATH".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::formats::signature::SecretKey;
    use crate::wire::DeviceId;

    fn summary() -> Summary {
        let key = SecretKey::from_seed("main.office.local-1", &[1; 32]).unwrap();
        Summary {
            name: "office".parse().unwrap(),
            http_addresses: vec![
                "http://office.local:5273".into(),
                "http://192.168.1.7:5273".into(),
            ],
            http_port: 5273,
            quic_port: 5273,
            device_id: DeviceId([0; 20]),
            public_key: Some(key.public_key()),
            admin_token_file: Some(PathBuf::from("./larder-data/admin.token")),
            data: PathBuf::from("./larder-data"),
        }
    }

    #[test]
    fn a_person_reads_where_the_box_is_and_what_to_do_next() {
        let key = summary().public_key.unwrap();
        let expected = format!(
            "\
box         office, larder {}
URL         http://office.local:5273
            http://192.168.1.7:5273
device ID   0000-0000-0000-0000-0000-0000-0000-0000
public key  {key}
token       ./larder-data/admin.token (may do everything; keep it safe)
data        ./larder-data

Try next, with the path of something you built for PATH:
  larder push main PATH
  nix-store -r PATH --option substituters http://office.local:5273 --option trusted-public-keys {key}
",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(text(&Started::new(&summary())), expected);
    }

    #[test]
    fn the_next_command_names_the_box_where_it_is_not_found_by_itself() {
        let next = |change: fn(&mut Summary)| {
            let mut summary = summary();
            change(&mut summary);
            push_command(&Started::new(&summary))
        };
        let elsewhere = "larder --host 192.168.1.7:80 push main PATH";
        assert_eq!(next(|summary| summary.quic_port = 80), elsewhere);
        let saved = next(|summary| {
            summary.data = "/srv/larder".into();
            summary.admin_token_file = Some("/srv/larder/admin.token".into());
        });
        let expected = "larder authtoken --stdin < /srv/larder/admin.token\n  \
                        larder --host 192.168.1.7:5273 push main PATH";
        assert_eq!(saved, expected);
    }

    #[test]
    fn a_program_reads_addresses_that_it_can_connect_to() {
        let started = Started::new(&summary());
        assert_eq!(started.http, "192.168.1.7:5273");
        assert_eq!(started.quic, "192.168.1.7:5273");
        let hermit = Summary { http_addresses: Vec::new(), ..summary() };
        assert_eq!(Started::new(&hermit).http, "127.0.0.1:5273");
    }
}
