//! How many files the process may have open: connections are files, and so are packs.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// What a box opens beside its connections: packs, the index, files of uploads, with room to spare.
const OTHERS: u64 = 256;

/// Takes as many open files as the system gives: it gives 1024 first, for programs that could not
/// count any further (select(2)), and more to who asks. A box of `connections` says so where even
/// that is too few, for it would fail in odd places then.
pub(super) fn raise_limit(connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "Cannot raise the limit of open files");
    }
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    if let Some(given) = getrlimit(Resource::Nofile).current.filter(|given| *given < wanted) {
        warn!(
            "The system grants {given} open files, and {connections} connections may need {wanted}: \
             raise the limit (LimitNOFILE= in the unit, or ulimit -n), or lower limits.connections"
        );
    }
}
