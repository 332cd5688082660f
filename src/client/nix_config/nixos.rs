//! NixOS modules: one for each cache, and one that imports them all.

use std::path::Path;

use crate::client::nix_config::conf::UsedCache;
use crate::client::nix_config::error::NixConfigError;
use crate::client::nix_config::file::FileChange;

/// What the owner imports; it never changes.
const ALL: &str = "\
# Written by 'larder use', for all caches in the folder beside it.
{
  imports = map (name: ./larder + \"/${name}\")
    (builtins.filter (name: builtins.match \".*\\\\.nix\" name != null)
      (builtins.attrNames (builtins.readDir ./larder)));
}
";

/// The file that the owner imports.
pub(super) fn file_of_all(folder: &Path) -> std::path::PathBuf {
    folder.join("larder.nix")
}

/// The changes by which NixOS uses a cache.
pub(super) fn with(
    folder: &Path,
    used: &UsedCache,
    url: &str,
    keys: &[String],
) -> Result<Vec<FileChange>, NixConfigError> {
    let mut own = FileChange::open(&file_of(folder, used))?;
    if own.before.as_ref().is_some_and(|text| !is_of(text, used)) {
        let wanted = used.to_string();
        return Err(NixConfigError::NotOurs { path: own.path, wanted });
    }
    own.after = Some(module(used, url, keys).into_bytes());
    let mut all = FileChange::open(&file_of_all(folder))?;
    if all.before.as_ref().is_some_and(|text| text != ALL.as_bytes()) {
        let wanted = used.to_string();
        return Err(NixConfigError::NotOurs { path: all.path, wanted });
    }
    all.after = Some(ALL.into());
    Ok(vec![own, all])
}

/// The changes by which NixOS does not use it any more; none if it does not. The file of all
/// stays as long as something may import it: without the folder it would fail.
pub(super) fn without(folder: &Path, used: &UsedCache) -> Result<Vec<FileChange>, NixConfigError> {
    let mut own = FileChange::open(&file_of(folder, used))?;
    if !own.before.as_ref().is_some_and(|text| is_of(text, used)) {
        return Ok(Vec::new());
    }
    own.after = None;
    Ok(vec![own])
}

/// The caches that have a module in the folder.
pub(super) fn used(folder: &Path) -> Vec<UsedCache> {
    let files = std::fs::read_dir(folder.join("larder")).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    texts.filter_map(|text| whose(&text)).collect()
}

fn file_of(folder: &Path, used: &UsedCache) -> std::path::PathBuf {
    folder.join("larder").join(format!("{}.nix", used.cache))
}

const HEAD: &str = "# Written by 'larder use ";

fn whose(text: &str) -> Option<UsedCache> {
    let (said, _) = text.strip_prefix(HEAD)?.split_once('\'')?;
    let (cache, device_id) = said.split_once('@')?;
    Some(UsedCache { cache: cache.parse().ok()?, device_id: device_id.parse().ok()? })
}

fn is_of(text: &[u8], used: &UsedCache) -> bool {
    str::from_utf8(text).ok().and_then(whose).as_ref() == Some(used)
}

fn module(used: &UsedCache, url: &str, keys: &[String]) -> String {
    let keys = keys.iter().map(|key| format!("{} ", quoted(key))).collect::<String>();
    format!(
        "{HEAD}{used}'; 'larder remove {}' takes it away.\n{{\n  nix.settings = {{\n    \
         substituters = [ {} ];\n    trusted-public-keys = [ {keys}];\n  }};\n}}\n",
        used.cache,
        quoted(url)
    )
}

fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${");
    format!("\"{escaped}\"")
}
