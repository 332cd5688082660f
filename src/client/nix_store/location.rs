//! Where the local Nix store is, by the variables that Nix reads.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::client::nix_store::error::NixStoreError;
use crate::formats::StorePath;
use crate::formats::store_path::STORE_DIR;

/// Where Nix keeps its state unless told otherwise.
const STATE_DIR: &str = "/nix/var/nix";

/// The folders of a local Nix store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The folder that holds `db/`.
    state: PathBuf,
    /// The folder that holds what is called [`STORE_DIR`] inside the store.
    real: PathBuf,
}

impl Location {
    /// Reads the variables through `variable`, such as `std::env::var_os`.
    ///
    /// - `NIX_STORE_DIR` (`NIX_STORE` if that is unset) must be [`STORE_DIR`] where it is set.
    /// - `NIX_STATE_DIR` replaces `/nix/var/nix`.
    /// - `NIX_REMOTE` is empty, `auto`, `local` or `daemon`: the machine's store, whose database is
    ///   read whether a daemon runs or not. Or `local?…` (also `local://?…`) with `root`, `state`,
    ///   `real` and `store` as Nix means them; or an absolute folder, which means `root`.
    ///
    /// Not read: `nix.conf` (its `store` setting), `NIX_DB_DIR` (gone since Nix 2.0), a relative
    /// folder in `NIX_REMOTE`, and other parameters, which are overlooked. A daemon at an address
    /// of its own (`unix://…`), `ssh://…`, `https://…` and the like are refused.
    ///
    /// Source: `LocalFSStoreConfig` in `src/libstore/local-fs-store.hh` and `openStore` in
    /// `src/libstore/store-api.cc` (Nix 2.8 and 2.34).
    ///
    /// # Errors
    ///
    /// [`NixStoreError::Remote`] and [`NixStoreError::StoreDir`].
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, NixStoreError> {
        let folder = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let mut parameters = match variable("NIX_REMOTE") {
            Some(remote) => Parameters::of_remote(remote.as_bytes())?,
            None => Parameters::default(),
        };
        let state_folder = folder("NIX_STATE_DIR").unwrap_or_else(|| PathBuf::from(STATE_DIR));
        let store = parameters.store.take();
        let store = store.or_else(|| folder("NIX_STORE_DIR")).or_else(|| folder("NIX_STORE"));
        if let Some(other) = store.filter(|store| store != Path::new(STORE_DIR)) {
            return Err(NixStoreError::StoreDir(other));
        }
        let below_root = |below: &str| parameters.root.as_ref().map(|root| root.join(below));
        let state = below_root("nix/var/nix").unwrap_or(state_folder);
        let real = below_root("nix/store").unwrap_or_else(|| PathBuf::from(STORE_DIR));
        Ok(Self { state: parameters.state.unwrap_or(state), real: parameters.real.unwrap_or(real) })
    }

    pub(super) fn database_folder(&self) -> PathBuf {
        self.state.join("db")
    }

    /// Where the files of `path` are.
    #[must_use]
    pub fn folder(&self, path: &StorePath) -> PathBuf {
        self.real.join(path.base_name())
    }

    /// The folder that holds all store paths.
    pub(super) fn real_store(&self) -> &Path {
        &self.real
    }
}

/// What stands behind the question mark of a local store's URL.
#[derive(Default)]
struct Parameters {
    root: Option<PathBuf>,
    state: Option<PathBuf>,
    real: Option<PathBuf>,
    store: Option<PathBuf>,
}

impl Parameters {
    fn of_remote(remote: &[u8]) -> Result<Self, NixStoreError> {
        let mut halves = remote.splitn(2, |byte| *byte == b'?');
        let kind = halves.next().unwrap_or_default();
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
        match kind {
            b"" | b"auto" | b"local" | b"local://" | b"daemon" => {}
            [b'/', ..] => parameters.root = Some(PathBuf::from(OsString::from_vec(kind.to_vec()))),
            _ => return Err(NixStoreError::Remote(String::from_utf8_lossy(remote).into_owned())),
        }
        Ok(parameters)
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

    fn at(state: &str, real: &str) -> Result<Location, String> {
        Ok(Location { state: state.into(), real: real.into() })
    }

    #[test]
    fn the_machines_store_needs_no_variable() {
        let plain = at("/nix/var/nix", "/nix/store");
        assert_eq!(location(&[]), plain);
        for remote in ["", "auto", "local", "local://", "daemon", "local?trusted=1"] {
            assert_eq!(location(&[("NIX_REMOTE", remote)]), plain, "{remote}");
        }
        assert_eq!(location(&[("NIX_STATE_DIR", "/s")]), at("/s", "/nix/store"));
        assert_eq!(location(&[("NIX_STORE_DIR", "/nix/store")]), plain);
    }

    #[test]
    fn a_root_moves_both_folders() {
        let moved = at("/r x/nix/var/nix", "/r x/nix/store");
        for remote in ["local?root=/r x", "local?root=%2fr%20x", "local://?a=b&root=/r x", "/r x"] {
            let variables = [("NIX_REMOTE", remote), ("NIX_STATE_DIR", "/s")];
            assert_eq!(location(&variables), moved, "{remote}");
        }
        let remote = "local?store=/nix/store&state=/s&real=/t%";
        assert_eq!(location(&[("NIX_REMOTE", remote)]), at("/s", "/t%"));
        let remote = "local?root=/r&state=/s";
        assert_eq!(location(&[("NIX_REMOTE", remote)]), at("/s", "/r/nix/store"));
    }

    #[test]
    fn other_stores_are_refused() {
        for remote in ["unix:///run/x", "ssh://host", "https://cache", "dummy://", "folder"] {
            assert!(location(&[("NIX_REMOTE", remote)]).unwrap_err().contains(remote));
        }
        for variables in [[("NIX_STORE_DIR", "/gnu")], [("NIX_REMOTE", "local?store=/gnu")]] {
            assert!(location(&variables).unwrap_err().contains("/gnu"));
        }
    }
}
