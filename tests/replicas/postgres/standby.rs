//! Streaming replication: a standby that is a copy of its primary, optionally synchronous, and can
//! be promoted.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use super::Postgres;

impl Postgres {
    /// Starts a standby that streams from this server. Every commit on this server then waits for
    /// the standby.
    pub fn synchronous_standby(&self) -> Postgres {
        let standby = self.standby();
        self.wait_for_standby(&standby);
        standby
    }

    /// Starts a standby that streams from this server. No commit waits for it.
    pub fn standby(&self) -> Postgres {
        let mut standby = Self::empty(self.bin.clone());
        let primary = format!(
            "host=127.0.0.1 port={} user=postgres application_name={}",
            self.port,
            standby.name()
        );
        let copied = standby
            .command("pg_basebackup")
            .args(["--no-sync", "--checkpoint=fast", "--wal-method=stream"])
            .args(["--write-recovery-conf", "-d", &primary, "-D"])
            .arg(standby.data())
            .stdout(Stdio::null())
            .status();
        assert!(copied.unwrap().success(), "pg_basebackup");
        standby.launch();
        // This setting was copied with the data, but commits on the standby itself must not wait.
        standby.set("synchronous_standby_names", "''");
        standby
    }

    /// Makes every commit wait until this standby has flushed it.
    fn wait_for_standby(&self, standby: &Postgres) {
        let name = format!("'{}'", standby.name());
        self.set("synchronous_standby_names", &name);
        let sql = format!(
            "SELECT count(*) FROM pg_stat_replication \
             WHERE application_name = '{}' AND sync_state = 'sync'",
            standby.name()
        );
        let until = Instant::now() + Duration::from_secs(10);
        while self.run("postgres", &sql) != "1" {
            assert!(
                Instant::now() < until,
                "the standby never became synchronous"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Changes a setting of the whole server.
    pub fn set(&self, setting: &str, value: &str) {
        let sql = format!("ALTER SYSTEM SET {setting} = {value}");
        self.run("postgres", &sql);
        self.run("postgres", "SELECT pg_reload_conf()");
    }

    /// Promotes this standby to a primary. Returns when it accepts writes.
    pub fn promote(&self) {
        assert_eq!(self.run("postgres", "SELECT pg_promote(true, 20)"), "t");
    }

    /// Cancels all commits that wait for a standby, as an impatient administrator would. PostgreSQL
    /// then reports each of them as done, with a warning. Returns how many there were.
    pub fn cancel_waiting_commits(&self, statement: &str) -> usize {
        let sql = format!(
            "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity \
             WHERE wait_event = 'SyncRep' AND query ILIKE '{statement}'"
        );
        self.run("postgres", &sql).parse().unwrap()
    }

    /// Returns the `application_name` that identifies this standby to the primary.
    fn name(&self) -> String {
        format!("standby_{}", self.port)
    }
}
