//! Checks the examples in the documents against the contract, so that a renamed field, enum value
//! or RPC fails here.

use std::{fs, path::Path};

use prost_reflect::{DescriptorPool, MethodDescriptor};
use stacktoken::grpc::DESCRIPTORS;

use crate::support::json;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the name and the text of each Markdown file in the root folder and below `docs`.
fn documents() -> Vec<(String, String)> {
    let mut folders = vec![Path::new(ROOT).join("docs")];
    let mut files: Vec<_> = entries(Path::new(ROOT));
    while let Some(folder) = folders.pop() {
        let (below, found) = entries(&folder).into_iter().partition(|path| path.is_dir());
        folders.extend::<Vec<_>>(below);
        files.extend::<Vec<_>>(found);
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    let named = files.into_iter().map(|path| {
        let name = path.strip_prefix(ROOT).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    });
    named.collect()
}

fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    let found = fs::read_dir(folder).unwrap();
    found.map(|entry| entry.unwrap().path()).collect()
}

fn method(pool: &DescriptorPool, name: &str) -> Result<MethodDescriptor, String> {
    let (service, method) = name
        .split_once('/')
        .ok_or(format!("{name} is not an RPC"))?;
    let service = pool.get_service_by_name(service);
    let mut methods = service
        .iter()
        .flat_map(prost_reflect::ServiceDescriptor::methods);
    let found = methods.find(|known| known.name() == method);
    found.ok_or(format!("there is no RPC {name}"))
}

/// Returns the blocks that begin with "```json RPC request" or "```json RPC response". Each is
/// given as its RPC, the word `request` or `response`, and the text.
pub fn blocks(document: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    document.split("\n```json ").skip(1).filter_map(|rest| {
        let (opening, rest) = rest.split_once('\n')?;
        let (rpc, which) = opening.split_once(' ')?;
        let (text, _) = rest.split_once("\n```")?;
        Some((rpc, which, text))
    })
}

/// Returns each grpcurl request in the shell commands with its RPC. Shell variables are replaced by
/// `x`.
fn commands(document: &str) -> Vec<(String, String)> {
    let joined = document.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| line.contains("grpcurl "));
    lines.filter_map(command).collect()
}

fn command(line: &str) -> Option<(String, String)> {
    let (_, mut rest) = line.split_once(" -d '")?;
    let mut text = String::new();
    loop {
        let (part, after) = rest.split_once('\'')?;
        text += part;
        rest = after;
        if !after.starts_with('$') && !after.starts_with("\"$") {
            break;
        }
        text.push('x');
        (_, rest) = after.split_once('\'')?;
    }
    let rpc = rest.split_whitespace().find(|word| word.contains('/'))?;
    let rpc = rpc.replace("$TOKENS", "stacktoken.v1.TokenService");
    Some((rpc, text))
}

fn fault(pool: &DescriptorPool, (rpc, which, text): (&str, &str, &str)) -> Option<String> {
    let checked = method(pool, rpc).and_then(|method| {
        let of = match which {
            "request" => method.input(),
            "response" => method.output(),
            other => return Err(format!("{other}: must be request or response")),
        };
        json::read(&of, text)
    });
    checked.err()
}

#[test]
fn every_example_in_a_document_is_what_the_contract_says() {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let (mut faults, mut count) = (Vec::new(), 0);
    for (name, text) in documents() {
        let commands = commands(&text);
        // grpcurl expects a mask as a message, not as the string of the protobuf JSON mapping.
        let is_text = |text: &str| text.replace(' ', "").contains("\"update_mask\":\"");
        let masks = commands.iter().filter(|(_, text)| is_text(text));
        faults.extend(masks.map(|(rpc, _)| format!("{name}: {rpc} update_mask is a string")));
        let commands = commands
            .iter()
            .map(|(rpc, text)| (rpc.as_str(), "request", text.as_str()));
        for example in blocks(&text).chain(commands) {
            count += 1;
            let wrong = fault(&pool, example);
            faults.extend(wrong.map(|wrong| format!("{name}: {} {wrong}", example.0)));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(count >= 10, "only {count} examples were found");
}

#[test]
fn an_example_that_the_contract_does_not_know_is_reported() {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let issue = "stacktoken.v1.TokenService/Issue";
    for (text, told) in [
        (r#"{"stack_key": "x"}"#, "no field `stack_key`"),
        (
            r#"{"name": 5}"#,
            "not what `stacktoken.v1.IssueRequest.name` takes",
        ),
        (
            r#"{"permissions": {"access": "READ"}}"#,
            "stacktoken.v1.Access has no `READ`",
        ),
        (r#"{"expiry": {"at": "tomorrow"}}"#, "Timestamp: "),
        (
            r#"{"expiry": {"never": true, "on_date": "2027-01-01"}}"#,
            "more than one of",
        ),
        ("{", "invalid JSON"),
    ] {
        let wrong = fault(&pool, (issue, "request", text)).unwrap();
        assert!(wrong.contains(told), "{text}: {wrong}");
    }
    let fine = r#"{"stack_api_key": "x", "expiry": {"at": "2027-01-01T00:00:00Z"}}"#;
    assert_eq!(fault(&pool, (issue, "request", fine)), None);
    let unknown = fault(&pool, ("stacktoken.v1.TokenService/Mint", "request", "{}"));
    assert_eq!(
        unknown.as_deref(),
        Some("there is no RPC stacktoken.v1.TokenService/Mint")
    );
}

#[test]
fn a_request_is_found_in_the_words_of_a_shell() {
    let line = r#"grpcurl -plaintext -H "$AS" -d '{"stack_api_key":"'$KEY'","name_contains":"'"$NAME"'"}' 127.0.0.1:50051 $TOKENS/List > tokens"#;
    let (rpc, text) = command(line).unwrap();
    assert_eq!(rpc, "stacktoken.v1.TokenService/List");
    assert_eq!(text, r#"{"stack_api_key":"x","name_contains":"x"}"#);
    let block = "\n```json a.B/C request\n{}\n```\n";
    assert_eq!(
        blocks(block).collect::<Vec<_>>(),
        [("a.B/C", "request", "{}")]
    );
}
