//! Nix's formats, with the installed Nix as the judge.

use std::fs;
use std::path::Path;

use larder::formats::cache_info::CacheInfo;
use larder::formats::nar::{Event, ListingBuilder, NarParser, NarWriter};
use larder::formats::signature::{PublicKey, SecretKey};
use larder::formats::{Compression, NarInfo, Sha256Hash, StorePath};
use tempfile::TempDir;

use crate::fixture::nix::{NixStore, SecondStore};

/// Parses a NAR in pieces of `step` bytes, writes it again and makes its listing.
fn through(nar: &[u8], step: usize) -> (Vec<u8>, Option<String>) {
    let mut parser = NarParser::new();
    let mut writer = NarWriter::new(Vec::new()).unwrap();
    let mut listing = ListingBuilder::new();
    let mut entries: Vec<bool> = Vec::new();
    let mut file: Option<(bool, u64, Vec<u8>)> = None;
    for piece in nar.chunks(step) {
        parser
            .feed(piece, &mut |event| {
                listing.note(event);
                let is_contents = matches!(event, Event::Contents(_));
                if let Some((executable, size, contents)) = file.take_if(|_| !is_contents) {
                    writer.regular(executable, size, &mut contents.as_slice()).unwrap();
                    end_entry(&mut writer, &mut entries);
                }
                match event {
                    Event::Directory => {
                        writer.begin_directory().unwrap();
                        entries.push(false);
                    }
                    Event::Entry(name) => {
                        writer.begin_entry(name).unwrap();
                        *entries.last_mut().unwrap() = true;
                    }
                    Event::EndDirectory => {
                        writer.end_directory().unwrap();
                        entries.pop();
                        end_entry(&mut writer, &mut entries);
                    }
                    Event::Regular { executable, size, .. } => {
                        file = Some((executable, size, Vec::new()));
                    }
                    Event::Contents(bytes) => file.as_mut().unwrap().2.extend_from_slice(bytes),
                    Event::Symlink(target) => {
                        writer.symlink(target).unwrap();
                        end_entry(&mut writer, &mut entries);
                    }
                }
            })
            .unwrap();
    }
    if let Some((executable, size, contents)) = file {
        writer.regular(executable, size, &mut contents.as_slice()).unwrap();
    }
    parser.finish().unwrap();
    (writer.into_inner(), listing.finish())
}

fn end_entry(writer: &mut NarWriter<Vec<u8>>, entries: &mut [bool]) {
    if entries.last_mut().is_some_and(std::mem::take) {
        writer.end_entry().unwrap();
    }
}

fn read_narinfo(folder: &Path, path: &StorePath) -> (String, NarInfo) {
    let text = fs::read_to_string(folder.join(format!("{}.narinfo", path.hash()))).unwrap();
    let narinfo = text.parse().unwrap();
    (text, narinfo)
}

#[test]
fn nars_that_nix_dumps_are_read_and_written_to_the_byte() {
    let nix = NixStore::new();
    let graph = nix.build_graph("nars");

    for path in &graph.closure {
        let nar = nix.dump(path);
        for step in [1, 7, 4096, nar.len()] {
            assert!(through(&nar, step).0 == nar, "{path} in pieces of {step}");
        }
    }
}

#[test]
fn hashes_are_as_nix_prints_them() {
    let nix = NixStore::new();
    let path = nix.big_path("hashes", 3_000_000);
    let file = format!("{}/data", path.to_absolute());

    let flat = nix.text("nix-hash", &["--type", "sha256", "--base32", "--flat", &file]);
    assert_eq!(Sha256Hash::of(&fs::read(&file).unwrap()).to_base32(), flat);
    let of_nar = nix.text("nix-hash", &["--type", "sha256", "--base32", &path.to_absolute()]);
    assert_eq!(Sha256Hash::of(&nix.dump(&path)).to_base32(), of_nar);
    let sri = nix.text("nix", &["hash", "to-sri", "--type", "sha256", &flat]);
    assert_eq!(sri.parse::<Sha256Hash>().unwrap().to_base32(), flat);
}

#[test]
fn narinfos_listings_and_cache_info_of_nix_are_read_and_written_to_the_byte() {
    let nix = NixStore::new();
    let graph = nix.build_graph("narinfos");
    let cache = TempDir::new().unwrap();
    nix.copy_to_folder(&graph.top, cache.path(), "write-nar-listing=true&compression=zstd");

    for path in &graph.closure {
        let (text, narinfo) = read_narinfo(cache.path(), path);
        assert_eq!(narinfo.to_string(), text);
        assert_eq!(narinfo.compression, Compression::Zstd);
        let nar = nix.dump(path);
        assert_eq!(narinfo.info.nar_hash, Sha256Hash::of(&nar));
        let file = fs::read(cache.path().join(&narinfo.url)).unwrap();
        assert_eq!(narinfo.file_hash, Some(Sha256Hash::of(&file)));

        // Nix 2.8 writes a name that is not UTF-8 as it is, which is no JSON.
        let theirs = fs::read(cache.path().join(format!("{}.ls", path.hash()))).unwrap();
        let theirs: Option<serde_json::Value> = serde_json::from_slice(&theirs).ok();
        let ours = through(&nar, nar.len()).1.map(|json| serde_json::from_str(&json).unwrap());
        assert_eq!(ours, theirs, "{path}");
    }
    let text = fs::read_to_string(cache.path().join("nix-cache-info")).unwrap();
    text.parse::<CacheInfo>().unwrap();
}

#[test]
fn what_nix_signs_verifies_here() {
    let nix = NixStore::new();
    let graph = nix.build_graph("signed-there");
    let folder = TempDir::new().unwrap();
    let [secret, public] = ["secret", "public"].map(|name| folder.path().join(name));
    let files = [&secret, &public].map(|path| path.to_str().unwrap());
    nix.output("nix-store", &["--generate-binary-cache-key", "there-1", files[0], files[1]]);
    let cache = folder.path().join("cache");
    let signed = format!("secret-key={}", secret.display());
    nix.copy_to_folder(&graph.top, &cache, &signed);

    let public: PublicKey = fs::read_to_string(&public).unwrap().trim().parse().unwrap();
    let secret: SecretKey = fs::read_to_string(&secret).unwrap().trim().parse().unwrap();
    assert_eq!(secret.public_key(), public);
    for path in &graph.closure {
        let (_, narinfo) = read_narinfo(&cache, path);
        let message = narinfo.info.fingerprint();
        let [signature] = narinfo.info.signatures.as_slice() else { panic!("{narinfo:?}") };
        assert!(public.verifies(message.as_bytes(), signature), "{path}");
        assert_eq!(secret.sign(message.as_bytes()), *signature);
        let other = message.replace("there", "other");
        assert!(!public.verifies(other.as_bytes(), signature), "{path}");
    }
}

/// Signs every narinfo in a folder and gives back the URL of the cache.
fn sign_all(folder: &Path, closure: &[StorePath], key: &SecretKey) -> String {
    for path in closure {
        let (_, mut narinfo) = read_narinfo(folder, path);
        narinfo.info.signatures = vec![key.sign(narinfo.info.fingerprint().as_bytes())];
        let file = folder.join(format!("{}.narinfo", path.hash()));
        fs::write(file, narinfo.to_string()).unwrap();
    }
    format!("file://{}", folder.display())
}

#[test]
fn what_is_signed_here_verifies_in_nix() {
    let nix = NixStore::new();
    let graph = nix.build_graph("signed-here");
    let cache = TempDir::new().unwrap();
    nix.copy_to_folder(&graph.top, cache.path(), "compression=zstd");
    let key = SecretKey::from_seed("here-1", &[3; 32]).unwrap();
    let url = sign_all(cache.path(), &graph.closure, &key);
    let info = CacheInfo { want_mass_query: true, priority: 30 };
    fs::write(cache.path().join("nix-cache-info"), info.to_string()).unwrap();

    let second = SecondStore::new(&url, &key.public_key());
    second.substitute_whole(&graph.top, &graph.closure);

    let other = SecretKey::from_seed("here-1", &[4; 32]).unwrap();
    let distrustful = SecondStore::new(&url, &other.public_key());
    assert!(!distrustful.substitute(&graph.top).status.success());
    assert!(!distrustful.folder(&graph.top).exists());
}

#[test]
fn two_stores_are_told_apart_by_one_byte() {
    let nix = NixStore::new();
    let paths = nix.many_tiny("tiny", 120);
    assert_eq!(paths.iter().collect::<std::collections::HashSet<_>>().len(), 120);
    let [first, second] = [&paths[0], &paths[119]].map(StorePath::to_absolute);

    let compared = std::panic::catch_unwind(|| {
        crate::fixture::tree::assert_same(Path::new(&first), Path::new(&second));
    });
    assert!(compared.is_err());
}
