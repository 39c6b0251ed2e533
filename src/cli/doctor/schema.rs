//! The schema: migrations that are pending or unknown, tables and indexes that are missing, and rows
//! that another database wrote.

use super::{codes::Code, finding::Findings};
use crate::{
    cli::output,
    store::{Error, SchemaError, Store},
};

/// Checks the schema. Returns whether it is the one that `serve` needs.
pub async fn check(store: &Store, findings: &mut Findings) -> bool {
    let Err(error) = store.require_current_schema().await else {
        return is_home(store, findings).await;
    };
    let (code, fix) = match &error {
        SchemaError::Older(_) => (Code::SchemaPending, "`stacktoken migrate up`".to_owned()),
        SchemaError::Newer(_) => (
            Code::SchemaNewer,
            "Install the version of stacktoken that migrated this database; `stacktoken migrate \
             status` lists the migrations"
                .to_owned(),
        ),
        SchemaError::Drifted(missing) => (
            Code::SchemaDrifted,
            format!(
                "Create {missing} again as in another database that this version migrated (`pg_dump \
                 --schema-only`, or `.schema` of sqlite3), or restore a backup"
            ),
        ),
        SchemaError::Store(_) => (
            Code::SchemaUnreadable,
            "Check that the file or database is one of stacktoken: `stacktoken migrate status`"
                .to_owned(),
        ),
    };
    findings.add(code, output::error_text(&error.into()), fix);
    false
}

async fn is_home(store: &Store, findings: &mut Findings) -> bool {
    match store.require_home().await {
        // Another finding says that this is a standby.
        Ok(()) | Err(Error::NotPrimary) => true,
        Err(error @ Error::Foreign) => {
            let fix = "If this database was restored, copied or upgraded and replaces the other one: \
                       stop every replica, and run `stacktoken migrate new-epoch`. Otherwise correct \
                       the URL, or the `search_path` of the role";
            findings.add(Code::SchemaForeign, error, fix);
            false
        }
        Err(error) => {
            let told = output::error_text(&error.into());
            findings.add(Code::SchemaUnreadable, told, "`stacktoken migrate status`");
            false
        }
    }
}
