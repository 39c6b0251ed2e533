//! The same read for many digests at once: one statement, and so one snapshot of the history
//! that all of them are seen in.

use std::collections::HashMap;

use sea_orm::{Statement, Value};

use super::{facts_of, seen_by};
use crate::{
    domain::{origin::Origin, revision::Snapshot, secret::Digest, verdict::Facts},
    store::{Error, Store, evidence::first},
};

/// What the store knows of some digests at one instant.
#[derive(Clone)]
pub struct Looks {
    /// The facts of those that are known.
    pub facts: HashMap<Digest, Facts>,
    /// What is reflected in that.
    pub snapshot: Snapshot,
    /// The database that said so.
    pub origin: Origin,
}

/// How the statement for one digest asks for it.
const ONE: &str = "s.digest = $1";
/// For how many digests there is a statement: few texts, so that each is prepared once on a
/// connection. Whoever asks for fewer has the last one asked for again.
const SIZES: [usize; 3] = [4, 20, 100];

impl Store {
    /// What is known of the tokens that these secrets open, all at one instant.
    ///
    /// # Errors
    /// [`Error`] where the primary cannot be read, or one row does not parse: then nothing
    /// is known of any of them (R13).
    pub async fn look_up_many(&self, digests: &[Digest]) -> Result<Looks, Error> {
        let span = self.span("look_up_many");
        let mut looked = self.try_look_up_many(digests).await;
        if self.is_worth_renewing(&looked).await {
            looked = self.try_look_up_many(digests).await;
        }
        if looked.is_ok() {
            self.renewals.answered();
        }
        span.end(looked.as_ref().err().and_then(Error::kind));
        looked
    }

    async fn try_look_up_many(&self, digests: &[Digest]) -> Result<Looks, Error> {
        let count = padded(digests.len());
        let last = digests.last().into_iter().cycle();
        let asked = digests.iter().chain(last).take(count);
        let values: Vec<Value> = asked
            .map(|digest| digest.as_bytes().to_vec().into())
            .collect();
        let sql = for_many(&self.statements.look_up, values.len());
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        self.require_file()?;
        let reader = self.pools.load().reader.clone();
        let rows = self.read_evidence(&reader, statement).await?;
        let (origin, snapshot) = seen_by(first(&rows)?)?;
        let mut facts = HashMap::with_capacity(rows.len());
        for row in &rows {
            let Some(known) = facts_of(row)? else {
                continue;
            };
            let digest: Vec<u8> = row.try_get("", "digest")?;
            // What the store answered with is what it was asked for, byte by byte.
            let asked = digests
                .iter()
                .find(|asked| asked.as_bytes()[..] == digest[..]);
            facts.extend(asked.map(|asked| (*asked, known)));
        }
        Ok(Looks {
            facts,
            snapshot,
            origin,
        })
    }
}

/// For how many digests the statement is that so many are asked for with.
fn padded(count: usize) -> usize {
    let fits = SIZES.into_iter().find(|size| *size >= count);
    fits.unwrap_or(count)
}

/// The statement for one, asking for many.
fn for_many(by_one: &str, count: usize) -> String {
    let places: Vec<String> = (1..=count).map(|at| format!("${at}")).collect();
    let many = format!("s.digest IN ({})", places.join(", "));
    by_one
        .replacen("SELECT ", "SELECT s.digest, ", 1)
        .replacen(ONE, &many, 1)
}
