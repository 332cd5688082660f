//! How far a long command is, on standard error: a bar on a terminal, else plain lines.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use terminal_size::{Width, terminal_size_of};

use crate::cli::output::{bytes, say};

/// How often there is a line where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The form of the bar, by the columns that it takes at least.
const FORMS: [(u16, &str); 3] = [
    (
        80,
        "{bytes:>10} of {total_bytes:10} [{bar:20}] {bytes_per_sec:>12}, {eta:>3} left {wide_msg}",
    ),
    (40, "{bytes} of {total_bytes}, {eta} left {wide_msg}"),
    (0, "{percent:>3} %, {eta} left"),
];

/// Shows progress, or nothing. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub(super) struct Progress(Form);

#[derive(Clone, Debug)]
enum Form {
    None,
    Bar(ProgressBar),
    Lines(Arc<Mutex<Lines>>),
}

/// Progress without a terminal.
#[derive(Debug)]
struct Lines {
    done_bytes: u64,
    total_bytes: u64,
    started: Instant,
    said: Instant,
}

impl Lines {
    fn new(now: Instant) -> Self {
        Self { done_bytes: 0, total_bytes: 0, started: now, said: now }
    }

    /// A line, if it is time for one.
    fn due(&mut self, now: Instant) -> Option<String> {
        if now.duration_since(self.said) < LINE_EVERY || self.total_bytes == 0 {
            return None;
        }
        self.said = now;
        let seconds = now.duration_since(self.started).as_secs().max(1);
        let rate = self.done_bytes / seconds;
        let rest = self.total_bytes.saturating_sub(self.done_bytes);
        let left = rest.checked_div(rate).map_or_else(String::new, |seconds| {
            format!(", {} left", HumanDuration(Duration::from_secs(seconds)))
        });
        let (done, total) = (bytes(self.done_bytes), bytes(self.total_bytes));
        Some(format!("{done} of {total}, {}/s{left}", bytes(rate)))
    }
}

impl Progress {
    pub(super) const fn none() -> Self {
        Self(Form::None)
    }

    pub(super) fn bar() -> Self {
        Self(Form::Bar(ProgressBar::hidden()))
    }

    pub(super) fn lines() -> Self {
        Self(Form::Lines(Arc::new(Mutex::new(Lines::new(Instant::now())))))
    }

    /// Moves on by so many bytes.
    pub(super) fn advance(&self, bytes: u64) {
        match &self.0 {
            Form::None => {}
            Form::Bar(bar) => bar.inc(bytes),
            Form::Lines(lines) => say_if_due(lines, |lines| lines.done_bytes += bytes),
        }
    }

    /// Moves back by so many bytes.
    pub(super) fn retreat(&self, bytes: u64) {
        match &self.0 {
            Form::None => {}
            Form::Bar(bar) => bar.set_position(bar.position().saturating_sub(bytes)),
            Form::Lines(lines) => say_if_due(lines, |lines| {
                lines.done_bytes = lines.done_bytes.saturating_sub(bytes);
            }),
        }
    }

    /// Is at `done_bytes` of `total_bytes`.
    pub(super) fn place(&self, done_bytes: u64, total_bytes: u64) {
        match &self.0 {
            Form::None => {}
            Form::Bar(bar) => {
                bar.set_length(total_bytes);
                bar.set_position(done_bytes);
                if bar.is_hidden() {
                    show(bar);
                }
            }
            Form::Lines(lines) => say_if_due(lines, |lines| {
                (lines.done_bytes, lines.total_bytes) = (done_bytes, total_bytes);
            }),
        }
    }

    /// Says what is going on, beside the bar.
    pub(super) fn message(&self, text: &str) {
        if let Form::Bar(bar) = &self.0 {
            bar.set_message(text.to_owned());
        }
    }

    /// Says something that stays: above the bar, or as a line.
    pub(super) fn line(&self, text: &str) {
        match &self.0 {
            Form::None => {}
            Form::Bar(bar) if !bar.is_hidden() => bar.println(text),
            Form::Bar(_) | Form::Lines(_) => say(text),
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if let Form::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn say_if_due(lines: &Mutex<Lines>, change: impl FnOnce(&mut Lines)) {
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    change(&mut lines);
    if let Some(line) = lines.due(Instant::now()) {
        say(&line);
    }
}

/// Draws the bar in the form that fits the terminal: a line that wraps cannot be drawn over.
fn show(bar: &ProgressBar) {
    let columns = terminal_size_of(io::stderr()).map_or(0, |(Width(columns), _)| columns);
    let fits = FORMS.iter().find(|(least, _)| columns >= *least);
    if let Some(Ok(style)) = fits.map(|(_, form)| ProgressStyle::with_template(form)) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_draw_target(ProgressDrawTarget::stderr());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_now_and_then_with_rate_and_time_left() {
        let start = Instant::now();
        let mut lines = Lines::new(start);
        lines.total_bytes = 100 << 20;
        lines.done_bytes = 20 << 20;
        assert_eq!(lines.due(start + LINE_EVERY / 2), None);
        let line = lines.due(start + LINE_EVERY).unwrap();
        assert_eq!(line, "20.0 MiB of 100.0 MiB, 2.0 MiB/s, 40 seconds left");
        assert_eq!(lines.due(start + LINE_EVERY + LINE_EVERY / 2), None);
        lines.done_bytes = 0;
        let line = lines.due(start + LINE_EVERY * 2).unwrap();
        assert_eq!(line, "0 B of 100.0 MiB, 0 B/s");
    }

    #[test]
    fn every_form_of_the_bar_is_sound() {
        for (_, form) in FORMS {
            ProgressStyle::with_template(form).unwrap();
        }
    }
}
