//! `docs/api.md` is what the comments of the contract say, and every part of the contract has
//! one. `STACKTOKEN_WRITE_DOCS=1 cargo test --test it api_docs` writes it anew.

use std::{fmt::Write as _, fs, path::Path};

use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
    ServiceDescriptor,
};
use stacktoken::grpc::DESCRIPTORS;

const FILE: &str = "docs/api.md";

const OPENING: &str = "\
<!-- Made from the comments in proto/ by `STACKTOKEN_WRITE_DOCS=1 cargo test --test it api_docs`; edit those. -->

# The API

gRPC, in the packages `stacktoken.v1`, `stacktoken.admin.v1` and `stacktoken.audit.v1`. The files are in
[`proto/`](../proto); a running server tells the same by reflection (`grpcurl -plaintext localhost:50051 list`), unless
its operator has switched that off (`--reflection`), as the Helm chart does.
Rules cited as R1 to R15 are those of [rules.md](rules.md).

Every call of these services sends `authorization: Bearer <JWT>` from a configured issuer, once. An error carries
`google.rpc` details: always `ErrorInfo` with the domain `stacktoken` and one of the [error reasons](#error-reasons)
without its prefix, and `RequestInfo` with the request id; `BadRequest` with every field to mend, `QuotaFailure` where a
limit is reached and `RetryInfo` where trying again helps.
";

struct Docs {
    /// The parts of the contract that nobody wrote a comment for.
    bare: Vec<String>,
}

impl Docs {
    /// The comment at a place of a file, on one line.
    fn comment(&mut self, file: &FileDescriptor, path: &[i32], name: &str) -> String {
        let info = file.file_descriptor_proto().source_code_info.as_ref();
        let found = info.and_then(|info| info.location.iter().find(|at| at.path == path));
        let text = found.and_then(|at| at.leading_comments.as_deref());
        let text = text.unwrap_or_default();
        let words: Vec<_> = text.split_whitespace().collect();
        if words.is_empty() {
            self.bare.push(name.to_owned());
        }
        words.join(" ")
    }

    fn service(&mut self, service: &ServiceDescriptor) -> String {
        let file = service.parent_file();
        let mut out = format!("\n## {}\n\n", service.full_name());
        let comment = self.comment(&file, service.path(), service.full_name());
        let _ = writeln!(
            out,
            "{comment}\n\n| RPC | request | response | |\n|---|---|---|---|"
        );
        for method in service.methods() {
            let comment = self.comment(&file, method.path(), method.full_name());
            let (input, output) = (method.input(), method.output());
            let _ = writeln!(
                out,
                "| {} | {}[{}](#{}) | {}[{}](#{}) | {} |",
                method.name(),
                stream(method.is_client_streaming()),
                input.name(),
                anchor(input.full_name()),
                stream(method.is_server_streaming()),
                output.name(),
                anchor(output.full_name()),
                cell(&comment)
            );
        }
        out
    }

    fn message(&mut self, message: &MessageDescriptor) -> String {
        let file = message.parent_file();
        let mut out = format!("\n### {}\n\n", message.full_name());
        let comment = self.comment(&file, message.path(), message.full_name());
        let _ = writeln!(out, "{comment}");
        for choice in message.oneofs().filter(|choice| !choice.is_synthetic()) {
            let comment = self.comment(&file, choice.path(), choice.full_name());
            let _ = writeln!(out, "\nOne of those marked `{}`: {comment}", choice.name());
        }
        let fields: Vec<_> = message.fields().collect();
        if fields.is_empty() {
            let _ = writeln!(out, "\nNo fields.");
            return out;
        }
        let _ = writeln!(out, "\n| # | field | type | |\n|---|---|---|---|");
        for field in fields {
            let comment = self.comment(&file, field.path(), field.full_name());
            let _ = writeln!(
                out,
                "| {} | `{}` | {} | {} |",
                field.number(),
                field.name(),
                type_of(&field),
                cell(&comment)
            );
        }
        out
    }

    fn enumeration(&mut self, listed: &EnumDescriptor) -> String {
        let file = listed.parent_file();
        let mut out = format!("\n### {}\n\n", listed.full_name());
        let comment = self.comment(&file, listed.path(), listed.full_name());
        let _ = writeln!(out, "{comment}\n\n| # | value | |\n|---|---|---|");
        for value in listed.values() {
            let comment = self.comment(&file, value.path(), value.full_name());
            let (number, name) = (value.number(), value.name());
            let _ = writeln!(out, "| {number} | `{name}` | {} |", cell(&comment));
        }
        out
    }

    /// The code, the reason, what it means and what to do next: the comment of a reason
    /// begins with its code.
    fn reasons(&mut self, reasons: &EnumDescriptor) -> String {
        let file = reasons.parent_file();
        let comment = self.comment(&file, reasons.path(), reasons.full_name());
        let mut out = format!(
            "\n## Error reasons\n\n{comment}\n\n| code | reason | what it means, and what to do next |\n|---|---|---|\n"
        );
        for value in reasons.values().filter(|value| value.number() != 0) {
            let comment = self.comment(&file, value.path(), value.full_name());
            let reason = value.name().trim_start_matches("ERROR_REASON_");
            let (code, meaning) = comment.split_once(". ").unwrap_or(("", &comment));
            let is_code =
                !code.is_empty() && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
            assert!(is_code, "{reason} does not begin with its code");
            let _ = writeln!(out, "| `{code}` | `{reason}` | {} |", cell(meaning));
        }
        out
    }
}

/// Whether there are many of a message.
const fn stream(many: bool) -> &'static str {
    if many { "stream of " } else { "" }
}

/// As the renderers of Markdown make it of a heading.
fn anchor(name: &str) -> String {
    name.to_lowercase().replace('.', "")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn type_of(field: &FieldDescriptor) -> String {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else {
            unreachable!("a map is a message")
        };
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        return format!("map of {} to {}", kind_of(&key), kind_of(&value));
    }
    let kind = kind_of(field);
    let choice = field.containing_oneof();
    match choice.filter(|choice| !choice.is_synthetic()) {
        Some(choice) => format!("{kind}, `{}`", choice.name()),
        None if field.is_list() => format!("repeated {kind}"),
        None if field.field_descriptor_proto().proto3_optional() => format!("optional {kind}"),
        None => kind,
    }
}

fn kind_of(field: &FieldDescriptor) -> String {
    let linked = |name: &str, full: &str| match full.starts_with("stacktoken.") {
        true => format!("[{name}](#{})", anchor(full)),
        false => format!("`{full}`"),
    };
    match field.kind() {
        Kind::Message(message) => linked(message.name(), message.full_name()),
        Kind::Enum(listed) => linked(listed.name(), listed.full_name()),
        scalar => format!("`{scalar:?}`"),
    }
}

/// The whole document, and what lacks a comment.
fn render() -> (String, Vec<String>) {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let mut docs = Docs { bare: Vec::new() };
    let mut out = OPENING.to_owned();
    let ours = |name: &str| name.starts_with("stacktoken.");
    for service in pool.services().filter(|service| ours(service.full_name())) {
        out += &docs.service(&service);
    }
    let reasons = pool.get_enum_by_name("stacktoken.v1.ErrorReason").unwrap();
    out += &docs.reasons(&reasons);
    out += "\n## Messages\n";
    let mut messages: Vec<_> = pool
        .all_messages()
        .filter(|message| ours(message.full_name()) && !message.is_map_entry())
        .collect();
    messages.sort_by(|one, other| one.full_name().cmp(other.full_name()));
    for message in messages {
        out += &docs.message(&message);
    }
    out += "\n## Enums\n";
    let mut enums: Vec<_> = pool
        .all_enums()
        .filter(|listed| ours(listed.full_name()))
        .collect();
    enums.sort_by(|one, other| one.full_name().cmp(other.full_name()));
    for listed in enums {
        out += &docs.enumeration(&listed);
    }
    (out, docs.bare)
}

#[test]
fn every_part_of_the_contract_has_a_comment() {
    let (_, bare) = render();
    assert!(bare.is_empty(), "without a comment: {bare:#?}");
}

#[test]
fn the_committed_document_is_what_the_comments_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let (rendered, _) = render();
    if std::env::var_os("STACKTOKEN_WRITE_DOCS").is_some() {
        fs::write(&file, &rendered).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    let differing = committed
        .lines()
        .zip(rendered.lines())
        .find(|(old, new)| old != new);
    assert!(
        committed == rendered,
        "{FILE} is not what proto/ says; write it with `STACKTOKEN_WRITE_DOCS=1 cargo test --test it api_docs`. \
         The first line that differs: {differing:?}"
    );
}

#[test]
fn every_link_within_the_document_leads_somewhere() {
    let (rendered, _) = render();
    let headings: Vec<_> = rendered
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| anchor(line.trim_start_matches('#').trim()).replace(' ', "-"))
        .collect();
    for link in rendered.split("](#").skip(1) {
        let target = link.split(')').next().unwrap();
        assert!(
            headings.iter().any(|heading| heading == target),
            "#{target}"
        );
    }
}
