//! Data folders of earlier formats: whatever they had is served as before.

use std::fs;
use std::path::Path;

use larder::formats::signature::PublicKey;
use larder::formats::{NarInfo, Sha256Hash};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::fixture::ending::with_input;
use crate::fixture::larder::{TestBox, copy_folder};
use crate::fixture::nix::{CONTENT_ADDRESSED, NixStore};
use crate::samples::{KEPT, assert_none_lacks, data, kept};

const FIRST_FORMAT: u32 = 2;
/// Files that are worth nothing after a clean stop, or empty then.
const NOT_KEPT: [&str; 3] = ["tmp", "larder.db-shm", "larder.db-wal"];

/// What a box answered before it was stopped for the last time.
#[derive(Serialize, Deserialize)]
struct Expected {
    device_id: String,
    /// A token that may read the private cache.
    reader: String,
    /// Facts of caches, as `larder cache list --json` gave them.
    caches: Vec<CacheFacts>,
    paths: Vec<PathFacts>,
    /// Build logs and realisations, which formats before 3 have not.
    #[serde(default)]
    attachments: Vec<AttachmentFacts>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct CacheFacts {
    name: String,
    public: bool,
    signing: String,
    public_keys: Vec<String>,
    priority: u32,
    root_position: Option<u32>,
    description: String,
    created_at: u64,
    paths_visible: u64,
}

#[derive(Serialize, Deserialize)]
struct PathFacts {
    cache: String,
    /// The narinfo line by line.
    narinfo: Vec<String>,
    /// The listing, if there is one.
    listing: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct AttachmentFacts {
    /// The cache, and what is asked of it.
    url: String,
    contents: String,
}

impl Expected {
    /// Asks a box about these paths of these caches, and about these attachments.
    fn of(larder: &TestBox, reader: &str, paths: &[(&str, String)], urls: Vec<String>) -> Self {
        let paths = paths.iter().map(|(cache, path)| PathFacts::of(larder, reader, cache, path));
        let attachments = urls.into_iter().map(|url| AttachmentFacts::of(larder, reader, url));
        Self {
            device_id: larder.device_id.clone(),
            reader: reader.to_owned(),
            caches: caches_of(larder),
            paths: paths.collect(),
            attachments: attachments.collect(),
        }
    }

    /// Checks that a box answers the same.
    fn assert_served(&self, larder: &TestBox) {
        assert_eq!(larder.device_id, self.device_id);
        assert_eq!(caches_of(larder), self.caches);
        for path in &self.paths {
            path.assert_served(larder, &self.reader, &self.caches);
        }
        for attachment in &self.attachments {
            let url = attachment.url.clone();
            assert_eq!(AttachmentFacts::of(larder, &self.reader, url), *attachment);
        }
    }
}

fn caches_of(larder: &TestBox) -> Vec<CacheFacts> {
    serde_json::from_value(larder.json(["cache", "list"])["caches"].take()).unwrap()
}

impl PathFacts {
    fn of(larder: &TestBox, reader: &str, cache: &str, path: &str) -> Self {
        let hash = &path.trim_start_matches("/nix/store/")[..32];
        let get = |end: &str| get(larder, reader, &format!("{cache}/{hash}.{end}"));
        let narinfo = String::from_utf8(get("narinfo").unwrap()).unwrap();
        Self {
            cache: cache.to_owned(),
            narinfo: narinfo.lines().map(str::to_owned).collect(),
            listing: get("ls").map(|json| String::from_utf8(json).unwrap()),
        }
    }

    fn narinfo(&self) -> NarInfo {
        (self.narinfo.join("\n") + "\n").parse().unwrap()
    }

    fn assert_served(&self, larder: &TestBox, reader: &str, caches: &[CacheFacts]) {
        let before = self.narinfo();
        let path = before.info.store_path.to_absolute();
        let served = Self::of(larder, reader, &self.cache, &path);
        let after = served.narinfo();
        assert_eq!(after.info, before.info);
        assert_eq!(served.listing, self.listing);
        let cache = caches.iter().find(|cache| cache.name == self.cache).unwrap();
        for key in &cache.public_keys {
            let (key, text) = (key.parse::<PublicKey>().unwrap(), after.info.fingerprint());
            let by_key = |signature: &_| key.verifies(text.as_bytes(), signature);
            assert!(after.info.signatures.iter().any(by_key), "{path} by {key}");
        }
        // A URL that was given out stays good.
        for url in [&before.url, &after.url] {
            let file = get(larder, reader, &format!("{}/{url}", self.cache)).unwrap();
            let nar = zstd::stream::decode_all(file.as_slice()).unwrap();
            assert_eq!(Sha256Hash::of(&nar), before.info.nar_hash, "{path}");
        }
    }
}

impl AttachmentFacts {
    fn of(larder: &TestBox, reader: &str, url: String) -> Self {
        let contents = get(larder, reader, &url).unwrap_or_else(|| panic!("{url} is gone"));
        Self { contents: String::from_utf8(contents).unwrap(), url }
    }
}

/// What the box serves there to who has the token; `None` for a 404.
fn get(larder: &TestBox, token: &str, path: &str) -> Option<Vec<u8>> {
    let request = ureq::get(larder.url(path)).header("Authorization", format!("Bearer {token}"));
    match request.call() {
        Ok(mut answer) => Some(answer.body_mut().read_to_vec().unwrap()),
        Err(ureq::Error::StatusCode(404)) => None,
        Err(error) => panic!("{path}: {error}"),
    }
}

/// Fills a box and stops it: every kind of record is in its packs.
fn write(into: &Path) -> Expected {
    let (nix, mut larder) = (NixStore::new(), TestBox::start());
    let graph = nix.build_graph("sample");
    let script = nix.build_script("sample", "echo a sample > $out").to_absolute();
    larder.push("main", &[graph.top.to_absolute()]);
    larder.json(["cache", "rotate-key", "main"]);
    larder.create_cache("gone", &[]);
    larder.push("gone", &[&script]);
    larder.json(["cache", "delete", "gone", "--yes"]);
    push_signed(&nix, &larder, &script);
    let (attached, attachments) = push_attached(&nix, &larder);

    let reader = larder.create_token(&["team:read"]);
    let top = graph.closure.iter().map(|path| ("main", path.to_absolute()));
    let paths: Vec<_> =
        top.chain(attached.map(|path| ("main", path))).chain([("team", script)]).collect();
    let expected = Expected::of(&larder, &reader, &paths, attachments);
    larder.stop();
    copy_folder(&larder.data(), into);
    for name in NOT_KEPT {
        let path = into.join(name);
        let _not_there = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    }
    expected
}

/// Pushes a path with its build's log, and one with its realisation: the paths, and the URLs of
/// what came with them.
fn push_attached(nix: &NixStore, larder: &TestBox) -> ([String; 2], Vec<String>) {
    let (logged, derivation, _) = nix.build_logged("sample");
    let (realised, _) = nix.build_content_addressed("sample");
    let paths = [logged.to_absolute(), realised.to_absolute()];
    larder.push("main", &paths);
    let deriver = nix.text("nix-store", &["-q", "--deriver", &realised.to_absolute()]);
    let mut info = nix.command("nix");
    info.args(["realisation", "info", "--json", &deriver]).args(CONTENT_ADDRESSED);
    let found: serde_json::Value = serde_json::from_slice(&info.output().unwrap().stdout).unwrap();
    let output = found[0]["id"].as_str().unwrap();
    let log = format!("main/log/{}", derivation.base_name());
    (paths, vec![log, format!("main/realisations/{output}.doi")])
}

/// Pushes to a private, self-signed cache with one key, and later with another.
fn push_signed(nix: &NixStore, larder: &TestBox, path: &str) {
    larder.json(["cache", "create", "team", "--private", "--self-signed"]);
    larder.json(["cache", "set", "team", "--description", "what the team makes"]);
    for name in ["sample-1", "sample-2"] {
        let secret = nix.text("nix", &["key", "generate-secret", "--key-name", name]);
        let mut convert = nix.command("nix");
        convert.args(["key", "convert-secret-to-public"]);
        let public = String::from_utf8(with_input(convert, &secret).stdout).unwrap();
        larder.json(["cache", "key", "add", "team", public.trim()]);
        let mut push = larder.command(["push", "team", "--sign-known", path]);
        let pushed = push.env("LARDER_SIGNING_KEY", secret).output().unwrap();
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    }
}

/// A folder of the present format, and the number of that.
fn present(into: &Path) -> (Expected, u32) {
    let expected = write(into);
    let version = fs::read_to_string(into.join("VERSION")).unwrap();
    (expected, version.trim_start_matches("larder data folder ").trim_end().parse().unwrap())
}

/// Starts the present box on a copy, and holds it to what is expected; so too after a new start,
/// and with an index that was made anew.
fn assert_as_before(folder: &Path, expected: &Expected) {
    let mut larder = TestBox::start_on_copy(folder);
    expected.assert_served(&larder);
    assert_sound(&larder, expected);
    larder.stop();
    larder.restart();
    expected.assert_served(&larder);
    larder.stop();
    let data = larder.data();
    let rebuilt = larder.run(["fsck", "--rebuild-index", "--data", data.to_str().unwrap()]);
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    larder.restart();
    expected.assert_served(&larder);
    assert_sound(&larder, expected);
}

fn assert_sound(larder: &TestBox, expected: &Expected) {
    let found = larder.json(["fsck"]);
    let wants = (expected.paths.len().into(), serde_json::json!([]));
    assert_eq!((&found["paths"], &found["damaged"]), (&wants.0, &wants.1), "{found}");
}

#[test]
fn kept_folders_are_served_as_before() {
    for name in kept("folders", ".json") {
        let expected = fs::read(data("folders").join(format!("{name}.json"))).unwrap();
        assert_as_before(&data("folders").join(&name), &serde_json::from_slice(&expected).unwrap());
    }
}

#[test]
fn a_folder_of_today_is_served_like_the_kept_ones() {
    let made = TempDir::new().unwrap();
    let folder = made.path().join("data");
    let (expected, format) = present(&folder);
    assert_as_before(&folder, &expected);
    assert_none_lacks("folders", ".json", "format-", FIRST_FORMAT, format);
    if KEPT {
        let name = data("folders").join(format!("format-{format}"));
        let _of_before = fs::remove_dir_all(&name);
        copy_folder(&folder, &name);
        let text = serde_json::to_string_pretty(&expected).unwrap() + "\n";
        fs::write(name.with_extension("json"), text).unwrap();
    }
}
