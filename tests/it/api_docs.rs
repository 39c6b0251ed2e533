//! Checks that `docs/api.md` matches the comments in the contract, and that every part of the
//! contract has a comment. `STACKTOKEN_WRITE_DOCS=1 cargo test --test it api_docs` regenerates the
//! document.

mod access;
mod catalogue;
mod rpcs;

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
};
use stacktoken::grpc::DESCRIPTORS;

const FILE: &str = "docs/api.md";

const OPENING: &str = "\
<!-- Made from the comments in proto/ by `STACKTOKEN_WRITE_DOCS=1 cargo test --test it api_docs`; edit those. -->

# The API

gRPC, in the packages `stacktoken.v1`, `stacktoken.admin.v1` and `stacktoken.audit.v1`. The files are in
[`proto/`](../proto). A running server also offers them by reflection (`grpcurl -plaintext localhost:50051 list`), unless
its operator has switched that off (`--reflection`), as the Helm chart does. [compatibility.md](compatibility.md) says
what may change.
Rules cited as R1 to R15 are those of [rules.md](rules.md).

Every call of these services sends `authorization: Bearer <JWT>` from a configured issuer, once. An error carries
`google.rpc` details: always `ErrorInfo` with the domain `stacktoken` and one of the [error reasons](#error-reasons)
without its prefix, and `RequestInfo` with the request id; `BadRequest` with every invalid field, `QuotaFailure` if a
limit is reached, and `RetryInfo` if a retry can help, with the same delay in the trailer `grpc-retry-pushback-ms`. Each reason has an anchor here, such as `#error-reason-name-taken`.

[Who may call what](#who-may-call-what) · [The catalogue of actions](#the-catalogue-of-actions) ·
[Error reasons](#error-reasons) · [Messages](#messages) · [Enums](#enums)
";

struct Docs {
    /// The parts of the contract that have no comment.
    bare: Vec<String>,
    /// The requests and responses that have no example.
    unshown: Vec<String>,
}

impl Docs {
    /// Returns the comment of the element at this path of a file, on one line.
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

    fn message(&mut self, message: &MessageDescriptor) -> String {
        let file = message.parent_file();
        let file = file.name().rsplit('/').next().unwrap_or_default();
        let body = self.body(message);
        format!("\n### {}\n\nIn `{file}`. {body}", message.full_name())
    }

    /// Renders the section of a message, without the heading.
    fn body(&mut self, message: &MessageDescriptor) -> String {
        let file = message.parent_file();
        let comment = self.comment(&file, message.path(), message.full_name());
        let mut out = format!("{comment}\n");
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

    /// Renders the table of error reasons. The comment of each reason begins with its code.
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
            assert!(
                is_code,
                "the comment of {reason} does not begin with its code"
            );
            let id = reason_anchor(reason);
            let _ = writeln!(
                out,
                "| `{code}` | <a id=\"{id}\"></a>`{reason}` | {} |",
                cell(meaning)
            );
        }
        out
    }
}

/// Returns the anchor that Markdown renderers generate for a heading.
fn anchor(name: &str) -> String {
    name.to_lowercase().replace('.', "")
}

/// Returns the anchor of the table row that explains a reason, so that other pages can link to it.
fn reason_anchor(reason: &str) -> String {
    format!("error-reason-{}", reason.to_lowercase().replace('_', "-"))
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

/// Renders the whole document. The returned [`Docs`] lists what is missing.
fn render() -> (String, Docs) {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let mut docs = Docs {
        bare: Vec::new(),
        unshown: Vec::new(),
    };
    let mut out = OPENING.to_owned();
    let ours = |name: &str| name.starts_with("stacktoken.");
    let mut shown = BTreeSet::new();
    out += &access::matrix();
    for service in pool.services().filter(|service| ours(service.full_name())) {
        out += &docs.service(&service);
        for method in service.methods() {
            shown.extend([method.input(), method.output()].map(|one| one.full_name().to_owned()));
        }
    }
    out += &catalogue::table();
    let reasons = pool.get_enum_by_name("stacktoken.v1.ErrorReason").unwrap();
    out += &docs.reasons(&reasons);
    out += "\n## Messages\n";
    let mut messages: Vec<_> = pool
        .all_messages()
        .filter(|message| ours(message.full_name()) && !message.is_map_entry())
        // A message that only one RPC uses is documented in the section of this RPC.
        .filter(|message| !shown.contains(message.full_name()))
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
    (out, docs)
}

#[test]
fn every_part_of_the_contract_has_a_comment() {
    let (_, Docs { bare, .. }) = render();
    assert!(bare.is_empty(), "without a comment: {bare:#?}");
}

#[test]
fn every_rpc_of_the_contract_has_an_example_in_its_reference() {
    let (_, Docs { unshown, .. }) = render();
    assert!(
        unshown.is_empty(),
        "missing in tests/data/api_examples.md: {unshown:#?}"
    );
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
        "{FILE} does not match proto/; regenerate it with `STACKTOKEN_WRITE_DOCS=1 cargo test --test it api_docs`. \
         First difference: {differing:?}"
    );
}

#[test]
fn every_reason_has_an_anchor_of_its_own() {
    let (rendered, _) = render();
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let reasons = pool.get_enum_by_name("stacktoken.v1.ErrorReason").unwrap();
    for value in reasons.values().filter(|value| value.number() != 0) {
        let reason = value.name().trim_start_matches("ERROR_REASON_");
        let anchor = format!("<a id=\"{}\">", reason_anchor(reason));
        assert_eq!(rendered.matches(&anchor).count(), 1, "{anchor}");
    }
    assert!(rendered.contains("<a id=\"error-reason-name-taken\">"));
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
