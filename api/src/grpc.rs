//! A gRPC status code, by name or by number.

use policy::grpc::CODES;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt};

/// A gRPC status code, 0 to 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrpcCode(u8);

impl GrpcCode {
    /// `None` when there is no such code.
    pub fn new(number: u8) -> Option<Self> {
        (usize::from(number) < CODES.len()).then_some(Self(number))
    }

    /// The code of a name as the protocol writes it: `UNAVAILABLE`.
    pub fn named(name: &str) -> Option<Self> {
        let at = CODES.iter().position(|one| *one == name)?;
        u8::try_from(at).ok().map(Self)
    }

    pub fn number(self) -> u8 {
        self.0
    }

    pub fn name(self) -> &'static str {
        CODES[usize::from(self.0)]
    }
}

impl fmt::Display for GrpcCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'de> Deserialize<'de> for GrpcCode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = GrpcCode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a gRPC status such as UNAVAILABLE, or its number (0 to 16)")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<GrpcCode, E> {
                let code = u8::try_from(number).ok().and_then(GrpcCode::new);
                code.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<GrpcCode, E> {
                let code = u8::try_from(number).ok().and_then(GrpcCode::new);
                code.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<GrpcCode, E> {
                GrpcCode::named(name).ok_or_else(|| E::invalid_value(de::Unexpected::Str(name), &self))
            }
        }

        from.deserialize_any(Visitor)
    }
}

impl Serialize for GrpcCode {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        into.serialize_str(self.name())
    }
}

impl JsonSchema for GrpcCode {
    fn schema_name() -> Cow<'static, str> {
        "GrpcCode".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = format!("^({})$", CODES.join("|"));
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": pattern,
            "minimum": 0,
            "maximum": CODES.len() - 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_names_or_numbers() {
        for text in ["14", "\"UNAVAILABLE\""] {
            let code: GrpcCode = serde_json::from_str(text).expect(text);
            assert_eq!((code.number(), code.name()), (14, "UNAVAILABLE"));
        }
        for text in ["17", "-1", "\"unavailable\"", "\"14\"", "true"] {
            let error = serde_json::from_str::<GrpcCode>(text).expect_err(text).to_string();
            assert!(error.contains("a gRPC status such as UNAVAILABLE"), "{error}");
        }
    }
}
