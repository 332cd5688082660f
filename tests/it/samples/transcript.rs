//! A conversation as text: who said which bytes on which stream.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;

const BYTES_OF_A_LINE: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Side {
    Client,
    Box,
}

/// One message with its length.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    /// Streams in the order in which the client opened them.
    pub(super) stream: usize,
    pub(super) by: Side,
    /// For whoever reads it.
    pub(super) note: String,
    pub(super) bytes: Vec<u8>,
}

/// What was said on one connection, in order.
#[derive(Debug, PartialEq)]
pub(super) struct Transcript {
    /// The token in Hello.
    pub(super) token: String,
    pub(super) said: Vec<Said>,
}

impl Transcript {
    /// The text; [`read`](Self::read) reads it.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("# tests/data/README.md says how to read this.\n{}\n", self.token);
        for Said { stream, by, note, bytes } in &self.said {
            let by = if *by == Side::Client { "client" } else { "box" };
            write!(text, "\nstream {stream} {by} # {note}\n").unwrap();
            // The length stands alone.
            writeln!(text, "  {}", HEXLOWER.encode(&bytes[..4])).unwrap();
            for line in bytes[4..].chunks(BYTES_OF_A_LINE) {
                writeln!(text, "  {}", HEXLOWER.encode(line)).unwrap();
            }
        }
        text
    }

    pub(super) fn read(text: &str) -> Self {
        let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let token = lines.next().unwrap().to_owned();
        let mut said: Vec<Said> = Vec::new();
        for line in lines {
            match line.strip_prefix("stream ") {
                Some(head) => said.push(Said::of_head(head)),
                None => {
                    let bytes = HEXLOWER.decode(line.trim().as_bytes()).unwrap();
                    said.last_mut().unwrap().bytes.extend(bytes);
                }
            }
        }
        Self { token, said }
    }
}

impl Said {
    /// What stands behind `stream`, still without bytes.
    fn of_head(head: &str) -> Self {
        let (head, note) = head.split_once(" # ").unwrap();
        let (stream, by) = head.split_once(' ').unwrap();
        let by = match by {
            "client" => Side::Client,
            "box" => Side::Box,
            other => panic!("who is {other}?"),
        };
        Self { stream: stream.parse().unwrap(), by, note: note.to_owned(), bytes: Vec::new() }
    }
}
