//! What kind of machine this is, and who is asking: what decides where Nix is configured.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::nix_config::settings::Settings;
use crate::client::nix_store::Location;

/// The oldest Nix whose lists can be added to by `extra-…` (release notes of Nix 2.4).
pub const NIX_MIN: (u32, u32) = (2, 4);

/// What this machine is, and who runs the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The user's number.
    pub uid: u32,
    /// The user's name.
    pub user: String,
    /// The names of the user's groups.
    pub groups: Vec<String>,
    /// Whether the machine's configuration is a NixOS module.
    pub is_nixos: bool,
    /// Whether the user may write to the Nix store, so that no daemon stands between.
    pub may_write_store: bool,
    /// Whether a Nix daemon has its socket here.
    pub has_daemon: bool,
    /// The version of Nix, as far as it could be found out.
    pub nix_version: Option<(u32, u32)>,
    /// The folder of the machine's `nix.conf`.
    pub system_folder: PathBuf,
    /// The user's own files, the one that counts most first; at least one, unless the user has
    /// no home.
    pub user_files: Vec<PathBuf>,
}

impl Machine {
    /// Looks, with the environment read through `variable`. Runs `id`, `test` and `nix-env`, of
    /// which any may be missing.
    ///
    /// - Which store Nix works on is read as [`Location`] says.
    /// - `NIX_CONF_DIR` replaces `/etc/nix`; `NIX_USER_CONF_FILES` (divided by colons) replaces
    ///   `nix/nix.conf` below `XDG_CONFIG_HOME` (else `~/.config`) and below each folder of
    ///   `XDG_CONFIG_DIRS` (`getUserConfigFiles` in `src/libstore/globals.cc`, Nix 2.8).
    #[must_use]
    pub fn look(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let folder = |name: &str| variable(name).filter(|text| !text.is_empty()).map(PathBuf::from);
        let store = Location::from_variables(&variable).ok();
        let store = store.or_else(|| Location::from_variables(|_nothing| None).ok());
        let socket = store.as_ref().and_then(Location::daemon_socket);
        let groups = said("id", ["-Gn"]).unwrap_or_default();
        Self {
            uid: said("id", ["-u"]).and_then(|text| text.parse().ok()).unwrap_or(u32::MAX),
            user: said("id", ["-un"]).unwrap_or_default(),
            groups: groups.split_whitespace().map(str::to_owned).collect(),
            is_nixos: Path::new("/etc/NIXOS").exists(),
            has_daemon: socket.is_some_and(Path::exists),
            may_write_store: store.is_some_and(|store| may_write(store.real_store())),
            nix_version: said("nix-env", ["--version"]).as_deref().and_then(version),
            system_folder: folder("NIX_CONF_DIR").unwrap_or_else(|| PathBuf::from("/etc/nix")),
            user_files: user_files(variable),
        }
    }

    /// Whether it is root who asks.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// The machine's `nix.conf`.
    #[must_use]
    pub fn system_file(&self) -> PathBuf {
        self.system_folder.join("nix.conf")
    }

    /// Whether Nix lets the user choose substituters: `trusted-users` names the user, one of its
    /// groups (`@group`) or everybody (`*`), or nothing stands between user and store.
    pub(super) fn is_trusted(&self, system: &Settings) -> bool {
        let root = [String::from("root")];
        let trusted = system.trusted_users.as_deref().unwrap_or(&root);
        let is_meant = |name: &String| match name.strip_prefix('@') {
            Some(group) => self.groups.iter().any(|own| own == group),
            None => name == "*" || *name == self.user,
        };
        self.is_root() || self.may_write_store || trusted.iter().any(is_meant)
    }
}

/// Whether the user may write to a folder, or make it.
fn may_write(folder: &Path) -> bool {
    let there = folder.ancestors().find(|folder| folder.exists());
    there.is_some_and(|there| said("test", [OsStr::new("-w"), there.as_os_str()]).is_some())
}

/// What a program writes, if it ends well.
fn said<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// `nix-env (Nix) 2.8.0` and the like; other makers put their name between.
fn version(text: &str) -> Option<(u32, u32)> {
    let number = text.lines().next()?.split_whitespace().last()?;
    let mut parts = number.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
    Some((major, minor.parse().ok()?))
}

fn user_files(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let said = |name: &str| variable(name).filter(|text| !text.is_empty());
    if let Some(files) = said("NIX_USER_CONF_FILES") {
        return std::env::split_paths(&files).filter(|file| file.is_absolute()).collect();
    }
    let absolute = |name: &str| said(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home =
        absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let more = said("XDG_CONFIG_DIRS").unwrap_or_else(|| OsString::from("/etc/xdg"));
    // Without a folder of the user's own there is no file that the user could change.
    let Some(home) = home else { return Vec::new() };
    let folders = std::iter::once(home).chain(std::env::split_paths(&more));
    folders.map(|folder| folder.join("nix/nix.conf")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_makers_are_read() {
        assert_eq!(version("nix-env (Nix) 2.8.0"), Some((2, 8)));
        assert_eq!(version("nix (Lix, like Nix) 2.91.1\nmore"), Some((2, 91)));
        assert_eq!(version("nix-env (Nix) 2.35pre2026"), Some((2, 35)));
        assert_eq!(version(""), None);
    }

    #[test]
    fn the_users_files_are_where_nix_looks() {
        let files = |variables: &[(&str, &str)]| {
            let variables: Vec<_> = variables.to_vec();
            user_files(move |name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        let home = ("HOME", "/h");
        let none = ("XDG_CONFIG_DIRS", "/x:/y");
        assert_eq!(
            files(&[home, none]),
            ["/h/.config/nix/nix.conf", "/x/nix/nix.conf", "/y/nix/nix.conf"].map(PathBuf::from)
        );
        let first = |variables| files(variables).into_iter().next();
        assert_eq!(first(&[home, ("XDG_CONFIG_HOME", "/c")]), Some("/c/nix/nix.conf".into()));
        assert_eq!(files(&[home, ("NIX_USER_CONF_FILES", "/a:/b")]).len(), 2);
        assert!(files(&[("XDG_CONFIG_HOME", "relative")]).is_empty());
    }

    #[test]
    fn trust_is_by_name_group_star_or_the_store() {
        let machine = Machine {
            uid: 1000,
            user: "ada".into(),
            groups: vec!["wheel".into()],
            is_nixos: false,
            may_write_store: false,
            has_daemon: true,
            nix_version: None,
            system_folder: "/etc/nix".into(),
            user_files: Vec::new(),
        };
        let trusts = |machine: &Machine, users: Option<&[&str]>| {
            let trusted_users =
                users.map(|users| users.iter().map(|it| (*it).to_owned()).collect());
            machine.is_trusted(&Settings { trusted_users, ..Settings::default() })
        };
        assert!(!trusts(&machine, None) && !trusts(&machine, Some(&["root", "bob", "@ada"])));
        for users in [["ada"], ["@wheel"], ["*"]] {
            assert!(trusts(&machine, Some(&users)));
        }
        assert!(trusts(&Machine { uid: 0, ..machine.clone() }, Some(&[])));
        assert!(trusts(&Machine { may_write_store: true, ..machine }, None));
    }
}
