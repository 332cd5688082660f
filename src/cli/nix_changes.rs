//! What `larder use` and `larder remove` have in common: how changes of files are shown.

use serde::Serialize;

use crate::client::nix_config::{NoMode, Plan, ShownChange, UsedCache};

/// Changes of files, as they are printed.
#[derive(Serialize)]
pub(super) struct ShownPlan {
    mode: &'static str,
    files: Vec<ShownFile>,
    /// What a person has to do in the end.
    next: Vec<String>,
}

#[derive(Serialize)]
struct ShownFile {
    path: String,
    action: &'static str,
    added: Vec<String>,
    removed: Vec<String>,
}

impl ShownPlan {
    pub(super) fn new(plan: &Plan) -> Self {
        let files = plan.shown().into_iter().map(ShownFile::from).collect();
        Self { mode: plan.mode.name(), files, next: plan.next.clone() }
    }
}

impl From<ShownChange> for ShownFile {
    fn from(change: ShownChange) -> Self {
        let ShownChange { path, action, added, removed } = change;
        Self { path: path.display().to_string(), action, added, removed }
    }
}

/// For people: each file with its lines, then what is left to do.
pub(super) fn text(plan: &ShownPlan, dry_run: bool) -> String {
    let mut text = String::new();
    for file in &plan.files {
        let done = match (file.action, dry_run) {
            ("create", false) => "created",
            ("change", false) => "changed",
            ("remove", false) => "removed",
            ("keep", _) => "nothing to change in",
            ("create", true) => "would create",
            ("change", true) => "would change",
            _ => "would remove",
        };
        text.push_str(&format!("{done} {}\n", file.path));
        let removed = file.removed.iter().map(|line| format!("  - {line}\n"));
        let added = file.added.iter().map(|line| format!("  + {line}\n"));
        text.extend(removed.chain(added));
    }
    for next in &plan.next {
        text.push_str(&format!("next: {next}\n"));
    }
    text
}

/// What to do where this user cannot configure Nix.
pub(super) fn way_out(no_mode: NoMode, used: &UsedCache) -> String {
    match no_mode {
        NoMode::Nixos => format!(
            "root can do it for everybody: sudo larder use {used}, then nixos-rebuild switch; or \
             list the URL in nix.settings.trusted-substituters and the key in \
             nix.settings.trusted-public-keys, and then nobody needs to be root to use it"
        ),
        NoMode::NotTrusted => format!(
            "root can do it for everybody: sudo larder use {used}; or lists the URL as one of \
             trusted-substituters and the key as one of trusted-public-keys in the machine's \
             nix.conf, and then you can use it"
        ),
        NoMode::NoHome => "set HOME, or say where to write: --output-directory DIR".to_owned(),
    }
}
