//! Writes a NAR token by token; the caller walks whatever tree it has.

use std::io::{self, Read, Write};

use crate::formats::nar::MAGIC;
use crate::formats::nar::token::bytes_u64;

/// Zeros that follow a string of `length` bytes.
#[must_use]
pub fn padding_len(length: u64) -> usize {
    usize::from(u8::try_from(length.wrapping_neg() % 8).unwrap_or(0))
}

/// A NAR on its way out. The calls must nest as the tree does: one node; for a directory
/// [`begin_directory`](Self::begin_directory), then for each entry in byte order
/// [`begin_entry`](Self::begin_entry), the entry's node, [`end_entry`](Self::end_entry), then
/// [`end_directory`](Self::end_directory).
#[derive(Debug)]
pub struct NarWriter<W> {
    out: W,
}

impl<W: Write> NarWriter<W> {
    /// Begins a NAR on `out`, which should be buffered: strings are short.
    ///
    /// # Errors
    ///
    /// Those of `out`, here and in all methods.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out };
        writer.strings(&[MAGIC])?;
        Ok(writer)
    }

    /// A symlink.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn symlink(&mut self, target: &[u8]) -> io::Result<()> {
        self.strings(&[b"(", b"type", b"symlink", b"target", target, b")"])
    }

    /// A regular file of exactly `size` bytes, read from `contents`.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if `contents` ends early; more than `size` bytes are not looked at.
    pub fn regular(
        &mut self,
        executable: bool,
        size: u64,
        contents: &mut dyn Read,
    ) -> io::Result<()> {
        self.begin_regular(executable, size)?;
        if io::copy(&mut contents.take(size), &mut self.out)? < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.end_regular(size)
    }

    /// Opens a regular file of `size` bytes, for a caller that has its contents in pieces: exactly
    /// that many bytes of [`contents`](Self::contents) must follow, then
    /// [`end_regular`](Self::end_regular) with the same size.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn begin_regular(&mut self, executable: bool, size: u64) -> io::Result<()> {
        self.strings(&[b"(", b"type", b"regular"])?;
        if executable {
            self.strings(&[b"executable", b""])?;
        }
        self.strings(&[b"contents"])?;
        self.out.write_all(&size.to_le_bytes())
    }

    /// The next piece of a regular file.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn contents(&mut self, piece: &[u8]) -> io::Result<()> {
        self.out.write_all(piece)
    }

    /// Closes a regular file of `size` bytes.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn end_regular(&mut self, size: u64) -> io::Result<()> {
        self.out.write_all(&[0; 8][..padding_len(size)])?;
        self.strings(&[b")"])
    }

    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn begin_directory(&mut self) -> io::Result<()> {
        self.strings(&[b"(", b"type", b"directory"])
    }

    /// Opens an entry of the directory that was opened last.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn begin_entry(&mut self, name: &[u8]) -> io::Result<()> {
        self.strings(&[b"entry", b"(", b"name", name, b"node"])
    }

    /// Closes an entry.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn end_entry(&mut self) -> io::Result<()> {
        self.strings(&[b")"])
    }

    /// Closes a directory.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn end_directory(&mut self) -> io::Result<()> {
        self.strings(&[b")"])
    }

    /// Gives `out` back; it is not flushed.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn strings(&mut self, strings: &[&[u8]]) -> io::Result<()> {
        for text in strings {
            let length = bytes_u64(text.len());
            self.out.write_all(&length.to_le_bytes())?;
            self.out.write_all(text)?;
            self.out.write_all(&[0; 8][..padding_len(length)])?;
        }
        Ok(())
    }
}
