//! Compiles `proto/` without protoc and keeps the descriptor set, comments included,
//! for reflection, the coverage test and `docs/api.md`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 4] = [
    "stacktoken/v1/token_service.proto",
    "stacktoken/v1/introspection_service.proto",
    "stacktoken/admin/v1/stack_service.proto",
    "stacktoken/audit/v1/audit_service.proto",
];

/// Messages that hold a secret: their derived `Debug` would print it, so
/// `src/grpc/redact.rs` writes one that does not (R9).
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
    Ok(())
}
