//! The text of a netrc: the line by which Nix, that is libcurl, shows a token to a host.
//!
//! How libcurl reads one: `parsenetrc` in `lib/netrc.c` (7.88 to 8.11). The first `machine` of a
//! host's name counts, whatever the port; `default` matches every host and hides what is below
//! it; `macdef` goes to the next empty line; a line that begins with `#` is a comment. Some
//! releases overlook an entry without `login`, so ours has one.

use crate::client::nix_config::conf::line_end;
use crate::wire::{DeviceId, TokenText};

/// The login of our lines; a box does not look at it.
const LOGIN: &str = "larder";

/// An entry of somebody else's for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Its line, from 1.
    pub(super) line: usize,
}

/// The text with a line for `host`, before all others, in the place of a line of ours.
///
/// # Errors
///
/// [`Taken`] if there is an entry for the host that is not ours.
pub(super) fn with(text: &[u8], host: &str, token: &TokenText) -> Result<Vec<u8>, Taken> {
    let line = format!("machine {host} login {LOGIN} password {}", token.to_secret_text());
    let (mut rest, mut with) = (Vec::new(), Vec::new());
    let mut is_there = false;
    for old in text.split_inclusive(|byte| *byte == b'\n') {
        if own_words(old).is_some_and(|words| words[1] == host) {
            if !is_there {
                with.extend_from_slice(line.as_bytes());
                with.extend_from_slice(ending(old));
            }
            is_there = true;
        } else {
            rest.extend_from_slice(old);
            with.extend_from_slice(old);
        }
    }
    match entry_for(&rest, host) {
        Some(line) => Err(Taken { line }),
        None if is_there => Ok(with),
        None => Ok([line.as_bytes(), line_end(text).as_bytes(), text].concat()),
    }
}

/// The text without our lines that have a token for that box.
pub(super) fn without(text: &[u8], device_id: DeviceId) -> Vec<u8> {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let others = lines.filter(|line| own_token(line).is_none_or(|id| id != device_id));
    others.collect::<Vec<_>>().concat()
}

fn ending(line: &[u8]) -> &[u8] {
    let kept = line.trim_ascii_end().len();
    line.get(kept..).unwrap_or_default()
}

/// Whose token a line of ours has.
fn own_token(line: &[u8]) -> Option<DeviceId> {
    let words = own_words(line)?;
    words[5].parse().ok().map(|token: TokenText| token.device_id())
}

/// The words of a line that is one of ours, with any token.
fn own_words(line: &[u8]) -> Option<[&str; 6]> {
    let line = str::from_utf8(line).ok()?.trim_end_matches(['\r', '\n']);
    let words: [&str; 6] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let fits = matches!(words, ["machine", _, "login", LOGIN, "password", token]
        if token.parse::<TokenText>().is_ok());
    fits.then_some(words)
}

/// The line, from 1, of the first entry for `host`.
fn entry_for(text: &[u8], host: &str) -> Option<usize> {
    let mut words = Words::default();
    let mut is_in_macro = false;
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if is_in_macro {
            is_in_macro = !line.is_empty();
        } else if !line.starts_with(b"#") {
            for word in line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
                match words.next(word) {
                    Said::Machine(name) if name.eq_ignore_ascii_case(host.as_bytes()) => {
                        return Some(number);
                    }
                    Said::Macro => {
                        is_in_macro = true;
                        break;
                    }
                    Said::Machine(_) | Said::Nothing => {}
                }
            }
        }
    }
    None
}

/// Follows the words of a netrc: which one is a value is said by the one before.
#[derive(Default)]
struct Words {
    before: Option<Keyword>,
}

#[derive(Clone, Copy)]
enum Keyword {
    Machine,
    Value,
}

enum Said<'a> {
    Machine(&'a [u8]),
    Macro,
    Nothing,
}

impl Words {
    fn next<'a>(&mut self, word: &'a [u8]) -> Said<'a> {
        match self.before.take() {
            Some(Keyword::Machine) => return Said::Machine(unquoted(word)),
            Some(Keyword::Value) => return Said::Nothing,
            None => {}
        }
        match word {
            b"machine" => self.before = Some(Keyword::Machine),
            b"login" | b"password" | b"account" => self.before = Some(Keyword::Value),
            b"macdef" => return Said::Macro,
            _ => {}
        }
        Said::Nothing
    }
}

fn unquoted(word: &[u8]) -> &[u8] {
    let inner = word.strip_prefix(b"\"").and_then(|word| word.strip_suffix(b"\""));
    inner.unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(device: u8, secret: u8) -> TokenText {
        TokenText::new(DeviceId([device; 20]), [secret; 32])
    }

    const ODD: &[u8] = b"# mine\nmachine a login x password y machine b\nlogin \"z z\"\n\
                         macdef init\nmachine box login q\n\ndefault login anonymous password me";

    #[test]
    fn our_line_is_the_first_and_goes_without_a_trace() {
        let with_it = with(ODD, "box", &token(1, 2)).unwrap();
        let line = format!("machine box login larder password {}\n", token(1, 2).to_secret_text());
        assert_eq!(with_it, [line.as_bytes(), ODD].concat());
        assert_eq!(with(&with_it, "box", &token(1, 2)).unwrap(), with_it);
        assert_eq!(without(&with_it, DeviceId([2; 20])), with_it);
        assert_eq!(without(&with_it, DeviceId([1; 20])), ODD);
        let newer = with(&with_it, "box", &token(1, 3)).unwrap();
        assert_eq!(newer.len(), with_it.len());
        assert_eq!(without(&newer, DeviceId([1; 20])), ODD);
    }

    #[test]
    fn an_entry_of_somebody_else_is_not_touched() {
        assert_eq!(with(ODD, "a", &token(1, 2)), Err(Taken { line: 2 }));
        assert_eq!(with(ODD, "B", &token(1, 2)), Err(Taken { line: 2 }));
        assert_eq!(
            with(b"x\nmachine\n\"box\" login q", "box", &token(1, 2)),
            Err(Taken { line: 3 })
        );
        // A word behind a keyword is its value.
        assert!(with(b"machine x login machine password box", "box", &token(1, 2)).is_ok());
    }

    proptest! {
        #[test]
        fn use_twice_is_use_once_and_remove_gives_the_bytes_back(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("machine a login b password c".to_owned()), Just("\r\n".to_owned()),
                    Just("\n".to_owned()), Just("default".to_owned()), Just("macdef m".to_owned()),
                    "\\PC{0,12}",
                ], 0..12),
        ) {
            let text = pieces.concat().into_bytes();
            if let Ok(once) = with(&text, "box.local", &token(1, 2)) {
                let again = with(&once, "box.local", &token(1, 2));
                prop_assert_eq!(again.as_ref(), Ok(&once));
                prop_assert_eq!(without(&once, DeviceId([1; 20])), text);
            }
        }
    }
}
