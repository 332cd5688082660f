//! The command line as it is typed. docs/cli.md describes every option for people.

mod caches;
mod examples;
mod nix;
mod pins;
mod serving;
mod shell;
mod tokens;
mod user;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::client::host::Host;

pub(super) use caches::{
    CacheCommand, CacheCommonArgs, CacheCreateArgs, CacheSetArgs, KeyCommand, OrNone,
};
pub(super) use nix::{MeantCache, RemoveArgs, UseArgs};
pub(super) use pins::{NewPinArgs, PinArgs, PinCommand};
pub(super) use serving::{
    BackupArgs, FsckArgs, GcArgs, LogArgs, PathCommand, PathRmArgs, RestoreArgs, ServeArgs,
};
pub(super) use shell::{CompletionsArgs, ManArgs, ShellArg};
pub(super) use tokens::{TokenCommand, TokenCreateArgs};
pub(super) use user::{
    AuthtokenArgs, ConfigCommand, ConfigKey, GenerateKeypairArgs, PairArgs, PushArgs,
};

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
  gc                Take away what nobody needs
  path              Show and remove single paths
  fsck              Read and verify everything that is stored
  backup            Write index, keys, tokens and settings of the box to a file
  restore           Put a backup into the data folder of a stopped box

On a user's machine:
  discover          List the boxes on this network
  use               Have Nix fetch from a cache
  remove            Undo 'larder use'
  pair              Make a box known to this machine
  authtoken         Save a token
  config            List, read and change what this machine remembers
  generate-keypair  Make a signing key for a self-signed cache
  push              Push store paths with all they refer to
  pin               Name a path that is to stay, and files inside it

Anywhere:
  completions       Print what a shell needs to complete commands
  man               Write man pages
  version           Show the version

'larder COMMAND --help' tells more.

Options:
{options}

Environment: LARDER_HOST, LARDER_AUTH_TOKEN (else CACHIX_AUTH_TOKEN), LARDER_SIGNING_KEY (else
CACHIX_SIGNING_KEY), LARDER_CONFIG (the client's file), LARDER_LOG, NO_COLOR, and Nix's NIX_REMOTE, NIX_STATE_DIR, NIX_STORE_DIR.

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not authorised, 5 box unreachable,
6 verification failed, 7 done in part, 8 refused for space,
130 interrupted.
";

/// What every command takes.
#[derive(Args, Debug)]
pub(super) struct Global {
    /// The box: a URL, HOST[:PORT] or a box's name [default: the configured one, else the one
    /// whose data is in ./larder-data, else the only one on this network] [env: LARDER_HOST]
    #[arg(long, visible_alias = "hostname", global = true, value_name = "HOST")]
    pub(super) host: Option<Host>,
    /// The client's configuration, or that of the box for 'serve', 'restore',
    /// 'fsck --rebuild-index' and 'token recover'
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
    #[command(after_help = examples::SERVE)]
    Serve(ServeArgs),
    /// Create, list, change and delete caches
    #[command(subcommand, after_help = examples::CACHE)]
    Cache(CacheCommand),
    /// Create, list and revoke tokens
    #[command(subcommand, after_help = examples::TOKEN)]
    Token(TokenCommand),
    /// Show who pushed what
    ///
    /// When, with which token, and from which device; oldest first. Of a path that came more than
    /// once, who brought what is there.
    #[command(after_help = examples::LOG)]
    Log(LogArgs),
    /// Show how the box is
    ///
    /// Exits with 1 if something stored is known to be damaged.
    Status,
    /// Take away what nobody needs
    ///
    /// Chunks that no path has any more; and where the disk is short of room, the paths that were
    /// pushed or read longest ago, never one that another refers to. The box does it by itself too.
    #[command(after_help = examples::GC)]
    Gc(GcArgs),
    /// Show and remove single paths
    #[command(subcommand, after_help = examples::PATH)]
    Path(PathCommand),
    /// Read and verify everything that is stored
    ///
    /// Asks the running box. With --rebuild-index the box must be stopped.
    #[command(after_help = examples::FSCK)]
    Fsck(FsckArgs),
    /// Write index, keys, tokens and settings of the box to a file
    ///
    /// Asks the running box, from here or from another machine; needs a personal token. The packs,
    /// which have the paths, are not in it: docs/operations.md says how to copy them.
    #[command(after_help = examples::BACKUP)]
    Backup(BackupArgs),
    /// Put a backup into the data folder of a stopped box
    ///
    /// What is replaced stays in the folder with '.before-restore' behind its name. The packs that
    /// are there are read from where the backup's index ends.
    #[command(after_help = examples::RESTORE)]
    Restore(RestoreArgs),
    /// List the boxes on this network
    ///
    /// What a box says of itself is not proven until somebody connects to it.
    #[command(after_help = examples::DISCOVER)]
    Discover,
    /// Have Nix fetch from a cache
    ///
    /// Adds the cache and its keys to Nix's configuration: the machine's for root, else the user's
    /// own, and on NixOS a module. A key is taken from a box alone that is known: by the device ID
    /// behind the @, by a token, or since somebody confirmed it.
    #[command(after_help = examples::USE)]
    Use(UseArgs),
    /// Undo 'larder use'
    ///
    /// Takes out what it added and leaves everything else as it is. Needs no box.
    #[command(after_help = examples::REMOVE)]
    Remove(RemoveArgs),
    /// Make a box known to this machine
    ///
    /// Shows who answers, and has a person compare the device ID once. From then on no other
    /// box is accepted under that name. With a code, made on the box by 'larder token create
    /// --pairing-code', it fetches a token too.
    #[command(after_help = examples::PAIR)]
    Pair(PairArgs),
    /// Save a token
    ///
    /// The token goes into the client's configuration file, which only its owner may read. It is
    /// shown to the box that it is for and to no other.
    #[command(after_help = examples::AUTHTOKEN)]
    Authtoken(AuthtokenArgs),
    /// List, read and change what this machine remembers
    ///
    /// The box that is meant when nobody says which, those that were paired, and the saved tokens.
    #[command(subcommand, after_help = examples::CONFIG)]
    Config(ConfigCommand),
    /// Make a signing key for a self-signed cache
    ///
    /// The secret half stays on this machine and is printed once, to be backed up; the public half
    /// is registered with the cache, which takes a personal token.
    #[command(after_help = examples::GENERATE_KEYPAIR)]
    GenerateKeypair(GenerateKeypairArgs),
    /// Push store paths with all they refer to
    ///
    /// Only what the box lacks travels; an interrupted push goes on where it was. Needs a token
    /// that may write to the cache.
    #[command(after_help = examples::PUSH)]
    Push(PushArgs),
    /// Name a path that is to stay, and files inside it
    ///
    /// Pinning under a name again makes a new revision of it. What is pinned is never collected.
    /// Needs a token that may write to the cache.
    #[command(after_help = examples::PIN)]
    Pin(PinArgs),
    /// Print what a shell needs to complete commands
    #[command(after_help = examples::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Write man pages
    #[command(after_help = examples::MAN)]
    Man(ManArgs),
    /// Show the version
    Version,
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
    fn a_pin_may_be_called_like_a_command() {
        for line in [
            "larder pin main list x",
            "larder pin main remove x --keep-days 3",
            "larder pin -- list v1 x",
            "larder --json pin --keep-forever list v1 x",
        ] {
            let Command::Pin(args) = Cli::parse_from(line.split(' ')).command else { panic!() };
            assert!(args.command.is_none() && args.new.is_some(), "{line}");
        }
        let Command::Pin(args) = Cli::parse_from(["larder", "pin", "list", "main"]).command else {
            panic!()
        };
        assert!(args.command.is_some() && args.new.is_none());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "larder authtoken",
            "larder pin",
            "larder pin main v1",
            "larder pin main v/1 x",
            "larder pin main v1 x --keep-days 0",
            "larder pin main v1 x --keep-revisions 0",
            "larder pin main v1 x --keep-days 1 --keep-forever",
            "larder pin main v1 x --keep-days 1 --keep-revisions 1",
            "larder pin main v1 x --artifact ../x",
            "larder pin remove main",
            "larder pin list main --keep-forever",
            "larder authtoken x --stdin",
            "larder push",
            "larder push main --jobs 0",
            "larder push main -l 20",
            "larder fsck --data x",
            "larder gc --target-free much",
            "larder backup",
            "larder restore",
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
