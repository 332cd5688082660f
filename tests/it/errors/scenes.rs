//! What a box is busy with when something fails.

use std::fs;
use std::path::PathBuf;

use crate::errors::site::{Claim, Prepared, Site};

/// One of them.
pub(super) struct Scene {
    pub(super) name: &'static str,
    /// The prepared folder that it begins with.
    folder: Option<&'static str>,
    /// Whether the box runs before anything fails.
    pub(super) runs: bool,
    /// What is done; what of it was said to be done.
    pub(super) act: fn(&mut Site<'_>) -> Vec<Claim>,
}

impl Scene {
    const fn running(
        name: &'static str,
        folder: &'static str,
        act: fn(&mut Site<'_>) -> Vec<Claim>,
    ) -> Self {
        Self { name, folder: Some(folder), runs: true, act }
    }

    const fn starting(
        name: &'static str,
        folder: Option<&'static str>,
        act: fn(&mut Site<'_>) -> Vec<Claim>,
    ) -> Self {
        Self { name, folder, runs: false, act }
    }

    /// The folder that it begins with; `None`: none yet.
    pub(super) fn folder(&self, prepared: &Prepared) -> Option<PathBuf> {
        match self.folder? {
            format @ ("format-2" | "format-3") => {
                let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/folders");
                Some(PathBuf::from(data).join(format))
            }
            name => Some(prepared.named(name)),
        }
    }

    /// Whether the folder has the prepared paths.
    pub(super) fn has_kept(&self) -> bool {
        matches!(self.folder, Some("full" | "behind" | "killed"))
    }
}

pub(super) const SCENES: [Scene; 14] = [
    Scene::running("push", "full", push),
    Scene::running("first push", "empty", push),
    Scene::running("caches and tokens", "full", manage),
    Scene::running("pins and removal", "full", remove),
    Scene::running("collection", "full", collect),
    Scene::running("backup", "full", back_up),
    Scene::running("stop", "full", stop),
    Scene::starting("first start", None, start),
    Scene::starting("start", Some("full"), start),
    Scene::starting("start behind the packs", Some("behind"), start),
    Scene::starting("start after a kill", Some("killed"), start),
    Scene::starting("migration", Some("format-2"), start),
    Scene::starting("rebuilt index", Some("full"), rebuild),
    Scene::starting("restore", Some("full"), restore),
];

fn push(site: &mut Site<'_>) -> Vec<Claim> {
    site.push(&site.prepared.new.clone())
}

fn manage(site: &mut Site<'_>) -> Vec<Claim> {
    let mut claims = Vec::new();
    let made = site.run(&["cache", "create", "fresh"]).is_some();
    if let Some(output) = site.run(&["token", "create", "--json"]) {
        let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        claims.push(Claim::Token(made["secret"].as_str().unwrap().to_owned()));
    }
    if made && site.run(&["cache", "delete", "ci", "--yes"]).is_some() {
        claims.push(Claim::NoCache("ci"));
    }
    if made && site.run(&["cache", "set", "fresh", "--private"]).is_some() {
        claims.push(Claim::Cache("fresh"));
    }
    claims
}

fn remove(site: &mut Site<'_>) -> Vec<Claim> {
    let mut claims = Vec::new();
    let [kept, old] = [&site.prepared.kept[0], &site.prepared.old[0]].map(Clone::clone);
    let pin = |site: &mut Site<'_>, name| site.run(&["pin", "main", name, &kept.to_absolute()]);
    if pin(site, "stays").is_some() {
        claims.push(Claim::Pin("stays"));
    }
    if pin(site, "goes").is_some() && site.run(&["pin", "remove", "main", "goes"]).is_some() {
        claims.push(Claim::NoPin("goes"));
    }
    if site.run(&["path", "rm", "ci", &old.to_absolute(), "--purge"]).is_some() {
        claims.push(Claim::Gone(old));
    }
    claims
}

fn collect(site: &mut Site<'_>) -> Vec<Claim> {
    let old = site.prepared.old.clone();
    match site.run(&["gc", "--cache", "ci", "--target-free", "1 EiB"]) {
        Some(_) => old.into_iter().map(Claim::Gone).collect(),
        None => Vec::new(),
    }
}

fn back_up(site: &mut Site<'_>) -> Vec<Claim> {
    let file = site.data().with_file_name("made.backup");
    let made = site.run(&["backup", &file.display().to_string()]).is_some();
    assert_eq!(
        made,
        file.exists(),
        "a backup that failed leaves no file, and one that did not does"
    );
    if made {
        // It is whole: a box can be made from it.
        let data = site.data().with_file_name("from-backup");
        let control = site.control.variables();
        let [file, data] = [file, data].map(|path| path.display().to_string());
        let folder = site.data().with_file_name("");
        let mut command =
            crate::fixture::larder::command(&folder, ["restore", &file, "--data", &data]);
        let output = command.envs(control).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Vec::new()
}

fn stop(site: &mut Site<'_>) -> Vec<Claim> {
    let path = site.prepared.new[0].clone();
    let claims = site.push(&[path]);
    let larder = site.larder.take().unwrap();
    let status = larder.try_stop();
    assert!(matches!(status.code(), Some(0 | 1)), "it stopped with {status}");
    claims
}

fn start(site: &mut Site<'_>) -> Vec<Claim> {
    if let Err(error) = site.start() {
        assert!(error.contains("exit status: 1"), "{error}");
        let told = error.lines().rfind(|line| line.contains("rror"));
        site.said.push(told.unwrap_or(&error).trim().to_owned());
    }
    Vec::new()
}

fn rebuild(site: &mut Site<'_>) -> Vec<Claim> {
    let data = site.data().display().to_string();
    site.run_offline(&["fsck", "--rebuild-index", "--data", &data]);
    Vec::new()
}

fn restore(site: &mut Site<'_>) -> Vec<Claim> {
    for name in ["larder.db", "identity.key", "admin.token", "VERSION"] {
        fs::remove_file(site.data().join(name)).unwrap();
    }
    let (file, data) = (site.prepared.named("backup"), site.data());
    let [file, data] = [file, data].map(|path| path.display().to_string());
    let restore = ["restore", &file, "--data", &data, "--yes"];
    if site.run_offline(&restore).is_none() {
        site.control.disarm();
        assert!(site.run_offline(&restore).is_some(), "a further try: {:?}", site.said);
    }
    Vec::new()
}
