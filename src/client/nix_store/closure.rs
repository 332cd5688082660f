//! Closures: paths with all they refer to.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use crate::client::nix_store::error::NixStoreError;
use crate::client::nix_store::{NixStore, Source};
use crate::formats::{PathInfo, StorePath};

impl NixStore {
    /// The facts about `roots` and all they refer to, each path once, references before
    /// referrers: the order in which a cache may take them.
    ///
    /// From the database it is seen at one moment: what Nix commits meanwhile does not show. The
    /// daemon is asked for one path after the other.
    ///
    /// # Errors
    ///
    /// [`NixStoreError::NotValid`] with the first path that is not, and those of
    /// [`path_info`](Self::path_info).
    ///
    /// # Cost
    ///
    /// Two look-ups or one question a path, and all facts in memory: about 1 KiB a path.
    pub fn closure(&self, roots: &[StorePath]) -> Result<Vec<PathInfo>, NixStoreError> {
        let found = match &self.source {
            Source::Database(database) => database.at_one_moment(|| self.walk(roots)),
            Source::Daemon(_) => self.walk(roots),
        }?;
        Ok(references_first(roots, found))
    }

    fn walk(&self, roots: &[StorePath]) -> Result<HashMap<StorePath, PathInfo>, NixStoreError> {
        let mut found: HashMap<StorePath, PathInfo> = HashMap::new();
        let mut wanted: Vec<StorePath> = roots.to_vec();
        while let Some(path) = wanted.pop() {
            if let Entry::Vacant(place) = found.entry(path) {
                let info = self.path_info(place.key())?;
                let info = info.ok_or_else(|| NixStoreError::NotValid(place.key().clone()))?;
                wanted.extend(info.references.iter().cloned());
                place.insert(info);
            }
        }
        Ok(found)
    }

    /// The facts about `paths` alone, each once, in their order.
    ///
    /// # Errors
    ///
    /// As of [`closure`](Self::closure).
    pub fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<PathInfo>, NixStoreError> {
        let mut seen = HashSet::new();
        let paths = paths.iter().filter(|path| seen.insert(*path));
        paths
            .map(|path| self.path_info(path)?.ok_or_else(|| NixStoreError::NotValid(path.clone())))
            .collect()
    }
}

/// Takes the facts out of `found` in the order of a walk from `roots` that leaves a path after
/// all its references. Nix lets no paths but one with itself form a circle; a damaged database's
/// circle is cut somewhere.
fn references_first(roots: &[StorePath], mut found: HashMap<StorePath, PathInfo>) -> Vec<PathInfo> {
    let mut sorted = Vec::with_capacity(found.len());
    for root in roots {
        // Each path under way with the references that are still to be walked.
        let mut under_way: Vec<(PathInfo, Vec<StorePath>)> = Vec::new();
        let enter = |path: &StorePath, found: &mut HashMap<StorePath, PathInfo>| {
            let info = found.remove(path)?;
            let references = info.references.iter().rev().cloned().collect();
            Some((info, references))
        };
        under_way.extend(enter(root, &mut found));
        while let Some((_, references)) = under_way.last_mut() {
            match references.pop() {
                Some(reference) => under_way.extend(enter(&reference, &mut found)),
                None => sorted.extend(under_way.pop().map(|(info, _)| info)),
            }
        }
    }
    sorted
}
