//! A file of Rust, read as far as the rules of the architecture need it.

/// One file of `src/`.
pub(crate) struct Source {
    /// Its name below `src/`, such as `store/db.rs`.
    pub(crate) name: String,
    /// Its code: comments, the insides of texts and unit tests are blanks. Same lines as the file.
    pub(crate) code: String,
    /// Lines of the file as it is.
    pub(crate) lines: usize,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let code = without_tests(&without_comments_and_texts(text));
        Self { name: name.to_owned(), code, lines: text.lines().count() }
    }

    /// Whether it is `module` (such as `client/nix_store`) itself or lies under it.
    pub(crate) fn is_in(&self, module: &str) -> bool {
        let rest = self.name.strip_prefix(module);
        rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }

    /// The first line that names `path`, such as `crate::store` or `axum`, as whole words.
    pub(crate) fn line_naming(&self, path: &str) -> Option<usize> {
        let code = &self.code;
        let inside = |text: &str, place: usize, end: usize| {
            let before = text[..place].chars().next_back();
            let after = text[end..].chars().next();
            before.is_some_and(is_word) || after.is_some_and(is_word) && path.ends_with(is_word)
        };
        code.match_indices(path)
            .find(|(place, _)| !inside(code, *place, place + path.len()))
            .map(|(place, _)| code[..place].matches('\n').count() + 1)
    }

    pub(crate) fn complaint(&self, line: usize, what: &str) -> String {
        format!("src/{}:{line} {what}", self.name)
    }
}

pub(crate) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    pub(crate) first_line: usize,
    /// Lines with something on them, signature and closing brace included.
    pub(crate) lines: usize,
}

pub(crate) fn functions(code: &str) -> impl Iterator<Item = Function<'_>> {
    let starts = code.match_indices("fn ").filter(|(place, _)| !code[..*place].ends_with(is_word));
    starts.filter_map(|(place, word)| {
        let name = code[place + word.len()..].split(|c| !is_word(c)).next()?;
        let body = body_end(&code[place..])?;
        let lines = code[place..place + body].lines().filter(|line| !line.trim().is_empty());
        let first_line = code[..place].matches('\n').count() + 1;
        (!name.is_empty()).then(|| Function { name, first_line, lines: lines.count() })
    })
}

/// Where the block that follows ends; nothing if a semicolon ends the item first.
fn body_end(code: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut inside_brackets = 0_usize;
    for (place, character) in code.char_indices() {
        match character {
            '(' | '[' => inside_brackets += 1,
            ')' | ']' => inside_brackets = inside_brackets.saturating_sub(1),
            ';' if depth == 0 && inside_brackets == 0 => return None,
            '{' => depth += 1,
            '}' if depth <= 1 => return Some(place + 1),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

pub(crate) fn words_after<'a>(code: &'a str, keyword: &'a str) -> impl Iterator<Item = &'a str> {
    let words = || code.split(|character| !is_word(character)).filter(|word| !word.is_empty());
    words().zip(words().skip(1)).filter(move |(first, _)| *first == keyword).map(|(_, next)| next)
}

/// The modules in files of their own that the file called `name` declares for tests alone, such
/// as `store/tests`.
pub(crate) fn test_modules(name: &str, text: &str) -> Vec<String> {
    let code = without_comments_and_texts(text);
    let folder = name.strip_suffix("/mod.rs").or_else(|| name.strip_suffix(".rs"));
    let folder = folder.filter(|_| !matches!(name, "lib.rs" | "main.rs"));
    let declared = code.split(TEST_MARK).skip(1).filter_map(|item| {
        let mut item = item.trim_start();
        while let Some(attribute) = item.strip_prefix("#[") {
            item = attribute.split_once(']')?.1.trim_start();
        }
        let item = ["pub(crate) ", "pub(super) "]
            .iter()
            .find_map(|it| item.strip_prefix(it))
            .unwrap_or(item);
        let (module, _) = item.strip_prefix("mod ")?.split_once(';')?;
        Some(folder.map_or_else(|| module.to_owned(), |folder| format!("{folder}/{module}")))
    });
    declared.filter(|module| module.chars().all(|c| is_word(c) || c == '/')).collect()
}

/// What stands before an item that is for tests alone.
const TEST_MARK: &str = "#[cfg(test)]";

/// The code with every comment, and the inside of every text, as blanks; line breaks stay.
fn without_comments_and_texts(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let before = code.chars().next_back();
        let length = comment_length(rest)
            .or_else(|| {
                text_length(rest).filter(|_| rest.starts_with('"') || !before.is_some_and(is_word))
            })
            .or_else(|| character_length(rest));
        let (taken, left) = rest.split_at(length.unwrap_or(first.len_utf8()));
        match length {
            Some(_) => code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => code.push_str(taken),
        }
        rest = left;
    }
    code
}

fn comment_length(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let mut depth = 0_usize;
    for (place, _) in text.char_indices() {
        match &text.as_bytes()[place..] {
            [b'/', b'*', ..] => depth += 1,
            [b'*', b'/', ..] if depth == 1 => return Some(place + 2),
            [b'*', b'/', ..] => depth -= 1,
            _ => {}
        }
    }
    Some(text.len())
}

/// The length of a text literal, `b"…"`, `c"…"` and raw ones included.
fn text_length(text: &str) -> Option<usize> {
    let opening = text.trim_start_matches(['b', 'c']);
    let raw = opening.strip_prefix('r').filter(|_| text.len() - opening.len() <= 1);
    let hashes = raw.map_or(0, |raw| raw.len() - raw.trim_start_matches('#').len());
    let start = text.len() - raw.map_or(opening.len(), |raw| raw.len() - hashes);
    let inside = text.get(start..)?.strip_prefix('"').filter(|_| start <= 2 + hashes)?;
    if raw.is_some() {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(start + 1 + inside.find(&end).map_or(inside.len(), |place| place + end.len()));
    }
    let mut escaped = false;
    for (place, character) in inside.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(start + 1 + place + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// The length of a character literal; a lifetime is none.
fn character_length(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let first = inside.chars().next()?;
    if first == '\\' {
        let end = inside.get(2..)?.find('\'')?;
        return Some(1 + 2 + end + 1);
    }
    inside[first.len_utf8()..].starts_with('\'').then(|| 1 + first.len_utf8() + 1)
}

/// The code with every item under `#[cfg(test)]` as blanks.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(place) = rest.find(TEST_MARK) {
        let (before, item) = rest.split_at(place);
        let behind = &item[TEST_MARK.len()..];
        let end = body_end(behind).or_else(|| behind.find(';').map(|end| end + 1));
        let (test, after) = item.split_at(TEST_MARK.len() + end.unwrap_or(behind.len()));
        kept.push_str(before);
        kept.extend(test.chars().filter(|character| *character == '\n'));
        rest = after;
    }
    kept + rest
}

#[test]
fn blanking_keeps_lines_and_code() {
    let text = "let a = \"x\ny\"; // z\nlet b = b'\\''; let c: &'static str = r\"\\\"; /* \n */ d";
    let code = without_comments_and_texts(text);
    assert_eq!(code.lines().count(), text.lines().count());
    let words: Vec<_> = code.split_whitespace().collect();
    assert_eq!(
        words.join(" "),
        "let a = ; let b = b ; let c: &'static str = ; d",
        "only literals and comments are gone"
    );
}

#[test]
fn modules_for_tests_alone_are_known() {
    let text = "#[cfg(test)]\nmod tests;\nmod db;\n#[cfg(test)]\nmod here {}\n";
    assert_eq!(test_modules("store/index/mod.rs", text), ["store/index/tests"]);
    let with_path = "#[cfg(test)]\n#[path = \"push/tests.rs\"]\nmod tests;\n";
    assert_eq!(test_modules("wire/push.rs", with_path), ["wire/push/tests"]);
    assert_eq!(test_modules("lib.rs", text), ["tests"]);
    let shared = "#[cfg(test)]\npub(crate) mod tests;\n";
    assert_eq!(test_modules("services/mod.rs", shared), ["services/tests"]);
}
