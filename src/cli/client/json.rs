//! Formats a message as JSON with the help of its descriptor. The field names are those that
//! grpcurl prints.

use anyhow::Context as _;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey,
    MessageDescriptor, ReflectMessage as _, Value as FieldValue,
};
use prost_types::{Duration, Timestamp};
use serde_json::{Map, Value};

use crate::grpc::DESCRIPTORS;

/// Formats a message of the type `name` in protobuf's JSON mapping. Omits unset fields except
/// numbers and booleans, so that a script can read `active` without handling its absence.
///
/// # Errors
/// Returns an error if the contract has no message of this name.
pub fn format<M: Message>(name: &str, message: &M) -> anyhow::Result<String> {
    let pool = DescriptorPool::decode(DESCRIPTORS).context("the descriptors of the contract")?;
    let descriptor = pool
        .get_message_by_name(name)
        .with_context(|| format!("the contract has no message {name}"))?;
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic.transcode_from(message).context("the answer")?;
    Ok(format!("{:#}", message_value(&dynamic)))
}

fn message_value(message: &DynamicMessage) -> Value {
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => well_known::<Timestamp>(message),
        "google.protobuf.Duration" => well_known::<Duration>(message),
        _ => Value::Object(fields(message)),
    }
}

/// Formats a message whose JSON form is a string.
fn well_known<M: Message + Default + ToString>(message: &DynamicMessage) -> Value {
    let converted = message.transcode_to::<M>();
    converted.map_or(Value::Null, |value| value.to_string().into())
}

fn fields(message: &DynamicMessage) -> Map<String, Value> {
    let descriptor = message.descriptor();
    let shown = descriptor
        .fields()
        .filter(|field| message.has_field(field) || is_always_shown(field));
    shown
        .map(|field| {
            let value = field_value(&field.kind(), &message.get_field(&field));
            (field.json_name().to_owned(), value)
        })
        .collect()
}

/// Returns whether a field is shown even if it has its default value.
fn is_always_shown(field: &FieldDescriptor) -> bool {
    let is_single = !field.supports_presence() && !field.is_list() && !field.is_map();
    is_single && matches!(field.kind(), Kind::Bool | Kind::Int32 | Kind::Uint32)
}

fn field_value(kind: &Kind, value: &FieldValue) -> Value {
    match value {
        FieldValue::Bool(value) => (*value).into(),
        FieldValue::I32(value) => (*value).into(),
        FieldValue::U32(value) => (*value).into(),
        // A JSON number cannot represent every 64-bit integer.
        FieldValue::I64(value) => value.to_string().into(),
        FieldValue::U64(value) => value.to_string().into(),
        FieldValue::F32(value) => (*value).into(),
        FieldValue::F64(value) => (*value).into(),
        FieldValue::String(value) => value.as_str().into(),
        FieldValue::Bytes(value) => value.to_vec().into(),
        FieldValue::EnumNumber(number) => enum_value(kind.as_enum(), *number),
        FieldValue::Message(message) => message_value(message),
        FieldValue::List(items) => items.iter().map(|item| field_value(kind, item)).collect(),
        FieldValue::Map(entries) => {
            let kind = kind
                .as_message()
                .map(MessageDescriptor::map_entry_value_field);
            let kind = kind.map_or(Kind::String, |field| field.kind());
            let entries = entries
                .iter()
                .map(|(key, value)| (map_key(key), field_value(&kind, value)));
            Value::Object(entries.collect())
        }
    }
}

/// Returns the name of an enum value, or its number if this version does not know it.
fn enum_value(listed: Option<&EnumDescriptor>, number: i32) -> Value {
    let known = listed.and_then(|listed| listed.get_value(number));
    known.map_or_else(|| number.into(), |known| known.name().into())
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::format;
    use crate::grpc::pb::v1::{
        Access, IntrospectResponse, ListResponse, Permissions, Reason, Token, TokenLimit,
    };

    #[test]
    fn a_message_has_the_field_names_and_values_of_protobufs_json() {
        let token = Token {
            token_uid: "uid".into(),
            permissions: Some(Permissions {
                access: Access::Read.into(),
                ..Permissions::default()
            }),
            state: 77,
            issued_at: Some(prost_types::Timestamp {
                seconds: 0,
                nanos: 500_000_000,
            }),
            labels: [("team".into(), "shop".into())].into(),
            ..Token::default()
        };
        let list = ListResponse {
            tokens: vec![token],
            limit: Some(TokenLimit { used: 0, max: 10 }),
            ..ListResponse::default()
        };
        let expected = serde_json::json!({
            "tokens": [{
                "tokenUid": "uid",
                "permissions": { "access": "ACCESS_READ" },
                // An enum value that this version does not know.
                "state": 77,
                "generation": 0,
                "issuedAt": "1970-01-01T00:00:00.500Z",
                "labels": { "team": "shop" },
                "issuerConfigured": false,
            }],
            "limit": { "used": 0, "max": 10 },
        });
        let text = format("stacktoken.v1.ListResponse", &list).unwrap();
        assert_eq!(text, format!("{expected:#}"));
    }

    #[test]
    fn an_inactive_answer_says_that_it_is_not_active() {
        let answer = IntrospectResponse {
            reason: Reason::Revoked.into(),
            max_age: Some(prost_types::Duration {
                seconds: 1,
                nanos: 500_000_000,
            }),
            ..IntrospectResponse::default()
        };
        let expected = serde_json::json!({
            "active": false, "reason": "REASON_REVOKED", "maxAge": "1.500s",
        });
        let text = format("stacktoken.v1.IntrospectResponse", &answer).unwrap();
        assert_eq!(text, format!("{expected:#}"));
    }

    #[test]
    fn a_name_that_the_contract_does_not_have_is_an_error() {
        assert!(format("stacktoken.v1.Nothing", &Token::default()).is_err());
    }
}
