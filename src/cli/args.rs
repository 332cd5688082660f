//! The command line as it is typed. docs/cli.md describes every option for people.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli::duration::{Lifetime, Since};
use crate::client::administration::{Grant, TokenRight};
use crate::client::host::Host;
use crate::formats::BoxName;
use crate::formats::CacheName;
use crate::formats::cache_name::ParseCacheNameError;
use crate::wire::{DeviceId, PairingCode};

/// A Nix binary cache for the local network.
#[derive(Debug, Parser)]
#[command(name = "larder", version, help_template = HELP, disable_help_subcommand = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Grouped by who uses a command; a test holds it against the commands that there are.
const HELP: &str = "\
{about}

{usage-heading} {usage}

On the box:
  serve             Run the box
  cache             Create, list, change and delete caches
  token             Create, list and revoke tokens
  log               Show who pushed what
  status            Show how the box is
  fsck              Read and verify everything that is stored

On a user's machine:
  discover          List the boxes on this network
  pair              Make a box known to this machine
  authtoken         Save a token
  generate-keypair  Make a signing key for a self-signed cache
  push              Push store paths with all they refer to

Anywhere:
  version           Show the version

'larder COMMAND --help' tells more.

Options:
{options}

Environment: LARDER_HOST, LARDER_AUTH_TOKEN (else CACHIX_AUTH_TOKEN), LARDER_SIGNING_KEY (else
CACHIX_SIGNING_KEY), LARDER_CONFIG (the client's file), LARDER_LOG, NO_COLOR, and Nix's NIX_REMOTE, NIX_STATE_DIR, NIX_STORE_DIR.

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not authorised, 5 box unreachable,
6 verification failed, 7 done in part, 8 refused for space.
";

/// What every command takes.
#[derive(Args, Debug)]
pub(super) struct Global {
    /// The box: a URL, HOST[:PORT] or a box's name [default: the configured one, else the one
    /// whose data is in ./larder-data, else the only one on this network]
    #[arg(
        long,
        visible_alias = "hostname",
        global = true,
        env = "LARDER_HOST",
        value_name = "HOST"
    )]
    pub(super) host: Option<Host>,
    /// The client's configuration, or that of the box for 'serve', 'fsck --rebuild-index' and
    /// 'token recover'
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Say more of what happens; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Say nothing but errors
    #[arg(long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(super) color: Color,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the box
    ///
    /// With nothing configured: data in ./larder-data, TCP and UDP port 5273 on all addresses, one
    /// public cache 'main', and a first personal token in ./larder-data/admin.token.
    Serve(ServeArgs),
    /// Create, list, change and delete caches
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Create, list and revoke tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show who pushed what
    ///
    /// When, with which token, and from which device; oldest first. Of a path that came more than
    /// once, who brought what is there.
    Log(LogArgs),
    /// Show how the box is
    ///
    /// Exits with 1 if something stored is known to be damaged.
    Status,
    /// Read and verify everything that is stored
    ///
    /// Asks the running box. With --rebuild-index the box must be stopped.
    Fsck(FsckArgs),
    /// List the boxes on this network
    ///
    /// What a box says of itself is not proven until somebody connects to it.
    Discover,
    /// Make a box known to this machine
    ///
    /// Shows who answers, and has a person compare the device ID once. From then on no other
    /// box is accepted under that name. With a code, made on the box by 'larder token create
    /// --pairing-code', it fetches a token too.
    Pair(PairArgs),
    /// Save a token
    ///
    /// The token goes into the client's configuration file, which only its owner may read. It is
    /// shown to the box that it is for and to no other.
    Authtoken(AuthtokenArgs),
    /// Make a signing key for a self-signed cache
    ///
    /// The secret half stays on this machine and is printed once, to be backed up; the public half
    /// is registered with the cache, which takes a personal token.
    GenerateKeypair(GenerateKeypairArgs),
    /// Push store paths with all they refer to
    ///
    /// Only what the box lacks travels; an interrupted push goes on where it was. Needs a token
    /// that may write to the cache.
    Push(PushArgs),
    /// Show the version
    Version,
}

#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    /// The data folder [default: ./larder-data]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Where HTTP listens (TCP); port 0 is any free one [default: [::]:5273]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) listen: Option<SocketAddr>,
    /// Where pushes and administration are listened for (UDP) [default: as --listen]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) quic_listen: Option<SocketAddr>,
    /// Do not announce the box on the network
    #[arg(long)]
    pub(super) no_mdns: bool,
    /// What the box is called on the network [default: after the machine]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<BoxName>,
}

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Create a cache: public, and with a key that the box keeps, unless otherwise said
    Create(CacheCreateArgs),
    /// List the caches
    List,
    /// Show one cache
    Show {
        /// Its name
        #[arg(value_name = "NAME")]
        name: CacheName,
    },
    /// Change a cache, from the next request on
    ///
    /// What a change means for the paths that are there: docs/caches.md.
    Set(CacheSetArgs),
    /// Delete a cache with all its paths
    ///
    /// Asks first. The room that only its paths took on the disk is given back when the store is
    /// collected.
    Delete {
        /// Its name
        #[arg(value_name = "NAME")]
        name: CacheName,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Let a new key sign what a managed cache serves
    ///
    /// The new key signs first; those before it go on signing for a while, so that their users
    /// can change over.
    RotateKey {
        /// The cache
        #[arg(value_name = "NAME")]
        name: CacheName,
        /// Days that the keys before it go on signing, counted while the box runs
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        retire_after: u32,
    },
    /// Register, list and take away the keys of a cache
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Register a public key with a self-signed cache
    Add {
        /// The cache
        #[arg(value_name = "NAME")]
        name: CacheName,
        /// The key, as NAME:BASE64
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// List the keys of a cache, retired ones too
    List {
        /// The cache
        #[arg(value_name = "NAME")]
        name: CacheName,
    },
    /// Take a registered key away, or retire a managed one at once
    Remove {
        /// The cache
        #[arg(value_name = "NAME")]
        name: CacheName,
        /// The key's name
        #[arg(value_name = "KEYNAME")]
        key: String,
    },
    /// Let a retired key of a managed cache sign again
    Restore {
        /// The cache
        #[arg(value_name = "NAME")]
        name: CacheName,
        /// The key's name
        #[arg(value_name = "KEYNAME")]
        key: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct GenerateKeypairArgs {
    /// The self-signed cache
    #[arg(value_name = "CACHE")]
    pub(super) cache: CacheName,
    /// Make a further key although this machine has one for the cache
    #[arg(long)]
    pub(super) another: bool,
}

#[derive(Args, Debug)]
pub(super) struct CacheCreateArgs {
    /// Its name: lower-case letters, digits and single hyphens
    #[arg(value_name = "NAME")]
    pub(super) name: CacheName,
    /// Let only those read it who have a token for it
    #[arg(long)]
    pub(super) private: bool,
    /// Let those sign who push, with registered keys, and not the box
    #[arg(long)]
    pub(super) self_signed: bool,
    /// A key by which paths may be signed
    #[arg(long = "public-key", value_name = "KEY", requires = "self_signed")]
    pub(super) public_keys: Vec<String>,
    #[command(flatten)]
    pub(super) common: CacheCommonArgs,
}

#[derive(Args, Debug)]
pub(super) struct CacheSetArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(super) name: CacheName,
    /// Let everybody read it
    #[arg(long, conflicts_with = "private")]
    pub(super) public: bool,
    /// Let only those read it who have a token for it
    #[arg(long)]
    pub(super) private: bool,
    /// Let the box sign what it serves
    #[arg(long, conflicts_with_all = ["self_signed", "public_keys"])]
    pub(super) managed: bool,
    /// Let those sign who push, with registered keys, and not the box
    #[arg(long)]
    pub(super) self_signed: bool,
    /// A key by which paths may be signed, beside those that are registered
    #[arg(long = "public-key", value_name = "KEY", requires = "self_signed")]
    pub(super) public_keys: Vec<String>,
    #[command(flatten)]
    pub(super) common: CacheCommonArgs,
    /// Do not let the box's root URL answer for it
    #[arg(long, conflicts_with = "root")]
    pub(super) no_root: bool,
    /// Do it even if paths that are there would be good for nobody then
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Args, Debug)]
pub(super) struct CacheCommonArgs {
    /// What Nix compares substituters by; the lower is asked first [default: 30]
    #[arg(long, value_name = "N")]
    pub(super) priority: Option<u32>,
    /// A line for people
    #[arg(long, value_name = "TEXT")]
    pub(super) description: Option<String>,
    /// Let the box's root URL answer for it too: as the last one, or by PLACE, the lower first
    #[arg(long, value_name = "PLACE", num_args = 0..=1, require_equals = true)]
    pub(super) root: Option<Option<u32>>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Create a token and print it, this once
    ///
    /// Without --cache it is a personal one, which may do everything on the box. Anyone who may
    /// write to a managed cache can give its users any path.
    Create(TokenCreateArgs),
    /// List the tokens
    List,
    /// Revoke a token, from the next request on
    ///
    /// Pushes and downloads that are under way with it are broken off.
    Revoke {
        /// Its number in 'larder token list'
        #[arg(value_name = "ID")]
        id: i64,
        /// Revoke the last personal token too
        #[arg(long)]
        yes: bool,
    },
    /// Make a new personal token on the box itself, for an owner who has none
    ///
    /// The box must be stopped. The token goes into admin.token in the data folder.
    Recover {
        /// The data folder [default: ./larder-data]
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
pub(super) struct LogArgs {
    /// The cache
    #[arg(value_name = "CACHE")]
    pub(super) cache: CacheName,
    /// This store path alone
    #[arg(value_name = "PATH")]
    pub(super) path: Option<String>,
    /// From then on: 2026-11-23, '2026-11-23 06:25' (UTC), or how long ago, such as 12h or 7d
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<Since>,
}

#[derive(Args, Debug)]
pub(super) struct TokenCreateArgs {
    /// A cache that it is for, and what for: 'read', 'write' or 'readwrite'
    #[arg(long = "cache", value_name = "NAME[:RIGHT]")]
    pub(super) caches: Vec<CacheRight>,
    /// A word for people
    #[arg(long, value_name = "TEXT")]
    pub(super) label: Option<String>,
    /// How long it is good, such as 12h, 30d or 1w [default: until it is revoked]
    #[arg(long, value_name = "DURATION")]
    pub(super) expires: Option<Lifetime>,
    /// The ID of the only device that may use it [default: any]
    #[arg(long, value_name = "KEY")]
    pub(super) device: Option<DeviceId>,
    /// Print a short code in the place of the token: good for one 'larder pair' in 10 minutes
    #[arg(long)]
    pub(super) pairing_code: bool,
}

#[derive(Args, Debug)]
pub(super) struct FsckArgs {
    /// Make the index anew from the packs; the box must be stopped
    #[arg(long)]
    pub(super) rebuild_index: bool,
    /// The data folder, for --rebuild-index [default: ./larder-data]
    #[arg(long, value_name = "DIR", requires = "rebuild_index")]
    pub(super) data: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct PairArgs {
    /// The box [default: as --host]
    #[arg(value_name = "BOX")]
    pub(super) host: Option<Host>,
    /// The code that the box printed; fetches a token
    #[arg(long, value_name = "CODE")]
    pub(super) code: Option<PairingCode>,
    /// The device ID that the box must have, so that nobody is asked
    #[arg(long, value_name = "ID")]
    pub(super) device_id: Option<DeviceId>,
}

#[derive(Args, Debug)]
pub(super) struct AuthtokenArgs {
    /// The token; visible to others on this machine while the command runs
    #[arg(value_name = "TOKEN", required_unless_present = "stdin", conflicts_with = "stdin")]
    pub(super) token: Option<String>,
    /// Read it from standard input
    #[arg(long)]
    pub(super) stdin: bool,
}

#[derive(Args, Debug)]
pub(super) struct PushArgs {
    /// The cache
    #[arg(value_name = "CACHE")]
    pub(super) cache: CacheName,
    /// Store paths, or symlinks to them such as ./result [default: read from standard input]
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// Large paths to read at a time [default: twice the processors, at most 8]
    #[arg(short, long, value_name = "N")]
    pub(super) jobs: Option<NonZero<u32>>,
    /// zstd's level
    #[arg(short = 'l', long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(i32).range(1..=19))]
    pub(super) compression_level: i32,
    /// Leave out which derivation built a path
    #[arg(long)]
    pub(super) omit_deriver: bool,
    /// Push these paths alone, without what they refer to
    #[arg(long)]
    pub(super) no_closure: bool,
    /// Offer also what the box has, so that it gets this machine's signature
    #[arg(long)]
    pub(super) sign_known: bool,
    /// List what would be sent, and send nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// `NAME`, `NAME:read`, `NAME:write` or `NAME:readwrite`; without a right it is both.
#[derive(Clone, Debug)]
pub(super) struct CacheRight(pub(super) Grant);

/// Why a text is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum ParseCacheRightError {
    #[error("{0}")]
    Name(ParseCacheNameError),
    #[error("'{0}' is no right; it is 'read', 'write' or 'readwrite'")]
    Right(String),
}

impl FromStr for CacheRight {
    type Err = ParseCacheRightError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, right) = text.split_once(':').unwrap_or((text, "readwrite"));
        let right = match right {
            "read" => TokenRight::Read,
            "write" => TokenRight::Write,
            "readwrite" => TokenRight::ReadWrite,
            other => return Err(ParseCacheRightError::Right(other.to_owned())),
        };
        let cache = name.parse().map_err(ParseCacheRightError::Name)?;
        Ok(Self(Grant { cache, right }))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_command_once_with_its_own_words() {
        let command = Cli::command();
        for subcommand in command.get_subcommands() {
            let about = subcommand.get_about().unwrap().to_string();
            let line = format!("  {:<16}  {about}\n", subcommand.get_name());
            assert_eq!(HELP.matches(&line).count(), 1, "{line:?}");
        }
        let listed = HELP.lines().filter(|line| line.starts_with("  ")).count();
        assert_eq!(listed, command.get_subcommands().count());
    }

    #[test]
    fn the_page_on_the_command_names_every_command_and_option() {
        let page = include_str!("../../docs/cli.md");
        let mut commands = vec![("larder".to_owned(), Cli::command())];
        while let Some((name, command)) = commands.pop() {
            assert!(page.contains(&name), "no {name}");
            for argument in command.get_arguments() {
                let long = argument.get_long().map(|long| format!("--{long}"));
                assert!(long.as_deref().is_none_or(|long| page.contains(long)), "{long:?}");
            }
            let below = command.get_subcommands().cloned();
            commands.extend(below.map(|below| (format!("{name} {}", below.get_name()), below)));
        }
    }

    #[test]
    fn rights_are_read_as_people_write_them() {
        let right = |text: &str| text.parse::<CacheRight>().map(|right| right.0.right).ok();
        assert_eq!(right("main"), Some(TokenRight::ReadWrite));
        assert_eq!(right("main:read"), Some(TokenRight::Read));
        assert_eq!(right("main:write"), Some(TokenRight::Write));
        for text in ["main:", "main:admin", ":read", "nar:read"] {
            assert_eq!(right(text), None, "{text}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "larder authtoken",
            "larder authtoken x --stdin",
            "larder push",
            "larder push main --jobs 0",
            "larder push main -l 20",
            "larder fsck --data x",
            "larder --quiet -v status",
            "larder --host a/b status",
            "larder token create --expires soon",
            "larder token create --device x",
            "larder log",
            "larder log main --since soon",
            "larder cache create ci --public-key x:AAAA",
            "larder cache create nar",
            "larder cache set ci --public --private",
            "larder cache set ci --managed --self-signed",
            "larder cache set ci --root --no-root",
            "larder cache set ci --root=first",
            "larder pair office --code 1234",
            "larder pair office --device-id 1234",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
