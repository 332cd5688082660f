//! Where the client keeps its own files.
//!
//! Source of the folders: the XDG Base Directory Specification 0.8; a variable that is not an
//! absolute path counts as unset there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The client's own files, and the data folder of a box that was started here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Default host and saved tokens; see [`ClientConfig`](crate::client::config::ClientConfig).
    pub config_file: PathBuf,
    /// The device key; see [`device_key`](crate::client::device_key).
    pub device_key_file: PathBuf,
    /// Saved signing keys; see [`signing_keys`](crate::client::signing_keys).
    pub signing_keys_folder: PathBuf,
    /// [`BOX_FOLDER`].
    pub box_folder: PathBuf,
}

/// Where `larder serve` keeps its data when nobody says otherwise: in the current folder.
pub const BOX_FOLDER: &str = "larder-data";

/// There is nowhere to keep anything.
#[derive(Debug, thiserror::Error)]
#[error("no folder for larder's own files is known: neither HOME nor {0} is set")]
pub struct NoHome(&'static str);

impl Places {
    /// The places that the environment says; `config_file` wins over `LARDER_CONFIG`.
    ///
    /// # Errors
    ///
    /// [`NoHome`] if neither the variables for it nor `HOME` are set.
    pub fn new(
        config_file: Option<&Path>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, NoHome> {
        let folder = |name: &'static str, below_home: &str| {
            let absolute = |name| variable(name).map(PathBuf::from).filter(|it| it.is_absolute());
            let home = || absolute("HOME").map(|home| home.join(below_home));
            absolute(name).or_else(home).ok_or(NoHome(name))
        };
        let configured = config_file
            .map(Path::to_owned)
            .or_else(|| variable("LARDER_CONFIG").filter(|it| !it.is_empty()).map(PathBuf::from));
        let config_file = match configured {
            Some(file) => file,
            None => folder("XDG_CONFIG_HOME", ".config")?.join("larder/client.toml"),
        };
        let data = folder("XDG_DATA_HOME", ".local/share")?;
        let beside = config_file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let signing_keys_folder = beside.unwrap_or(Path::new(".")).join("keys");
        Ok(Self {
            config_file,
            signing_keys_folder,
            device_key_file: data.join("larder/device.key"),
            box_folder: PathBuf::from(BOX_FOLDER),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(variables: &[(&str, &str)], option: Option<&str>) -> Option<(String, String)> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let places = Places::new(option.map(Path::new), variable).ok()?;
        let text = |path: PathBuf| path.display().to_string();
        Some((text(places.config_file), text(places.device_key_file)))
    }

    #[test]
    fn the_nearest_word_wins() {
        let home = ("HOME", "/h");
        let expected = |config: &str, key: &str| Some((config.to_owned(), key.to_owned()));
        assert_eq!(
            places(&[home], None),
            expected("/h/.config/larder/client.toml", "/h/.local/share/larder/device.key")
        );
        assert_eq!(
            places(&[home, ("XDG_CONFIG_HOME", "/c"), ("XDG_DATA_HOME", "/d")], None),
            expected("/c/larder/client.toml", "/d/larder/device.key")
        );
        assert_eq!(
            places(&[home, ("XDG_CONFIG_HOME", "relative"), ("LARDER_CONFIG", "my.toml")], None),
            expected("my.toml", "/h/.local/share/larder/device.key")
        );
        assert_eq!(
            places(&[home, ("LARDER_CONFIG", "/e.toml")], Some("/o.toml")),
            expected("/o.toml", "/h/.local/share/larder/device.key")
        );
    }

    #[test]
    fn without_a_home_it_says_what_to_set() {
        assert_eq!(places(&[("LARDER_CONFIG", "/e.toml")], None), None);
        assert!(places(&[("LARDER_CONFIG", "/e.toml"), ("XDG_DATA_HOME", "/d")], None).is_some());
    }
}
