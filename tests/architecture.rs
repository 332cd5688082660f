//! Keeps `src/` readable: layers point one way, outside crates stay behind their layer, files and
//! functions keep to their budgets, and the lockfile stays free of what we do not want to ship.
//! The rules are the ones in ARCHITECTURE.md.
//!
//! Rules look at code alone: comments, texts and unit tests are blanked out first. The last tests
//! plant a breach of each rule, so that a rule that has gone blind shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

#[path = "architecture/source.rs"]
mod source;

use source::{Source, functions, test_modules, words_after};

/// Lowest first. A module may name only its own layer and those before it.
const LAYERS: [&str; 8] =
    ["formats", "wire", "store", "services", "transports", "client", "daemon", "cli"];

/// What a layer may not name although the order would allow it, or the standard library has it.
const FORBIDDEN: [(&str, &[&str]); 8] = [
    (
        "formats",
        &[
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "std::thread",
            "Instant",
            "SystemTime",
            "async",
            "await",
            "tokio",
        ],
    ),
    (
        "wire",
        &[
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "std::thread",
            "Instant::now",
            "SystemTime",
            "async",
            "await",
            "tokio",
            "quinn",
        ],
    ),
    ("store", &["std::net", "std::env", "std::process::Command"]),
    ("services", &["std::fs", "std::net", "std::env", "std::process::Command"]),
    ("transports", &["crate::store", "std::env", "std::process::Command"]),
    ("client", &["crate::store"]),
    ("daemon", &["crate::client"]),
    ("cli", &["crate::store::index", "crate::store::pack"]),
];

/// Outside crates, by the names they have in code, and the only modules that may name them.
/// Every dependency stands here or in [`EVERYWHERE`], so adding one is a decision.
const FENCES: [(&str, &[&str]); 44] = [
    ("anyhow", &["cli"]),
    ("axum", &["transports/http"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("strsim", &["cli"]),
    ("terminal_size", &["cli"]),
    ("bzip2", &["client/nix_store"]),
    ("blake3", &["formats", "wire", "store", "client", "transports/quic"]),
    ("clap", &["cli"]),
    ("data_encoding", &["formats", "wire", "store", "transports/http"]),
    ("ed25519_dalek", &["formats"]),
    ("fastcdc", &["formats"]),
    ("h2", &["transports/tls", "transports/quic/link"]),
    ("http_message", &["transports/tls"]),
    ("hyper", &["transports/http"]),
    ("hyper_util", &["transports/http"]),
    ("indicatif", &["cli"]),
    ("jiff", &["daemon", "client", "cli"]),
    ("bytesize", &["daemon", "client", "cli"]),
    ("mdns_sd", &["transports/discovery"]),
    ("postcard", &["wire", "store"]),
    ("prometheus_client", &["services"]),
    ("quinn", &["transports/quic"]),
    ("rcgen", &["transports/quic"]),
    ("ring", &["formats", "services", "store", "client", "transports/quic", "daemon"]),
    ("rusqlite", &["store", "client/nix_store"]),
    ("rusqlite_migration", &["store"]),
    ("rustix", &["store", "daemon"]),
    ("rustls", &["transports/quic", "transports/tls"]),
    ("sd_notify", &["daemon"]),
    ("serde_json", &["formats", "store", "services", "transports/http", "client", "daemon", "cli"]),
    ("socket2", &["daemon", "client/nix_store/daemon"]),
    ("subtle", &["services"]),
    ("tempfile", &["store", "client"]),
    ("tokio", &["store", "services", "transports", "client", "daemon", "cli"]),
    ("tokio_util", &["store", "services", "transports", "client", "daemon", "cli"]),
    ("tokio_rustls", &["transports/tls"]),
    ("toml", &["daemon", "client"]),
    ("tower", &["transports/http"]),
    ("tracing_subscriber", &["daemon", "cli"]),
    ("twox_hash", &["store"]),
    ("webpki", &["transports/quic", "transports/tls"]),
    ("zstd", &["formats", "store", "client"]),
    ("futures_util", &["store", "services", "transports", "client"]),
];

/// Crates that any layer may name.
const EVERYWHERE: [&str; 4] = ["bytes", "serde", "thiserror", "tracing"];

/// Packages whose name in code is not their own with underscores.
const RENAMED: [(&str, &str); 1] = [("rustls-webpki", "webpki")];

/// Spellings that would hide an import from the rule of the layers, and attributes that would
/// hide code from the reader.
const HIDING: [&str; 10] = [
    "crate::{",
    "crate::*",
    "use crate;",
    "crate as ",
    "super::super",
    "extern crate",
    "#[path",
    "include!",
    "#[allow",
    "#![allow",
];

/// Names that do not say what is inside.
const VAGUE: [&str; 10] = [
    "common",
    "core",
    "helper",
    "helpers",
    "manager",
    "misc",
    "types",
    "util",
    "utils",
    "utilities",
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Packages that may not come in, not even through others: a second TLS back end needs a C
/// tool chain of its own and makes rustls unable to choose.
const UNWANTED_PACKAGES: [&str; 7] = [
    "aws-lc-fips-sys",
    "aws-lc-rs",
    "aws-lc-sys",
    "atomic-polyfill",
    "native-tls",
    "openssl",
    "openssl-sys",
];
const PACKAGES_MAX: usize = 300;

fn layer_of(source: &Source) -> Option<(usize, &'static str)> {
    LAYERS.into_iter().enumerate().find(|(_, layer)| source.is_in(layer))
}

// The rules.

/// What is wrong with a source, a line each.
type Rule = fn(&Source) -> Vec<String>;

fn upward_names(source: &Source) -> Vec<String> {
    let Some((own, layer)) = layer_of(source) else { return Vec::new() };
    let upper = LAYERS.iter().skip(own + 1).flat_map(|upper| {
        // In a layer's root module `super` is the crate.
        [format!("crate::{upper}"), format!("larder::{upper}"), format!("super::{upper}")]
    });
    let forbidden = FORBIDDEN
        .iter()
        .filter(|(of, _)| *of == layer)
        .flat_map(|(_, paths)| paths.iter().map(|path| (*path).to_owned()));
    upper
        .chain(forbidden)
        .filter_map(|path| {
            let line = source.line_naming(&path)?;
            Some(source.complaint(line, &format!("names {path}, which {layer} may not")))
        })
        .collect()
}

fn hidden_names(source: &Source) -> Vec<String> {
    let mut wrong: Vec<_> = HIDING
        .iter()
        .filter_map(|spelling| {
            let line = source.line_naming(spelling)?;
            Some(source.complaint(line, &format!("has '{spelling}': spell it out")))
        })
        .collect();
    for (number, line) in (1..).zip(source.code.lines()) {
        let glob = line.split("::*").next().filter(|path| path.len() < line.len());
        let last = glob.and_then(|path| path.rsplit("::").next()).unwrap_or("Enum");
        if !last.starts_with(char::is_uppercase) {
            wrong.push(source.complaint(number, "imports everything of a module"));
        }
    }
    let root_of_layer = LAYERS.iter().any(|layer| source.name == format!("{layer}/mod.rs"));
    if root_of_layer && source.code.contains("super::") {
        wrong.push(source.complaint(1, "reaches the crate by `super`: say `crate`"));
    }
    wrong
}

fn fence_breaches(source: &Source) -> Vec<String> {
    FENCES
        .iter()
        .filter(|(_, homes)| !homes.iter().any(|home| source.is_in(home)))
        .filter_map(|(outside, homes)| {
            let line = [format!("{outside}::"), format!("use {outside}")]
                .iter()
                .filter_map(|path| source.line_naming(path))
                .min()?;
            Some(source.complaint(line, &format!("names {outside}, which belongs in {homes:?}")))
        })
        .collect()
}

fn vague_names(source: &Source) -> Vec<String> {
    let of_files = source.name.split(['/', '.']);
    let of_modules = words_after(&source.code, "mod");
    of_files
        .chain(of_modules)
        .filter(|name| VAGUE.contains(name))
        .map(|name| source.complaint(1, &format!("is or has a module '{name}': find the noun")))
        .collect()
}

fn long_files(source: &Source) -> Vec<String> {
    let wrong = source.lines > FILE_LINES_MAX;
    wrong
        .then(|| source.complaint(source.lines, "is the last of too many lines"))
        .into_iter()
        .collect()
}

fn long_functions(source: &Source) -> Vec<String> {
    functions(&source.code)
        .filter(|function| function.lines > FUNCTION_LINES_MAX)
        .map(|function| {
            let what = format!("begins '{}' of {} lines", function.name, function.lines);
            source.complaint(function.first_line, &what)
        })
        .collect()
}

// The project.

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

/// Every file of `src/` but those that are tests as a whole, being modules under `#[cfg(test)]`.
fn sources() -> Vec<Source> {
    let src = root().join("src");
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&src).expect("below src").display().to_string();
        (name, fs::read_to_string(&path).expect("read source"))
    };
    let files: Vec<_> = rust_files(&src).into_iter().map(read).collect();
    let tests: Vec<_> = files.iter().flat_map(|(name, text)| test_modules(name, text)).collect();
    let sources: Vec<_> = files
        .iter()
        .map(|(name, text)| Source::new(name, text))
        .filter(|source| !tests.iter().any(|module| source.is_in(module)))
        .collect();
    assert!(sources.len() > LAYERS.len(), "no sources under {}", src.display());
    sources
}

fn check(rule: Rule) {
    let wrong: Vec<_> = sources().iter().flat_map(rule).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn layers_point_one_way() {
    check(upward_names);
}

#[test]
fn imports_are_spelled_out() {
    check(hidden_names);
}

#[test]
fn outside_crates_stay_behind_their_layer() {
    check(fence_breaches);
}

#[test]
fn modules_say_what_they_are() {
    check(vague_names);
}

#[test]
fn functions_stay_within_the_budget() {
    check(long_functions);
}

#[test]
fn files_stay_within_the_budget() {
    check(long_files);
    let others = ["tests", "benches", "fuzz/src", "fuzz/targets"]
        .into_iter()
        .flat_map(|folder| rust_files(&root().join(folder)));
    for path in others {
        let lines = fs::read_to_string(&path).expect("read source").lines().count();
        assert!(lines <= FILE_LINES_MAX, "{}: {lines} lines", path.display());
    }
}

#[test]
fn every_layer_is_there_and_nothing_else() {
    let declared = fs::read_to_string(root().join("src/lib.rs")).expect("read lib.rs");
    let declared = Source::new("lib.rs", &declared);
    let declared: Vec<_> = words_after(&declared.code, "mod").collect();
    assert_eq!(declared, LAYERS, "the layers of src/lib.rs, lowest first");
}

#[test]
fn every_dependency_has_a_place_and_a_use() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("read Cargo.toml");
    let section = manifest.split("\n[dependencies]\n").nth(1).expect("dependencies");
    let section = section.split("\n[").next().unwrap_or(section);
    let names: BTreeSet<_> = section
        .lines()
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
        .map(|name| {
            let renamed = RENAMED.into_iter().find(|(package, _)| *package == name);
            renamed.map_or_else(|| name.replace('-', "_"), |(_, crate_name)| crate_name.to_owned())
        })
        .collect();
    let placed: BTreeSet<_> =
        FENCES.iter().map(|(name, _)| *name).chain(EVERYWHERE).map(str::to_owned).collect();
    assert_eq!(names, placed, "left: Cargo.toml; right: FENCES and EVERYWHERE");
    let sources = sources();
    let unused: Vec<_> = names
        .iter()
        .filter(|name| !sources.iter().any(|source| source.line_naming(name).is_some()))
        .collect();
    assert!(unused.is_empty(), "nothing in src/ names {unused:?}");
}

#[test]
fn the_lockfile_stays_small_and_clean() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("read Cargo.lock");
    let packages: Vec<_> =
        lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    let unwanted: Vec<_> =
        packages.iter().filter(|package| UNWANTED_PACKAGES.contains(package)).collect();
    assert!(unwanted.is_empty(), "in Cargo.lock: {unwanted:?}");
    assert!((1..=PACKAGES_MAX).contains(&packages.len()), "{} packages", packages.len());
}

/// Names and versions in a lock file.
fn locked(path: &str) -> BTreeSet<(String, String)> {
    let lock = fs::read_to_string(root().join(path)).expect("read a lock file");
    let field = |package: &str, name: &str| {
        let mut lines = package.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_suffix('"'));
        value.expect("a field").to_owned()
    };
    let packages = lock.split("[[package]]\n").skip(1);
    packages.map(|it| (field(it, "name = \""), field(it, "version = \""))).collect()
}

#[test]
fn what_is_fuzzed_is_what_is_built() {
    let (built, fuzzed) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    let names: BTreeSet<_> = built.iter().map(|(name, _)| name).collect();
    let other: Vec<_> =
        fuzzed.difference(&built).filter(|(name, _)| names.contains(name)).collect();
    assert!(other.is_empty(), "in fuzz/Cargo.lock alone, so copy Cargo.lock over it: {other:?}");
}

// The rules themselves.

#[test]
fn a_breach_of_each_rule_is_seen() {
    let many_lines = "let x = 1;\n".repeat(FUNCTION_LINES_MAX);
    let breaches: [(Rule, &str, String); 15] = [
        (upward_names, "wire/message.rs", "use crate::store::Store;".into()),
        (upward_names, "wire/mod.rs", "use super::store::Store;".into()),
        (upward_names, "transports/http/nar.rs", "fn f(s: &crate::store::Store) {}".into()),
        (upward_names, "formats/nar.rs", "use std::fs::File;".into()),
        (upward_names, "wire/push.rs", "async fn f() {}".into()),
        (hidden_names, "wire/push.rs", "use crate::{formats, store};".into()),
        (hidden_names, "wire/push.rs", "use crate::formats::*;".into()),
        (hidden_names, "wire/push/sender.rs", "use super::super::hello;".into()),
        (hidden_names, "wire/push.rs", "#[allow(dead_code)]\nfn f() {}".into()),
        (fence_breaches, "services/auth.rs", "use axum::Router;".into()),
        (fence_breaches, "client/push.rs", "fn f(c: &rusqlite::Connection) {}".into()),
        (vague_names, "store/utils.rs", String::new()),
        (vague_names, "store/pack.rs", "mod helpers {}".into()),
        (long_files, "store/pack.rs", "\n".repeat(FILE_LINES_MAX + 1)),
        (long_functions, "store/pack.rs", format!("fn f(x: [u8; 2]) {{\n{many_lines}}}")),
    ];
    for (rule, name, text) in breaches {
        assert_eq!(rule(&Source::new(name, &text)).len(), 1, "{name}: {text:.60}");
    }
}

#[test]
fn what_keeps_the_rules_passes() {
    let tests = "\n#[cfg(test)]\nmod tests {\n use super::*; use crate::cli::Exit;\n}\n";
    let long_test = format!("#[cfg(test)]\nfn f() {{\n{}}}", "x();\n".repeat(100));
    let fine = [
        ("wire/push.rs", "//! Unlike crate::store, no tokio::spawn.\nuse crate::formats::limits;"),
        (
            "wire/push.rs",
            "const TEXT: &str = \"crate::store \\\" axum::x\"; /* crate::cli /* */ */",
        ),
        (
            "wire/push.rs",
            "const RAW: &str = r#\"crate::store \" axum::\"#; fn f<'a>(c: char) -> bool { c == '\"' }",
        ),
        ("wire/push.rs", "use crate::storeroom::X; use State::*;"),
        ("store/db.rs", "use rusqlite::Connection;"),
        ("client/nix_store/path_info.rs", "use rusqlite::Connection;"),
        ("formats/nar.rs", tests),
        ("formats/nar.rs", &long_test),
    ];
    let rules =
        [upward_names, hidden_names, fence_breaches, vague_names, long_files, long_functions];
    for ((name, text), rule) in fine.iter().flat_map(|fine| iter::repeat(fine).zip(rules)) {
        assert_eq!(rule(&Source::new(name, text)), Vec::<String>::new(), "{name}: {text:.80}");
    }
}
