//! The only place that prints: data to standard output, talk and progress to standard error.

use std::env;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::cli::args::{Color, Global};
use crate::cli::progress::Progress;

/// How to print.
#[derive(Clone, Debug)]
pub(super) struct Output {
    json: bool,
    quiet: bool,
    colours: bool,
}

impl Output {
    pub(super) fn new(global: &Global) -> Self {
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let colours = match global.color {
            Color::Auto => wanted && io::stderr().is_terminal(),
            Color::Always => true,
            Color::Never => false,
        };
        Self { json: global.json, quiet: global.quiet, colours }
    }

    /// Data: `value` as one line of JSON if that was asked for, else what `text` makes of it.
    /// Somebody who has stopped reading (`| head`) is no failure.
    ///
    /// # Errors
    ///
    /// Those of standard output, such as a full disk behind it.
    pub(super) fn data<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        let mut text = if self.json { serde_json::to_string(value)? } else { text(value) };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        self.raw(text.as_bytes())
    }

    /// Whether data is wanted as JSON.
    pub(super) const fn is_json(&self) -> bool {
        self.json
    }

    /// Talk; nothing if quiet.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }

    /// Asks whoever sits at the terminal: `prompt` behind `what`, quiet or not. The line that came
    /// back, or `None` where nobody can be asked.
    ///
    /// # Errors
    ///
    /// Those of the terminal.
    pub(super) fn ask(&self, what: &str, prompt: &str) -> io::Result<Option<String>> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Ok(None);
        }
        say(&format!("{} {what}", self.painted("33", "larder:")));
        let mut err = io::stderr().lock();
        err.write_all(prompt.as_bytes())?;
        err.flush()?;
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        Ok(Some(line.trim().to_owned()))
    }

    /// What went wrong without ending the command; quiet or not.
    pub(super) fn warn(&self, text: &str) {
        say(&format!("{} {text}", self.painted("33", "larder:")));
    }

    /// What ended the command: `larder: what: why`, and the way out on a line of its own.
    pub(super) fn complain(&self, error: &anyhow::Error, hint: Option<&str>) {
        say(&format!("{} {error:#}", self.painted("31", "larder:")));
        if let Some(hint) = hint {
            say(&format!("{} {hint}", self.painted("36", "hint:")));
        }
    }

    /// How a long command shows how far it is: on a terminal a bar, else a line now and then;
    /// nothing if quiet. It shows when it is placed first.
    pub(super) fn progress(&self) -> Progress {
        let in_ci = env::var_os("CI").is_some_and(|value| !value.is_empty());
        match (self.quiet, io::stderr().is_terminal() && !in_ci) {
            (true, _) => Progress::none(),
            (false, true) => Progress::bar(),
            (false, false) => Progress::lines(),
        }
    }

    /// Bytes that are data as they stand.
    ///
    /// # Errors
    ///
    /// Those of standard output, but for a reader that has stopped.
    pub(super) fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A question on standard error, whose answer follows on its line.
pub(super) fn ask(question: &str) {
    let mut error = io::stderr().lock();
    // Nobody there to read it is nobody there to answer.
    let _written = error.write_all(question.as_bytes()).and_then(|()| error.flush());
}

/// A line on standard error; with nobody there to read it, nothing is lost that could be helped.
pub(super) fn say(text: &str) {
    let mut error = io::stderr().lock();
    let _nobody_reads = writeln!(error, "{text}").and_then(|()| error.flush());
}

/// `1 path`, `2 paths`: for words whose plural ends in an s.
pub(super) fn counted(count: u64, word: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {word}{ending}")
}

/// Bytes with a fitting unit, such as `1.2 GiB`.
pub(super) fn bytes(count: u64) -> String {
    bytesize::ByteSize(count).display().iec().to_string()
}

/// Rows as columns, the first row being the heads; two spaces between columns.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Names and values below each other, the values in one column. A value may have several lines.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| {
        let indented = value.replace('\n', &format!("\n{:width$}  ", ""));
        format!("{name:<width$}  {indented}").trim_end().to_owned() + "\n"
    };
    facts.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let rows = [row(&["NAME", "N"]), row(&["a-long-name", ""]), row(&["ü", "12"])];
        assert_eq!(table(&rows), "NAME         N\na-long-name\nü            12\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn facts_line_up_over_several_lines() {
        let shown = facts(&[("URL", "http://x".into()), ("keys", "a\nb".into())]);
        assert_eq!(shown, "URL   http://x\nkeys  a\n      b\n");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }
}
