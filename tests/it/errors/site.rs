//! A box on a copy of a prepared folder, and the laws that it is held to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use larder::formats::{NarInfo, StorePath};
use tempfile::TempDir;

use crate::errors::control::{Control, build_shim};
use crate::fixture::larder::{Start, TestBox, command, copy_folder};
use crate::fixture::nix::NixStore;

/// What cases begin with, made once.
pub(super) struct Prepared {
    folder: TempDir,
    /// Removed with what is in it when this is dropped.
    _nix: NixStore,
    nars: BTreeMap<String, Vec<u8>>,
    /// Served in `main` from the beginning.
    pub(super) kept: Vec<StorePath>,
    /// In `ci` from the beginning, where a scene may remove them.
    pub(super) old: Vec<StorePath>,
    /// What scenes push.
    pub(super) new: Vec<StorePath>,
    /// Is pushed when the condition has ended.
    after: StorePath,
    shim: PathBuf,
}

impl Prepared {
    pub(super) fn new() -> Self {
        let nix = NixStore::new();
        let big = |name: &str, bytes| nix.big_path(name, bytes);
        let kept = vec![nix.build_script("kept", "echo kept > $out"), big("kept", 200_000)];
        let old = vec![big("old-one", 150_000), nix.build_script("old", "echo old > $out")];
        let new = vec![nix.build_script("new", "echo new > $out"), big("new", 250_000)];
        let after = big("after", 100_000);
        let all = kept.iter().chain(&old).chain(&new).chain([&after]);
        let nars = all.map(|path| (path.to_absolute(), nix.dump(path))).collect();
        let folder = TempDir::with_prefix("larder-errors").unwrap();
        let shim = build_shim(folder.path());
        let prepared = Self { folder, _nix: nix, nars, kept, old, new, after, shim };
        prepared.make_folders();
        prepared
    }

    /// `empty`: a box that was started once. `full`: one with paths. `behind`: the same, and an
    /// index that knows nothing of the last push. `killed`: the same, as a kill left it.
    fn make_folders(&self) {
        let mut larder = TestBox::start();
        larder.stop();
        copy_folder(&larder.data(), &self.named("empty"));
        larder.restart();
        larder.create_cache("ci", &[]);
        larder.push("main", &[self.kept[0].to_absolute()]);
        larder.push("ci", &self.old.iter().map(StorePath::to_absolute).collect::<Vec<_>>());
        larder.stop();
        let index = fs::read(larder.data().join("larder.db")).unwrap();
        larder.restart();
        larder.push("main", &[self.kept[1].to_absolute()]);
        let file = self.named("backup").display().to_string();
        larder.json(["backup", &file]);
        larder.kill();
        copy_folder(&larder.data(), &self.named("killed"));
        larder.restart();
        larder.stop();
        copy_folder(&larder.data(), &self.named("full"));
        copy_folder(&larder.data(), &self.named("behind"));
        fs::write(self.named("behind").join("larder.db"), index).unwrap();
    }

    pub(super) fn named(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// What was said to be done, and must be so from then on.
#[derive(Clone, Debug)]
pub(super) enum Claim {
    Served(StorePath),
    Gone(StorePath),
    Cache(&'static str),
    NoCache(&'static str),
    Pin(&'static str),
    NoPin(&'static str),
    Token(String),
}

/// One box.
pub(super) struct Site<'a> {
    pub(super) prepared: &'a Prepared,
    pub(super) control: Control,
    pub(super) larder: Option<TestBox>,
    folder: Arc<TempDir>,
    _control_folder: TempDir,
    /// What commands that failed, or the box, said.
    pub(super) said: Vec<String>,
}

impl<'a> Site<'a> {
    /// On a copy of a prepared folder, or on none. Nothing runs yet.
    pub(super) fn new(prepared: &'a Prepared, from: Option<&Path>) -> Self {
        let folder = TempDir::with_prefix("larder-box").unwrap();
        if let Some(from) = from {
            copy_folder(from, &folder.path().join("data"));
        }
        let control_folder = TempDir::with_prefix("larder-control").unwrap();
        let control = Control::new(control_folder.path(), &prepared.shim);
        let folder = Arc::new(folder);
        let said = Vec::new();
        Self { prepared, control, larder: None, folder, _control_folder: control_folder, said }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the box with the shim.
    pub(super) fn start(&mut self) -> Result<(), String> {
        let variables = self.control.variables();
        self.launch(variables)
    }

    fn launch(&mut self, variables: Vec<(String, String)>) -> Result<(), String> {
        let start = Start { variables, ..Start::default() };
        self.larder = Some(TestBox::try_start_in(Arc::clone(&self.folder), start)?);
        Ok(())
    }

    /// Kills the box, takes back what was not synced, and starts it without the shim.
    pub(super) fn lose_power(&mut self) {
        self.larder.as_mut().unwrap().kill();
        self.control.lose_power(&self.data());
        self.launch(Vec::new()).unwrap_or_else(|error| panic!("after a loss of power: {error}"));
    }

    pub(super) fn the_box(&self) -> &TestBox {
        self.larder.as_ref().unwrap()
    }

    /// Runs a command against the box; whether it went well.
    pub(super) fn run(&mut self, args: &[&str]) -> Option<Output> {
        let output = self.the_box().command(args).stdin(Stdio::null()).output().unwrap();
        self.judge(args, output)
    }

    /// Runs a command that works on the folder itself, with the shim.
    pub(super) fn run_offline(&mut self, args: &[&str]) -> Option<Output> {
        let mut command = command(self.folder.path(), args);
        let variables = self.control.variables();
        let output = command.envs(variables).stdin(Stdio::null()).output().unwrap();
        self.judge(args, output)
    }

    /// What fails says why, and does not panic.
    fn judge(&mut self, args: &[&str], output: Output) -> Option<Output> {
        if output.status.success() {
            return Some(output);
        }
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_clear = matches!(output.status.code(), Some(1 | 5 | 7 | 8)) && error.contains(' ');
        assert!(is_clear, "{args:?}: {}: {error}", output.status);
        let told = error.lines().rfind(|line| line.starts_with("larder: "));
        self.said.push(told.unwrap_or(&error).trim().to_owned());
        None
    }

    /// Pushes to `main`; the paths that were acknowledged.
    pub(super) fn push(&mut self, paths: &[StorePath]) -> Vec<Claim> {
        let mut args = vec!["push".to_owned(), "main".to_owned(), "-v".to_owned()];
        args.extend(paths.iter().map(StorePath::to_absolute));
        let output = self.the_box().command(&args).stdin(Stdio::null()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_whole = output.status.success();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        self.judge(&args, output);
        let acknowledged = |path: &&StorePath| {
            let is_named = |line: &str| {
                line.contains("acknowledged a path") && line.contains(path.base_name())
            };
            is_whole || told.lines().any(is_named)
        };
        paths.iter().filter(acknowledged).cloned().map(Claim::Served).collect()
    }

    /// A further push goes well, by itself.
    pub(super) fn push_after(&mut self) -> Claim {
        let after = self.prepared.after.clone();
        let claims = self.push(std::slice::from_ref(&after));
        assert!(!claims.is_empty(), "no push goes through afterwards: {:?}", self.said.last());
        Claim::Served(after)
    }

    /// The NAR of a path, if it is served; `Err` if that ends half-way.
    fn fetch(&self, cache: &str, path: &StorePath) -> Result<Option<Vec<u8>>, String> {
        let url = format!("{cache}/{}.narinfo", path.hash());
        let Some(text) = self.get(&url)? else { return Ok(None) };
        let narinfo: NarInfo = String::from_utf8(text).unwrap().parse().unwrap();
        let url = format!("{cache}/{}", narinfo.url);
        let file = self.get(&url)?.ok_or_else(|| format!("{url} is advertised and not there"))?;
        Ok(Some(zstd::stream::decode_all(file.as_slice()).map_err(|error| error.to_string())?))
    }

    fn get(&self, url: &str) -> Result<Option<Vec<u8>>, String> {
        match ureq::get(&self.the_box().url(url)).call() {
            Ok(mut answer) => answer.body_mut().read_to_vec().map(Some),
            // 401: there is no such cache.
            Err(ureq::Error::StatusCode(404 | 401)) => return Ok(None),
            Err(error) => Err(error),
        }
        .map_err(|error| format!("{url}: {error}"))
    }

    /// Reads everything; what is read is right.
    pub(super) fn disturb_readers(&self) {
        let Prepared { kept, old, new, .. } = self.prepared;
        let in_main = kept.iter().chain(new).map(|path| ("main", path));
        for (cache, path) in in_main.chain(old.iter().map(|path| ("ci", path))) {
            if let Ok(Some(nar)) = self.fetch(cache, path) {
                assert!(nar == self.prepared.nars[&path.to_absolute()], "{path} has other bytes");
            }
        }
    }

    /// A path is served, and it is what Nix dumps.
    pub(super) fn assert_served(&self, path: &StorePath, when: &str) {
        let nar = self.fetch("main", path);
        let nar = nar.unwrap_or_else(|error| panic!("{when}: {path}: {error}"));
        let nar = nar.unwrap_or_else(|| panic!("{when}: {path} is not served"));
        assert!(nar == self.prepared.nars[&path.to_absolute()], "{when}: {path} has other bytes");
    }

    /// What was there is served, and what was not said to be done is there whole or not at all.
    pub(super) fn assert_kept(&self, when: &str) {
        for path in &self.prepared.kept {
            self.assert_served(path, when);
        }
    }

    pub(super) fn assert_whole_or_absent(&self, when: &str) {
        let Prepared { new, old, .. } = self.prepared;
        let places = new.iter().map(|it| ("main", it)).chain(old.iter().map(|it| ("ci", it)));
        for (cache, path) in places {
            let nar = self.fetch(cache, path);
            if let Some(nar) = nar.unwrap_or_else(|error| panic!("{when}: {path}: {error}")) {
                let expected = &self.prepared.nars[&path.to_absolute()];
                assert!(nar == *expected, "{when}: {path} has other bytes");
            }
        }
    }

    /// Everything that was said to be done is so.
    pub(super) fn assert_claims(&self, claims: &[Claim], when: &str) {
        self.assert_whole_or_absent(when);
        for claim in claims {
            let holds = match claim {
                Claim::Served(path) => {
                    self.assert_served(path, when);
                    true
                }
                Claim::Gone(path) => self.fetch("ci", path) == Ok(None),
                Claim::Cache(name) => self.has_cache(name),
                Claim::NoCache(name) => !self.has_cache(name),
                Claim::Pin(name) => self.has_pin(name),
                Claim::NoPin(name) => !self.has_pin(name),
                Claim::Token(secret) => {
                    let mut command = self.the_box().command(["cache", "list"]);
                    command.env("LARDER_AUTH_TOKEN", secret).output().unwrap().status.success()
                }
            };
            assert!(holds, "{when}: {claim:?} does not hold");
        }
    }

    fn has_cache(&self, name: &str) -> bool {
        let listed = self.the_box().json(["cache", "list"]).to_string();
        listed.contains(&format!("\"name\":\"{name}\""))
    }

    fn has_pin(&self, name: &str) -> bool {
        let listed = self.the_box().json(["pin", "list", "main"]).to_string();
        listed.contains(&format!("\"name\":\"{name}\""))
    }
}
