//! A strict parser for the JSON form of Protobuf messages. An unknown name or a value of the wrong
//! type is an error.

use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use prost_types::{Duration, FieldMask, Timestamp};
use serde_json::Value as Json;

/// Parses a JSON text as a message of this type.
pub fn read(of: &MessageDescriptor, text: &str) -> Result<DynamicMessage, String> {
    let json = serde_json::from_str(text).map_err(|wrong| format!("invalid JSON: {wrong}"))?;
    message(of, &json)
}

fn message(of: &MessageDescriptor, json: &Json) -> Result<DynamicMessage, String> {
    let text = || {
        json.as_str()
            .ok_or(format!("{json} is not a {}", of.name()))
    };
    match of.full_name() {
        "google.protobuf.Timestamp" => known(of, text()?.parse::<Timestamp>()),
        "google.protobuf.Duration" => known(of, text()?.parse::<Duration>()),
        "google.protobuf.FieldMask" => {
            // grpcurl prints a mask as a message, but the protobuf JSON mapping uses a string.
            let paths = match json.get("paths").and_then(Json::as_array) {
                Some(paths) => paths
                    .iter()
                    .filter_map(Json::as_str)
                    .map(str::to_owned)
                    .collect(),
                None => text()?.split(',').map(snake_case).collect(),
            };
            known(of, Ok::<_, String>(FieldMask { paths }))
        }
        "google.protobuf.Any" => Ok(DynamicMessage::new(of.clone())),
        _ => fields(of, json),
    }
}

fn known<M: Message, E: std::fmt::Display>(
    of: &MessageDescriptor,
    parsed: Result<M, E>,
) -> Result<DynamicMessage, String> {
    let parsed = parsed.map_err(|wrong| format!("{}: {wrong}", of.name()))?;
    Ok(DynamicMessage::decode(of.clone(), parsed.encode_to_vec().as_slice()).unwrap())
}

fn snake_case(path: &str) -> String {
    path.chars().fold(String::new(), |mut out, letter| {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
        out
    })
}

fn fields(of: &MessageDescriptor, json: &Json) -> Result<DynamicMessage, String> {
    let object = json
        .as_object()
        .ok_or(format!("{json} is not a {}", of.name()))?;
    let mut made = DynamicMessage::new(of.clone());
    for (name, value) in object {
        let field = of
            .get_field_by_json_name(name)
            .or_else(|| of.get_field_by_name(name));
        let field = field.ok_or(format!("{} has no field `{name}`", of.full_name()))?;
        if let Some(choice) = field.containing_oneof()
            && choice.fields().any(|other| made.has_field(&other))
        {
            return Err(format!("more than one of `{}`", choice.full_name()));
        }
        made.set_field(&field, value_of(&field, value)?);
    }
    Ok(made)
}

fn value_of(field: &FieldDescriptor, json: &Json) -> Result<Value, String> {
    let wrong = || format!("{json} is not what `{}` takes", field.full_name());
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else {
            unreachable!("a map is a message")
        };
        let kind = entry.map_entry_value_field().kind();
        let entries = json.as_object().ok_or_else(wrong)?.iter();
        let entries = entries.map(|(key, value)| {
            let value = single(&kind, value).ok_or_else(wrong)??;
            Ok((MapKey::String(key.clone()), value))
        });
        return Ok(Value::Map(entries.collect::<Result<_, String>>()?));
    }
    if field.is_list() {
        let items = json.as_array().ok_or_else(wrong)?.iter();
        let items = items.map(|item| single(&field.kind(), item).ok_or_else(wrong)?);
        return Ok(Value::List(items.collect::<Result<_, String>>()?));
    }
    single(&field.kind(), json).ok_or_else(wrong)?
}

/// Returns one value that is not a list or a map, or `None` if the JSON has the wrong type.
fn single(kind: &Kind, json: &Json) -> Option<Result<Value, String>> {
    let integer = || match json {
        Json::String(digits) => digits.parse().ok(),
        number => number.as_i64(),
    };
    Some(Ok(match kind {
        Kind::Message(of) => return Some(message(of, json).map(Value::Message)),
        Kind::Enum(listed) => {
            let name = json.as_str()?;
            match listed.get_value_by_name(name) {
                Some(value) => Value::EnumNumber(value.number()),
                None => return Some(Err(format!("{} has no `{name}`", listed.full_name()))),
            }
        }
        Kind::Bool => Value::Bool(json.as_bool()?),
        Kind::String => Value::String(json.as_str()?.to_owned()),
        Kind::Int32 => Value::I32(integer()?.try_into().ok()?),
        Kind::Uint32 => Value::U32(integer()?.try_into().ok()?),
        Kind::Int64 => Value::I64(integer()?),
        Kind::Uint64 => Value::U64(integer()?.try_into().ok()?),
        other => return Some(Err(format!("{other:?} is not supported"))),
    }))
}
