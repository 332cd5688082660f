//! "Which of these do you lack?": the answer as places in the question.

use crate::formats::StorePathHash;
use crate::formats::limits::MISSING_HASHES_MAX;
use crate::wire::violation::Violation;

/// Checks a question, on the box's side.
///
/// # Errors
///
/// [`Violation::TooManyHashes`].
pub fn check_question(hashes: &[StorePathHash]) -> Result<(), Violation> {
    if hashes.len() > MISSING_HASHES_MAX { Err(Violation::TooManyHashes) } else { Ok(()) }
}

/// The places in `asked` of those that are `missing`, which are in the order of the question.
#[must_use]
pub fn places_of(asked: &[StorePathHash], missing: &[StorePathHash]) -> Vec<u32> {
    let mut missing = missing.iter().peekable();
    let mut places = Vec::with_capacity(missing.len());
    for (hash, place) in asked.iter().zip(0_u32..) {
        if missing.next_if_eq(&hash).is_some() {
            places.push(place);
        }
    }
    places
}

/// What the box lacks of `asked`, on the client's side.
///
/// # Errors
///
/// [`Violation::Indexes`] for places that do not ascend or are not in the question.
pub fn pick(asked: &[StorePathHash], places: &[u32]) -> Result<Vec<StorePathHash>, Violation> {
    if !places.is_sorted_by(|one, next| one < next) {
        return Err(Violation::Indexes);
    }
    let hash_at = |place: &u32| asked.get(usize::try_from(*place).ok()?).copied();
    places.iter().map(hash_at).collect::<Option<_>>().ok_or(Violation::Indexes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(number: u8) -> StorePathHash {
        StorePathHash::from_bytes([number; 20])
    }

    #[test]
    fn places_that_cannot_be_are_refused() {
        let asked = [hash(1), hash(2), hash(3)];
        assert_eq!(pick(&asked, &[0, 2]), Ok(vec![hash(1), hash(3)]));
        for places in [&[3][..], &[1, 0], &[1, 1], &[u32::MAX]] {
            assert_eq!(pick(&asked, places), Err(Violation::Indexes), "{places:?}");
        }
    }

    #[test]
    fn a_question_has_a_bound() {
        assert_eq!(check_question(&vec![hash(1); MISSING_HASHES_MAX]), Ok(()));
        let too_many = vec![hash(1); MISSING_HASHES_MAX + 1];
        assert_eq!(check_question(&too_many), Err(Violation::TooManyHashes));
    }

    proptest! {
        #[test]
        fn the_client_learns_what_the_box_said(
            numbers in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let hashes: Vec<_> = numbers.iter().map(|number| hash(*number)).collect();
            let missing: Vec<_> =
                numbers.iter().filter(|n| **n % 3 == 0).map(|n| hash(*n)).collect();
            prop_assert_eq!(pick(&hashes, &places_of(&hashes, &missing)), Ok(missing));
        }
    }
}
