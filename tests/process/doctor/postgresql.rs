//! Faults of a PostgreSQL database, its role, its defaults, its standbys and its pooler, each in a
//! database of its own on a real server.

use super::setup::{PASSWORD, Setup};
use crate::{
    pgbouncer,
    postgres::{self, Postgres},
    program::has_tool,
    served::{IssuersFolder, free_port, migrate},
};

/// The migrated database that is copied for each fault. Copies have the same table ids.
const GOOD: &str = "good";
/// The name that the pooler knows.
const TOKENS: &str = "tokens";

/// A server with a role that is no superuser and needs a password.
struct World {
    postgres: Postgres,
}

impl World {
    fn start() -> Option<Self> {
        let postgres = postgres::start()?;
        let role = format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'");
        postgres.run("postgres", &role);
        postgres.ask_for_passwords_of("app");
        postgres.set("tcp_keepalives_idle", "60");
        let world = Self { postgres };
        world
            .postgres
            .run("postgres", "CREATE DATABASE good OWNER app");
        migrate(&world.url(GOOD));
        Some(world)
    }

    fn url(&self, database: &str) -> String {
        self.url_at("127.0.0.1", self.postgres.port(), database)
    }

    fn url_at(&self, host: &str, port: u16, database: &str) -> String {
        format!("postgres://app:{PASSWORD}@{host}:{port}/{database}")
    }

    fn run(&self, sql: &str) {
        self.postgres.run("postgres", sql);
    }

    /// Sets a default of the role in the database of the check.
    fn default(&self, setting: &str, value: &str) {
        self.run(&format!(
            "ALTER ROLE app IN DATABASE {TOKENS} SET {setting} = {value}"
        ));
    }

    /// Changes a setting of the server, which also ends what an earlier fault has set.
    fn set(&self, setting: &str, value: &str) {
        self.postgres.set(setting, value);
        let shown = format!("SELECT setting <> boot_val FROM pg_settings WHERE name = '{setting}'");
        // The server reads its configuration after it has answered.
        let expected = if value == "DEFAULT" { "f" } else { "t" };
        while self.postgres.run("postgres", &shown) != expected {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Copies the good database, and returns a good set-up on the copy.
    fn setup(&self) -> Setup {
        self.run(&format!("DROP DATABASE IF EXISTS {TOKENS} WITH (FORCE)"));
        self.run(&format!(
            "CREATE DATABASE {TOKENS} OWNER app TEMPLATE {GOOD}"
        ));
        Setup::on(IssuersFolder::new(), self.url(TOKENS))
    }

    /// Puts PgBouncer in front of the server. Returns its URL.
    fn pooler(&self, setup: &mut Setup, mode: &str, more: &str) -> Option<String> {
        let program = pgbouncer::find()?;
        let pooler = pgbouncer::start(&program, &self.postgres, mode, more);
        let url = self.url_at("127.0.0.1", pooler.port, TOKENS);
        setup.held.push(Box::new(pooler));
        Some(url)
    }
}

type Plant = fn(&World, &mut Setup) -> Option<()>;

/// The codes that are expected, how the fault is planted, and how the server is mended afterwards.
const FAULTS: &[(&[&str], Plant, &[&str])] = &[
    (
        &["database.unreachable"],
        |world, setup| {
            setup.url = world.url_at("127.0.0.1", free_port(), TOKENS);
            Some(())
        },
        &[],
    ),
    (
        &["database.credential"],
        |_, setup| {
            setup.url = setup.url.replace(PASSWORD, &format!("{PASSWORD}-former"));
            Some(())
        },
        &[],
    ),
    (
        &["database.missing"],
        |world, setup| {
            setup.url = world.url("nowhere");
            Some(())
        },
        &[],
    ),
    (
        &["database.read-only"],
        |world, _| {
            world.default("default_transaction_read_only", "on");
            Some(())
        },
        &[],
    ),
    (
        &["database.tls"],
        |_, setup| {
            setup.url += "?sslmode=verify-full";
            Some(())
        },
        &[],
    ),
    (
        &["database.unverified"],
        |world, setup| {
            // It leads to loopback, but is no loopback address.
            setup.url = world.url_at("0.0.0.0", world.postgres.port(), TOKENS);
            Some(())
        },
        &[],
    ),
    (
        &["database.superuser"],
        |world, setup| {
            setup.url = world.postgres.url(world.postgres.port(), TOKENS);
            Some(())
        },
        &[],
    ),
    (
        &["database.encoding"],
        |world, _| {
            world.run(&format!("DROP DATABASE {TOKENS}"));
            world.run(&format!(
                "CREATE DATABASE {TOKENS} OWNER app ENCODING 'SQL_ASCII' TEMPLATE template0"
            ));
            migrate(&world.url(TOKENS));
            Some(())
        },
        &[],
    ),
    (
        &["database.privileges"],
        |world, _| {
            world
                .postgres
                .run(TOKENS, "REVOKE INSERT ON tokens FROM app");
            Some(())
        },
        &[],
    ),
    (
        &["database.commit-default"],
        |world, _| {
            world.default("synchronous_commit", "off");
            Some(())
        },
        &[],
    ),
    (
        &["database.isolation-default"],
        |world, _| {
            world.default("default_transaction_isolation", "'repeatable read'");
            Some(())
        },
        &[],
    ),
    (
        &["database.session-timeout"],
        |world, _| {
            world.default("statement_timeout", "'2s'");
            Some(())
        },
        &[],
    ),
    (
        &["database.session-timeout"],
        |world, _| {
            world.default("idle_session_timeout", "'30s'");
            Some(())
        },
        &[],
    ),
    (
        &["database.connections"],
        |world, _| {
            world.run("ALTER ROLE app CONNECTION LIMIT 12");
            Some(())
        },
        &["ALTER ROLE app CONNECTION LIMIT -1"],
    ),
    (
        &["database.not-durable"],
        |world, _| {
            world.set("fsync", "off");
            Some(())
        },
        &["fsync"],
    ),
    (
        &["database.keepalive"],
        |world, _| {
            world.postgres.set("tcp_keepalives_idle", "7200");
            Some(())
        },
        &["tcp_keepalives_idle"],
    ),
    (
        &["database.standby-missing"],
        |world, _| {
            world.set("synchronous_standby_names", "'nobody'");
            Some(())
        },
        &["synchronous_standby_names"],
    ),
    (
        &["database.asynchronous"],
        |world, setup| {
            setup.held.push(Box::new(world.postgres.standby()));
            Some(())
        },
        &[],
    ),
    (
        &["database.standby"],
        |world, setup| {
            let standby = world.postgres.standby();
            setup.url = world.url_at("127.0.0.1", standby.port(), TOKENS);
            setup.held.push(Box::new(standby));
            Some(())
        },
        &[],
    ),
    (
        &["database.direct-elsewhere"],
        |world, setup| {
            setup.flag("database-direct-url-file", "direct");
            setup.write("direct", &world.url(GOOD), 0o600);
            Some(())
        },
        &[],
    ),
    (
        &["database.pooler", "database.pooler-prepares"],
        |world, setup| {
            setup.url = world.pooler(setup, "transaction", pgbouncer::IGNORED)?;
            Some(())
        },
        &[],
    ),
    (
        &["database.pooler-prepares"],
        |world, setup| {
            setup.write("direct", &setup.url, 0o600);
            setup.flag("database-direct-url-file", "direct");
            setup.url = world.pooler(setup, "transaction", pgbouncer::IGNORED)?;
            Some(())
        },
        &[],
    ),
    (
        &["database.direct-pooled"],
        |world, setup| {
            let pooled = world.pooler(setup, "transaction", pgbouncer::IGNORED)?;
            setup.write("direct", &pooled, 0o600);
            setup.flag("database-direct-url-file", "direct");
            Some(())
        },
        &[],
    ),
    (
        &["database.refused"],
        |world, setup| {
            setup.url = world.pooler(setup, "session", "")?;
            Some(())
        },
        &[],
    ),
    (
        &["database.unusable"],
        |world, _| {
            world
                .postgres
                .run(TOKENS, "REVOKE SELECT ON pg_roles FROM PUBLIC");
            Some(())
        },
        &[],
    ),
    (
        &["schema.pending"],
        |world, _| {
            world.run(&format!("DROP DATABASE {TOKENS}"));
            world.run(&format!("CREATE DATABASE {TOKENS} OWNER app"));
            Some(())
        },
        &[],
    ),
    (
        &["schema.drifted"],
        |world, _| {
            let invalid = "UPDATE pg_index SET indisvalid = false \
                           WHERE indexrelid = 'tokens_live_name'::regclass";
            world.postgres.run(TOKENS, invalid);
            Some(())
        },
        &[],
    ),
    (
        &["schema.foreign"],
        |world, _| {
            let foreign = "UPDATE meta SET value = value + 1 WHERE name LIKE 'tables%'";
            world.postgres.run(TOKENS, foreign);
            Some(())
        },
        &[],
    ),
    (
        &["clock.database"],
        |_, setup| {
            has_tool(&["faketime"])?;
            let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
            for (name, value) in [
                ("LD_PRELOAD", library),
                ("FAKETIME", "+5s"),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                ("DONT_FAKE_MONOTONIC", "1"),
            ] {
                setup.variables.push((name.to_owned(), value.to_owned()));
            }
            Some(())
        },
        &[],
    ),
];

/// Returns the codes that this file plants. A file without PostgreSQL has another cause for a
/// database that cannot be opened.
pub fn planted() -> Vec<&'static str> {
    FAULTS
        .iter()
        .flat_map(|(codes, ..)| codes.iter().copied())
        .collect()
}

#[test]
fn a_good_set_up_on_postgresql_has_no_findings() {
    let Some(world) = World::start() else {
        return;
    };
    let mut setup = world.setup();
    setup.run().is_exactly(&[]);
    // The same with a pooler in session mode, and with a synchronous standby. The pooler logs in as
    // a superuser.
    let url = setup.url.clone();
    if let Some(pooled) = world.pooler(&mut setup, "session", pgbouncer::IGNORED) {
        setup.url = pooled;
        setup.run().is_exactly(&["database.superuser"]);
        setup.url = url;
    }
    let _standby = world.postgres.synchronous_standby();
    setup.run().is_exactly(&[]);
}

#[test]
fn each_planted_fault_of_postgresql_is_found_and_no_other() {
    let Some(world) = World::start() else {
        return;
    };
    let mut faults = Vec::new();
    for (expected, plant, mend) in FAULTS {
        let mut setup = world.setup();
        if plant(&world, &mut setup).is_some() {
            faults.extend(setup.run().fault(expected));
        }
        drop(setup);
        for mend in *mend {
            match *mend {
                "tcp_keepalives_idle" => world.postgres.set(mend, "60"),
                setting if !setting.contains(' ') => world.set(setting, "DEFAULT"),
                sql => world.run(sql),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
