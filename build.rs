//! Compiles `proto/` without protoc. Generates the server's code and the descriptor set with its
//! comments, which reflection, the coverage test and `docs/api.md` use. Also generates the client's
//! code, with which a test compares the code that is committed in `crates/client`.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;

const FILES: [&str; 7] = [
    "stacktoken/v1/token_service.proto",
    "stacktoken/v1/exchange_service.proto",
    "stacktoken/v1/leak_service.proto",
    "stacktoken/v1/introspection_service.proto",
    "stacktoken/v1/action_service.proto",
    "stacktoken/admin/v1/stack_service.proto",
    "stacktoken/audit/v1/audit_service.proto",
];

/// The services that `crates/client` calls.
const CLIENT_FILES: [&str; 2] = [
    "stacktoken/v1/introspection_service.proto",
    "stacktoken/v1/action_service.proto",
];

/// A message whose Rust type comes from a library.
const EXTERN: (&str, &str) = (".google.rpc.Status", "::tonic_types::pb::Status");

/// Messages that contain a secret. They get no derived `Debug`, because it would print the secret.
/// `src/grpc/redact.rs` and `crates/client/src/redact.rs` must implement a `Debug` that omits it
/// (R9), otherwise the code does not compile.
const SECRET: [&str; 8] = [
    "stacktoken.v1.IssueResponse",
    "stacktoken.v1.RotateResponse",
    "stacktoken.v1.ExchangeResponse",
    "stacktoken.v1.EndSessionRequest",
    "stacktoken.v1.ExplainExchangeRequest",
    "stacktoken.v1.IntrospectRequest",
    "stacktoken.v1.IntrospectQuestion",
    "stacktoken.v1.ReportLeakedRequest",
];

/// Map fields that are generated as maps sorted by key. A repeated Issue is recognized by the hash
/// of its encoded request, so the encoding must be deterministic.
const SORTED: &str = "labels";

#[expect(
    clippy::disallowed_methods,
    reason = "how a build script is told where to write"
)]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/stacktoken");
    println!("cargo:rerun-if-changed=proto/google");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["proto"])?;
    fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .skip_debug(SECRET)
        .extern_path(EXTERN.0, EXTERN.1)
        .btree_map(SORTED)
        .compile_fds(descriptors)?;
    generate_client(&out.join("client"))
}

fn generate_client(out: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(out)?;
    tonic_prost_build::configure()
        .skip_debug(SECRET)
        .extern_path(EXTERN.0, EXTERN.1)
        .btree_map(SORTED)
        .build_server(false)
        .out_dir(out)
        .compile_fds(protox::compile(CLIENT_FILES, ["proto"])?)?;
    Ok(())
}
