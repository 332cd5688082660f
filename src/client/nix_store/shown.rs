//! Texts of others, fit to be printed: one line, of bounded length, that tells a terminal nothing.

/// Characters that are shown of a text.
const CHARS_MAX: usize = 500;

/// A text as it is, with its control characters escaped.
pub(super) fn quoted(bytes: impl AsRef<[u8]>) -> String {
    let text = beginning(bytes.as_ref());
    let characters = text.chars().flat_map(|character| {
        let escaped = character.is_control().then(|| character.escape_default());
        let plain = if character.is_control() { None } else { Some(character) };
        escaped.into_iter().flatten().chain(plain)
    });
    cut(characters)
}

/// What a text for a terminal says: without colours, its lines joined.
pub(super) fn plain(bytes: &[u8]) -> String {
    let text = beginning(bytes);
    let mut characters = text.chars();
    let mut plain = String::new();
    while let Some(character) = characters.next() {
        match character {
            // A colour goes up to its letter.
            '\u{1b}' => drop(characters.by_ref().find(char::is_ascii_alphabetic)),
            character if character.is_control() => plain.push(' '),
            character => plain.push(character),
        }
    }
    cut(plain.split_whitespace().collect::<Vec<_>>().join(" ").chars())
}

/// As much as can matter, so that a text of many MiB is not copied.
fn beginning(bytes: &[u8]) -> String {
    let beginning = bytes.get(..8 * CHARS_MAX).unwrap_or(bytes);
    String::from_utf8_lossy(beginning).into_owned()
}

fn cut(mut characters: impl Iterator<Item = char>) -> String {
    let mut text: String = characters.by_ref().take(CHARS_MAX).collect();
    if characters.next().is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_as_a_command() {
        assert_eq!(quoted("/a\u{1b}[2Jb\nc\u{e4}"), "/a\\u{1b}[2Jb\\nc\u{e4}");
        assert_eq!(quoted(b"\xff"), "\u{fffd}");
        assert_eq!(plain(b"\x1b[31;1merror:\x1b[0m no\n  path\t'x'\n"), "error: no path 'x'");
        assert_eq!(plain(b"\x1b"), "");
    }

    #[test]
    fn long_texts_are_cut() {
        let long = vec![b'x'; 1 << 20];
        for shown in [quoted(&long), plain(&long)] {
            assert_eq!(shown.chars().count(), CHARS_MAX + 1);
            assert!(shown.ends_with('…'));
        }
    }
}
