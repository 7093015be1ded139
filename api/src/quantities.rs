//! Times, percentages and sizes, as objects write them. Each is parsed where it is read.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, str::FromStr, time};

/// A time as Gateway API writes it (GEP-2257): up to four of hours, minutes, seconds and milliseconds: `1h30m`, `250ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub time::Duration);

/// A share of a hundred, kept to the hundredth of a percent: `12.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent {
    hundredths: u16,
}

/// A number of bytes: `64Ki`, `1M`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    pub bytes: u64,
}

/// The text or number is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    text: String,
    expected: &'static str,
}

/// As in the schema of Gateway API, written once for both.
const DURATION_PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
const DURATION_EXPECTED: &str = "a time such as 1h30m, 10s or 250ms (GEP-2257)";
const SIZE_PATTERN: &str = "^[0-9]{1,9}(k|Ki|M|Mi)?$";
const SIZE_EXPECTED: &str = "a size such as 64Ki, 1M or 4096";
const PERCENT_EXPECTED: &str = "a percentage from 0 to 100";

impl FromStr for Duration {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid { text: format!("{text:?}"), expected: DURATION_EXPECTED };
        let mut rest = text;
        let mut total = time::Duration::ZERO;
        for parts in 0.. {
            if rest.is_empty() && parts > 0 {
                break;
            }
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if parts == 4 || digits == 0 || digits > 5 {
                return Err(invalid());
            }
            let (number, unit) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| invalid())?;
            let letters = unit.bytes().take_while(u8::is_ascii_lowercase).count();
            let (unit, after) = unit.split_at(letters);
            total += match unit {
                "h" => time::Duration::from_secs(number * 3600),
                "m" => time::Duration::from_secs(number * 60),
                "s" => time::Duration::from_secs(number),
                "ms" => time::Duration::from_millis(number),
                _ => return Err(invalid()),
            };
            rest = after;
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
        for (count, unit) in parts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{count}{unit}")?;
        }
        match millis {
            0 if seconds == 0 => f.write_str("0s"),
            0 => Ok(()),
            millis => write!(f, "{millis}ms"),
        }
    }
}

impl Percent {
    pub const HUNDRED: Self = Self { hundredths: 10_000 };

    /// Rounds to the hundredth of a percent; `None` when it is not in 0 to 100.
    pub fn new(percent: f64) -> Option<Self> {
        let range = 0.0..=100.0;
        range.contains(&percent).then(|| Self { hundredths: (percent * 100.0).round() as u16 })
    }

    /// In hundredths of a percent: 0 to 10,000.
    pub fn hundredths(self) -> u16 {
        self.hundredths
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.hundredths) / 100.0)
    }
}

impl FromStr for Size {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid { text: format!("{text:?}"), expected: SIZE_EXPECTED };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if digits == 0 || digits > 9 {
            return Err(invalid());
        }
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let factor = match unit {
            "" => 1,
            "k" => 1_000,
            "Ki" => 1 << 10,
            "M" => 1_000_000,
            "Mi" => 1 << 20,
            _ => return Err(invalid()),
        };
        Ok(Self { bytes: number * factor })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes {
            0 => f.write_str("0"),
            bytes if bytes % (1 << 20) == 0 => write!(f, "{}Mi", bytes >> 20),
            bytes if bytes % (1 << 10) == 0 => write!(f, "{}Ki", bytes >> 10),
            bytes => write!(f, "{bytes}"),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not {}", self.text, self.expected)
    }
}

impl std::error::Error for Invalid {}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        into.collect_str(self)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": DURATION_PATTERN, "maxLength": 28})
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let percent = f64::deserialize(from)?;
        let invalid = || Invalid { text: percent.to_string(), expected: PERCENT_EXPECTED };
        Self::new(percent).ok_or_else(|| de::Error::custom(invalid()))
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        match self.hundredths % 100 {
            0 => into.serialize_u16(self.hundredths / 100),
            _ => into.serialize_f64(f64::from(self.hundredths) / 100.0),
        }
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": 0, "maximum": 100})
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SIZE_EXPECTED)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size { bytes })
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                let bytes = u64::try_from(bytes);
                bytes.map(|bytes| Size { bytes }).map_err(|_| E::custom(format!("not {SIZE_EXPECTED}")))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }

        from.deserialize_any(Visitor)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        into.collect_str(self)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "pattern": SIZE_PATTERN, "minimum": 0})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, millis, written) in [
            ("0s", 0, "0s"),
            ("0h", 0, "0s"),
            ("250ms", 250, "250ms"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90m", 5_400_000, "1h30m"),
            ("1s500ms", 1_500, "1s500ms"),
            ("99999h", 359_996_400_000, "99999h"),
        ] {
            let read: Duration = text.parse().expect(text);
            assert_eq!(read.0.as_millis(), millis, "{text}");
            assert_eq!(read.to_string(), written, "{text}");
        }
        for text in ["", "1", "s", "-1s", "1.5s", "1d", "100000s", "1s1s1s1s1s", "1us", "1 s"] {
            let error = text.parse::<Duration>().expect_err(text).to_string();
            assert!(error.contains("GEP-2257"), "{error}");
        }
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, written) in
            [("64Ki", 65_536, "64Ki"), ("1M", 1_000_000, "1000000"), ("2Mi", 2 << 20, "2Mi"), ("0", 0, "0")]
        {
            let read: Size = text.parse().expect(text);
            assert_eq!((read.bytes, read.to_string().as_str()), (bytes, written));
        }
        for text in ["", "Ki", "1Gi", "1.5M", "1234567890", "-1"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Size>("4096").expect("a number").bytes, 4096);
        assert!(serde_json::from_str::<Size>("-1").is_err());
    }

    #[test]
    fn percentages_keep_hundredths() {
        for (text, hundredths, written) in [("0", 0, "0"), ("12.5", 1250, "12.5"), ("100", 10_000, "100")] {
            let read: Percent = serde_json::from_str(text).expect(text);
            assert_eq!(read.hundredths(), hundredths);
            assert_eq!(serde_json::to_string(&read).expect("JSON"), written);
        }
        assert_eq!(serde_json::from_str::<Percent>("0.016").expect("a number").hundredths(), 2);
        for text in ["-1", "100.1", "\"5\""] {
            assert!(serde_json::from_str::<Percent>(text).is_err(), "{text}");
        }
    }
}
