//! `larder backup` and `larder restore`: the way there and back, and what they refuse.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::ending::assert_end;
use crate::fixture::larder::{TestBox, copy_folder};
use crate::fixture::nix::NixStore;
use crate::fixture::served::{assert_served, get, narinfo};

/// A box, and a folder for its backups.
struct Case {
    larder: TestBox,
    folder: TempDir,
}

impl Case {
    fn new() -> Self {
        Self { larder: TestBox::start(), folder: TempDir::new().unwrap() }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn back_up(&self) -> String {
        let file = self.file("office.backup");
        self.larder.json(["backup", &file]);
        file
    }

    fn data(&self) -> String {
        self.larder.data().to_str().unwrap().to_owned()
    }

    /// Restores, which must go well; what it printed as JSON, and what it said.
    fn restore(&self, file: &str, data: &str) -> (Value, String) {
        let output = self.larder.run(["restore", file, "--data", data, "--yes", "--json"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        (serde_json::from_slice(&output.stdout).unwrap(), said)
    }

    fn remove_index(&self) {
        for end in ["", "-wal", "-shm"] {
            let _none = fs::remove_file(self.larder.data().join(format!("larder.db{end}")));
        }
    }
}

/// All files below a folder with their bytes.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_lost_index_comes_back_with_keys_tokens_and_what_was_pushed_since() {
    let nix = NixStore::new();
    let (first, second) = (nix.build_graph("backup-one"), nix.build_graph("backup-two"));
    let mut case = Case::new();
    let larder = &case.larder;
    larder.create_cache("secret", &["--private"]);
    larder.push("main", &[first.top.to_absolute()]);
    let reader = larder.create_token(&["secret:read"]);

    let file = case.file("office.backup");
    let written = larder.json(["backup", &file]);
    let size = fs::metadata(&file).unwrap();
    assert_eq!(
        (written["bytes"].as_u64(), written["file"].as_str()),
        (Some(size.len()), Some(&*file))
    );
    assert_eq!(size.permissions().mode() & 0o777, 0o600);
    assert!(written["made_at"].as_u64() > Some(1_700_000_000));
    assert_eq!(fs::read_dir(case.folder.path()).unwrap().count(), 1, "nothing else is left there");
    assert_eq!(fs::read_dir(larder.data().join("tmp")).unwrap().count(), 0);

    larder.push("main", &[second.top.to_absolute()]);
    larder.push("secret", &[second.top.to_absolute()]);
    case.larder.stop();
    case.remove_index();
    fs::remove_file(case.larder.data().join("identity.key")).unwrap();
    fs::remove_file(case.larder.data().join("admin.token")).unwrap();

    let (restored, said) = case.restore(&file, &case.data());
    assert_eq!((&restored["caches"], &restored["tokens"]), (&2.into(), &2.into()), "{restored}");
    assert_eq!(restored["from_packs"], false);
    assert_eq!(restored["made_private"], serde_json::json!([]));
    assert!(said.contains("larder token list"), "{said}");
    let settings = fs::read(restored["settings"].as_str().unwrap()).unwrap();
    assert!(settings.is_empty(), "the box's file is an empty one");
    for name in ["identity.key", "admin.token", "larder.db", "VERSION", "larder.toml"] {
        let mode = fs::metadata(case.larder.data().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }

    case.larder.restart();
    for path in first.closure.iter().chain(&second.closure) {
        assert_served(&case.larder, &nix, path);
    }
    let url = case.larder.url(&format!("secret/{}.narinfo", second.top.hash()));
    assert!(matches!(ureq::get(&url).call(), Err(ureq::Error::StatusCode(401))));
    let told = ureq::get(&url).header("Authorization", format!("Bearer {reader}")).call();
    assert_eq!(told.unwrap().status(), 200);
}

#[test]
fn a_box_moves_to_another_machine() {
    let nix = NixStore::new();
    let graph = nix.build_graph("backup-move");
    let mut case = Case::new();
    case.larder.push("main", &[graph.top.to_absolute()]);
    let file = case.back_up();
    case.larder.stop();
    let moved = case.folder.path().join("data");
    let moved = moved.to_str().unwrap();

    let (restored, said) = case.restore(&file, moved);
    assert_eq!((&restored["packs"], &restored["paths"]), (&0.into(), &0.into()), "{restored}");
    assert!(said.contains("no packs"), "{said}");
    fs::remove_dir(Path::new(moved).join("packs")).unwrap();
    copy_folder(&case.larder.data().join("packs"), &Path::new(moved).join("packs"));

    let there = TestBox::start_on_copy(Path::new(moved));
    assert_eq!(there.device_id, case.larder.device_id);
    assert_eq!((&there.token, &there.public_key), (&case.larder.token, &case.larder.public_key));
    for path in &graph.closure {
        assert_served(&there, &nix, path);
    }
}

#[test]
fn a_deleted_cache_does_not_come_back_and_a_private_one_stays_private() {
    let nix = NixStore::new();
    let graph = nix.build_graph("backup-private");
    let mut case = Case::new();
    for name in ["gone", "team"] {
        case.larder.create_cache(name, &[]);
        case.larder.push(name, &[graph.top.to_absolute()]);
    }
    assert!(narinfo(&case.larder, "team", &graph.top).is_some());
    let file = case.back_up();
    case.larder.json(["cache", "delete", "gone", "--yes"]);
    case.larder.json(["cache", "set", "team", "--private"]);
    case.larder.stop();
    case.remove_index();

    case.restore(&file, &case.data());
    case.larder.restart();

    let listed = case.larder.json(["cache", "list"]);
    let caches = listed["caches"].as_array().unwrap().iter();
    let caches: Vec<_> =
        caches.map(|cache| (cache["name"].clone(), cache["public"].clone())).collect();
    assert_eq!(caches, [("main".into(), true.into()), ("team".into(), false.into())]);
    for cache in ["gone", "team"] {
        let url = case.larder.url(&format!("{cache}/{}.narinfo", graph.top.hash()));
        assert!(
            matches!(ureq::get(&url).call(), Err(ureq::Error::StatusCode(401 | 404))),
            "{cache}"
        );
    }
    let root = case.larder.url(&format!("{}.narinfo", graph.top.hash()));
    assert!(get(&root).is_none());
}

#[test]
fn a_backup_goes_where_it_can_be_written_and_over_nothing() {
    let case = Case::new();
    let there = case.file("there");
    fs::write(&there, "dear").unwrap();
    assert_end(&case.larder.run(["backup", &there]), 1, &["is there already", "hint: "]);
    assert_eq!(fs::read(&there).unwrap(), b"dear");
    for name in ["nowhere/x.backup", "there/x.backup"] {
        assert_end(&case.larder.run(["backup", &case.file(name)]), 1, &["cannot write", name]);
    }
    assert_end(&case.larder.run(["backup"]), 2, &["FILE"]);
    // A folder on which nobody can write, root least of all.
    assert_end(&case.larder.run(["backup", "/proc/larder.backup"]), 1, &["cannot write"]);
    assert_eq!(fs::read_dir(case.folder.path()).unwrap().count(), 1);
}

#[test]
fn a_backup_takes_a_personal_token_and_a_box() {
    let mut case = Case::new();
    let token = case.larder.create_token(&["main:readwrite"]);
    let file = case.file("office.backup");
    let refused = case.larder.command(["backup", &file]).env("LARDER_AUTH_TOKEN", token).output();
    assert_end(&refused.unwrap(), 4, &["personal token"]);
    case.larder.stop();
    assert_end(&case.larder.run(["backup", &file]), 5, &["hint: "]);
    assert_eq!(fs::read_dir(case.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_backup_is_made_for_one_at_a_time() {
    let case = Case::new();
    let url = case.larder.url("api/larder/v1/backup");
    let bearer = format!("Bearer {}", case.larder.token);
    let post = || ureq::post(&url).header("Authorization", &bearer).send_empty();
    assert_eq!(post().unwrap().status(), 202);
    assert!(matches!(post(), Err(ureq::Error::StatusCode(409))));
    let file = case.file("office.backup");
    assert_end(&case.larder.run(["backup", &file]), 1, &["somebody else's backup"]);

    let removed = (0..200).any(|_try| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        ureq::delete(format!("{url}/1")).header("Authorization", &bearer).call().is_ok()
    });
    assert!(removed, "it was made");
    case.larder.json(["backup", &file]);
    for gone in ["1?offset=0", "2", "x"] {
        let get = ureq::get(format!("{url}/{gone}")).header("Authorization", &bearer).call();
        assert!(matches!(get, Err(ureq::Error::StatusCode(404))), "{gone}");
    }
}

#[test]
fn what_cannot_be_restored_is_refused_and_nothing_changes() {
    let mut case = Case::new();
    let file = case.back_up();
    let data = case.data();
    let restore = |file: &str| case.larder.run(["restore", file, "--data", &data, "--yes"]);
    assert_end(&restore(&file), 1, &["another larder is using", "systemctl stop larder"]);
    assert_eq!(case.larder.json(["status"])["caches"].as_array().unwrap().len(), 1);
    case.larder.stop();
    let before = contents(Path::new(&data));
    let restore = |file: &str| case.larder.run(["restore", file, "--data", &data, "--yes"]);
    let whole = fs::read(&file).unwrap();
    let changed = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(case.file(name), bytes).unwrap();
        case.file(name)
    };

    let newer = changed("newer", &|bytes| bytes[8] = 2);
    assert_end(&restore(&newer), 1, &["it has format 2", "the larder that made it"]);
    let short = changed("short", &|bytes| bytes.truncate(bytes.len() - 100));
    assert_end(&restore(&short), 6, &["cut short"]);
    let damaged = changed("damaged", &|bytes| bytes[100] ^= 1);
    assert_end(&restore(&damaged), 6, &["damaged"]);
    let other = changed("other", &|bytes| *bytes = b"dear diary".repeat(20));
    assert_end(&restore(&other), 1, &["no backup of larder"]);
    let empty = changed("empty", &|bytes| bytes.clear());
    assert_end(&restore(&empty), 1, &["no backup of larder"]);
    assert_end(&restore(&case.file("nowhere")), 1, &["cannot open", "nowhere"]);
    assert_end(&restore(case.folder.path().to_str().unwrap()), 1, &["cannot read"]);
    let unasked = case.larder.run(["restore", &file, "--data", &data]);
    assert_end(&unasked, 2, &["say --yes"]);
    let nowhere = case.larder.run(["restore", &file, "--data", &case.file("a/b"), "--yes"]);
    assert_end(&nowhere, 1, &["cannot make"]);
    assert!(contents(Path::new(&data)) == before, "something has changed");

    let version = Path::new(&data).join("VERSION");
    let text = fs::read(&version).unwrap();
    fs::write(&version, "larder data folder 99\n").unwrap();
    assert_end(&restore(&file), 1, &["format 99", "VERSION.before-migration"]);
    fs::write(&version, text).unwrap();
    case.restore(&file, &data);
    case.larder.restart();
}
