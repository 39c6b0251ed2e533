//! Checks that the generated code in `crates/client` matches the contract.

use std::{env, fs, path::Path};

const KEPT: &str = "crates/client/src/generated/stacktoken.v1.rs";

/// If `STACKTOKEN_TEST_REGENERATE` is set, the test first overwrites the file with the generated
/// code.
#[test]
fn the_code_of_the_client_is_what_the_contract_generates() {
    let generated = include_str!(concat!(env!("OUT_DIR"), "/client/stacktoken.v1.rs"));
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join(KEPT);
    if env::var_os("STACKTOKEN_TEST_REGENERATE").is_some() {
        fs::write(&kept, generated).unwrap();
    }
    let differs = fs::read_to_string(&kept).unwrap() != generated;
    assert!(
        !differs,
        "{KEPT} differs from what proto/ generates; run\n  \
         STACKTOKEN_TEST_REGENERATE=1 cargo test --test architecture generated"
    );
}
