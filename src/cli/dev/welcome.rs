//! What dev says once it serves: on the screen for people, in a file for scripts.

use std::{
    env,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{
    people::Jwts,
    seed::{SECOND_STACK, STACK},
    write_private,
};
use crate::telemetry::output;

/// Everything there is to say.
pub struct Welcome {
    /// Of gRPC and of the admin port.
    pub addresses: (SocketAddr, SocketAddr),
    /// The JWTs.
    pub jwts: Jwts,
    /// Where they lie.
    pub data_dir: PathBuf,
}

impl Welcome {
    /// Says it.
    pub fn tell(&self, ready_file: Option<&Path>) -> anyhow::Result<()> {
        output::print(self.text());
        ready_file.map_or(Ok(()), |path| write_private(path, &self.json()))
    }

    fn json(&self) -> String {
        let (grpc, admin) = self.addresses;
        let ready = json!({
            "grpc_address": grpc.to_string(),
            "admin_address": admin.to_string(),
            "stack_api_key": STACK,
            "second_stack_api_key": SECOND_STACK,
            "owner_jwt": self.jwts.owner,
            "admin_jwt": self.jwts.admin,
            "developer_jwt": self.jwts.developer,
            "stranger_jwt": self.jwts.stranger,
            "service_jwt": self.jwts.service,
            "operator_jwt": self.jwts.operator,
        });
        format!("{ready:#}\n")
    }

    #[rustfmt::skip]
    fn text(&self) -> String {
        let (grpc, admin) = self.addresses;
        let program = program();
        let jwt = |name: &str| self.data_dir.join(format!("{name}.jwt")).display().to_string();
        let (owner, service) = (jwt("owner"), jwt("service"));
        let issue = format!("{program} issue --server http://{grpc} --stack {STACK} --jwt-file {owner} --name \"demo $(date +%s)\" --access read-write --expires never");
        let introspect = format!("{program} introspect --server http://{grpc} --stack {STACK} --jwt-file {service} --action entry.update --branch main");
        let issue_request = format!(r#"{{"stack_api_key":"{STACK}","name":"demo grpcurl '"$(date +%s)"'","permissions":{{"access":"ACCESS_READ_WRITE"}},"expiry":{{"never":true}}}}"#);
        // The secret travels from pipe to pipe: on a command line every process could see it.
        let to_question = format!(r#"s/.*"secret": "\(.*\)".*/{{"stack_api_key":"{STACK}","token":"\1","actions":[{{"name":"entry.update","branch":"main"}}]}}/p"#);
        let mut text = format!("\
stacktoken serves gRPC on {grpc}, metrics and probes on http://{admin}
demo stack {STACK}, second stack {SECOND_STACK}

Issue a token and introspect it (in another terminal, from this folder):

  {issue} | {introspect}

The same with grpcurl:

  grpcurl -plaintext -H \"authorization: Bearer $(cat {owner})\" -d '{issue_request}' {grpc} stacktoken.v1.TokenService/Issue | sed -n '{to_question}' | grpcurl -plaintext -H \"authorization: Bearer $(cat {service})\" -d @ {grpc} stacktoken.v1.IntrospectionService/Introspect

What there is to call:

  grpcurl -plaintext {grpc} list

JWTs, valid for a day (also in {dir}/*.jwt):
", dir = self.data_dir.display());
        for (name, jwt) in self.jwts.named() {
            // Writing to a String does not fail.
            let _ = write!(text, "\n  {name}: {jwt}\n");
        }
        text
    }
}

/// How this program was called, so that a pasted line calls the same one.
fn program() -> String {
    let running = env::current_exe()
        .and_then(fs::canonicalize)
        .unwrap_or_else(|_| "stacktoken".into());
    let here = env::current_dir()
        .and_then(fs::canonicalize)
        .unwrap_or_default();
    match running.strip_prefix(&here) {
        Ok(relative) => format!("./{}", relative.display()),
        Err(_) => running.display().to_string(),
    }
}
