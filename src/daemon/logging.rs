//! What the box says of itself while it runs.

use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;
use std::{env, fmt, fs};

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;

/// How much is logged: `error`, `warn`, `info`, `debug` or `trace`, or directives for single
/// modules behind commas, such as `info,larder::store=debug`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogFilter(String);

/// A text that is no filter.
#[derive(Debug, thiserror::Error)]
#[error("'{text}' is no log level; try error, warn, info, debug or trace")]
pub struct ParseLogFilterError {
    text: String,
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people: time, level and place, in colour on a terminal. Under systemd the time is
    /// left to the journal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// What is logged.
    pub filter: LogFilter,
    /// What a line looks like.
    pub format: LogFormat,
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = ParseLogFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match EnvFilter::try_new(text) {
            // A word alone that is no level would be taken for the name of a module.
            Ok(_) if !text.is_empty() && text.split(',').all(has_level) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(ParseLogFilterError { text: text.to_owned() }),
        }
    }
}

fn has_level(directive: &str) -> bool {
    let level = directive.rsplit('=').next().unwrap_or_default().trim();
    !level.is_empty() && level.parse::<tracing::level_filters::LevelFilter>().is_ok()
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for LogFilter {
    type Error = ParseLogFilterError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<LogFilter> for String {
    fn from(filter: LogFilter) -> Self {
        filter.0
    }
}

/// Starts logging to standard error, for the whole process. A second call changes nothing.
pub fn start(options: &LogOptions) {
    // Somebody who set a subscriber before wants theirs.
    let _unless_set_before = tracing::subscriber::set_global_default(subscriber(options));
}

fn subscriber(options: &LogOptions) -> Box<dyn Subscriber + Send + Sync> {
    let filter = EnvFilter::new(&options.filter.0);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match options.format {
        LogFormat::Json => Box::new(lines.json().flatten_event(true).finish()),
        LogFormat::Text if goes_to_journal() => Box::new(lines.without_time().finish()),
        LogFormat::Text => Box::new(lines.finish()),
    }
}

/// Whether standard error is the stream that systemd gave us (systemd.exec(5),
/// `$JOURNAL_STREAM`: device and inode).
fn goes_to_journal() -> bool {
    let journal = env::var("JOURNAL_STREAM").unwrap_or_default();
    fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stream| journal == format!("{}:{}", stream.dev(), stream.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_with_places() {
        for text in ["info", "WARN", "info,larder::store=debug", "off"] {
            assert!(text.parse::<LogFilter>().is_ok(), "{text}");
        }
        for text in ["", "loud", "larder::store", "info,", "=info=", "info,x=loud"] {
            assert!(text.parse::<LogFilter>().is_err(), "{text}");
        }
    }
}
