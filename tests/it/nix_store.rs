//! The local Nix store as larder reads it, against what Nix says of it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use larder::client::nix_store::{Location, NixStore as LocalStore, NixStoreError};
use larder::client::nix_store::{dump, split_arguments};
use larder::formats::signature::{PublicKey, SecretKey};
use larder::formats::{PathInfo, Sha256Hash, StorePath};
use tempfile::TempDir;

use crate::fixture::nix::{NixStore, SecondStore};

fn open() -> LocalStore {
    LocalStore::open(Location::from_variables(|_| None).unwrap()).unwrap()
}

fn dumped(root: &Path) -> Vec<u8> {
    let mut nar = Vec::new();
    dump(root, &mut nar).unwrap();
    nar
}

/// Compares facts with `nix path-info --json`.
fn assert_as_nix_says(nix: &NixStore, info: &PathInfo) {
    let path = info.store_path.to_absolute();
    let json = nix.output("nix", &["path-info", "--json", &path]);
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let theirs = &json[0];
    assert_eq!(theirs["path"], path);
    assert_eq!(theirs["narHash"].as_str().unwrap().parse(), Ok(info.nar_hash));
    assert_eq!(theirs["narSize"], info.nar_size);
    let references: HashSet<_> = info.references.iter().map(StorePath::to_absolute).collect();
    let their_references = theirs["references"].as_array().unwrap();
    assert_eq!(references.len(), their_references.len());
    assert!(their_references.iter().all(|path| references.contains(path.as_str().unwrap())));
    assert_eq!(
        theirs["deriver"].as_str(),
        info.deriver.as_ref().map(|p| p.to_absolute()).as_deref()
    );
    assert_eq!(theirs["ca"].as_str(), info.ca.as_deref());
    let signatures: Vec<_> = info.signatures.iter().map(ToString::to_string).collect();
    let theirs = theirs["signatures"].as_array().cloned().unwrap_or_default();
    assert_eq!(signatures, theirs);
}

#[test]
fn dumps_are_nixs_to_the_byte() {
    let nix = NixStore::new();
    let mut paths = nix.build_graph("dumps").closure;
    paths.push(nix.big_path("dumps", 5_000_001));
    let store = open();

    for path in &paths {
        let nar = dumped(&store.folder(path));
        assert!(nar == nix.dump(path), "{path}");
        let info = store.path_info(path).unwrap().unwrap();
        assert_eq!(info.nar_hash, Sha256Hash::of(&nar));
        assert_eq!(info.nar_size, u64::try_from(nar.len()).unwrap());
    }
}

#[test]
fn facts_are_as_nix_tells_them() {
    let nix = NixStore::new();
    let graph = nix.build_graph("facts");
    let folder = TempDir::new().unwrap();
    let key = SecretKey::from_seed("facts-1", &[9; 32]).unwrap();
    let key_file = folder.path().join("key");
    fs::write(&key_file, key.to_secret_text()).unwrap();
    let top = graph.top.to_absolute();
    nix.output("nix", &["store", "sign", "--key-file", key_file.to_str().unwrap(), &top]);
    // Content-addressed, without deriver and signature.
    let file = folder.path().join("larder-test-facts");
    fs::write(&file, folder.path().to_str().unwrap()).unwrap();
    let added = nix.text("nix-store", &["--add", file.to_str().unwrap()]);
    let added = StorePath::from_absolute(&added).unwrap();
    let store = open();

    for path in graph.closure.iter().chain([&added]) {
        assert_as_nix_says(&nix, &store.path_info(path).unwrap().unwrap());
    }
    let signed = store.path_info(&graph.top).unwrap().unwrap();
    let message = signed.fingerprint();
    assert!(key.public_key().verifies(message.as_bytes(), &signed.signatures[0]));
    assert!(store.path_info(&added).unwrap().unwrap().ca.is_some());
    nix.output("nix-store", &["--delete", &added.to_absolute()]);
    assert_eq!(store.path_info(&added).unwrap(), None);
}

#[test]
fn closures_are_whole_and_references_come_first() {
    let nix = NixStore::new();
    let graph = nix.build_graph("closures");
    let other = nix.many_tiny("closures", 2);
    let store = open();

    let roots = [&graph.top, &other[0], &graph.closure[0], &graph.top].map(Clone::clone);
    let infos = store.closure(&roots).unwrap();
    let mut seen = HashSet::new();
    for info in &infos {
        for reference in info.references.iter().filter(|path| **path != info.store_path) {
            assert!(seen.contains(reference), "{reference} comes after {}", info.store_path);
        }
        assert!(seen.insert(info.store_path.clone()), "{} is there twice", info.store_path);
    }
    let mut wanted: HashSet<_> = graph.closure.iter().cloned().collect();
    wanted.insert(other[0].clone());
    assert_eq!(seen, wanted);

    let alone = store.path_infos(&roots).unwrap();
    let alone: Vec<_> = alone.iter().map(|info| &info.store_path).collect();
    assert_eq!(alone, [&graph.top, &other[0], &graph.closure[0]]);
    let unknown: StorePath = "7h7qgvs4kgzsn8a6rb273saxyqh4jxlz-nothing".parse().unwrap();
    for error in [
        store.closure(std::slice::from_ref(&unknown)).unwrap_err(),
        store.path_infos(std::slice::from_ref(&unknown)).unwrap_err(),
    ] {
        assert!(matches!(error, NixStoreError::NotValid(path) if path == unknown));
    }
}

#[test]
fn arguments_lead_to_the_store_path_that_is_meant() {
    let nix = NixStore::new();
    let graph = nix.build_graph("arguments");
    let link_path = graph.closure.iter().find(|path| path.name().starts_with("link-")).unwrap();
    let top = graph.top.to_absolute();
    let folder = TempDir::new().unwrap();
    let here = folder.path().join("project/src");
    fs::create_dir_all(&here).unwrap();
    symlink(&top, here.join("../result")).unwrap();
    symlink("../result", here.join("again")).unwrap();
    symlink(".", here.join("dot")).unwrap();
    symlink(link_path.to_absolute(), here.join("link")).unwrap();
    let store = open();
    let resolve = |argument: &str| store.resolve(Path::new(argument), &here);

    for argument in [
        &*top,
        &format!("{top}/"),
        &format!("{top}/share/doc/see-also"),
        &format!("{top}/no/such/file"),
        "../result",
        "./../result/share",
        "again",
        "dot/dot/again/share/middle",
        here.join("again").to_str().unwrap(),
        &format!("../../project/src/../../..{top}").replace("../../..", &"../".repeat(30)),
    ] {
        assert_eq!(resolve(argument).unwrap(), graph.top, "{argument}");
    }
    // A store path that is a symlink means itself.
    assert_eq!(resolve("link").unwrap(), *link_path);
    assert_eq!(resolve("link/hello").unwrap(), *link_path);
}

#[test]
fn arguments_that_lead_nowhere_are_told_apart() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    symlink("round", here.join("about")).unwrap();
    symlink("about", here.join("round")).unwrap();
    symlink("/nowhere/at/all", here.join("dangling")).unwrap();
    fs::write(here.join("file"), "").unwrap();
    let store = open();
    let refused = |argument: &str| store.resolve(Path::new(argument), here).unwrap_err();

    assert!(matches!(refused("round"), NixStoreError::SymlinkLoop(_)));
    assert!(matches!(refused("dangling"), NixStoreError::File { action: "find", .. }));
    assert!(matches!(refused("missing"), NixStoreError::File { action: "find", .. }));
    assert!(matches!(refused("file"), NixStoreError::NotInStore { leads_to, .. }
        if leads_to == here.join("file").canonicalize().unwrap()));
    assert!(matches!(refused("/nix/store"), NixStoreError::NotInStore { .. }));
    assert!(matches!(refused("/nix/store/.links"), NixStoreError::NotAStorePath { .. }));
    assert!(matches!(refused("/nix/store/../x"), NixStoreError::NotAStorePath { .. }));
    let unknown = "/nix/store/7h7qgvs4kgzsn8a6rb273saxyqh4jxlz-nothing";
    assert!(matches!(refused(unknown), NixStoreError::NotValid(_)));
    symlink(unknown, here.join("old-result")).unwrap();
    assert!(matches!(refused("old-result"), NixStoreError::NotValid(_)));
}

#[test]
fn a_store_below_another_root_is_read_there() {
    let nix = NixStore::new();
    let graph = nix.build_graph("rooted");
    let cache = TempDir::new().unwrap();
    let key = SecretKey::from_seed("rooted-1", &[5; 32]).unwrap();
    let key_file = cache.path().join("key");
    fs::write(&key_file, key.to_secret_text()).unwrap();
    nix.copy_to_folder(&graph.top, cache.path(), &format!("secret-key={}", key_file.display()));
    let public: PublicKey = key.public_key();
    let second = SecondStore::new(&format!("file://{}", cache.path().display()), &public);
    second.substitute_whole(&graph.top, &graph.closure);
    let remote = OsString::from(format!("local?root={}", second.root().display()));
    let variable = |name: &str| (name == "NIX_REMOTE").then(|| remote.clone());
    let store = LocalStore::open(Location::from_variables(variable).unwrap()).unwrap();

    for info in store.closure(std::slice::from_ref(&graph.top)).unwrap() {
        assert_eq!(store.folder(&info.store_path), second.folder(&info.store_path));
        assert_eq!(Sha256Hash::of(&dumped(&store.folder(&info.store_path))), info.nar_hash);
        assert!(info.signatures.iter().any(|s| public.verifies(info.fingerprint().as_bytes(), s)));
    }
    for argument in [graph.top.to_absolute().into(), second.folder(&graph.top)] {
        assert_eq!(store.resolve(&argument, Path::new("/")).unwrap(), graph.top);
    }
    fs::rename(second.folder(&graph.top), second.root().join("elsewhere")).unwrap();
    let vanished = store.resolve(Path::new(&graph.top.to_absolute()), Path::new("/")).unwrap_err();
    assert!(matches!(vanished, NixStoreError::Vanished(path) if path == graph.top));
}

#[test]
fn what_is_no_database_is_refused() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().as_os_str().to_owned();
    let by = |remote: &str| {
        let variable = |name: &str| match name {
            "NIX_STATE_DIR" => Some(state.clone()),
            "NIX_REMOTE" => Some(remote.into()),
            _ => None,
        };
        Location::from_variables(variable).unwrap()
    };
    let location = by("local");

    let refused = LocalStore::open(by("auto")).unwrap_err();
    assert!(matches!(refused, NixStoreError::NoWay { .. }));
    let refused = LocalStore::open(location.clone()).unwrap_err();
    assert!(matches!(refused, NixStoreError::Open { .. }));
    fs::create_dir(folder.path().join("db")).unwrap();
    fs::write(folder.path().join("db/db.sqlite"), "hello ".repeat(1000)).unwrap();
    let refused = LocalStore::open(location.clone()).unwrap_err();
    assert!(matches!(refused, NixStoreError::Open { .. }));
    fs::write(folder.path().join("db/db.sqlite"), "").unwrap();
    fs::write(folder.path().join("db/schema"), "11").unwrap();
    let refused = LocalStore::open(location).unwrap_err();
    assert!(matches!(refused, NixStoreError::Schema { found } if found == "11"));
}

/// Does something to the tree when the first bytes of the NAR come out.
struct Meanwhile<F>(Option<F>);

impl<F: FnOnce()> Write for Meanwhile<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(act) = self.0.take() {
            act();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_ends_the_dump() {
    let folder = TempDir::new().unwrap();
    for length in [0, 200_000, 999_999, 1_000_001, 2_000_000] {
        let path = folder.path().join("file");
        fs::write(&path, vec![7; 1_000_000]).unwrap();
        let act = || File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        let error = dump(folder.path(), &mut Meanwhile(Some(act))).unwrap_err();
        assert!(matches!(&error, NixStoreError::Changed(changed) if *changed == path), "{error}");
    }
    let path = folder.path().join("file");
    fs::write(&path, vec![7; 1_000_000]).unwrap();
    dump(folder.path(), &mut Meanwhile(Some(|| ()))).unwrap();
}

#[test]
fn trees_that_no_nar_can_hold_are_refused() {
    let folder = TempDir::new().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let error = dump(folder.path(), &mut io::sink()).unwrap_err();
    assert!(matches!(error, NixStoreError::Kind(path) if path == fifo));
    fs::remove_file(&fifo).unwrap();

    let mut deep = folder.path().to_owned();
    for _ in 1..larder::formats::limits::NAR_DEPTH_MAX {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    dump(folder.path(), &mut io::sink()).unwrap();
    fs::create_dir(deep.join("d")).unwrap();
    let error = dump(folder.path(), &mut io::sink()).unwrap_err();
    assert!(matches!(error, NixStoreError::Depth(_)));

    let error = dump(&folder.path().join("missing"), &mut io::sink()).unwrap_err();
    assert!(matches!(error, NixStoreError::File { .. }));
}

#[test]
fn whoever_takes_the_bytes_may_end_the_dump() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), vec![7; 1_000_000]).unwrap();

    let error = dump(folder.path(), &mut Full).unwrap_err();
    assert!(matches!(error, NixStoreError::Output(e) if e.kind() == io::ErrorKind::BrokenPipe));
}

#[test]
fn arguments_stand_between_white_space() {
    let words: Vec<_> = split_arguments(b" /nix/store/a\n\n./b\t\xff \r\n").collect();
    assert_eq!(words.len(), 3);
    assert_eq!(words[..2], ["/nix/store/a", "./b"]);
    assert_eq!(split_arguments(b" \n").count(), 0);
}
