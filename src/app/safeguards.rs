//! Defines a flag for each safeguard that keeps answers correct, so that a test can disable one.

/// Safeguards that keep answers correct; docs/architecture.md explains each of them. No setting
/// disables a safeguard. Tests disable one at a time to show that a wrong answer follows.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags")]
pub struct Safeguards {
    /// The cache is used for an answer only under a valid lease.
    pub lease: bool,
    /// The lease is limited by the age of the last heartbeat, not only by the age of the last poll
    /// of the change log.
    pub heartbeat: bool,
    /// If a lookup took longer than the freshness bound, its result is not used for an answer.
    pub reading_age: bool,
    /// The cache is used for an answer only if it reflects the revision that the caller requires.
    pub reflection: bool,
    /// A lookup that started before an eviction does not put the evicted entry back into the cache.
    pub generations: bool,
    /// A caller joins a single-flight lookup only if the lookup started recently and nothing has
    /// been evicted from the cache since then.
    pub flights: bool,
    /// The subject of a change made by this replica is barred from the cache until the outcome of
    /// the change is known, and is evicted before the change is acknowledged.
    pub own_changes: bool,
    /// A poll starts at the oldest transaction that was in progress at the last poll, so it does
    /// not skip a row that becomes visible after a row with a higher number.
    pub commit_order: bool,
    /// A lookup is used only if it was answered by the database that committed the last heartbeat.
    pub look_up_origins: bool,
    /// A crash, promotion or restart gives a database a new origin.
    pub incarnation: bool,
    /// Rows that were copied into another database cluster are not trusted.
    pub system: bool,
    /// If a lookup is fresh but its database is not proven to be the primary, the answer waits for
    /// the next heartbeat instead of failing.
    pub patience: bool,
    /// A change is made only in the database that committed the last heartbeat.
    pub change_origins: bool,
    /// A change is accepted or refused only if the database's clock agrees with this process's
    /// clock. Otherwise the call fails.
    pub change_clocks: bool,
}

impl Default for Safeguards {
    fn default() -> Self {
        Self {
            lease: true,
            heartbeat: true,
            reading_age: true,
            reflection: true,
            generations: true,
            flights: true,
            own_changes: true,
            commit_order: true,
            look_up_origins: true,
            incarnation: true,
            system: true,
            patience: true,
            change_origins: true,
            change_clocks: true,
        }
    }
}
