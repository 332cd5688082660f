//! What a box is started with: the file, what the command line says against it, and the defaults,
//! resolved once into what each layer takes.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use jiff::SignedDuration;

use crate::daemon::logging::LogOptions;
use crate::daemon::settings_file::{
    HttpSection, LimitsSection, LogSection, SettingsError, SettingsFile, StoreSection,
};
use crate::formats::BoxName;
use crate::formats::limits::{
    CONNECTIONS_DEFAULT, CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_DEFAULT,
    HTTP_CONNECTIONS_DEFAULT, HTTP_CONNECTIONS_MAX, REQUESTS_PER_SECOND_DEFAULT,
};
use crate::services::AdmissionOptions;
use crate::store::StoreOptions;
use crate::transports::http::{Patience, PlainTokens};
use crate::transports::tls::CertificatePaths;

/// The port of everything larder serves, TCP and UDP, where nobody says otherwise.
pub const PORT_DEFAULT: u16 = 5273;

/// What the command line of `serve` says; it wins over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServeOverrides {
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--quic-listen`
    pub quic_listen: Option<SocketAddr>,
    /// `--no-mdns`
    pub no_mdns: bool,
    /// `--name`
    pub name: Option<BoxName>,
}

/// Everything a box is started with, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file that they were read from, if there is one.
    pub file: Option<PathBuf>,
    /// What the box calls itself.
    pub name: BoxName,
    /// What the machine calls itself; may be empty.
    pub machine_name: String,
    /// Where HTTP listens (TCP). Port 0 is any free one.
    pub listen: SocketAddr,
    /// Where QUIC listens (UDP), if not where HTTP does at the same port number.
    pub quic_listen: Option<SocketAddr>,
    /// Whether the box is announced on the network.
    pub mdns: bool,
    /// The middle of the names of keys that are made from now on, `CACHE.HOST-N`.
    pub key_host: String,
    /// Where the certificate for HTTPS is, if not the box's own.
    pub tls: Option<CertificatePaths>,
    /// Which tokens count over plain HTTP from other machines.
    pub plain_tokens: PlainTokens,
    /// How long HTTP waits for whom.
    pub patience: Patience,
    /// What is logged.
    pub log: LogOptions,
    /// What the store takes.
    pub store: StoreOptions,
    /// What is granted to each address and token.
    pub admission: AdmissionOptions,
}

impl Settings {
    /// Reads `file`, if there is one, and resolves it for this machine.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] names the file, the line and the key, or the value that is out of bounds.
    pub fn read(file: Option<&Path>, overrides: ServeOverrides) -> Result<Self, SettingsError> {
        let typed = file.map_or_else(|| Ok(SettingsFile::default()), SettingsFile::read)?;
        let resolved = Self::resolve(typed, overrides, machine_name())?;
        Ok(Self { file: file.map(Path::to_owned), ..resolved })
    }

    /// Fills in what was not said. Each field of the file is taken apart here, so that one which
    /// nothing reads does not compile.
    fn resolve(
        typed: SettingsFile,
        overrides: ServeOverrides,
        machine_name: String,
    ) -> Result<Self, SettingsError> {
        let SettingsFile {
            name,
            data,
            listen,
            quic_listen,
            mdns,
            key_host,
            tls_certificate,
            tls_key,
            http,
            log,
            store,
            limits,
        } = typed;
        let name =
            overrides.name.or(name).unwrap_or_else(|| BoxName::from_host_name(&machine_name));
        let data = overrides.data.or(data).unwrap_or_else(|| PathBuf::from(DATA_DEFAULT));
        let listen = overrides.listen.or(listen).unwrap_or(LISTEN_DEFAULT);
        let quic_listen = overrides.quic_listen.or(quic_listen);
        let LogSection { level, format } = log;
        let patience = resolve_patience(&http)?;
        Ok(Self {
            file: None,
            key_host: resolve_key_host(key_host, &name)?,
            name,
            machine_name,
            listen,
            quic_listen: quic_listen.filter(|address| *address != listen),
            mdns: !overrides.no_mdns && mdns.unwrap_or(true),
            tls: resolve_tls(tls_certificate, tls_key)?,
            plain_tokens: http.plain_tokens.unwrap_or_default(),
            patience,
            log: LogOptions {
                filter: level.unwrap_or_default(),
                format: format.unwrap_or_default(),
            },
            store: resolve_store(&store, data)?,
            admission: resolve_limits(&limits)?,
        })
    }
}

/// The machine's name, as `gethostname` gives it; empty where the system does not tell it in
/// this way (proc(5), `/proc/sys/kernel/hostname`).
fn machine_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The data folder where nobody says otherwise: beside where the box was started.
pub const DATA_DEFAULT: &str = "./larder-data";
/// All addresses, IPv6 and IPv4 alike.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT_DEFAULT);

/// With the longest cache name and a number the key's name has at most 80 characters.
const KEY_HOST_LEN_MAX: usize = 36;

fn resolve_key_host(typed: Option<String>, name: &BoxName) -> Result<String, SettingsError> {
    let host = typed.unwrap_or_else(|| format!("{name}.local"));
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| plain(byte) || byte == b'-');
        inner && label.bytes().next().is_some_and(plain) && label.bytes().last().is_some_and(plain)
    };
    if host.len() <= KEY_HOST_LEN_MAX && host.split('.').all(label) {
        return Ok(host);
    }
    Err(SettingsError::OutOfBounds {
        key: "key_host",
        found: format!("'{host}'"),
        expected: "a host name in lower case of at most 36 characters",
    })
}

/// Both files or none. An empty path is none, so that a file can say so.
fn resolve_tls(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<CertificatePaths>, SettingsError> {
    let said = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
    let half = |given, lacking| Err(SettingsError::Half { given, lacking });
    match (said(certificate), said(key)) {
        (Some(certificate), Some(key)) => Ok(Some(CertificatePaths { certificate, key })),
        (Some(_), None) => half("tls_certificate", "tls_key"),
        (None, Some(_)) => half("tls_key", "tls_certificate"),
        (None, None) => Ok(None),
    }
}

fn resolve_store(typed: &StoreSection, folder: PathBuf) -> Result<StoreOptions, SettingsError> {
    let StoreSection { readers, compression_level, pack_size, min_free, quota } = typed;
    let defaults = StoreOptions::at(&folder);
    let options = StoreOptions {
        folder,
        readers: readers.unwrap_or(defaults.readers),
        compression_level: compression_level.unwrap_or(defaults.compression_level),
        pack_bytes_max: pack_size.map_or(defaults.pack_bytes_max, |size| size.as_u64()),
        min_free_bytes: min_free.map_or(defaults.min_free_bytes, |size| size.as_u64()),
        quota_bytes: quota.map(|size| size.as_u64()).filter(|bytes| *bytes > 0),
    };
    let out_of_bounds = |key, found, expected| SettingsError::OutOfBounds { key, found, expected };
    if !(1..=64).contains(&options.readers) {
        let found = options.readers.to_string();
        return Err(out_of_bounds("store.readers", found, "1 to 64"));
    }
    if !(1..=19).contains(&options.compression_level) {
        let found = options.compression_level.to_string();
        return Err(out_of_bounds("store.compression_level", found, "1 to 19"));
    }
    if !(PACK_BYTES_LEAST..=PACK_BYTES_MOST).contains(&options.pack_bytes_max) {
        let found = ByteSize(options.pack_bytes_max).to_string();
        return Err(out_of_bounds("store.pack_size", found, "16 MiB to 2 GiB"));
    }
    Ok(options)
}

/// A field that is taken by [`Settings::resolve`] itself is passed over here.
fn resolve_patience(typed: &HttpSection) -> Result<Patience, SettingsError> {
    let HttpSection { plain_tokens: _, head_timeout, idle_timeout, stall_timeout } = typed;
    let bounded = |key, typed: &Option<SignedDuration>, default: Duration| {
        let Some(typed) = typed else { return Ok(default) };
        let found = Duration::try_from(*typed).ok().filter(|found| TIMEOUTS.contains(found));
        let wrong = || SettingsError::OutOfBounds {
            key,
            found: format!("{typed:#}"),
            expected: "1 s to 1 h",
        };
        found.ok_or_else(wrong)
    };
    let Patience { head, idle, stall } = Patience::default();
    Ok(Patience {
        head: bounded("http.head_timeout", head_timeout, head)?,
        idle: bounded("http.idle_timeout", idle_timeout, idle)?,
        stall: bounded("http.stall_timeout", stall_timeout, stall)?,
    })
}

/// Below it a slow network is a hung one; above it nobody waits on the other side.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

fn resolve_limits(typed: &LimitsSection) -> Result<AdmissionOptions, SettingsError> {
    let LimitsSection {
        requests_per_second,
        connections,
        quic_connections,
        connections_per_address,
        transfers,
    } = typed;
    let bounded = |key, typed: &Option<u32>, default: u32, most: u32| {
        let found = typed.unwrap_or(default);
        let expected = match most {
            RATE_MOST => "1 to 1000000",
            HTTP_CONNECTIONS_MAX => "1 to 8192",
            _ => "1 to 1024",
        };
        let wrong = || SettingsError::OutOfBounds { key, found: found.to_string(), expected };
        if (1..=most).contains(&found) { Ok(found) } else { Err(wrong()) }
    };
    let rate = REQUESTS_PER_SECOND_DEFAULT;
    let each = CONNECTIONS_PER_ADDRESS_DEFAULT;
    let (http, quic) = (HTTP_CONNECTIONS_DEFAULT, CONNECTIONS_DEFAULT);
    let http = bounded("limits.connections", connections, http, HTTP_CONNECTIONS_MAX)?;
    let quic = bounded("limits.quic_connections", quic_connections, quic, CONNECTIONS_MAX)?;
    let each_key = "limits.connections_per_address";
    let transfers = bounded("limits.transfers", transfers, TRANSFERS_DEFAULT, TRANSFERS_MAX)?;
    let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(AdmissionOptions {
        requests_per_second: bounded(
            "limits.requests_per_second",
            requests_per_second,
            rate,
            RATE_MOST,
        )?,
        http_connections: count(http),
        quic_connections: count(quic),
        connections_per_address: bounded(each_key, connections_per_address, each, CONNECTIONS_MAX)?,
        transfers: count(transfers),
    })
}

/// Each may hold half a MiB that its client has not taken yet.
const TRANSFERS_DEFAULT: u32 = 256;
const TRANSFERS_MAX: u32 = 1024;
const RATE_MOST: u32 = 1_000_000;
/// Below it the folder would have too many files.
const PACK_BYTES_LEAST: u64 = 16 << 20;
/// Above it one pack is too much to rewrite at a time.
const PACK_BYTES_MOST: u64 = 2 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::settings_file::known_keys;

    const EXAMPLE: &str = include_str!("../../config/larder.toml");

    fn resolve(text: &str, overrides: ServeOverrides) -> Result<Settings, SettingsError> {
        let typed = SettingsFile::parse(Path::new("larder.toml"), text)?;
        Settings::resolve(typed, overrides, "Office.example.org".to_owned())
    }

    /// The example with every setting switched on: `#key = value` without its `#`.
    fn example_switched_on() -> String {
        let lines = EXAMPLE.lines().map(|line| {
            line.strip_prefix('#')
                .filter(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase()))
                .unwrap_or(line)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_as_it_is_sets_nothing() {
        let typed = SettingsFile::parse(Path::new("config/larder.toml"), EXAMPLE).unwrap();
        assert_eq!(typed, SettingsFile::default());
    }

    #[test]
    fn the_example_switched_on_sets_every_key_to_its_default() {
        let text = example_switched_on();
        let typed = SettingsFile::parse(Path::new("config/larder.toml"), &text).unwrap();

        let json = serde_json::to_value(&typed).unwrap();
        for key in known_keys() {
            let pointer = format!("/{}", key.replace('.', "/"));
            assert!(json.pointer(&pointer).is_some_and(|value| !value.is_null()), "no {key}");
        }
        let switched_on = resolve(&text, ServeOverrides::default()).unwrap();
        let defaults = resolve("", ServeOverrides::default()).unwrap();
        assert_eq!(format!("{switched_on:#?}"), format!("{defaults:#?}"));
    }

    #[test]
    fn the_name_comes_from_the_machine_and_goes_into_the_keys() {
        let settings = resolve("", ServeOverrides::default()).unwrap();
        assert_eq!(settings.name.as_str(), "office");
        assert_eq!(settings.key_host, "office.local");

        let named = ServeOverrides { name: Some("pantry".parse().unwrap()), ..Default::default() };
        let settings = resolve("name = \"attic\"\nkey_host = \"nix.example.org\"", named).unwrap();
        assert_eq!(settings.name.as_str(), "pantry");
        assert_eq!(settings.key_host, "nix.example.org");
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = "data = \"/file\"\nlisten = \"127.0.0.1:1\"\nquic_listen = \"127.0.0.1:2\"\nmdns = true";
        let overrides = ServeOverrides {
            data: Some(PathBuf::from("/flag")),
            listen: Some("[::1]:3".parse().unwrap()),
            quic_listen: Some("[::1]:4".parse().unwrap()),
            no_mdns: true,
            name: None,
        };

        let from_file = resolve(file, ServeOverrides::default()).unwrap();
        let from_flags = resolve(file, overrides).unwrap();

        assert_eq!(from_file.store.folder, Path::new("/file"));
        assert_eq!((from_file.listen.port(), from_file.mdns), (1, true));
        assert_eq!(from_file.quic_listen.map(|address| address.port()), Some(2));
        assert_eq!(from_flags.store.folder, Path::new("/flag"));
        assert_eq!((from_flags.listen.port(), from_flags.mdns), (3, false));
        assert_eq!(from_flags.quic_listen.map(|address| address.port()), Some(4));
    }

    #[test]
    fn a_value_out_of_bounds_is_named() {
        for (text, expected) in [
            ("[store]\nreaders = 0", "the setting store.readers is 0; it must be 1 to 64"),
            ("[store]\ncompression_level = 20", "the setting store.compression_level is 20;"),
            ("[store]\npack_size = \"1 MiB\"", "the setting store.pack_size is 1.0 MiB;"),
            ("[limits]\nconnections = 0", "the setting limits.connections is 0; it must be 1 to"),
            (
                "[limits]\nconnections = 8193",
                "the setting limits.connections is 8193; it must be 1",
            ),
            ("[limits]\nquic_connections = 1025", "the setting limits.quic_connections is 1025;"),
            ("[http]\nhead_timeout = \"0 s\"", "the setting http.head_timeout is 0s; it must be 1"),
            ("[http]\nidle_timeout = \"2 h\"", "the setting http.idle_timeout is 2h; it must be 1"),
            ("[http]\nstall_timeout = \"-5 s\"", "the setting http.stall_timeout is"),
            ("[limits]\nrequests_per_second = 0", "the setting limits.requests_per_second is 0;"),
            ("[limits]\nconnections_per_address = 1025", "the setting limits.connections_per_a"),
            ("[limits]\ntransfers = 0", "the setting limits.transfers is 0; it must be 1 to 1024"),
            ("key_host = \"a b\"", "the setting key_host is 'a b'; it must be a host name"),
            ("key_host = \"-a\"", "the setting key_host is '-a';"),
            ("key_host = \"\"", "the setting key_host is '';"),
            ("tls_key = \"x\"", "the setting tls_key is there without tls_certificate;"),
            ("tls_certificate = \"x\"", "the setting tls_certificate is there without tls_key;"),
        ] {
            let message = resolve(text, ServeOverrides::default()).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
