//! A strict, streaming, bounded NAR parser that bytes are pushed into.

use crate::formats::limits;
use crate::formats::nar::MAGIC;
use crate::formats::nar::token::{Bound, Collector, NarError, bytes_u64, first_set};

/// What a NAR says, in order. A directory's entries come between its `Directory` and its
/// `EndDirectory`; each is `Entry`, then the events of the node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A directory begins.
    Directory,
    /// The name of the directory entry whose node follows. Any bytes but `/` and NUL.
    Entry(&'a [u8]),
    /// The directory that began last has ended.
    EndDirectory,
    /// A regular file; its contents follow in pieces.
    Regular {
        /// Whether it may be run.
        executable: bool,
        /// Bytes of its contents.
        size: u64,
        /// Where its contents begin in the NAR.
        offset: u64,
    },
    /// Some bytes of the file that began last; never empty.
    Contents(&'a [u8]),
    /// A symlink.
    Symlink(&'a [u8]),
}

/// A NAR on its way in. Memory is bounded by [`limits`] whatever the input says.
#[derive(Debug)]
pub struct NarParser {
    expect: Expect,
    collector: Collector,
    position: u64,
    /// For each open directory the name of its latest entry; empty before the first.
    open: Vec<Vec<u8>>,
}

/// What the grammar allows next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Magic,
    NodeOpen,
    TypeTag,
    TypeValue,
    /// `executable` or `contents`.
    RegularField,
    ExecutableValue,
    ContentsTag,
    ContentsLength {
        executable: bool,
    },
    Contents {
        left: u64,
        padding: usize,
    },
    ContentsPadding {
        left: usize,
    },
    TargetTag,
    TargetValue,
    /// `entry` or `)`.
    EntryOrClose,
    EntryOpen,
    NameTag,
    NameValue,
    NodeTag,
    NodeClose,
    EntryClose,
    End,
}

/// Longest word of the grammar itself.
const WORD: Bound = Bound { what: "a word", max: 32 };
const NAME: Bound = Bound { what: "a file name", max: limits::NAR_NAME_BYTES_MAX };
const TARGET: Bound = Bound { what: "a symlink target", max: limits::NAR_TARGET_BYTES_MAX };

impl NarParser {
    /// A parser that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            expect: Expect::Magic,
            collector: Collector::default(),
            position: 0,
            open: Vec::new(),
        }
    }

    /// Takes the next bytes, in pieces of any size, and tells what they say.
    ///
    /// # Errors
    ///
    /// [`NarError`] as soon as the bytes cannot be a NAR; the parser is of no use after that.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), NarError> {
        let mut input = bytes;
        while !input.is_empty() {
            let before = input.len();
            let result = self.step(&mut input, on_event);
            self.position += bytes_u64(before - input.len());
            result?;
        }
        Ok(())
    }

    /// Checks that the NAR is whole.
    ///
    /// # Errors
    ///
    /// [`NarError::Truncated`] if it is not.
    pub fn finish(self) -> Result<(), NarError> {
        match self.expect {
            Expect::End => Ok(()),
            _ => Err(NarError::Truncated(self.position)),
        }
    }

    /// Bytes taken so far.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    fn step(
        &mut self,
        input: &mut &[u8],
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), NarError> {
        match self.expect {
            Expect::End => Err(NarError::TrailingBytes(self.position)),
            Expect::Contents { left, padding } => {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let (contents, rest) = input.split_at(here);
                on_event(Event::Contents(contents));
                *input = rest;
                self.expect = contents_or_padding(left - bytes_u64(here), padding);
                Ok(())
            }
            Expect::ContentsPadding { left } => {
                let (zeros, rest) = input.split_at(left.min(input.len()));
                if let Some(place) = first_set(zeros) {
                    return Err(NarError::Padding(self.position + bytes_u64(place)));
                }
                *input = rest;
                self.expect = match left - zeros.len() {
                    0 => Expect::NodeClose,
                    left => Expect::ContentsPadding { left },
                };
                Ok(())
            }
            Expect::ContentsLength { executable } => {
                let before = input.len();
                if self.collector.take_length(input) {
                    let size = self.collector.length();
                    let offset = self.position + bytes_u64(before - input.len());
                    self.collector.clear();
                    on_event(Event::Regular { executable, size, offset });
                    self.expect = contents_or_padding(size, super::padding_len(size));
                }
                Ok(())
            }
            _ => self.step_string(input, on_event),
        }
    }

    fn step_string(
        &mut self,
        input: &mut &[u8],
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), NarError> {
        let bound = match self.expect {
            Expect::NameValue => NAME,
            Expect::TargetValue => TARGET,
            _ => WORD,
        };
        let before = input.len();
        if !self.collector.take(input, bound, self.position)? {
            return Ok(());
        }
        let offset = self.position + bytes_u64(before - input.len());
        let collector = std::mem::take(&mut self.collector);
        self.expect = self.after(collector.text(), offset, on_event)?;
        self.collector = collector;
        self.collector.clear();
        Ok(())
    }

    /// What comes after the string `text`, which ends at `offset`.
    fn after(
        &mut self,
        text: &[u8],
        offset: u64,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Expect, NarError> {
        let word = |expected: &'static str, then: Expect| match text == expected.as_bytes() {
            true => Ok(then),
            false => Err(NarError::Grammar { expected, offset }),
        };
        let wrong = |expected| Err(NarError::Grammar { expected, offset });
        match (self.expect, text) {
            (Expect::Magic, MAGIC) => Ok(Expect::NodeOpen),
            (Expect::Magic, _) => wrong("nix-archive-1"),
            (Expect::NodeOpen, _) => word("(", Expect::TypeTag),
            (Expect::TypeTag, _) => word("type", Expect::TypeValue),
            (Expect::TypeValue, b"regular") => Ok(Expect::RegularField),
            (Expect::TypeValue, b"symlink") => Ok(Expect::TargetTag),
            (Expect::TypeValue, b"directory") => self.open_directory(on_event),
            (Expect::TypeValue, _) => wrong("regular, symlink or directory"),
            (Expect::RegularField, b"executable") => Ok(Expect::ExecutableValue),
            (Expect::RegularField, b"contents") => Ok(Expect::ContentsLength { executable: false }),
            (Expect::RegularField, _) => wrong("executable or contents"),
            (Expect::ExecutableValue, b"") => Ok(Expect::ContentsTag),
            (Expect::ExecutableValue, _) => wrong("an empty string behind executable"),
            (Expect::ContentsTag, _) => {
                word("contents", Expect::ContentsLength { executable: true })
            }
            (Expect::TargetTag, _) => word("target", Expect::TargetValue),
            (Expect::TargetValue, target) => {
                if target.is_empty() || target.contains(&0) {
                    return Err(NarError::Target);
                }
                on_event(Event::Symlink(target));
                Ok(Expect::NodeClose)
            }
            (Expect::EntryOrClose, b"entry") => Ok(Expect::EntryOpen),
            (Expect::EntryOrClose, b")") => {
                self.open.pop();
                on_event(Event::EndDirectory);
                Ok(self.after_node())
            }
            (Expect::EntryOrClose, _) => wrong("entry or )"),
            (Expect::EntryOpen, _) => word("(", Expect::NameTag),
            (Expect::NameTag, _) => word("name", Expect::NameValue),
            (Expect::NameValue, name) => {
                self.enter(name)?;
                on_event(Event::Entry(name));
                Ok(Expect::NodeTag)
            }
            (Expect::NodeTag, _) => word("node", Expect::NodeOpen),
            (Expect::NodeClose, _) => word(")", self.after_node()),
            (Expect::EntryClose, _) => word(")", Expect::EntryOrClose),
            (
                Expect::ContentsLength { .. }
                | Expect::Contents { .. }
                | Expect::ContentsPadding { .. }
                | Expect::End,
                _,
            ) => wrong("no string"),
        }
    }

    fn open_directory(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<Expect, NarError> {
        if self.open.len() >= limits::NAR_DEPTH_MAX {
            return Err(NarError::Depth);
        }
        self.open.push(Vec::new());
        on_event(Event::Directory);
        Ok(Expect::EntryOrClose)
    }

    fn after_node(&self) -> Expect {
        if self.open.is_empty() { Expect::End } else { Expect::EntryClose }
    }

    /// Checks a name against the rules and against the entry before it.
    fn enter(&mut self, name: &[u8]) -> Result<(), NarError> {
        let shown = || name.escape_ascii().to_string();
        if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err(NarError::Name(shown()));
        }
        if let Some(latest) = self.open.last_mut() {
            if name <= latest.as_slice() {
                return Err(NarError::Order(shown()));
            }
            latest.clear();
            latest.extend_from_slice(name);
        }
        Ok(())
    }
}

impl Default for NarParser {
    fn default() -> Self {
        Self::new()
    }
}

fn contents_or_padding(left: u64, padding: usize) -> Expect {
    match (left, padding) {
        (0, 0) => Expect::NodeClose,
        (0, left) => Expect::ContentsPadding { left },
        (left, padding) => Expect::Contents { left, padding },
    }
}
