//! What Nix's configuration says, as far as `larder use` depends on it, with all that it includes.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::client::nix_config::conf::{Directive, directives};
use crate::client::nix_config::error::NixConfigError;

/// Largest file that is read, in bytes; Nix's own are some kilobytes.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;

/// The settings' older names, which Nix still takes (`aliases` in `src/libstore/globals.hh`,
/// Nix 2.8 to 2.34).
const OLD_NAMES: [(&str, &str); 3] = [
    ("binary-caches", "substituters"),
    ("binary-cache-public-keys", "trusted-public-keys"),
    ("trusted-binary-caches", "trusted-substituters"),
];

/// The settings that count, as Nix would have them after reading some files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) substituters: Vec<String>,
    pub(super) trusted_public_keys: Vec<String>,
    pub(super) trusted_substituters: Vec<String>,
    /// `None`: Nix's default, `root`.
    pub(super) trusted_users: Option<Vec<String>>,
    pub(super) netrc_file: Option<PathBuf>,
}

impl Settings {
    /// Reads files, the later ones over the earlier; those that are not there say nothing.
    ///
    /// # Errors
    ///
    /// [`NixConfigError::Read`], [`TooLarge`](NixConfigError::TooLarge) and
    /// [`Circle`](NixConfigError::Circle).
    pub(super) fn read(files: &[PathBuf]) -> Result<Self, NixConfigError> {
        let mut settings = Self::default();
        for file in files {
            settings.add_file(file, None, &mut Vec::new())?;
        }
        Ok(settings)
    }

    /// The same over a text that stands, or will stand, in `file`.
    pub(super) fn add_text(&mut self, file: &Path, text: &[u8]) -> Result<(), NixConfigError> {
        self.add(file, text, &mut vec![file.to_owned()])
    }

    fn add_file(
        &mut self,
        file: &Path,
        must_exist: Option<&Path>,
        open: &mut Vec<PathBuf>,
    ) -> Result<(), NixConfigError> {
        if open.iter().any(|other| other == file) {
            let by = open.last().cloned().unwrap_or_default();
            return Err(NixConfigError::Circle { path: file.to_owned(), by });
        }
        let Some(text) = read(file)? else {
            let source = io::ErrorKind::NotFound.into();
            let path = file.to_owned();
            return must_exist.map_or(Ok(()), |_by| Err(NixConfigError::Read { path, source }));
        };
        open.push(file.to_owned());
        self.add(file, &text, open)?;
        open.pop();
        Ok(())
    }

    fn add(
        &mut self,
        file: &Path,
        text: &[u8],
        open: &mut Vec<PathBuf>,
    ) -> Result<(), NixConfigError> {
        for directive in directives(text) {
            match directive {
                Directive::Include { path, must_exist } => {
                    let included = file.parent().unwrap_or(Path::new("/")).join(path);
                    self.add_file(&included, must_exist.then_some(file), open)?;
                }
                Directive::Set { name, adds, values } => self.set(&name, adds, values),
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, adds: bool, values: Vec<String>) {
        let old = OLD_NAMES.iter().find(|(old, _)| *old == name);
        match old.map_or(name, |(_, name)| name) {
            "substituters" => put(&mut self.substituters, adds, values),
            "trusted-public-keys" => put(&mut self.trusted_public_keys, adds, values),
            "trusted-substituters" => put(&mut self.trusted_substituters, adds, values),
            "trusted-users" => {
                let default = || vec!["root".to_owned()];
                put(self.trusted_users.get_or_insert_with(default), adds, values);
            }
            "netrc-file" => self.netrc_file = values.into_iter().next().map(PathBuf::from),
            _ => {}
        }
    }

    /// Whether Nix asks that substituter already.
    pub(super) fn has_substituter(&self, url: &str) -> bool {
        self.substituters.iter().any(|known| is_same(known, url))
    }

    /// Whether users who are not trusted may ask it.
    pub(super) fn allows_everybody(&self, url: &str) -> bool {
        let allowed = self.trusted_substituters.iter().chain(&self.substituters);
        allowed.into_iter().any(|known| is_same(known, url))
    }

    /// Whether Nix takes what is signed by that key already.
    pub(super) fn trusts(&self, key: &str) -> bool {
        self.trusted_public_keys.iter().any(|known| known == key)
    }
}

fn is_same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

fn put(list: &mut Vec<String>, adds: bool, values: Vec<String>) {
    if !adds {
        list.clear();
    }
    list.extend(values);
}

/// A file's bytes, or nothing if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, NixConfigError> {
    let failed = |source| NixConfigError::Read { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            return Err(NixConfigError::TooLarge(path.to_owned()));
        }
        Ok(_) => {}
    }
    fs::read(path).map(Some).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn later_lines_win_includes_count_and_old_names_are_known() {
        let folder = folder(&[
            (
                "nix.conf",
                "substituters = a\nbinary-caches = b c\n!include none\ninclude more\nextra-substituters = e",
            ),
            ("more", "extra-binary-caches = d/\nextra-trusted-users = me @us\nnetrc-file = /n"),
            ("user", "extra-trusted-public-keys = k\n"),
        ]);
        let files = ["nix.conf", "user", "absent"].map(|name| folder.path().join(name));
        let settings = Settings::read(&files).unwrap();
        assert_eq!(settings.substituters, ["b", "c", "d/", "e"]);
        assert!(settings.has_substituter("d") && !settings.has_substituter("a"));
        assert_eq!(settings.trusted_users.as_ref().unwrap(), &["root", "me", "@us"]);
        assert_eq!(settings.netrc_file, Some("/n".into()));
        assert!(settings.trusts("k"));
    }

    #[test]
    fn a_circle_is_named_and_a_missing_include_too() {
        let circle = folder(&[("a", "include b"), ("b", "x = y\ninclude a")]);
        let error = Settings::read(&[circle.path().join("a")]).unwrap_err();
        assert!(
            matches!(&error, NixConfigError::Circle { path, .. } if path.ends_with("a")),
            "{error}"
        );
        let missing = folder(&[("a", "include gone")]);
        let error = Settings::read(&[missing.path().join("a")]).unwrap_err();
        assert!(error.to_string().ends_with("gone"), "{error}");
    }

    #[test]
    fn a_large_file_is_read_and_a_huge_one_is_not() {
        let folder = folder(&[("large", &"# note\n".repeat(150_000))]);
        let huge = folder.path().join("huge");
        fs::File::create(&huge).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(Settings::read(&[folder.path().join("large")]).is_ok());
        assert!(matches!(Settings::read(&[huge]), Err(NixConfigError::TooLarge(_))));
    }
}
