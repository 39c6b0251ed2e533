//! Creates the tables for stacks, members, tokens, secrets, the change log, the audit log and
//! `meta`.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::{ConnectionTrait, DbBackend, DbErr, EntityTrait, Set},
    sea_query::{ColumnDef, ForeignKey, Index, Table, TableCreateStatement},
};

use crate::{
    domain::entropy::{Entropy as _, OsEntropy},
    store::entity::meta,
};

pub struct First;

impl MigrationName for First {
    fn name(&self) -> &'static str {
        "m20261124_000001_first"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for First {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            stacks(),
            members(),
            tokens(),
            secrets(),
            changes(),
            audit(),
            metadata(),
        ] {
            manager.create_table(table).await?;
        }
        for index in INDEXES {
            manager.get_connection().execute_unprepared(index).await?;
        }
        if manager.get_database_backend() == DbBackend::Postgres {
            for statement in ON_POSTGRES {
                manager
                    .get_connection()
                    .execute_unprepared(statement)
                    .await?;
            }
        }
        write_epoch(manager).await
    }
}

/// The indexes are written as SQL, because the query builder cannot express partial indexes in the
/// same way for both engines.
const INDEXES: [&str; 7] = [
    "CREATE UNIQUE INDEX stack_members_one_owner ON stack_members (stack_uid) WHERE role = 'OWNER'",
    "CREATE UNIQUE INDEX tokens_live_name ON tokens (stack_uid, name) \
     WHERE revoked_at IS NULL AND ended_at IS NULL",
    "CREATE INDEX tokens_by_stack ON tokens (stack_uid, issued_at, uid)",
    "CREATE INDEX token_secrets_by_token ON token_secrets (token_uid)",
    "CREATE UNIQUE INDEX audit_events_refusal ON audit_events (refusal_key)",
    "CREATE INDEX audit_events_by_time ON audit_events (occurred_at, uid)",
    "CREATE INDEX audit_events_by_stack ON audit_events (stack_key, occurred_at, uid)",
];

/// Statements only for PostgreSQL. They add the transaction id of a change, because several
/// transactions may run at once, and make the order of names independent of the locale.
const ON_POSTGRES: [&str; 5] = [
    "ALTER TABLE changes ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id()",
    "CREATE INDEX changes_by_xid ON changes (xid, id)",
    "ALTER TABLE tokens ALTER COLUMN name TYPE text COLLATE \"C\"",
    "ALTER TABLE stack_members ALTER COLUMN issuer TYPE text COLLATE \"C\"",
    "ALTER TABLE stack_members ALTER COLUMN subject TYPE text COLLATE \"C\"",
];

fn uuid(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).uuid().not_null().take()
}

fn text(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().not_null().take()
}

fn text_or_null(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().take()
}

fn integer(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).integer().not_null().take()
}

fn instant(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().not_null().take()
}

fn instant_or_null(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().take()
}

fn table(name: &'static str, columns: impl IntoIterator<Item = ColumnDef>) -> TableCreateStatement {
    let mut statement = Table::create();
    statement.table(name);
    for column in columns {
        statement.col(column);
    }
    statement
}

fn stacks() -> TableCreateStatement {
    table(
        "stacks",
        [
            uuid("uid").primary_key().take(),
            text("key").unique_key().take(),
            text("name"),
            text("organization_uid"),
            integer("token_limit"),
            instant("registered_at"),
            instant_or_null("suspended_at"),
            instant_or_null("removed_at"),
        ],
    )
}

fn members() -> TableCreateStatement {
    let columns = [
        uuid("stack_uid"),
        text("issuer"),
        text("subject"),
        text_or_null("email"),
        text("role"),
        instant("added_at"),
    ];
    table("stack_members", columns)
        .primary_key(
            Index::create()
                .col("stack_uid")
                .col("issuer")
                .col("subject"),
        )
        .foreign_key(
            ForeignKey::create()
                .from("stack_members", "stack_uid")
                .to("stacks", "uid"),
        )
        .take()
}

fn tokens() -> TableCreateStatement {
    let columns = [
        uuid("uid").primary_key().take(),
        uuid("stack_uid"),
        text("name"),
        text("description"),
        text("permissions"),
        integer("generation"),
        text("secret_hint"),
        instant("issued_at"),
        text("issued_by_kind"),
        text("issued_by_issuer"),
        text("issued_by_subject"),
        instant_or_null("expires_at"),
        instant_or_null("ended_at"),
        instant_or_null("revoked_at"),
        text_or_null("revoked_by_kind"),
        text_or_null("revoked_by_issuer"),
        text_or_null("revoked_by_subject"),
        text("revoke_reason"),
    ];
    table("tokens", columns)
        .foreign_key(
            ForeignKey::create()
                .from("tokens", "stack_uid")
                .to("stacks", "uid"),
        )
        .take()
}

fn secrets() -> TableCreateStatement {
    let columns = [
        ColumnDef::new("digest")
            .binary_len(32)
            .not_null()
            .primary_key()
            .take(),
        uuid("token_uid"),
        integer("generation"),
        instant("made_at"),
    ];
    table("token_secrets", columns)
        .foreign_key(
            ForeignKey::create()
                .from("token_secrets", "token_uid")
                .to("tokens", "uid"),
        )
        .take()
}

fn changes() -> TableCreateStatement {
    table(
        "changes",
        [
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key()
                .take(),
            uuid("stack_uid"),
            ColumnDef::new("token_uid").uuid().take(),
            text("kind"),
            instant("changed_at"),
        ],
    )
}

fn audit() -> TableCreateStatement {
    table(
        "audit_events",
        [
            uuid("uid").primary_key().take(),
            instant("occurred_at"),
            text("actor_kind"),
            text("actor_issuer"),
            text("actor_subject"),
            text("action"),
            text_or_null("stack_key"),
            text_or_null("token_uid"),
            text_or_null("refusal_reason"),
            text_or_null("refusal_key"),
            integer("count"),
            text("request_id"),
            text("details"),
        ],
    )
}

fn metadata() -> TableCreateStatement {
    table(
        "meta",
        [text("name").primary_key().take(), instant("value")],
    )
}

/// Writes the epoch. It distinguishes this change log from all others, and from its own state
/// before a restore.
async fn write_epoch(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let mut random = [0; 8];
    OsEntropy
        .fill(&mut random)
        .map_err(|failed| DbErr::Migration(failed.to_string()))?;
    let row = |name: &str, value| meta::ActiveModel {
        name: Set(name.to_owned()),
        value: Set(value),
    };
    let rows = [
        row("epoch", i64::from_be_bytes(random)),
        row("heartbeat", 0),
    ];
    meta::Entity::insert_many(rows)
        .exec_without_returning(manager.get_connection())
        .await?;
    Ok(())
}
