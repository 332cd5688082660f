//! Where the local Nix store is, by the variables that Nix reads.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::client::nix_store::error::NixStoreError;
use crate::formats::StorePath;
use crate::formats::store_path::STORE_DIR;

/// Where Nix keeps its state unless told otherwise.
const STATE_DIR: &str = "/nix/var/nix";

/// Where Nix keeps build logs unless told otherwise.
const LOG_DIR: &str = "/nix/var/log/nix";

/// Where the Nix daemon listens, below the folder of Nix's state.
const SOCKET: &str = "daemon-socket/socket";

/// A local Nix store: its folders, and who knows what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The folder that holds `db/`.
    state: PathBuf,
    /// The folder that holds what is called [`STORE_DIR`] inside the store.
    real: PathBuf,
    /// The folder that holds `drvs/`.
    logs: PathBuf,
    access: Access,
}

/// Who is asked for the facts about paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Database,
    /// The daemon that listens here.
    Daemon(PathBuf),
    /// The database; the daemon that listens here where that cannot be read. They know the same.
    Either(PathBuf),
}

/// What comes before the question mark in `NIX_REMOTE`.
enum Kind {
    Auto,
    Daemon,
    Local,
    Unix(PathBuf),
}

impl Location {
    /// Reads the variables through `variable`, such as `std::env::var_os`.
    ///
    /// - `NIX_STORE_DIR` (`NIX_STORE` if that is unset) must be [`STORE_DIR`] where it is set.
    /// - `NIX_STATE_DIR` replaces `/nix/var/nix`, and `NIX_DAEMON_SOCKET_PATH` the socket
    ///   `daemon-socket/socket` in it.
    /// - `NIX_LOG_DIR` replaces `/nix/var/log/nix`, except below a `root`.
    /// - `NIX_REMOTE` is empty or `auto`: the machine's store, by its database, or by the daemon
    ///   where that cannot be read. `local`: the database alone. `daemon` or `unix://`: as `auto`,
    ///   but the daemon alone where `NIX_DAEMON_SOCKET_PATH` says which. `unix:///SOCKET`: that
    ///   daemon alone, for it may have a store of its own.
    /// - All of these take parameters behind a `?`: `root`, `state`, `real` and `store` as Nix
    ///   means them. An absolute folder is `local` with that `root`, as is `local:///FOLDER`.
    ///
    /// Not read: `nix.conf` (its `store` setting), `NIX_DB_DIR` (gone since Nix 2.0), a relative
    /// folder in `NIX_REMOTE`, and other parameters, which are overlooked. `ssh://…`, `https://…`
    /// and the like are refused.
    ///
    /// Source: `LocalFSStoreConfig` in `src/libstore/local-fs-store.hh`, `openStore` in
    /// `src/libstore/store-api.cc` (Nix 2.8 and 2.34), `getDaemonSocketPath` in
    /// `uds-remote-store.cc` (Nix 2.34), `nixDaemonSocketFile` in `globals.cc` (Nix 2.8).
    ///
    /// # Errors
    ///
    /// [`NixStoreError::Remote`] and [`NixStoreError::StoreDir`].
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, NixStoreError> {
        let folder = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let remote = variable("NIX_REMOTE").unwrap_or_default();
        let (kind, parameters) = Parameters::of_remote(remote.as_bytes())?;
        let store = parameters.store.clone();
        let store = store.or_else(|| folder("NIX_STORE_DIR")).or_else(|| folder("NIX_STORE"));
        if let Some(other) = store.filter(|store| store != Path::new(STORE_DIR)) {
            return Err(NixStoreError::StoreDir(other));
        }
        let state_folder = folder("NIX_STATE_DIR").unwrap_or_else(|| PathBuf::from(STATE_DIR));
        let below_root = |below: &str| parameters.root.as_ref().map(|root| root.join(below));
        let state = parameters.state.clone().or_else(|| below_root("nix/var/nix"));
        let state = state.unwrap_or(state_folder);
        let real = parameters.real.clone().or_else(|| below_root("nix/store"));
        let real = real.unwrap_or_else(|| PathBuf::from(STORE_DIR));
        let access = match (kind, folder("NIX_DAEMON_SOCKET_PATH")) {
            (Kind::Local, _) => Access::Database,
            (Kind::Unix(socket), _) | (Kind::Daemon, Some(socket)) => Access::Daemon(socket),
            (Kind::Auto, Some(socket)) => Access::Either(socket),
            (Kind::Auto | Kind::Daemon, None) => Access::Either(state.join(SOCKET)),
        };
        let logs = below_root("nix/var/log/nix").or_else(|| folder("NIX_LOG_DIR"));
        let logs = logs.unwrap_or_else(|| PathBuf::from(LOG_DIR));
        Ok(Self { state, real, logs, access })
    }

    /// Where the Nix daemon would listen; `None` for a store without one.
    #[must_use]
    pub fn daemon_socket(&self) -> Option<&Path> {
        match &self.access {
            Access::Database => None,
            Access::Daemon(socket) | Access::Either(socket) => Some(socket),
        }
    }

    pub(super) const fn access(&self) -> &Access {
        &self.access
    }

    pub(super) fn database_folder(&self) -> PathBuf {
        self.state.join("db")
    }

    /// Where the files of `path` are.
    #[must_use]
    pub fn folder(&self, path: &StorePath) -> PathBuf {
        self.real.join(path.base_name())
    }

    /// The folder of the build logs.
    pub(super) fn logs(&self) -> &Path {
        &self.logs
    }

    /// The folder that holds all store paths.
    #[must_use]
    pub fn real_store(&self) -> &Path {
        &self.real
    }
}

/// What stands behind the question mark in `NIX_REMOTE`.
#[derive(Default)]
struct Parameters {
    root: Option<PathBuf>,
    state: Option<PathBuf>,
    real: Option<PathBuf>,
    store: Option<PathBuf>,
}

impl Parameters {
    fn of_remote(remote: &[u8]) -> Result<(Kind, Self), NixStoreError> {
        let mut halves = remote.splitn(2, |byte| *byte == b'?');
        let address = halves.next().unwrap_or_default();
        let mut parameters = Self::default();
        for pair in halves.next().unwrap_or_default().split(|byte| *byte == b'&') {
            let mut sides = pair.splitn(2, |byte| *byte == b'=');
            let name = sides.next().unwrap_or_default();
            let value = Some(unescaped(sides.next().unwrap_or_default()))
                .filter(|value| !value.as_os_str().is_empty());
            match name {
                b"root" => parameters.root = value,
                b"state" => parameters.state = value,
                b"real" => parameters.real = value,
                b"store" => parameters.store = value,
                _ => {}
            }
        }
        let kind = match address {
            b"" | b"auto" => Kind::Auto,
            b"daemon" | b"unix://" => Kind::Daemon,
            b"local" | b"local://" => Kind::Local,
            [b'/', ..] => {
                parameters.root = Some(PathBuf::from(OsString::from_vec(address.to_vec())));
                Kind::Local
            }
            _ => match (address.strip_prefix(b"unix://"), address.strip_prefix(b"local://")) {
                (Some(socket @ [b'/', ..]), _) => Kind::Unix(unescaped(socket)),
                (_, Some(root @ [b'/', ..])) => {
                    parameters.root = Some(unescaped(root));
                    Kind::Local
                }
                _ => {
                    return Err(NixStoreError::Remote(
                        String::from_utf8_lossy(remote).into_owned(),
                    ));
                }
            },
        };
        Ok((kind, parameters))
    }
}

/// Undoes percent-encoding; what is none stays as it is.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let code = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.filter(|_| *first == b'%');
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(variables: &[(&str, &str)]) -> Result<Location, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Location::from_variables(variable).map_err(|error| error.to_string())
    }

    fn at(state: &str, real: &str, access: Access) -> Result<Location, String> {
        let root = real.strip_suffix("/nix/store").unwrap_or_default();
        let logs = format!("{root}{LOG_DIR}").into();
        Ok(Location { state: state.into(), real: real.into(), logs, access })
    }

    fn either(socket: &str) -> Access {
        Access::Either(socket.into())
    }

    fn daemon(socket: &str) -> Access {
        Access::Daemon(socket.into())
    }

    const MACHINES_SOCKET: &str = "/nix/var/nix/daemon-socket/socket";

    #[test]
    fn the_machines_store_needs_no_variable() {
        let plain = at("/nix/var/nix", "/nix/store", either(MACHINES_SOCKET));
        assert_eq!(location(&[]), plain);
        for remote in ["", "auto", "daemon", "unix://", "auto?trusted=1"] {
            assert_eq!(location(&[("NIX_REMOTE", remote)]), plain, "{remote}");
        }
        assert_eq!(
            location(&[("NIX_STATE_DIR", "/s")]),
            at("/s", "/nix/store", either("/s/daemon-socket/socket"))
        );
        assert_eq!(location(&[("NIX_STORE_DIR", "/nix/store")]), plain);
    }

    #[test]
    fn who_names_the_database_or_a_daemon_gets_that_alone() {
        for remote in ["local", "local://", "local?trusted=1"] {
            let database = at("/nix/var/nix", "/nix/store", Access::Database);
            assert_eq!(location(&[("NIX_REMOTE", remote)]), database, "{remote}");
        }
        let socket = ("NIX_DAEMON_SOCKET_PATH", "/run/s");
        let of = |remote| location(&[("NIX_REMOTE", remote), socket]);
        let machines = |access| at("/nix/var/nix", "/nix/store", access);
        assert_eq!(of("auto"), machines(either("/run/s")));
        assert_eq!(of("local"), machines(Access::Database));
        assert_eq!(of("daemon"), machines(daemon("/run/s")));
        assert_eq!(of("unix://"), machines(daemon("/run/s")));
        assert_eq!(of("unix:///run/o%20r"), machines(daemon("/run/o r")));
        let rooted = at("/r/nix/var/nix", "/r/nix/store", daemon("/run/t"));
        assert_eq!(of("unix:///run/t?root=/r"), rooted);
    }

    #[test]
    fn a_root_moves_both_folders() {
        let moved = at("/r x/nix/var/nix", "/r x/nix/store", Access::Database);
        for remote in [
            "local?root=/r x",
            "local?root=%2fr%20x",
            "local://?a=b&root=/r x",
            "/r x",
            "local:///r%20x",
        ] {
            let variables = [("NIX_REMOTE", remote), ("NIX_STATE_DIR", "/s")];
            assert_eq!(location(&variables), moved, "{remote}");
        }
        let remote = "local?store=/nix/store&state=/s&real=/t%";
        assert_eq!(location(&[("NIX_REMOTE", remote)]), at("/s", "/t%", Access::Database));
        let remote = "local?root=/r&state=/s";
        let half = at("/s", "/r/nix/store", Access::Database);
        assert_eq!(location(&[("NIX_REMOTE", remote)]), half);
        for remote in ["daemon?root=/r", "auto?root=/r"] {
            let socket = "/r/nix/var/nix/daemon-socket/socket";
            let rooted = at("/r/nix/var/nix", "/r/nix/store", either(socket));
            assert_eq!(location(&[("NIX_REMOTE", remote)]), rooted);
        }
    }

    #[test]
    fn other_stores_are_refused() {
        for remote in
            ["unix://run/x", "ssh://host", "https://cache", "dummy://", "folder", "local://f"]
        {
            assert!(location(&[("NIX_REMOTE", remote)]).unwrap_err().contains(remote));
        }
        for variables in [[("NIX_STORE_DIR", "/gnu")], [("NIX_REMOTE", "local?store=/gnu")]] {
            assert!(location(&variables).unwrap_err().contains("/gnu"));
        }
    }
}
