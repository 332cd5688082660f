//! From when and until when a certificate says it is valid (RFC 5280, section 4.1.2.5).

use crate::services::UnixSeconds;

/// Both ends, included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: UnixSeconds,
    pub(super) not_after: UnixSeconds,
}

/// DER's tags, as far as they are met on the way (X.690, section 8).
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

impl Validity {
    /// Of a certificate in DER; `None` if it is none.
    pub(super) fn of_certificate(certificate: &[u8]) -> Option<Self> {
        let (_, certificate, _) = element(certificate)?;
        let (tag, mut facts, _) = element(certificate)?;
        if tag != SEQUENCE {
            return None;
        }
        if facts.first() == Some(&VERSION) {
            facts = element(facts)?.2;
        }
        // Serial number, algorithm, issuer.
        for _ in 0..3 {
            facts = element(facts)?.2;
        }
        let (tag, times, _) = element(facts)?;
        let (first_tag, not_before, rest) = element(times)?;
        let (last_tag, not_after, _) = element(rest)?;
        (tag == SEQUENCE).then_some(())?;
        Some(Self {
            not_before: seconds(first_tag, not_before)?,
            not_after: seconds(last_tag, not_after)?,
        })
    }
}

/// Tag, content and what follows of the element that `bytes` begin with.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if length >= 0x80 {
        let (digits, behind) = rest.split_at_checked(length & 0x7f)?;
        (digits.len() <= 4).then_some(())?;
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = behind;
    }
    let (content, behind) = rest.split_at_checked(length)?;
    Some((*tag, content, behind))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`; what is before 1970 counts as 1970.
fn seconds(tag: u8, text: &[u8]) -> Option<UnixSeconds> {
    let digits = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let digits = match tag {
        // Two digits mean 1950 to 2049 (RFC 5280, section 4.1.2.5.1).
        UTC_TIME if digits < "50" => format!("20{digits}"),
        UTC_TIME => format!("19{digits}"),
        GENERALIZED_TIME => digits.to_owned(),
        _ => return None,
    };
    let is_plain = digits.len() == 14 && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_plain.then_some(())?;
    let part = |from: usize, to: usize| digits.get(from..to)?.parse::<u64>().ok();
    let days = days_since_1970(part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let of_day = part(8, 10)? * 3600 + part(10, 12)? * 60 + part(12, 14)?;
    Some(days * 86_400 + of_day)
}

fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // Years that begin in March have their odd day at the end.
    let year_from_march = if month > 2 { year } else { year.saturating_sub(1) };
    let months_from_march = (month + 9) % 12;
    let leap_days = year_from_march / 4 - year_from_march / 100 + year_from_march / 400;
    let days = 365 * year_from_march + leap_days + (153 * months_from_march + 2) / 5 + day;
    days.saturating_sub(DAYS_BEFORE_1970)
}

/// Of the same count, with the first of the month counted as one.
const DAYS_BEFORE_1970: u64 = 719_469;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn validity_of(from: (i32, u8, u8), to: (i32, u8, u8)) -> Validity {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut parameters = CertificateParams::new(vec!["office.local".to_owned()]).unwrap();
        parameters.not_before = date_time_ymd(from.0, from.1, from.2);
        parameters.not_after = date_time_ymd(to.0, to.1, to.2);
        let certificate = parameters.self_signed(&key).unwrap();
        Validity::of_certificate(certificate.der()).unwrap()
    }

    #[test]
    fn both_ends_are_read_in_both_spellings() {
        let found = validity_of((1970, 1, 1), (9999, 12, 31));
        assert_eq!(found, Validity { not_before: 0, not_after: 253_402_214_400 });
        let found = validity_of((2000, 2, 29), (2026, 11, 23));
        assert_eq!(found, Validity { not_before: 951_782_400, not_after: 1_795_392_000 });
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _any_answer = Validity::of_certificate(&bytes);
        }
    }
}
