//! Renders each RPC with its callers, its request, its response and an example of both.

use std::fmt::Write as _;

use prost_reflect::{MethodDescriptor, ServiceDescriptor};

use super::{Docs, access, anchor};
use crate::examples::blocks;

/// The examples. Each one is in a code block "```json RPC request" or "```json RPC response".
const EXAMPLES: &str = include_str!("../../data/api_examples.md");

impl Docs {
    pub fn service(&mut self, service: &ServiceDescriptor) -> String {
        let file = service.parent_file();
        let comment = self.comment(&file, service.path(), service.full_name());
        let mut out = format!(
            "\n## {}\n\n{comment}\n\n| RPC | who may call it |\n|---|---|\n",
            service.full_name()
        );
        for method in service.methods() {
            let heading = heading(&method);
            let who = access::in_words(&path(&method));
            let link = anchor(&heading);
            let _ = writeln!(out, "| [{}](#{link}) | {who} |", method.name());
        }
        for method in service.methods() {
            out += &self.rpc(&method);
        }
        out
    }

    fn rpc(&mut self, method: &MethodDescriptor) -> String {
        let file = method.parent_service().parent_file();
        let comment = self.comment(&file, method.path(), method.full_name());
        let mut out = format!("\n### {}\n\n{comment}\n", heading(method));
        for (which, message, streams) in [
            ("Request", method.input(), method.is_client_streaming()),
            ("Response", method.output(), method.is_server_streaming()),
        ] {
            let many = if streams { ", a stream of these" } else { "" };
            let body = self.body(&message);
            // The comment of such a message only refers to its RPC, which is redundant here.
            let see = format!("See {}.", heading(method));
            let body = body.strip_prefix(&see).unwrap_or(&body).trim();
            let _ = writeln!(
                out,
                "\n#### {}\n\n{which}{many}.\n\n{body}",
                message.full_name()
            );
        }
        let path = path(method);
        let (request, response) = (
            self.example(&path, "request"),
            self.example(&path, "response"),
        );
        let credential = if access::reads_credential(&path) {
            " -H \"authorization: Bearer $JWT\""
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "\nAn example:\n\n```sh\ngrpcurl -plaintext{credential} -d '{}' 127.0.0.1:50051 {path}\n```\n\n\
             ```json {path} response\n{response}\n```",
            on_one_line(&request),
        );
        out
    }

    /// Returns the example of an RPC, or records it as missing.
    fn example(&mut self, path: &str, which: &str) -> String {
        let wanted = |found: &(&str, &str, &str)| found.0 == path && found.1 == which;
        let found = blocks(EXAMPLES)
            .find(wanted)
            .map(|found| found.2.to_owned());
        found.unwrap_or_else(|| {
            self.unshown.push(format!("{path} {which}"));
            "{}".to_owned()
        })
    }
}

fn path(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

fn heading(method: &MethodDescriptor) -> String {
    format!("{}.{}", method.parent_service().name(), method.name())
}

fn on_one_line(json: &str) -> String {
    assert!(
        !json.contains('\''),
        "the quote would end the shell argument: {json}"
    );
    let lines: Vec<_> = json.lines().map(str::trim).collect();
    let joined = lines.join(" ");
    joined
        .replace("{ ", "{")
        .replace(" }", "}")
        .replace("[ ", "[")
        .replace(" ]", "]")
}
