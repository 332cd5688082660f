//! Pins, as administration shows and takes them.

use serde::{Deserialize, Serialize};

use crate::formats::{FilePath, Keep, PinName};

/// A revision of a pin, as the box shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinFacts {
    /// The pin's name.
    pub name: String,
    /// From 1; never given twice.
    pub revision: u32,
    /// The path that it holds.
    pub path: String,
    /// Files of it that have a URL under the pin's name.
    pub artifacts: Vec<ArtifactFacts>,
    /// How long revisions of that name stay, if this is the newest.
    pub keep: Keep,
    /// Seconds since 1970.
    pub pinned_at: u64,
    /// The number of the token that it was made with; 0: nobody knows.
    pub token: i64,
    /// What the token is called, if it is still known.
    pub token_label: Option<String>,
}

/// A file that has a URL under a pin's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactFacts {
    /// Its path inside the pinned one.
    pub file: String,
    /// Its place under the box's URL, such as `/main/pin/release/bin/tool`.
    pub url_path: String,
}

/// A pin to be made.
#[derive(Clone, Debug, Serialize)]
pub struct NewPin {
    /// Its name.
    pub name: PinName,
    /// The path, absolute.
    pub path: String,
    /// Files of it that are to have a URL.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<FilePath>,
    /// How long revisions of that name stay.
    pub keep: Keep,
}

/// A page of the pins of a cache.
#[derive(Clone, Debug, Deserialize)]
pub struct PinPage {
    /// By name, of each the newest first.
    pub pins: Vec<PinFacts>,
    /// Where the next page begins, if there may be one.
    pub next: Option<String>,
}

/// What was removed.
#[derive(Deserialize)]
pub(super) struct Removed {
    pub(super) revisions: u64,
}
