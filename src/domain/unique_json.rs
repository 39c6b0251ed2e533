//! Parses JSON and rejects duplicate members, which two parsers could interpret differently. Nested
//! objects are checked too, because required claims of a JWT or permissions of a token can be
//! nested.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// Parses a JSON object. Returns `None` if the text is not an object, or if an object at any level
/// has a duplicate member.
#[must_use]
pub fn object(json: &[u8]) -> Option<Map<String, Value>> {
    let Unique(value) = serde_json::from_slice(json).ok()?;
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// A value in which no object has a duplicate member.
pub struct Unique(pub Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = elements.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Unique(value))) = members.next_entry::<String, Unique>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!(
                    "the member `{name}` is named twice"
                )));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_serde_json_makes_of_them() {
        let json = r#"{"a":null,"b":[true,-1,18446744073709551615,1.5e3,"\u00e9"],"c":{"d":{}}}"#;
        let plain: Value = serde_json::from_str(json).unwrap();
        assert_eq!(object(json.as_bytes()).map(Value::Object), Some(plain));
    }

    #[test]
    fn a_member_that_is_named_twice_is_refused_at_every_level() {
        for json in [
            r#"{"a":1,"a":1}"#,
            r#"{"r":{"roles":["x"],"roles":["y"]}}"#,
            r#"{"r":[{"a":1,"\u0061":2}]}"#,
        ] {
            assert_eq!(object(json.as_bytes()), None, "{json}");
        }
        // The same name in different objects is not the same member.
        assert!(object(br#"{"a":{"a":1},"b":{"a":1}}"#).is_some());
        for json in ["[]", "7", "", "{}{}"] {
            assert_eq!(object(json.as_bytes()), None, "{json}");
        }
    }
}
