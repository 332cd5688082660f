//! The data folder, read by FORMAT.md alone.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use ed25519_dalek::{Signature, VerifyingKey};

use twox_hash::XxHash3_64;

use crate::fixture::ending::with_input;
use crate::fixture::larder::TestBox;
use crate::fixture::nix::NixStore;
use crate::stranger::nar_path::{fingerprint, hash_part, sha256};
use crate::stranger::payloads::{
    Cache, Delete, Listing, Manifest, Signatures, StoredPath, cache, delete, listing, manifest,
    path, read, read_either, signatures,
};
use crate::stranger::records::{Record, chunk_bytes, read_folder};

/// What the packs say, all in all.
#[derive(Default)]
pub(super) struct Folder {
    chunks: HashMap<[u8; 32], Record>,
    manifests: HashMap<[u8; 32], Manifest>,
    listings: HashMap<[u8; 32], Listing>,
    caches: HashMap<[u8; 16], Cache>,
    /// By cache and hash part.
    paths: HashMap<([u8; 16], [u8; 20]), StoredPath>,
}

impl Folder {
    pub(super) fn read(data: &Path) -> Self {
        let mut folder = Self::default();
        for record in read_folder(data) {
            folder.apply(record);
        }
        folder
    }

    fn apply(&mut self, record: Record) {
        let payload = &record.payload;
        match record.kind {
            1 => drop(self.chunks.entry(record.id).or_insert(record)),
            2 => self.add_manifest(read_either(payload, manifest)),
            3 => {
                let listing = read(payload, listing);
                self.listings.insert(listing.nar_hash, listing);
            }
            4 => {
                let cache = read_either(payload, cache);
                self.caches.insert(cache.uuid, cache);
            }
            5 => {
                let path = read_either(payload, path);
                let place = (path.cache, hash_part(&path.base_name));
                if !self.is_visible(place) {
                    self.paths.insert(place, path);
                }
            }
            6 => self.add_signatures(read(payload, signatures)),
            7 => self.delete(&read(payload, delete)),
            _later_kind => {}
        }
    }

    /// Whether a path is there with all that it refers to.
    fn is_visible(&self, place: ([u8; 16], [u8; 20])) -> bool {
        self.paths.get(&place).is_some_and(|path| {
            let mut others = path.references.iter().filter(|name| **name != path.base_name);
            others.all(|name| self.is_visible((place.0, hash_part(name))))
        })
    }

    fn add_manifest(&mut self, manifest: Manifest) {
        let known = self.manifests.get(&manifest.nar_hash);
        if known.is_none_or(|known| known.revision < manifest.revision) {
            self.manifests.insert(manifest.nar_hash, manifest);
        }
    }

    fn add_signatures(&mut self, added: Signatures) {
        let path = self.paths.get_mut(&(added.cache, added.hash_part)).unwrap();
        path.signatures.extend(added.signatures);
    }

    fn delete(&mut self, delete: &Delete) {
        match delete {
            Delete::Path { cache, hash_part } => {
                self.paths.remove(&(*cache, *hash_part)).unwrap();
            }
            Delete::Cache { cache } => {
                self.caches.remove(cache).unwrap();
                self.paths.retain(|(of, _), _| of != cache);
            }
        }
    }

    fn cache(&self, name: &str) -> &Cache {
        self.caches.values().find(|cache| cache.name == name).unwrap()
    }

    pub(super) fn path(&self, cache: &str, base_name: &str) -> Option<&StoredPath> {
        self.paths.get(&(self.cache(cache).uuid, hash_part(base_name)))
    }

    /// The NAR, put together from its frames, and everything that is known of it checked.
    fn nar(&self, nar_hash: &[u8; 32]) -> Vec<u8> {
        let manifest = &self.manifests[nar_hash];
        let (mut nar, mut file) = (Vec::new(), Vec::new());
        for chunk in &manifest.chunks {
            let record = &self.chunks[&chunk.id];
            assert_eq!(u64::from(record.raw_len), chunk.raw_len);
            assert_eq!(u64::try_from(record.payload.len()).unwrap(), chunk.stored_len);
            if let Some(sum) = chunk.sum {
                assert_eq!(XxHash3_64::oneshot(&record.payload).to_le_bytes(), sum);
            }
            nar.extend(chunk_bytes(record));
            file.extend_from_slice(&record.payload);
        }
        assert_eq!(sha256(&nar), *nar_hash);
        assert_eq!(u64::try_from(nar.len()).unwrap(), manifest.nar_size);
        assert_eq!(sha256(&file), manifest.file_hash);
        assert_eq!(u64::try_from(file.len()).unwrap(), manifest.file_size);
        nar
    }

    /// Checks that a NAR has a listing, of Nix's version.
    fn assert_listed(&self, nar_hash: &[u8; 32]) {
        let listing = &self.listings[nar_hash];
        let json_len = usize::try_from(listing.json_len).unwrap();
        let json = zstd::bulk::decompress(&listing.frame, json_len).unwrap();
        assert_eq!(json.len(), json_len);
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["version"], 1);
    }
}

/// Checks that the device whose key is beside it pushed the path.
fn assert_pushed_by_a_device(path: &StoredPath) {
    let text = fingerprint(&path.base_name, &path.nar_hash, path.nar_size, &path.references);
    let key = VerifyingKey::from_bytes(&path.device_key).unwrap();
    let signature = Signature::from_slice(&path.device_signature).unwrap();
    key.verify_strict(text.as_bytes(), &signature).unwrap();
}

fn base_names(absolute: &str) -> Vec<String> {
    absolute.lines().map(|line| line.trim_start_matches("/nix/store/").to_owned()).collect()
}

#[test]
fn a_stranger_reads_a_folder_that_was_kept() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/folders/format-2");
    let kinds: BTreeSet<_> = read_folder(&kept).iter().map(|record| record.kind).collect();
    assert_eq!(kinds, (1..=7).collect());
    let folder = Folder::read(&kept);
    assert_eq!((folder.caches.len(), folder.paths.len()), (2, 6));
    for (place, path) in &folder.paths {
        assert!(folder.is_visible(*place) && !folder.nar(&path.nar_hash).is_empty());
        assert_pushed_by_a_device(path);
    }
}

#[test]
fn a_stranger_reads_every_nar_out_of_the_packs() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let graph = nix.build_graph("stranger");
    let big = nix.big_path("stranger", 3 << 20);
    larder.push("main", &[graph.top.to_absolute(), big.to_absolute()]);

    let folder = Folder::read(&larder.data());
    assert!(folder.cache("main").public);
    for path in graph.closure.iter().chain([&big]) {
        let absolute = path.to_absolute();
        let stored = folder.path("main", absolute.trim_start_matches("/nix/store/")).unwrap();
        let mut references = base_names(&nix.text("nix-store", &["-q", "--references", &absolute]));
        references.sort_unstable();
        assert_eq!(stored.references, references);
        let deriver = nix.text("nix-store", &["-q", "--deriver", &absolute]);
        assert_eq!(stored.deriver.as_ref(), base_names(&deriver).first());
        assert!(stored.content_address.is_none() && !stored.hidden && stored.pushed_at > 0);
        assert!(folder.nar(&stored.nar_hash) == nix.dump(path), "{absolute}");
        assert_eq!(folder.manifests[&stored.nar_hash].revision, stored.revision);
        // A name in it is not UTF-8, which JSON cannot say.
        if !absolute.contains("-middle-") {
            folder.assert_listed(&stored.nar_hash);
        }
        assert_pushed_by_a_device(stored);
    }
}

#[test]
fn a_stranger_reads_caches_and_what_was_taken_away_out_of_the_packs() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let team = ["cache", "create", "team", "--private", "--self-signed"];
    larder.json(team.iter().chain(&["--description", "for now"]));
    larder.create_cache("gone", &["--root=7", "--priority", "41"]);
    larder.json(["cache", "set", "gone", "--retention", "300", "--quota", "5 GiB"]);
    let path = nix.big_path("twice", 300_000);
    for cache in ["main", "gone"] {
        larder.push(cache, &[path.to_absolute()]);
    }
    larder.json(["cache", "set", "team", "--description", "in earnest"]);

    let name = path.to_absolute().trim_start_matches("/nix/store/").to_owned();
    let folder = Folder::read(&larder.data());
    let (team, gone) = (folder.cache("team"), folder.cache("gone"));
    assert!(!team.public && team.self_signed && gone.public && !gone.self_signed);
    assert_eq!((team.description.as_str(), team.place), ("in earnest", None));
    assert_eq!((gone.priority, gone.place), (41, Some(7)));
    assert_eq!(gone.limits, Some((Some(300), Some(5 << 30))));
    assert_eq!(team.limits, Some((None, None)));
    assert!(team.made_at > 1_700_000_000);
    assert!(folder.path("gone", &name).is_some() && folder.path("team", &name).is_none());

    larder.run(["cache", "delete", "gone", "--yes"]);
    let folder = Folder::read(&larder.data());
    assert!(folder.caches.values().all(|cache| cache.name != "gone"));
    assert_eq!(folder.paths.len(), 1);
    let stored = folder.path("main", &name).unwrap();
    assert!(folder.nar(&stored.nar_hash) == nix.dump(&path));
}

#[test]
fn a_stranger_finds_signatures_that_came_later() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let (first, first_public) = signing_key(&nix, "first-1");
    let (second, second_public) = signing_key(&nix, "second-1");
    larder.json(["cache", "create", "team", "--self-signed", "--public-key", &first_public]);
    let path = nix.build_script("signed", "echo signed > $out").to_absolute();
    let signatures_after = |key: &str, args: &[&str]| {
        let push = ["push", "team", &path].into_iter().chain(args.iter().copied());
        let pushed = larder.command(push).env("LARDER_SIGNING_KEY", key).output().unwrap();
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        let folder = Folder::read(&larder.data());
        let mut signatures = folder.path("team", &base_names(&path)[0]).unwrap().signatures.clone();
        signatures.sort_unstable();
        signatures
    };
    let before = signatures_after(&first, &[]);
    assert!(matches!(&before[..], [one] if one.starts_with("first-1:")), "{before:?}");

    larder.json(["cache", "key", "add", "team", &second_public]);
    let after = signatures_after(&second, &["--sign-known"]);
    assert_eq!((after.len(), &after[0]), (2, &before[0]));
    assert!(after[1].starts_with("second-1:"), "{after:?}");
}

/// A secret and its public key, as Nix writes them.
fn signing_key(nix: &NixStore, name: &str) -> (String, String) {
    let secret = nix.text("nix", &["key", "generate-secret", "--key-name", name]);
    let mut convert = nix.command("nix");
    convert.args(["key", "convert-secret-to-public"]);
    let public = with_input(convert, &secret).stdout;
    (secret, String::from_utf8(public).unwrap().trim().to_owned())
}
