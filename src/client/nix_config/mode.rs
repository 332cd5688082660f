//! Where Nix is configured: the machine, the user, a NixOS module, or a folder.

use std::path::PathBuf;

use crate::client::nix_config::machine::Machine;
use crate::client::nix_config::settings::Settings;

/// What is written, as `--mode` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A module for NixOS.
    Nixos,
    /// The machine's `nix.conf`.
    RootNixconf,
    /// The user's `nix.conf`.
    UserNixconf,
    /// A `nix.conf` and a netrc in a folder that was named.
    Directory,
}

impl Mode {
    /// As it is said on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nixos => "nixos",
            Self::RootNixconf => "root-nixconf",
            Self::UserNixconf => "user-nixconf",
            Self::Directory => "output-directory",
        }
    }
}

/// What was said of the place on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// `--mode`.
    pub mode: Option<Mode>,
    /// `--nixos-folder`.
    pub nixos_folder: Option<PathBuf>,
    /// `--output-directory`.
    pub directory: Option<PathBuf>,
}

/// Where NixOS has its configuration unless told otherwise.
pub(super) const NIXOS_FOLDER: &str = "/etc/nixos";

/// Nix may not be configured by this user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoMode {
    /// On NixOS only its configuration helps.
    #[error("this is NixOS, and Nix does not let {NOT_TRUSTED}")]
    Nixos,
    /// Elsewhere root can do it.
    #[error("Nix does not let {NOT_TRUSTED}")]
    NotTrusted,
    /// The user has no files.
    #[error("you have no nix.conf of your own: neither XDG_CONFIG_HOME nor HOME is set")]
    NoHome,
}

const NOT_TRUSTED: &str = "you choose substituters: you are not one of its trusted-users";

/// Says where: what was wished; else for root the NixOS module or the machine's file; else the
/// user's own file, if Nix heeds what stands there. `is_allowed` is whether it heeds these
/// substituters and keys from anybody.
///
/// # Errors
///
/// [`NoMode`] if nothing that this user can write would be heeded.
pub(super) fn choose(
    wish: &Wish,
    machine: &Machine,
    system: &Settings,
    is_allowed: bool,
) -> Result<Mode, NoMode> {
    let mode = match wish {
        Wish { directory: Some(_), .. } => Mode::Directory,
        Wish { mode: Some(mode), .. } => *mode,
        Wish { nixos_folder: Some(_), .. } => Mode::Nixos,
        _ if machine.is_root() && machine.is_nixos => Mode::Nixos,
        _ if machine.is_root() => Mode::RootNixconf,
        _ if machine.is_trusted(system) || is_allowed => Mode::UserNixconf,
        _ if machine.is_nixos => return Err(NoMode::Nixos),
        _ => return Err(NoMode::NotTrusted),
    };
    if mode == Mode::UserNixconf && machine.user_files.is_empty() {
        return Err(NoMode::NoHome);
    }
    Ok(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(uid: u32, is_nixos: bool) -> Machine {
        Machine {
            uid,
            user: "ada".into(),
            groups: Vec::new(),
            is_nixos,
            may_write_store: false,
            has_daemon: true,
            nix_version: None,
            system_folder: "/etc/nix".into(),
            user_files: vec!["/h/nix.conf".into()],
        }
    }

    #[test]
    fn what_was_said_counts_and_else_the_machine() {
        let nothing = Wish::default();
        let system = Settings::default();
        let trusting = Settings { trusted_users: Some(vec!["ada".into()]), ..Settings::default() };
        let root = machine(0, false);
        assert_eq!(choose(&nothing, &root, &system, false), Ok(Mode::RootNixconf));
        assert_eq!(choose(&nothing, &machine(0, true), &system, false), Ok(Mode::Nixos));
        let (ada, on_nixos) = (machine(1000, false), machine(1000, true));
        assert_eq!(choose(&nothing, &ada, &trusting, false), Ok(Mode::UserNixconf));
        assert_eq!(choose(&nothing, &on_nixos, &trusting, false), Ok(Mode::UserNixconf));
        assert_eq!(choose(&nothing, &ada, &system, true), Ok(Mode::UserNixconf));
        assert_eq!(choose(&nothing, &ada, &system, false), Err(NoMode::NotTrusted));
        assert_eq!(choose(&nothing, &on_nixos, &system, false), Err(NoMode::Nixos));
        let said = Wish { mode: Some(Mode::UserNixconf), ..Wish::default() };
        assert_eq!(choose(&said, &ada, &system, false), Ok(Mode::UserNixconf));
        let homeless = Machine { user_files: Vec::new(), ..ada };
        assert_eq!(choose(&said, &homeless, &system, false), Err(NoMode::NoHome));
        let folder = Wish { directory: Some("/x".into()), ..said };
        assert_eq!(choose(&folder, &homeless, &system, false), Ok(Mode::Directory));
    }
}
