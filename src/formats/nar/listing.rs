//! The listing of a NAR (`HASH.ls`), written while the NAR passes.
//!
//! Source of the form: `listNar` in `src/libstore/nar-accessor.cc` (Nix 2.8 to 2.32) and
//! `src/libutil/memory-source-accessor/json.cc` (2.33 on): version 1, keys in alphabetical order
//! (as `nlohmann::json` writes them; 2.8 used another order), `executable` only where true (2.35
//! writes it always, and reads both), `narOffset` of a file's contents.

use std::fmt::Write as _;

use crate::formats::limits;
use crate::formats::nar::parser::Event;

/// A listing in the making. Feed it every event of one NAR.
#[derive(Debug)]
pub struct ListingBuilder {
    json: String,
    entries: usize,
    /// For each open directory whether an entry is already in it.
    open: Vec<bool>,
    complete: bool,
}

impl ListingBuilder {
    /// A listing of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { json: String::from("{\"root\":"), entries: 0, open: Vec::new(), complete: true }
    }

    /// Notes one event.
    pub fn note(&mut self, event: Event<'_>) {
        if !self.complete {
            return;
        }
        self.write(event);
        if self.json.len() > limits::LISTING_BYTES_MAX {
            self.give_up();
        }
    }

    fn write(&mut self, event: Event<'_>) {
        match event {
            Event::Directory => {
                self.json.push_str("{\"entries\":{");
                self.open.push(false);
            }
            Event::Entry(name) => self.entry(name),
            Event::EndDirectory => {
                self.open.pop();
                self.json.push_str("},\"type\":\"directory\"}");
            }
            Event::Regular { executable, size, offset } => {
                let executable = if executable { "\"executable\":true," } else { "" };
                // Writing to a string cannot fail.
                let _infallible = write!(
                    self.json,
                    "{{{executable}\"narOffset\":{offset},\"size\":{size},\"type\":\"regular\"}}"
                );
            }
            Event::Contents(_) => {}
            Event::Symlink(target) => {
                self.json.push_str("{\"target\":");
                self.text(target);
                self.json.push_str(",\"type\":\"symlink\"}");
            }
        }
    }

    /// The listing as JSON, or `None` if the NAR has none: a name or target that is not UTF-8, more
    /// than [`limits::LISTING_ENTRIES_MAX`] entries or [`limits::LISTING_BYTES_MAX`] bytes.
    ///
    /// JSON cannot hold bytes that are not UTF-8: Nix 2.8 writes them nevertheless, which no reader
    /// takes for JSON, and later ones throw. Replacing them would tell of files that are not there
    /// and could name two alike; readers of listings live with a path that has none, since Nix by
    /// default writes none.
    #[must_use]
    pub fn finish(mut self) -> Option<String> {
        self.json.push_str(",\"version\":1}");
        self.complete.then_some(self.json)
    }

    fn entry(&mut self, name: &[u8]) {
        self.entries += 1;
        if self.entries > limits::LISTING_ENTRIES_MAX {
            return self.give_up();
        }
        if let Some(has_entries) = self.open.last_mut() {
            if *has_entries {
                self.json.push(',');
            }
            *has_entries = true;
        }
        self.text(name);
        self.json.push(':');
    }

    fn text(&mut self, bytes: &[u8]) {
        match std::str::from_utf8(bytes).map(serde_json::to_string) {
            Ok(Ok(text)) => self.json.push_str(&text),
            _ => self.give_up(),
        }
    }

    fn give_up(&mut self) {
        self.complete = false;
        self.json = String::new();
    }
}

impl Default for ListingBuilder {
    fn default() -> Self {
        Self::new()
    }
}
