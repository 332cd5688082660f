//! How a conversation with the Nix daemon goes: the greeting, and what it says before an answer.
//!
//! Source: `src/libstore/worker-protocol-connection.cc` and `daemon.cc` (Nix 2.34), `remote-store.cc`
//! (Nix 2.8).

use std::io::{Read, Write};

use tracing::debug;

use crate::client::nix_store::daemon::words::{Request, bytes, length, number, text, texts};
use crate::client::nix_store::daemon::{DaemonError, MINOR_MIN};
use crate::client::nix_store::shown;

const MAGIC_OURS: u64 = 0x6e69_7863;
const MAGIC_THEIRS: u64 = 0x6478_696f;
const MAJOR: u64 = 1;
/// The latest minor version that is spoken, that of Nix 2.26 to 2.34; later ones of Nix greet with
/// it too and put what is new into features, none of which is needed here.
const MINOR_MAX: u64 = 38;
/// From here on the daemon tells the version of its Nix.
const MINOR_NIX_VERSION: u64 = 33;
/// From here on it tells whether it trusts this user, which no question here depends on.
const MINOR_TRUST: u64 = 35;
/// From here on both sides list their features.
const MINOR_FEATURES: u64 = 38;

/// Longest message of the daemon.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Messages before an answer; a question of ours causes none or a few.
const MESSAGES_MAX: usize = 65_536;
/// Fields of an activity, places in a trace, features: Nix has less than ten of each.
const ITEMS_MAX: usize = 1024;

const SAYS_NEXT: u64 = 0x6f6c_6d67;
const SAYS_LAST: u64 = 0x616c_7473;
const SAYS_ERROR: u64 = 0x6378_7470;
const SAYS_START_ACTIVITY: u64 = 0x5354_5254;
const SAYS_STOP_ACTIVITY: u64 = 0x5354_4f50;
const SAYS_RESULT: u64 = 0x5253_4c54;

/// Greets, and hears the daemon out on what it has to say about the start.
pub(super) fn greet(stream: &mut (impl Read + Write)) -> Result<(), DaemonError> {
    Request::default().number(MAGIC_OURS).number(MAJOR << 8 | MINOR_MAX).send(stream)?;
    if number(stream)? != MAGIC_THEIRS {
        return Err(DaemonError::Foreign);
    }
    let version = number(stream)?;
    let (major, minor) = (version >> 8, version & 0xff);
    if major != MAJOR || minor < MINOR_MIN {
        return Err(DaemonError::Version { major, minor });
    }
    let minor = minor.min(MINOR_MAX);
    if minor >= MINOR_FEATURES {
        // None of ours.
        Request::default().number(0).send(stream)?;
        texts(stream, ITEMS_MAX)?;
    }
    // No processor is wished for, no space is to be reserved; both mean nothing any more.
    Request::default().number(0).number(0).send(stream)?;
    if minor >= MINOR_NIX_VERSION {
        let nix = text(stream)?;
        debug!(nix, protocol.minor = minor, "The Nix daemon answers");
    }
    if minor >= MINOR_TRUST {
        number(stream)?;
    }
    hear_out(stream)
}

/// Reads what the daemon says while it works, until it has the answer, which comes next.
///
/// # Errors
///
/// [`DaemonError::Said`] with an error of the daemon; the next question may be asked. All others
/// mean that it is not understood any more.
pub(super) fn hear_out(from: &mut impl Read) -> Result<(), DaemonError> {
    for _ in 0..MESSAGES_MAX {
        match number(from)? {
            SAYS_LAST => return Ok(()),
            SAYS_ERROR => return Err(read_error(from)?),
            SAYS_NEXT => {
                let line = bytes(from, MESSAGE_BYTES_MAX)?;
                debug!("The Nix daemon says: {}", shown::plain(&line));
            }
            SAYS_START_ACTIVITY => {
                // Its number, level and kind.
                numbers(from, 3)?;
                bytes(from, MESSAGE_BYTES_MAX)?;
                skip_fields(from)?;
                // Its parent.
                number(from)?;
            }
            SAYS_STOP_ACTIVITY => numbers(from, 1)?,
            SAYS_RESULT => {
                numbers(from, 2)?;
                skip_fields(from)?;
            }
            _ => return Err(DaemonError::Malformed("message")),
        }
    }
    Err(DaemonError::Malformed("flood of messages"))
}

fn numbers(from: &mut impl Read, count: usize) -> Result<(), DaemonError> {
    (0..count).try_for_each(|_| number(from).map(drop))
}

fn skip_fields(from: &mut impl Read) -> Result<(), DaemonError> {
    for _ in 0..length(from, ITEMS_MAX)? {
        match number(from)? {
            0 => drop(number(from)?),
            1 => drop(bytes(from, MESSAGE_BYTES_MAX)?),
            _ => return Err(DaemonError::Malformed("field")),
        }
    }
    Ok(())
}

/// Source: `readError` in `src/libutil/serialise.cc`, since version 1.26 of the protocol.
fn read_error(from: &mut impl Read) -> Result<DaemonError, DaemonError> {
    // "Error", its level, and a name that is not used.
    bytes(from, MESSAGE_BYTES_MAX)?;
    number(from)?;
    bytes(from, MESSAGE_BYTES_MAX)?;
    let message = bytes(from, MESSAGE_BYTES_MAX)?;
    no_position(from)?;
    for _ in 0..length(from, ITEMS_MAX)? {
        no_position(from)?;
        bytes(from, MESSAGE_BYTES_MAX)?;
    }
    Ok(DaemonError::Said(shown::plain(&message)))
}

fn no_position(from: &mut impl Read) -> Result<(), DaemonError> {
    match number(from)? {
        0 => Ok(()),
        _ => Err(DaemonError::Malformed("position")),
    }
}
