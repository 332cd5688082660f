//! Chunks that tokens sent and that the index does not say so of yet.

use std::collections::HashMap;

use crate::store::UnixSeconds;
use crate::store::index::numbers::ChunkNumber;
use crate::store::index::tokens::TokenId;
use crate::store::index::uploads::Upload;

/// Who sent what. A claim to a chunk that is lost, or was replaced, does no harm: its number is
/// given to no other.
#[derive(Debug, Default)]
pub(in crate::store) struct Claims {
    claims: HashMap<(ChunkNumber, TokenId), Claim>,
}

#[derive(Debug)]
struct Claim {
    at: UnixSeconds,
    /// In the transaction of the group that is being committed.
    taken_up: bool,
}

/// Room that an empty table keeps, in claims.
const KEPT_ROOM_FOR: usize = 1024;

impl Claims {
    pub(in crate::store) fn insert(&mut self, upload: Upload) {
        let claim = Claim { at: upload.at, taken_up: false };
        self.claims.insert((upload.number, upload.token), claim);
    }

    pub(in crate::store) fn contains(&self, number: ChunkNumber, token: TokenId) -> bool {
        self.claims.contains_key(&(number, token))
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// All of them, for one group commit, in the order of the index.
    pub(in crate::store) fn take_up(&mut self) -> Vec<Upload> {
        let take_up = |(&(number, token), claim): (&(ChunkNumber, TokenId), &mut Claim)| {
            claim.taken_up = true;
            Upload { number, token, at: claim.at }
        };
        let mut uploads: Vec<_> = self.claims.iter_mut().map(take_up).collect();
        uploads.sort_unstable();
        uploads
    }

    /// Ends that group.
    pub(in crate::store) fn settle(&mut self, committed: bool) {
        if committed {
            self.claims.retain(|_, claim| !claim.taken_up);
        } else {
            self.claims.values_mut().for_each(|claim| claim.taken_up = false);
        }
        if self.claims.is_empty() {
            self.claims.shrink_to(KEPT_ROOM_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(number: ChunkNumber, token: i64) -> Upload {
        Upload { number, token: TokenId(token), at: 7 }
    }

    #[test]
    fn tokens_do_not_take_over_each_others_claims() {
        let mut claims = Claims::default();
        claims.insert(upload(2, 1));
        claims.insert(upload(2, 2));
        claims.insert(upload(1, 2));
        assert!(claims.contains(2, TokenId(1)) && claims.contains(2, TokenId(2)));
        assert!(!claims.contains(1, TokenId(1)));
        assert_eq!(claims.take_up(), [upload(1, 2), upload(2, 1), upload(2, 2)]);
    }

    #[test]
    fn a_claim_stays_until_a_group_that_has_it_is_committed() {
        let mut claims = Claims::default();
        claims.insert(upload(1, 1));
        claims.take_up();
        claims.settle(false);
        assert_eq!(claims.take_up(), [upload(1, 1)]);
        claims.insert(upload(1, 1));
        claims.insert(upload(2, 1));
        claims.settle(true);
        assert_eq!(claims.take_up(), [upload(1, 1), upload(2, 1)], "they came meanwhile");
        claims.settle(true);
        assert!(claims.is_empty());
    }
}
