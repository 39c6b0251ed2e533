//! Compiles `proto/` without protoc: the server's code, the descriptor set with its comments (for
//! reflection, the coverage test and `docs/api.md`), and, to be compared with what
//! `crates/client` keeps, the client's code.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;

const FILES: [&str; 4] = [
    "stacktoken/v1/token_service.proto",
    "stacktoken/v1/introspection_service.proto",
    "stacktoken/admin/v1/stack_service.proto",
    "stacktoken/audit/v1/audit_service.proto",
];

/// What `crates/client` calls.
const CLIENT_FILES: [&str; 1] = ["stacktoken/v1/introspection_service.proto"];

/// Messages that hold a secret: their derived `Debug` would print it. `src/grpc/redact.rs` and
/// `crates/client/src/redact.rs` implement one that does not (R9); without it nothing compiles.
const SECRET: [&str; 5] = [
    "stacktoken.v1.IssueResponse",
    "stacktoken.v1.RotateResponse",
    "stacktoken.v1.IntrospectRequest",
    "stacktoken.v1.IntrospectQuestion",
    "stacktoken.v1.ReportLeakedRequest",
];

#[expect(
    clippy::disallowed_methods,
    reason = "how a build script is told where to write"
)]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["proto"])?;
    fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .skip_debug(SECRET)
        .compile_fds(descriptors)?;
    generate_client(&out.join("client"))
}

fn generate_client(out: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(out)?;
    tonic_prost_build::configure()
        .skip_debug(SECRET)
        .build_server(false)
        .out_dir(out)
        .compile_fds(protox::compile(CLIENT_FILES, ["proto"])?)?;
    Ok(())
}
