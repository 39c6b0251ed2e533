//! Reports that `dev` is serving: with a message on the terminal for people, and with a JSON file
//! for scripts.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{
    people::{Jwts, WORKLOAD},
    seed::{SECOND_STACK, STACK},
    write_private,
};
use crate::telemetry::output;

/// The addresses of the ports.
pub struct Addresses {
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
    pub http: SocketAddr,
}

/// The data for the message and for the ready file.
pub struct Welcome {
    pub addresses: Addresses,
    /// The JWTs. They are written to the ready file but never printed.
    pub jwts: Jwts,
    /// Absolute path of the folder with the JWTs. It must be absolute, because a second terminal
    /// may be in another folder.
    pub data_dir: PathBuf,
}

impl Welcome {
    /// Prints the message and writes the ready file.
    pub fn print(&self, ready_file: Option<&Path>) -> anyhow::Result<()> {
        output::print(self.text());
        ready_file.map_or(Ok(()), |path| write_private(path, &self.json()))
    }

    fn json(&self) -> String {
        let Addresses { grpc, admin, http } = &self.addresses;
        let ready = json!({
            "grpc_address": grpc.to_string(),
            "admin_address": admin.to_string(),
            "http_address": http.to_string(),
            "stack_api_key": STACK,
            "second_stack_api_key": SECOND_STACK,
            "owner_jwt": self.jwts.owner,
            "admin_jwt": self.jwts.admin,
            "developer_jwt": self.jwts.developer,
            "stranger_jwt": self.jwts.stranger,
            "service_jwt": self.jwts.service,
            "operator_jwt": self.jwts.operator,
            "workload_jwt": self.jwts.workload,
        });
        format!("{ready:#}\n")
    }

    /// Returns the message. The command lines to paste come last, because a reader looks there
    /// first. Each command line revokes the token that it issues, so that it can be repeated
    /// without reaching the stack's limit of 10 live tokens. If a command line is interrupted, its
    /// token expires after 10 minutes.
    fn text(&self) -> String {
        let Addresses { grpc, admin, http } = &self.addresses;
        let names = self.jwts.named().map(|(name, _)| name).join(", ");
        format!(
            "\
stacktoken serves gRPC on {grpc}, metrics and probes on http://{admin}
OAuth endpoints and the routes of the CMS on http://{http}
demo stack {STACK}, second stack {SECOND_STACK}
JWTs, renewed while this runs: {dir}/NAME.jwt
  NAME is {names}

List the services:

  grpcurl -plaintext {grpc} list

Issue a federated token, which has no secret, and let a workload exchange its own JWT for one:

  {with_exchange}

With grpcurl, issue a token, introspect it and revoke it:

  {with_grpcurl}

The same with nothing else installed (paste this in another terminal):

  {with_verbs}",
            dir = self.data_dir.display(),
            with_exchange = self.with_exchange(),
            with_grpcurl = self.with_grpcurl(),
            with_verbs = self.with_verbs(),
        )
    }

    /// Returns the command line that uses the client commands. Parentheses make it run in a
    /// subshell, so that it does not change variables of the shell into which it is pasted.
    fn with_verbs(&self) -> String {
        format!(
            "(NAME=\"demo $(date +%s) $$\"; {issue} --name \"$NAME\" --access read-write --expires 10m | {introspect} --action entry.update --branch main --include permissions --include stack; {revoke} --name \"$NAME\")",
            issue = self.verb("issue", "owner"),
            introspect = self.verb("introspect", "service"),
            revoke = self.verb("revoke", "owner"),
        )
    }

    /// Returns the command line that lets a workload exchange its JWT. The session secret expires
    /// after a few minutes and is not stored.
    fn with_exchange(&self) -> String {
        format!(
            "(NAME=\"demo $(date +%s) $$\"; TOKEN=$({issue} --name \"$NAME\" --access read-write --expires 10m --issuer dev --claim sub={WORKLOAD}); {exchange} --token \"$TOKEN\" | {introspect} --action entry.update --branch main --include session; {revoke} --name \"$NAME\")",
            issue = self.verb("issue", "owner"),
            exchange = self.verb("exchange", "workload"),
            introspect = self.verb("introspect", "service"),
            revoke = self.verb("revoke", "owner"),
        )
    }

    fn verb(&self, verb: &str, jwt: &str) -> String {
        let (program, grpc, jwt) = (program(), self.addresses.grpc, self.jwt(jwt));
        format!("{program} {verb} --server http://{grpc} --stack {STACK} --jwt-file {jwt}")
    }

    /// Returns the command line that uses grpcurl. It passes the secret through pipes and not as an
    /// argument, because every process can see the arguments of other processes. The second form of
    /// `date` is for BSD and macOS.
    fn with_grpcurl(&self) -> String {
        let grpc = self.addresses.grpc;
        let call = |jwt: &str, request: &str, rpc: &str| {
            let jwt = self.jwt(jwt);
            format!(
                r#"grpcurl -plaintext -H "authorization: Bearer $(cat {jwt})" -d {request} {grpc} stacktoken.v1.{rpc}"#
            )
        };
        let request = format!(
            r#"'{{"stack_api_key":"{STACK}","name":"demo grpcurl '"$(date +%s) $$"'","permissions":{{"access":"ACCESS_READ_WRITE"}},"expiry":{{"at":"'"$UNTIL"'"}}}}'"#
        );
        let pick = |field: &str, fields: &str| {
            format!(
                r#"printf %s "$ISSUED" | sed -n 's/.*"{field}": "\([^"]*\)".*/{{"stack_api_key":"{STACK}",{fields}}}/p'"#
            )
        };
        let question = pick(
            "secret",
            r#""token":"\1","actions":[{"name":"entry.update","branch":"main"}]"#,
        );
        format!(
            "(UNTIL=$(date -u -d '+10 minutes' +%FT%TZ 2>/dev/null || date -u -v+10M +%FT%TZ); ISSUED=$({issue}); {question} | {introspect}; {token} | {revoke} >/dev/null)",
            issue = call("owner", &request, "TokenService/Issue"),
            introspect = call("service", "@", "IntrospectionService/Introspect"),
            token = pick("tokenUid", r#""token_uid":"\1""#),
            revoke = call("owner", "@", "TokenService/Revoke"),
        )
    }

    fn jwt(&self, name: &str) -> String {
        quoted(&self.data_dir.join(format!("{name}.jwt")))
    }
}

/// Returns the absolute path of this program, quoted for a shell.
fn program() -> String {
    let running = env::current_exe().and_then(fs::canonicalize);
    quoted(&running.unwrap_or_else(|_| "stacktoken".into()))
}

/// Returns a path quoted as one word for a POSIX shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    if text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
