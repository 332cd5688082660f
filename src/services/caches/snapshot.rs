//! All caches at one moment, and where a reader may ask.

use std::collections::HashMap;
use std::sync::Arc;

use crate::formats::CacheName;
use crate::services::auth::Caller;
use crate::services::caches::PRIORITY_DEFAULT;
use crate::store::{Cache, CacheId};

/// Where a reader asks: one cache, or those of the box's root that the reader may read.
#[derive(Clone, Debug)]
pub struct Scope {
    key: ScopeKey,
    caches: Arc<[Arc<Cache>]>,
}

/// What tells one scope from another: which caches, as they were at which moment. Answers that
/// are kept under it are not found any more once anything about any cache has changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::services) struct ScopeKey {
    version: u64,
    caches: Arc<[CacheId]>,
}

impl ScopeKey {
    pub(in crate::services) fn new(version: u64, caches: impl Iterator<Item = CacheId>) -> Self {
        Self { version, caches: caches.collect() }
    }
}

impl Scope {
    fn of(version: u64, caches: Vec<Arc<Cache>>) -> Self {
        let key = ScopeKey::new(version, caches.iter().map(|cache| cache.id));
        Self { key, caches: caches.into() }
    }

    /// The caches to ask, in order.
    #[must_use]
    pub fn caches(&self) -> &[Arc<Cache>] {
        &self.caches
    }

    /// Whether everybody may have what is answered here; else it is for the asker's token alone.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.caches.iter().all(|cache| cache.is_public)
    }

    /// What `nix-cache-info` says here: the priority of the first cache.
    #[must_use]
    pub fn priority(&self) -> u32 {
        self.caches.first().map_or(PRIORITY_DEFAULT, |cache| cache.priority)
    }

    pub(in crate::services) const fn key(&self) -> &ScopeKey {
        &self.key
    }
}

/// All caches at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) version: u64,
    /// By name.
    pub(super) all: Vec<Arc<Cache>>,
    by_name: HashMap<Box<str>, Scope>,
    /// Those of the root in their order, private ones too.
    root: Vec<Arc<Cache>>,
    public_root: Scope,
}

impl Snapshot {
    /// `version` differs from that of every other snapshot.
    pub(super) fn of(mut caches: Vec<Cache>, version: u64) -> Self {
        caches.sort_by(|one, next| one.name.cmp(&next.name));
        let all: Vec<_> = caches.into_iter().map(Arc::new).collect();
        let mut root: Vec<_> =
            all.iter().filter(|cache| cache.root_position.is_some()).cloned().collect();
        root.sort_by_key(|cache| (cache.root_position, cache.id));
        let by_name = |cache: &Arc<Cache>| {
            (cache.name.as_str().into(), Scope::of(version, vec![Arc::clone(cache)]))
        };
        let by_name = all.iter().map(by_name).collect();
        let public = root.iter().filter(|cache| cache.is_public).cloned().collect();
        Self { version, by_name, public_root: Scope::of(version, public), all, root }
    }

    pub(super) fn public_names(&self) -> Vec<CacheName> {
        let public = self.all.iter().filter(|cache| cache.is_public);
        public.map(|cache| cache.name.clone()).collect()
    }

    /// The place behind all others of the root.
    pub(super) fn last_root_position(&self) -> u32 {
        self.root
            .last()
            .and_then(|cache| cache.root_position)
            .map_or(FIRST_ROOT_POSITION, |last| last.saturating_add(1))
    }

    /// Where one asks the cache of that name; `None` also if the caller may not read it.
    pub(super) fn scope(&self, name: &str, caller: Option<&Caller>) -> Option<Scope> {
        let scope = self.by_name.get(name)?;
        let may_read = scope.caches.iter().all(|cache| may_read(cache, caller));
        may_read.then(|| scope.clone())
    }

    /// Where the caller asks the root.
    pub(super) fn root_scope(&self, caller: Option<&Caller>) -> Scope {
        let readable = self.root.iter().filter(|cache| may_read(cache, caller));
        // The public ones are always among them.
        if readable.clone().count() == self.public_root.caches.len() {
            return self.public_root.clone();
        }
        Scope::of(self.version, readable.cloned().collect())
    }
}

/// The first place in the root list.
const FIRST_ROOT_POSITION: u32 = 1;

fn may_read(cache: &Cache, caller: Option<&Caller>) -> bool {
    cache.is_public || caller.is_some_and(|caller| caller.may_read(cache))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::tests::cache;
    use crate::store::{Right, Token, TokenId};

    fn names(scope: &Scope) -> Vec<&str> {
        scope.caches().iter().map(|cache| cache.name.as_str()).collect()
    }

    fn snapshot() -> Snapshot {
        let at = |id, name: &str, root_position, is_public| Cache {
            root_position,
            is_public,
            ..cache(id, name)
        };
        let caches = vec![
            at(1, "late", Some(7), true),
            at(2, "early", Some(1), true),
            at(3, "secret", Some(2), false),
            at(4, "elsewhere", None, true),
            at(5, "later", Some(7), true),
            at(6, "hidden", Some(3), false),
        ];
        Snapshot::of(caches, 1)
    }

    fn caller(grants: Option<Vec<(CacheId, Right)>>) -> Caller {
        let token = Token {
            id: TokenId(1),
            label: String::new(),
            created_at: 1,
            expires_at: None,
            last_used_at: None,
            revoked_at: None,
            grants,
            device_id: None,
        };
        Caller { token }
    }

    #[test]
    fn the_root_has_what_the_caller_may_read_in_its_order() {
        let snapshot = snapshot();
        let reader = caller(Some(vec![(CacheId(3), Right::Read)]));
        let writer = caller(Some(vec![(CacheId(3), Right::Write)]));
        for (caller, expected) in [
            (None, &["early", "late", "later"][..]),
            (Some(&writer), &["early", "late", "later"]),
            (Some(&reader), &["early", "secret", "late", "later"]),
            (Some(&caller(None)), &["early", "secret", "hidden", "late", "later"]),
        ] {
            let scope = snapshot.root_scope(caller);
            assert_eq!(names(&scope), expected);
            assert_eq!(scope.is_public(), expected.len() == 3);
        }
        assert_eq!(snapshot.public_names().len(), 4);
        assert_eq!(snapshot.last_root_position(), 8);
    }

    #[test]
    fn a_private_cache_is_there_for_those_who_may_read_it() {
        let snapshot = snapshot();
        let reader = caller(Some(vec![(CacheId(3), Right::Read)]));
        let other = caller(Some(vec![(CacheId(6), Right::ReadWrite)]));
        assert!(snapshot.scope("elsewhere", None).is_some_and(|scope| scope.is_public()));
        assert!(snapshot.scope("nowhere", Some(&caller(None))).is_none());
        assert!(snapshot.scope("secret", None).is_none());
        assert!(snapshot.scope("secret", Some(&other)).is_none());
        assert!(snapshot.scope("secret", Some(&reader)).is_some_and(|scope| !scope.is_public()));
    }

    #[test]
    fn scopes_are_the_same_where_they_have_the_same_caches_at_the_same_time() {
        let key = |snapshot: &Snapshot, caller: Option<&Caller>| {
            snapshot.root_scope(caller).key().clone()
        };
        let reader = caller(Some(vec![(CacheId(3), Right::Read)]));
        let (now, later) = (snapshot(), Snapshot::of(Vec::new(), 2));
        assert_eq!(key(&now, Some(&reader)), key(&snapshot(), Some(&reader)));
        assert_ne!(key(&now, Some(&reader)), key(&now, None));
        assert_ne!(key(&now, None), key(&later, None));
        let [one, two] = [1, 2].map(|version| ScopeKey::new(version, [CacheId(1)].into_iter()));
        assert_ne!(one, two);
    }
}
