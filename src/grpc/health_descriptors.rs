//! Descriptors of the health service for reflection. The descriptors of tonic-health lack the RPC
//! `List`, which is therefore added here as the gRPC project's `health.proto` defines it.

use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MessageOptions,
    MethodDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

const RESPONSE: &str = ".grpc.health.v1.HealthListResponse";

/// Returns the descriptors of the health service, including `List`.
///
/// # Errors
/// Returns an error if tonic-health's descriptors cannot be decoded. A test ensures that they can.
pub(super) fn health() -> Result<FileDescriptorSet, prost::DecodeError> {
    let mut set = FileDescriptorSet::decode(tonic_health::pb::FILE_DESCRIPTOR_SET)?;
    for file in &mut set.file {
        for service in &mut file.service {
            service.method.push(MethodDescriptorProto {
                name: Some("List".to_owned()),
                input_type: Some(".grpc.health.v1.HealthListRequest".to_owned()),
                output_type: Some(RESPONSE.to_owned()),
                ..MethodDescriptorProto::default()
            });
        }
        file.message_type.push(DescriptorProto {
            name: Some("HealthListRequest".to_owned()),
            ..DescriptorProto::default()
        });
        file.message_type.push(response());
    }
    Ok(set)
}

/// Returns the descriptor of a message with `map<string, HealthCheckResponse> statuses = 1`.
fn response() -> DescriptorProto {
    let entry = DescriptorProto {
        name: Some("StatusesEntry".to_owned()),
        field: vec![
            field(("key", 1), (Label::Optional, Type::String), None),
            field(
                ("value", 2),
                (Label::Optional, Type::Message),
                Some(".grpc.health.v1.HealthCheckResponse".to_owned()),
            ),
        ],
        options: Some(MessageOptions {
            map_entry: Some(true),
            ..MessageOptions::default()
        }),
        ..DescriptorProto::default()
    };
    let statuses = field(
        ("statuses", 1),
        (Label::Repeated, Type::Message),
        Some(format!("{RESPONSE}.StatusesEntry")),
    );
    DescriptorProto {
        name: Some("HealthListResponse".to_owned()),
        field: vec![statuses],
        nested_type: vec![entry],
        ..DescriptorProto::default()
    }
}

fn field(
    (name, number): (&str, i32),
    (label, kind): (Label, Type),
    type_name: Option<String>,
) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        json_name: Some(name.to_owned()),
        number: Some(number),
        label: Some(label.into()),
        r#type: Some(kind.into()),
        type_name,
        ..FieldDescriptorProto::default()
    }
}
