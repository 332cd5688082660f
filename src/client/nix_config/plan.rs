//! `larder use` and `larder remove` as changes of files, worked out before any of them is made.

use std::path::{Path, PathBuf};

use crate::client::nix_config::conf::{Conf, Directive, UsedCache, directives};
use crate::client::nix_config::error::NixConfigError;
use crate::client::nix_config::file::FileChange;
use crate::client::nix_config::machine::Machine;
use crate::client::nix_config::mode::{self, Mode, NIXOS_FOLDER, NoMode, Wish};
use crate::client::nix_config::settings::Settings;
use crate::client::nix_config::{netrc, nixos};
use crate::wire::TokenText;

/// What Nix is to be told of a cache.
#[derive(Clone, Debug)]
pub struct Use {
    /// The cache.
    pub used: UsedCache,
    /// Its substituter URL.
    pub url: String,
    /// The keys that Nix shall trust, as `NAME:BASE64`.
    pub keys: Vec<String>,
    /// Of a private cache: the host in the URL, without its port, and the token to show there.
    pub login: Option<(String, TokenText)>,
}

/// Changes of files, in the order in which they are safe.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where.
    pub mode: Mode,
    /// Whether Nix will overlook what is written, as the user is not trusted.
    pub is_overlooked: bool,
    /// What a person has to do in the end so that it counts.
    pub next: Vec<String>,
    changes: Vec<FileChange>,
}

/// One file of a plan, to be shown. Tokens are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownChange {
    /// The file.
    pub path: PathBuf,
    /// `create`, `change`, `remove` or `keep`.
    pub action: &'static str,
    /// Lines that come in.
    pub added: Vec<String>,
    /// Lines that go.
    pub removed: Vec<String>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A file stands in the way.
    #[error(transparent)]
    Config(#[from] NixConfigError),
    /// The user may not configure Nix.
    #[error(transparent)]
    Mode(#[from] NoMode),
}

/// The files of a mode.
struct Place {
    conf: PathBuf,
    /// The netrc that Nix reads by itself in this mode, if it reads one.
    netrc: Option<PathBuf>,
    /// What Nix reads before and after `conf`.
    before: Vec<PathBuf>,
}

impl Place {
    fn new(mode: Mode, wish: &Wish, machine: &Machine) -> Self {
        let system = machine.system_file();
        let (conf, before) = match mode {
            Mode::Directory => {
                let folder = wish.directory.clone().unwrap_or_default();
                return Self {
                    conf: folder.join("nix.conf"),
                    netrc: Some(folder.join("netrc")),
                    before: Vec::new(),
                };
            }
            Mode::UserNixconf => {
                let mut files = machine.user_files.clone();
                let own = if files.is_empty() { system.clone() } else { files.remove(0) };
                files.reverse();
                (own, std::iter::once(system).chain(files).collect())
            }
            Mode::RootNixconf | Mode::Nixos => (system, Vec::new()),
        };
        let is_user = mode == Mode::UserNixconf;
        let netrc = (!is_user).then(|| machine.system_folder.join("netrc"));
        Self { conf, netrc, before }
    }

    /// What Nix would read without our lines in `conf`.
    fn settings(&self, conf: &Conf) -> Result<Settings, NixConfigError> {
        let mut settings = Settings::read(&self.before)?;
        settings.add_text(&self.conf, &conf.others)?;
        Ok(settings)
    }

    /// The netrc that Nix reads, and whether a line has to say so.
    fn netrc(&self, conf: &Conf) -> Result<(PathBuf, bool), NixConfigError> {
        let mut own = Settings::default();
        own.add_text(&self.conf, &conf.others)?;
        let folder = self.conf.parent().unwrap_or(Path::new("/"));
        Ok(match (own.netrc_file, &self.netrc) {
            (Some(said), _) => (said, false),
            (None, Some(default)) => (default.clone(), false),
            (None, None) => (folder.join("netrc"), true),
        })
    }
}

impl Plan {
    /// What `larder use` would do.
    ///
    /// # Errors
    ///
    /// [`PlanError`].
    pub fn to_use(wanted: &Use, wish: &Wish, machine: &Machine) -> Result<Self, PlanError> {
        let system = Settings::read(&[machine.system_file()])?;
        let is_allowed = system.allows_everybody(&wanted.url)
            && wanted.keys.iter().all(|key| system.trusts(key));
        let mode = mode::choose(wish, machine, &system, is_allowed)?;
        let is_overlooked =
            mode == Mode::UserNixconf && !is_allowed && !machine.is_trusted(&system);
        let place = Place::new(mode, wish, machine);
        let mut changes = Vec::new();
        if mode == Mode::Nixos {
            let folder = wish.nixos_folder.clone().unwrap_or_else(|| NIXOS_FOLDER.into());
            if let (Some((host, token)), Some(file)) = (&wanted.login, &place.netrc) {
                changes.push(with_login(file, host, token, machine)?);
            }
            changes.extend(nixos::with(&folder, &wanted.used, &wanted.url, &wanted.keys)?);
            let all = nixos::file_of_all(&folder).display().to_string();
            let next = if changes.iter().any(FileChange::changes) {
                vec![
                    format!(
                        "import {all} in configuration.nix, if it is not yet: imports = [ {all} ];"
                    ),
                    "nixos-rebuild switch".to_owned(),
                ]
            } else {
                Vec::new()
            };
            return Ok(Self { mode, is_overlooked, next, changes });
        }
        let mut file = FileChange::open(&place.conf)?;
        let mut conf = Conf::parse(file.text());
        let mut lines = missing_settings(wanted, &place.settings(&conf)?);
        if let Some((host, token)) = &wanted.login {
            let (netrc, needs_line) = place.netrc(&conf)?;
            if needs_line {
                lines.push(format!("netrc-file = {}", netrc.display()));
            }
            changes.push(with_login(&netrc, host, token, machine)?);
        }
        file.keeps_backup = conf.ours.is_empty();
        conf.put(&wanted.used, &lines);
        file.after = Some(conf.to_text()).filter(|text| file.before.is_some() || !text.is_empty());
        changes.push(file);
        let next = next_steps(mode, machine, &changes);
        Ok(Self { mode, is_overlooked, next, changes })
    }

    /// What `larder remove` would do in one place: nothing if the cache is not used there.
    ///
    /// # Errors
    ///
    /// [`PlanError`].
    pub fn to_remove(
        used: &UsedCache,
        mode: Mode,
        wish: &Wish,
        machine: &Machine,
    ) -> Result<Self, PlanError> {
        let place = Place::new(mode, wish, machine);
        let (mut changes, netrc, others) = if mode == Mode::Nixos {
            let folder = wish.nixos_folder.clone().unwrap_or_else(|| NIXOS_FOLDER.into());
            (nixos::without(&folder, used)?, place.netrc, nixos::used(&folder))
        } else {
            let mut file = FileChange::open(&place.conf)?;
            let mut conf = Conf::parse(file.text());
            let (netrc, others) = (place.netrc(&conf)?.0, conf.used());
            conf.put(used, &[]);
            if conf.ours.is_empty() {
                file.leave(conf.to_text());
            } else {
                file.after = Some(conf.to_text());
            }
            (vec![file], Some(netrc), others)
        };
        changes.retain(FileChange::changes);
        let is_last =
            !others.iter().any(|other| other != used && other.device_id == used.device_id);
        if let Some(netrc) = netrc.filter(|_| is_last && others.contains(used)) {
            let mut file = FileChange::open_secret(&netrc, machine.uid)?;
            let rest = netrc::without(file.text(), used.device_id);
            if rest != file.text() {
                file.leave(rest);
                changes.push(file);
            }
        }
        let next = match mode {
            Mode::Nixos if !changes.is_empty() => vec!["nixos-rebuild switch".to_owned()],
            _ => next_steps(mode, machine, &changes),
        };
        Ok(Self { mode, is_overlooked: false, next, changes })
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.changes.iter().any(FileChange::changes)
    }

    /// The files, to be shown.
    #[must_use]
    pub fn shown(&self) -> Vec<ShownChange> {
        self.changes.iter().map(shown).collect()
    }

    /// Makes the changes. After an error those before it are made; doing it again does the rest.
    ///
    /// # Errors
    ///
    /// [`NixConfigError::Write`].
    pub fn apply(&self) -> Result<(), NixConfigError> {
        self.changes.iter().try_for_each(FileChange::apply)
    }
}

/// The caches of that mode's files that `larder use` put there.
///
/// # Errors
///
/// [`PlanError`].
pub fn used_in(mode: Mode, wish: &Wish, machine: &Machine) -> Result<Vec<UsedCache>, PlanError> {
    if mode == Mode::Nixos {
        let folder = wish.nixos_folder.clone().unwrap_or_else(|| NIXOS_FOLDER.into());
        return Ok(nixos::used(&folder));
    }
    let place = Place::new(mode, wish, machine);
    match FileChange::open(&place.conf) {
        Ok(file) => Ok(Conf::parse(file.text()).used()),
        Err(NixConfigError::Generated { .. }) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// What Nix does not do yet.
fn missing_settings(wanted: &Use, settings: &Settings) -> Vec<String> {
    let mut lines = Vec::new();
    if !settings.has_substituter(&wanted.url) {
        lines.push(format!("extra-substituters = {}", wanted.url));
    }
    let keys: Vec<_> = wanted.keys.iter().filter(|key| !settings.trusts(key)).cloned().collect();
    if !keys.is_empty() {
        lines.push(format!("extra-trusted-public-keys = {}", keys.join(" ")));
    }
    lines
}

fn with_login(
    path: &Path,
    host: &str,
    token: &TokenText,
    machine: &Machine,
) -> Result<FileChange, NixConfigError> {
    let mut file = FileChange::open_secret(path, machine.uid)?;
    let with = netrc::with(file.text(), host, token);
    let (path, host) = (file.path.clone(), host.to_owned());
    let with = with.map_err(|taken| NixConfigError::HostTaken { path, line: taken.line, host })?;
    // Only a text without a line of ours is one from before.
    file.keeps_backup = with.len() > file.text().len();
    file.after = Some(with);
    Ok(file)
}

fn next_steps(mode: Mode, machine: &Machine, changes: &[FileChange]) -> Vec<String> {
    let restarts = mode == Mode::RootNixconf
        && machine.has_daemon
        && changes.iter().any(|change| change.changes() && says_settings(change));
    if restarts {
        vec![
            "restart the Nix daemon, which reads nix.conf when it starts: systemctl restart \
              nix-daemon"
                .to_owned(),
        ]
    } else {
        Vec::new()
    }
}

fn says_settings(change: &FileChange) -> bool {
    let texts = [&change.before, &change.after].into_iter().flatten();
    texts
        .into_iter()
        .any(|text| directives(text).iter().any(|line| matches!(line, Directive::Set { .. })))
}

fn shown(change: &FileChange) -> ShownChange {
    let lines = |text: &Option<Vec<u8>>| -> Vec<String> {
        let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default()).into_owned();
        text.lines().map(|line| without_token(line, change.is_secret)).collect()
    };
    let (before, after) = (lines(&change.before), lines(&change.after));
    let only_in = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|line| !those.contains(line)).cloned().collect()
    };
    let action = match (&change.before, &change.after) {
        _ if !change.changes() => "keep",
        (None, _) => "create",
        (Some(_), None) => "remove",
        (Some(_), Some(_)) => "change",
    };
    let (added, removed) = (only_in(&after, &before), only_in(&before, &after));
    ShownChange { path: change.path.clone(), action, added, removed }
}

/// Lines of a netrc are shown up to the password.
fn without_token(line: &str, is_secret: bool) -> String {
    match line.split_once("password ") {
        Some((before, _)) if is_secret => format!("{before}password …"),
        _ => line.to_owned(),
    }
}
