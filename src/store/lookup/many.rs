//! Looks up many digests with one statement, so that all of them are read from one snapshot.

use std::{collections::HashMap, sync::Arc};

use super::{Lookup, facts_of, seen_by};
use crate::{
    domain::{origin::Origin, revision::Snapshot, secret::Digest, verdict::Facts},
    store::{Error, Store, engine::evidence::first},
};

/// What the store knows about several digests at one instant.
#[derive(Clone)]
pub struct Lookups {
    /// The facts of the digests that are known.
    pub facts: HashMap<Digest, Facts>,
    /// The snapshot from which the facts were read.
    pub snapshot: Snapshot,
    /// The database that answered.
    pub origin: Origin,
}

/// The `WHERE` condition of the look-up of one digest. [`for_many`] replaces it with a list, so that
/// both look-ups share the rest of the statement.
const ONE: &str = "digest = $1";
/// The batch sizes for which there is a statement. There are only a few, so that each text is
/// prepared once per connection. A smaller batch is padded with copies of its last digest.
const SIZES: [usize; 5] = [4, 10, 20, 40, 100];

/// What the store knows about several digests, with a separate error for each.
struct Read {
    /// Facts, or the error of a row that cannot be parsed. Unknown digests are left out.
    facts: HashMap<Digest, Result<Facts, Error>>,
    snapshot: Snapshot,
    origin: Origin,
}

impl Store {
    /// Looks up the facts about the tokens with these secrets, all from one snapshot.
    ///
    /// # Errors
    /// Returns [`Error`] if the primary cannot be read, or if one of the rows cannot be parsed. In
    /// both cases, none of the digests gets an answer (R13).
    pub async fn look_up_many(&self, digests: &[Digest]) -> Result<Lookups, Error> {
        let Read {
            facts,
            snapshot,
            origin,
        } = self.read_many(digests).await?;
        let facts = facts.into_iter().map(|(of, facts)| Ok((of, facts?)));
        Ok(Lookups {
            facts: facts.collect::<Result<_, Error>>()?,
            snapshot,
            origin,
        })
    }

    /// Looks up digests for independent callers, all from one snapshot. Returns one result for each
    /// digest, in the same order. If a row cannot be parsed, only its own digest gets an error.
    ///
    /// # Errors
    /// Returns [`Error`] if the primary cannot be read.
    pub async fn look_up_each(
        &self,
        digests: &[Digest],
    ) -> Result<Vec<Result<Lookup, Arc<Error>>>, Error> {
        let Read {
            facts,
            snapshot,
            origin,
        } = self.read_many(digests).await?;
        let shared = facts
            .into_iter()
            .map(|(of, facts)| (of, facts.map_err(Arc::new)));
        let found: HashMap<_, _> = shared.collect();
        let of_one = |digest| {
            Ok(Lookup {
                facts: found.get(digest).cloned().transpose()?,
                snapshot: snapshot.clone(),
                origin: origin.clone(),
            })
        };
        Ok(digests.iter().map(of_one).collect())
    }

    async fn read_many(&self, digests: &[Digest]) -> Result<Read, Error> {
        let operation = self.begin_operation("look_up_many");
        let mut looked = self.try_look_up_many(digests).await;
        if self.renew_after_lost_connection(&looked).await {
            looked = self.try_look_up_many(digests).await;
        }
        if looked.is_ok() {
            self.renewals.answered();
        }
        operation.end(looked.as_ref().err().and_then(Error::kind));
        looked
    }

    async fn try_look_up_many(&self, digests: &[Digest]) -> Result<Read, Error> {
        let count = padded(digests.len());
        let last = digests.last().into_iter().cycle();
        let asked = digests.iter().chain(last).take(count);
        let values = || {
            let values = asked
                .clone()
                .map(|digest| digest.as_bytes().to_vec().into());
            values.collect()
        };
        let sql = for_many(&self.statements.look_up, count);
        self.require_file()?;
        let reader = self.pools.load().reader.clone();
        let rows = self.read_evidence(&reader, &sql, values).await?;
        let (origin, snapshot) = seen_by(first(&rows)?)?;
        let mut facts = HashMap::with_capacity(rows.len());
        for row in &rows {
            let Some(known) = facts_of(row).transpose() else {
                continue;
            };
            let digest: Vec<u8> = row.try_get("", "digest")?;
            // Find the caller's digest that equals the bytes in the row.
            let asked = digests
                .iter()
                .find(|asked| asked.as_bytes()[..] == digest[..]);
            facts.extend(asked.map(|asked| (*asked, known)));
        }
        Ok(Read {
            facts,
            snapshot,
            origin,
        })
    }
}

/// Returns the smallest of [`SIZES`] that is at least `count`. Returns `count` if all of them are
/// smaller.
fn padded(count: usize) -> usize {
    let fits = SIZES.into_iter().find(|size| *size >= count);
    fits.unwrap_or(count)
}

/// Turns the statement for one digest into a statement for `count` digests.
fn for_many(by_one: &str, count: usize) -> String {
    let places: Vec<String> = (1..=count).map(|at| format!("${at}")).collect();
    let many = format!("digest IN ({})", places.join(", "));
    by_one
        .replacen("SELECT ", "SELECT s.digest, ", 1)
        .replace(ONE, &many)
}
