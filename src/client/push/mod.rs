//! Pushes: what a box lacks of a closure travels, references before what refers to them.

mod attachments;
mod chunks;
mod nar;
mod plan;
mod progress;
mod send;
mod signer;

pub use attachments::Attachments;
pub use progress::{FailedPath, HiddenPath, PushEvent, PushReport, Tell};
pub use send::{Push, PushError, PushOptions};

/// The whole chain of an error on one line: `a: b: c`.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
