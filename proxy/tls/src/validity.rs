//! The time in which an X.509 certificate is valid, read from its DER (RFC 5280 §4.1.2.5); webpki checks it but does
//! not tell it. Nothing else of a certificate is read here, and nothing is trusted because of it.

use rustls_pki_types::UnixTime;
use std::time::Duration;

/// Seconds since the epoch, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub not_before: u64,
    pub not_after: u64,
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

impl Validity {
    /// `None` where the bytes are no certificate.
    pub fn of(der: &[u8]) -> Option<Self> {
        let mut certificate = Reader(Reader(der).take(SEQUENCE)?);
        let mut fields = Reader(certificate.take(SEQUENCE)?);
        if fields.0.first() == Some(&VERSION) {
            fields.take(VERSION)?;
        }
        fields.take(INTEGER)?; // serial number
        fields.take(SEQUENCE)?; // signature algorithm
        fields.take(SEQUENCE)?; // issuer
        let mut times = Reader(fields.take(SEQUENCE)?);
        Some(Self { not_before: times.time()?, not_after: times.time()? })
    }

    /// The time in which both are valid.
    pub fn and(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }

    /// Whether `now` lies in it, give or take `skew`.
    pub fn holds(self, now: UnixTime, skew: Duration) -> bool {
        let now = now.as_secs();
        now.saturating_add(skew.as_secs()) >= self.not_before
            && now <= self.not_after.saturating_add(skew.as_secs())
    }
}

/// Definite-length DER (X.690 §10.1), front to back.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        match self.next()? {
            (found, content) if found == tag => Some(content),
            _ => None,
        }
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], mut rest) = self.0.split_first_chunk()?;
        let length = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x83 => {
                let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
                rest = after;
                bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn time(&mut self) -> Option<u64> {
        let (tag, text) = self.next()?;
        let (year, rest) = match tag {
            GENERALIZED_TIME => (digits(text.get(..4)?)?, text.get(4..)?),
            UTC_TIME => {
                let year = digits(text.get(..2)?)?;
                (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
            }
            _ => return None,
        };
        if rest.len() != 11 || rest[10] != b'Z' {
            return None;
        }
        let mut parts = rest[..10].chunks_exact(2).map(digits);
        let mut next = |range: std::ops::RangeInclusive<u64>| parts.next()?.filter(|n| range.contains(n));
        let (month, day) = (next(1..=12)?, next(1..=31)?);
        let (hour, minute, second) = (next(0..=23)?, next(0..=59)?, next(0..=60)?);
        Some(days_since_epoch(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second)
    }
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

/// Of the Gregorian calendar; years before 1970 count as the epoch itself.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    if year < 1970 {
        return Some(0);
    }
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let leaps = leap_days(year - 1) - leap_days(1969);
    let is_leap = leap_days(year) > leap_days(year - 1);
    let this_year = BEFORE.get(usize::try_from(month - 1).ok()?)? + u64::from(is_leap && month > 2);
    Some((year - 1970) * 365 + leaps + this_year + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_validity_that_was_signed_is_read() {
        // Around the centuries, leap days and the change from UTCTime to GeneralizedTime (2050).
        for (not_before, not_after) in [
            ((1970, 1, 1), (1970, 1, 2)),
            ((1999, 12, 31), (2000, 2, 29)),
            ((2000, 3, 1), (2024, 2, 29)),
            ((2025, 12, 31), (2049, 12, 31)),
            ((2050, 1, 1), (2100, 2, 28)),
            ((2100, 3, 1), (4000, 12, 31)),
        ] {
            let at = |(year, month, day)| rcgen::date_time_ymd(year, month, day);
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut parameters = rcgen::CertificateParams::default();
            parameters.not_before = at(not_before);
            parameters.not_after = at(not_after);
            let certificate = parameters.self_signed(&key).expect("a certificate");
            let seconds = |date| u64::try_from(at(date).unix_timestamp()).expect("after the epoch");
            assert_eq!(
                Validity::of(certificate.der()),
                Some(Validity { not_before: seconds(not_before), not_after: seconds(not_after) }),
            );
        }
    }

    #[test]
    fn what_is_no_certificate_is_survived() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let good = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
        let good = good.der().as_ref();
        for end in 0..good.len() {
            assert_eq!(Validity::of(&good[..end]), None, "cut after {end} bytes");
        }
        for at in 0..good.len().min(120) {
            for bits in [0x01, 0x80, 0xff] {
                let mut bad = good.to_vec();
                bad[at] ^= bits;
                let _ = Validity::of(&bad);
            }
        }
        assert_eq!(Validity::of(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
