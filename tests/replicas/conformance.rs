//! Tests that the engines conform to each other: every method of the store gives the same results
//! on SQLite and PostgreSQL.

mod overlaps;
mod own_modules;
mod replays;
mod usage;
mod versions;

use std::{sync::Arc, time::Duration};

use stacktoken::{
    domain::{
        audit::{AuditAction, Outcome, Snapshot},
        caller::{Actor, Call, Caller, CallerKind, Mode, Requirement},
        clock::Clock,
        edit::Edit,
        entropy::Entropy,
        etag::Target,
        field::Violations,
        id::TokenUid,
        incident::IssuedBy,
        labels::Labels,
        permissions::{Access, Draft, Permissions},
        refusal::Refusal,
        request::Request,
        rotation::Overlap,
        secret::Secret,
        stack::{Person, Role, StackKey, StackState},
        text::{Description, Issuer, NamePart, Reason, StackName, Subject, TokenName},
        timestamp::Timestamp,
        token::{Expiry, Token, TokenState},
    },
    store::{
        AuditActor, AuditFilter, Error, Issue, ListQuery, Location, MemberChange, NewSecret, Order,
        PoolSize, PresentedSecret, RefusalNote, RefusedCall, Register, Rotate, Rotated, StackStep,
        Store, TokenFilter,
    },
};
use tempfile::TempDir;

use self::{
    overlaps::overlaps,
    own_modules::own_modules,
    replays::{registrations, revocations},
    usage::{candidates, first_uses, many_uses, uses},
    versions::versions,
};
use crate::{
    postgres::{self, Postgres},
    support::{ManualClock, SeededEntropy},
};

/// A store on one engine. A manual clock and seeded entropy make its results repeatable.
struct Engine {
    name: &'static str,
    store: Store,
    clock: Arc<ManualClock>,
    entropy: Arc<SeededEntropy>,
    _folder: TempDir,
}

impl Engine {
    async fn open(name: &'static str, location: Location, folder: TempDir) -> Self {
        let (clock, entropy) = (ManualClock::new(), Arc::new(SeededEntropy::new(11)));
        let ambient = (
            clock.clone() as Arc<dyn Clock>,
            entropy.clone() as Arc<dyn Entropy>,
        );
        let store = Store::open(&location, PoolSize { connections: 4 }, ambient)
            .await
            .unwrap()
            .deciding_by_own_clock();
        store.migrate().await.unwrap();
        store.require_current_schema().await.unwrap();
        // On PostgreSQL, lookups are trusted only after a heartbeat has recorded the incarnation of
        // the primary.
        store.beat(clock.now()).await.unwrap();
        Self {
            name,
            store,
            clock,
            entropy,
            _folder: folder,
        }
    }

    async fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        let location = Location::Sqlite(folder.path().join("store.db"));
        Self::open("SQLite", location, folder).await
    }

    async fn postgres(server: &Postgres, database: &str) -> Self {
        // This locale orders names differently from their code points.
        server.create(&format!(
            "{database} TEMPLATE template0 ENCODING UTF8 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
        ));
        let location = server.url(server.port(), database).parse().unwrap();
        Self::open("PostgreSQL", location, TempDir::new().unwrap()).await
    }

    fn call(&self, kind: CallerKind, subject: &str) -> Call {
        let actor = Actor {
            kind,
            issuer: "https://login.test".into(),
            subject: subject.into(),
        };
        let requirement = Requirement {
            stack_admin: true,
            operator: true,
            ..Requirement::default()
        };
        Call {
            caller: Arc::new(Caller {
                actor,
                introspects: false,
                workload: None,
                stranger_in: None,
            }),
            requirement,
            received_at: self.clock.now(),
            request_id: "a-request".into(),
            mode: Mode::Apply,
        }
    }

    fn owner(&self) -> Call {
        self.call(CallerKind::User, "owner")
    }

    fn operator(&self) -> Call {
        self.call(CallerKind::Operator, "operator")
    }

    async fn register(&self, key: &str) -> StackKey {
        let command = register_command(key);
        self.store
            .register_stack(&self.operator(), &command)
            .await
            .unwrap();
        command.stack_key
    }

    /// Returns a new secret, and the part of it that the store keeps.
    fn secret(&self) -> (Secret, NewSecret) {
        let secret = Secret::generate(self.entropy.as_ref()).unwrap();
        let kept = NewSecret {
            digest: secret.digest(),
            hint: secret.hint().to_owned(),
        };
        (secret, kept)
    }

    /// Issues a token one millisecond after the previous change.
    async fn issue(
        &self,
        key: &StackKey,
        name: &str,
        expires_in: Option<u64>,
    ) -> Result<(Token, Secret), Error> {
        self.clock.advance(Duration::from_millis(1));
        let (secret, kept) = self.secret();
        let call = self.owner();
        let expiry = expires_in.map_or(Expiry::Never, |seconds| {
            Expiry::At(later(call.received_at, seconds))
        });
        let command = Issue {
            expiry,
            ..issue_command(key, name)
        };
        self.store
            .issue(&call, &command, &kept)
            .await
            .map(|(issued, _)| (issued.token, secret))
    }
}

fn later(now: Timestamp, seconds: u64) -> Timestamp {
    Timestamp::from_micros(now.as_micros() + i64::try_from(seconds).unwrap() * 1_000_000).unwrap()
}

fn read_write() -> Permissions {
    let draft: Draft = serde_json::from_str(r#"{"access":"READ_WRITE"}"#).unwrap();
    draft.try_into().unwrap()
}

fn person(subject: &str) -> Person {
    let issuer = Issuer::parse("https://login.test").unwrap();
    Person {
        issuer,
        subject: Subject::parse(subject).unwrap(),
        email: None,
    }
}

fn issue_command(key: &StackKey, name: &str) -> Issue {
    Issue {
        stack_key: key.clone(),
        name: TokenName::parse(name).unwrap(),
        description: Description::parse("for tests").unwrap(),
        permissions: read_write(),
        labels: Labels::default(),
        expiry: Expiry::Never,
        federation: None,
        request: None,
        overdue: Violations::default(),
    }
}

fn register_command(key: &str) -> Register {
    Register {
        stack_key: StackKey::parse(key).unwrap(),
        name: StackName::parse("Conformance").unwrap(),
        organization_uid: "org-1".into(),
        owner: person("owner"),
        token_limit: 10,
        request: None,
    }
}

const KEY: &str = "blt0000000000000001";
const OTHER: &str = "blt0000000000000002";

fn refusal<T: std::fmt::Debug>(done: Result<T, Error>) -> Refusal {
    match done {
        // The id of a stack is random, so it is replaced by zeros.
        Err(Error::Refused(Refusal::StackKeyTaken { removed, .. })) => Refusal::StackKeyTaken {
            stack_uid: newtype_uuid::GenericUuid::from_untyped_uuid(uuid::Uuid::nil()),
            removed,
        },
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn reason() -> Reason {
    Reason::parse("a test").unwrap()
}

/// Defines tests that run a script on both engines and compare the results.
macro_rules! on_both_engines {
    ($($name:ident => $script:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let embedded = Engine::sqlite().await;
            let noted = $script(&embedded).await;
            assert!(!noted.is_empty());
            let Some(server) = postgres::start() else { return };
            let shared = Engine::postgres(&server, "conformance").await;
            assert_eq!($script(&shared).await, noted, "{} differs from {}", shared.name, embedded.name);
        }
    )+};
}

on_both_engines! {
    stacks_are_registered_found_listed_and_ended_alike => stacks;
    members_come_and_go_alike => members;
    tokens_are_issued_up_to_the_limit_alike => limits;
    tokens_are_changed_and_die_alike => life_cycle;
    lists_are_filtered_ordered_and_paged_alike => lists;
    each_filter_of_a_list_selects_alike => filters;
    digests_are_looked_up_alike => look_ups;
    secrets_are_rotated_used_and_ended_alike => rotations;
    both_secrets_are_seen_and_the_former_one_is_ended_alike => overlaps;
    of_owners_who_read_the_same_token_one_changes_it_alike => versions;
    grants_of_modules_that_are_not_built_in_are_kept_alike => own_modules;
    requests_are_answered_again_alike => repetitions;
    many_digests_are_looked_up_at_once_alike => look_ups_of_many;
    the_audit_reads_alike => audits;
    changes_are_previewed_alike => previews;
    uses_are_told_alike => impacts;
    the_schema_answers_alike => schemas;
    uses_are_recorded_and_never_go_back_alike => uses;
    first_uses_are_recorded_and_never_go_back_alike => first_uses;
    many_uses_are_recorded_at_once_alike => many_uses;
    tokens_that_could_go_are_named_alike => candidates;
    registrations_are_answered_again_alike => registrations;
    revocations_of_many_are_shown_and_answered_again_alike => revocations;
}

async fn stacks(engine: &Engine) -> Vec<String> {
    let (store, call) = (&engine.store, engine.operator());
    let key = engine.register(KEY).await;
    let mut noted = vec![format!(
        "{:?}",
        refusal(store.register_stack(&call, &register_command(KEY)).await)
    )];
    for at in 3..9 {
        engine.clock.advance(Duration::from_secs(1));
        engine.register(&format!("blt000000000000000{at}")).await;
    }
    let mut after = None;
    loop {
        let page = store
            .list_stacks(&engine.operator(), Some("org-1"), (3, after))
            .await
            .unwrap();
        noted.extend(page.stacks.iter().map(|stack| stack.key.to_string()));
        noted.push("page".into());
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert!(
        store
            .list_stacks(&call, Some("org-2"), (3, None))
            .await
            .unwrap()
            .stacks
            .is_empty()
    );
    let (stack, _) = store
        .set_token_limit(&call, &key, (3, &reason()))
        .await
        .unwrap();
    noted.push(format!("{:?}", stack.limit));
    for step in [
        StackStep::Suspend,
        StackStep::Suspend,
        StackStep::Resume,
        StackStep::Remove,
        StackStep::Remove,
    ] {
        engine.clock.advance(Duration::from_secs(1));
        let (stack, _) = store
            .set_stack_state(&engine.operator(), &key, (step, &reason()))
            .await
            .unwrap();
        noted.push(format!("{step:?} {:?}", stack.state));
    }
    let found = store.get_stack(&call, &key).await.unwrap();
    assert!(matches!(found.state, StackState::Removed { .. }));
    noted.push(format!(
        "{:?}",
        refusal(store.get_stack(&engine.owner(), &key).await.map(|_| ()))
    ));
    noted.push(format!(
        "{:?}",
        refusal(
            store
                .set_stack_state(&call, &key, (StackStep::Resume, &reason()))
                .await
        )
    ));
    noted.push(format!(
        "{:?}",
        refusal(store.register_stack(&call, &register_command(KEY)).await)
    ));
    noted
}

async fn members(engine: &Engine) -> Vec<String> {
    let (store, call) = (&engine.store, engine.operator());
    let key = engine.register(KEY).await;
    let mut noted = Vec::new();
    for change in [
        MemberChange::Set(person("ann"), Role::Admin),
        MemberChange::Set(person("bob"), Role::Developer),
        MemberChange::Set(person("ann"), Role::ContentManager),
        MemberChange::Set(person("owner"), Role::Admin),
        MemberChange::Remove(person("owner")),
        MemberChange::Remove(person("bob")),
        MemberChange::Remove(person("nobody")),
        MemberChange::TransferTo(person("ann")),
        MemberChange::TransferTo(person("ann")),
    ] {
        engine.clock.advance(Duration::from_secs(1));
        let done = store
            .change_members(&engine.operator(), &key, &change)
            .await;
        noted.push(done.map_or_else(
            |error| error.to_string(),
            |(done, _)| format!("{:?} {:?}", done.stack.owner, done.member),
        ));
    }
    for name in ["dan", "Zoe", "eve", "Ada"] {
        let change = MemberChange::Set(person(name), Role::Developer);
        store.change_members(&call, &key, &change).await.unwrap();
    }
    let listed = pages_of_members(engine, &key, 100).await;
    for size in 1..=5 {
        assert_eq!(pages_of_members(engine, &key, size).await, listed, "{size}");
    }
    noted.extend(listed);
    noted.push(format!(
        "{:?}",
        refusal(store.get_stack(&engine.owner(), &key).await.map(|_| ()))
    ));
    noted
}

async fn pages_of_members(engine: &Engine, key: &StackKey, size: u64) -> Vec<String> {
    let (mut members, mut after) = (Vec::new(), None);
    loop {
        let page = (size, after.as_ref());
        let page = engine
            .store
            .list_members(&engine.operator(), key, page)
            .await;
        let page = page.unwrap();
        members.extend(page.members.iter().map(|member| format!("{member:?}")));
        after = page.next;
        if after.is_none() {
            return members;
        }
    }
}

async fn limits(engine: &Engine) -> Vec<String> {
    let key = engine.register(KEY).await;
    let mut noted = Vec::new();
    let mut uids = Vec::new();
    for at in 0..9 {
        let issued = engine.issue(&key, &format!("token {at}"), None).await;
        uids.push(issued.unwrap().0.uid);
    }
    match engine.issue(&key, "token 0", None).await.map(drop) {
        Err(Error::Refused(Refusal::NameTaken { token_uid })) => assert_eq!(token_uid, uids[0]),
        other => panic!("{other:?}"),
    }
    engine.issue(&key, "short", Some(60)).await.unwrap();
    match refusal(engine.issue(&key, "one more", None).await.map(drop)) {
        Refusal::LimitReached { limit, candidates } => {
            let named = candidates.into_iter().map(|token| (token.name, token.why));
            noted.push(format!("{limit:?} {:?}", named.collect::<Vec<_>>()));
        }
        other => panic!("{other:?}"),
    }
    engine.clock.advance(Duration::from_secs(60));
    // The token has expired, so it no longer counts toward the limit, and its name is free.
    let (again, _) = engine.issue(&key, "short", None).await.unwrap();
    noted.push(again.name.as_str().to_owned());
    let stranger = engine.call(CallerKind::User, "stranger");
    noted.push(format!(
        "{:?}",
        refusal(engine.store.get(&stranger, &key, again.uid).await)
    ));
    let other = engine.register(OTHER).await;
    noted.push(format!(
        "{:?}",
        refusal(engine.store.get(&engine.owner(), &other, again.uid).await)
    ));
    noted
}

async fn life_cycle(engine: &Engine) -> Vec<String> {
    let (store, key) = (&engine.store, engine.register(KEY).await);
    let (token, _) = engine.issue(&key, "first", Some(600)).await.unwrap();
    let (other, _) = engine.issue(&key, "second", None).await.unwrap();
    let at = &Target::new(key.clone(), token.uid);
    let other_at = &Target::new(key.clone(), other.uid);
    let mut noted = Vec::new();
    let mut note = |done: Result<(Token, stacktoken::domain::revision::Revision), Error>| {
        noted.push(done.map_or_else(
            |error| error.to_string(),
            |(token, _)| {
                format!(
                    "{} {:?} {:?} {:?} {:?}",
                    token.name.as_str(),
                    token.labels,
                    token.expires_at,
                    token.ended_at,
                    token.revocation
                )
            },
        ));
    };
    let renamed = Edit {
        name: Some(TokenName::parse("renamed").unwrap()),
        ..Edit::default()
    };
    let updated = store.update(&engine.owner(), at, &renamed).await;
    note(updated.map(|(done, revision)| (done.token, revision)));
    let relabelled = Edit {
        labels: Some(labelled("shop")),
        ..Edit::default()
    };
    let updated = store.update(&engine.owner(), at, &relabelled).await;
    note(updated.map(|(done, revision)| (done.token, revision)));
    let taken = Edit {
        name: Some(TokenName::parse("second").unwrap()),
        ..Edit::default()
    };
    let updated = store.update(&engine.owner(), at, &taken).await;
    note(updated.map(|(done, revision)| (done.token, revision)));
    let now = engine.clock.now();
    note(
        store
            .set_expiry(&engine.owner(), at, Expiry::At(later(now, 900)))
            .await,
    );
    note(
        store
            .set_expiry(&engine.operator(), at, Expiry::At(later(now, 1000)))
            .await,
    );
    note(
        store
            .set_expiry(&engine.operator(), at, Expiry::At(later(now, 100)))
            .await,
    );
    engine.clock.advance(Duration::from_secs(100));
    note(store.set_expiry(&engine.owner(), at, Expiry::Never).await);
    let updated = store.update(&engine.owner(), at, &renamed).await;
    note(updated.map(|(done, revision)| (done.token, revision)));
    note(store.revoke(&engine.owner(), at, &reason()).await);
    engine.clock.advance(Duration::from_secs(1));
    note(
        store
            .revoke(&engine.owner(), at, &Reason::parse("again").unwrap())
            .await,
    );
    let now = engine.clock.now();
    let after = Expiry::After(Duration::from_secs(3600));
    note(store.set_expiry(&engine.owner(), other_at, after).await);
    note(
        store
            .set_expiry(&engine.owner(), other_at, Expiry::At(now))
            .await,
    );
    note(
        store
            .set_expiry(&engine.owner(), other_at, Expiry::Never)
            .await,
    );
    for uid in [token.uid, other.uid] {
        let read = store.get(&engine.owner(), &key, uid).await.unwrap();
        noted.push(format!("{:?}", read.state(engine.clock.now())));
    }
    noted
}

async fn lists(engine: &Engine) -> Vec<String> {
    let (store, key) = (&engine.store, engine.register(KEY).await);
    for (name, expires_in) in [
        ("beta", None),
        ("Alpha", Some(500)),
        ("álpha", Some(100)),
        ("alpha", None),
        ("100%_done", Some(300)),
        ("Zeta", Some(200)),
        ("日本", None),
    ] {
        engine.issue(&key, name, expires_in).await.unwrap();
    }
    engine.clock.advance(Duration::from_secs(150));
    let mut noted = Vec::new();
    let queries = [
        (vec![], None, None),
        (vec![TokenState::Active], None, None),
        (vec![TokenState::Expired, TokenState::Revoked], None, None),
        (vec![], Some(400), None),
        (vec![], None, Some("lpha")),
        (vec![], None, Some("%_")),
        (vec![], None, Some("ALPHA")),
    ];
    for order in [
        Order::NewestFirst,
        Order::OldestFirst,
        Order::ExpiresFirst,
        Order::Name,
    ] {
        for (states, before, part) in queries.clone() {
            let start = crate::support::clock::START;
            let mut query = ListQuery {
                stack_key: Some(key.clone()),
                filter: TokenFilter {
                    states,
                    expires_before: before
                        .map(|seconds| Timestamp::from_parts(start + seconds, 0).unwrap()),
                    name_contains: part.map(|part| NamePart::parse(part).unwrap()),
                    ..TokenFilter::default()
                },
                order,
                size: 2,
                after: None,
            };
            let mut names = Vec::new();
            loop {
                let page = store.list(&engine.owner(), &query).await.unwrap();
                names.extend(
                    page.tokens
                        .iter()
                        .map(|token| token.name.as_str().to_owned()),
                );
                assert_eq!(page.limit.unwrap().used, 6);
                let Some(next) = page.next else { break };
                query.after = Some(next);
            }
            noted.push(format!("{order:?} {names:?}"));
        }
    }
    noted
}

/// Returns labels with this team. The key of another label needs quotes in a JSON path.
fn labelled(team: &str) -> Labels {
    let pairs = [("team", team), ("a.b-c", "1")];
    let owned = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Labels::parse(owned.into()).unwrap()
}

/// Lists tokens with each filter, with both ends of each period, and with all filters together.
async fn filters(engine: &Engine) -> Vec<String> {
    let (store, key) = (&engine.store, engine.register(KEY).await);
    let admin = MemberChange::Set(person("ann"), Role::Admin);
    store
        .change_members(&engine.operator(), &key, &admin)
        .await
        .unwrap();
    let mut issued = Vec::new();
    for (name, issuer, access, expires_in, team) in [
        ("alpha", "owner", "READ", None, None),
        ("Alpha", "ann", "READ_WRITE", Some(100), Some("shop")),
        ("\u{e1}lpha", "ann", "READ", Some(200), Some("")),
        (
            "alpha 2",
            "owner",
            "READ_WRITE",
            Some(300),
            Some("Zo\u{e9} 2"),
        ),
    ] {
        engine.clock.advance(Duration::from_secs(1));
        let draft =
            format!(r#"{{"access":"{access}","modules":[{{"module":"entry","access":"READ"}}]}}"#);
        let draft: Draft = serde_json::from_str(&draft).unwrap();
        let command = Issue {
            permissions: draft.try_into().unwrap(),
            expiry: expires_in.map_or(Expiry::Never, |seconds| {
                Expiry::After(Duration::from_secs(seconds))
            }),
            labels: team.map(labelled).unwrap_or_default(),
            ..issue_command(&key, name)
        };
        let (_, kept) = engine.secret();
        let call = engine.call(CallerKind::User, issuer);
        let (made, _) = store.issue(&call, &command, &kept).await.unwrap();
        let token = made.token;
        issued.push(token);
    }
    let by = |kind, subject: &str| {
        Some(IssuedBy {
            kind,
            issuer: Issuer::parse("https://login.test").unwrap(),
            subject: Subject::parse(subject).unwrap(),
        })
    };
    let named = |name: &str| Some(TokenName::parse(name).unwrap());
    let all = TokenFilter::default;
    let (second, third) = (&issued[1], &issued[2]);
    let mut noted = Vec::new();
    for filter in [
        all(),
        TokenFilter {
            name: named("alpha"),
            ..all()
        },
        TokenFilter {
            name: named("a\u{301}lpha"),
            ..all()
        },
        TokenFilter {
            name: named("ALPHA"),
            ..all()
        },
        TokenFilter {
            issued_by: by(None, "ann"),
            ..all()
        },
        TokenFilter {
            issued_by: by(Some(CallerKind::User), "owner"),
            ..all()
        },
        TokenFilter {
            issued_by: by(Some(CallerKind::Operator), "owner"),
            ..all()
        },
        TokenFilter {
            access: Some(Access::Read),
            ..all()
        },
        TokenFilter {
            access: Some(Access::ReadWrite),
            ..all()
        },
        TokenFilter {
            issued_from: Some(second.issued_at),
            ..all()
        },
        TokenFilter {
            issued_before: Some(third.issued_at),
            ..all()
        },
        TokenFilter {
            expires_from: second.expires_at,
            ..all()
        },
        TokenFilter {
            expires_before: third.expires_at,
            ..all()
        },
        TokenFilter {
            labels: labelled("shop"),
            ..all()
        },
        TokenFilter {
            labels: labelled(""),
            ..all()
        },
        TokenFilter {
            labels: labelled("SHOP"),
            ..all()
        },
        TokenFilter {
            labels: labelled("Zoe\u{301} 2"),
            ..all()
        },
        TokenFilter {
            states: vec![TokenState::Active],
            name: named("Alpha"),
            name_contains: Some(NamePart::parse("lph").unwrap()),
            issued_by: by(Some(CallerKind::User), "ann"),
            access: Some(Access::ReadWrite),
            labels: labelled("shop"),
            issued_from: Some(second.issued_at),
            issued_before: Some(third.issued_at),
            expires_from: second.expires_at,
            expires_before: third.expires_at,
            unused_since: Some(third.issued_at),
            secret_hint: None,
        },
    ] {
        let query = ListQuery {
            stack_key: Some(key.clone()),
            filter,
            order: Order::OldestFirst,
            size: 10,
            after: None,
        };
        let page = store.list(&engine.owner(), &query).await.unwrap();
        let names = page.tokens.iter().map(|token| token.name.as_str());
        noted.push(format!("{:?}", names.collect::<Vec<_>>()));
    }
    assert_eq!(noted.last().unwrap(), r#"["Alpha"]"#);
    noted
}

async fn look_ups(engine: &Engine) -> Vec<String> {
    let (store, key) = (&engine.store, engine.register(KEY).await);
    let (token, secret) = engine.issue(&key, "looked up", Some(600)).await.unwrap();
    let mut noted = Vec::new();
    let look = store.look_up(&secret.digest()).await.unwrap();
    let facts = look.facts.unwrap();
    assert_eq!(facts.token.uid, token.uid);
    noted.push(format!("{:?} {:?}", facts.token.name, facts.permissions));
    let unknown = Secret::generate(engine.entropy.as_ref()).unwrap();
    assert!(
        store
            .look_up(&unknown.digest())
            .await
            .unwrap()
            .facts
            .is_none()
    );
    let (_, revision) = store
        .revoke(
            &engine.owner(),
            &Target::new(key.clone(), token.uid),
            &reason(),
        )
        .await
        .unwrap();
    assert!(
        !look.snapshot.reflects(revision),
        "a lookup from before the revoke"
    );
    let look = store.look_up(&secret.digest()).await.unwrap();
    assert!(
        look.snapshot.reflects(revision),
        "{:?} {revision:?}",
        look.snapshot
    );
    noted.push(format!("revoked {}", look.facts.unwrap().token.revoked));
    store
        .set_stack_state(&engine.operator(), &key, (StackStep::Suspend, &reason()))
        .await
        .unwrap();
    let suspended = store
        .look_up(&secret.digest())
        .await
        .unwrap()
        .facts
        .unwrap();
    noted.push(format!(
        "{} {}",
        suspended.stack.suspended, suspended.stack.removed
    ));
    noted
}

/// Rotates a token as the owner.
async fn rotate(
    engine: &Engine,
    (key, uid): (&StackKey, TokenUid),
    (overlap, id): (Overlap, Option<&str>),
) -> (Result<Rotated, Error>, Secret) {
    engine.clock.advance(Duration::from_millis(1));
    let (secret, kept) = engine.secret();
    let command = Rotate {
        target: Target::new(key.clone(), uid),
        overlap,
        request: id.and_then(|id| Request::parse(id, b"the same").unwrap()),
    };
    let done = engine.store.rotate(&engine.owner(), &command, &kept).await;
    (done.map(|(rotated, _)| rotated), secret)
}

/// Returns the state of each secret: its generation, its end, and whether it is superseded and
/// used.
async fn states(engine: &Engine, secrets: &[&Secret]) -> String {
    let mut states = Vec::new();
    for secret in secrets {
        let look = engine.store.look_up(&secret.digest()).await.unwrap();
        let token = look.facts.unwrap().token;
        states.push(format!(
            "{} {} {:?} {}",
            token.generation, token.superseded, token.ends_at, token.used
        ));
    }
    states.join(", ")
}

/// Records the first use of a secret, as a verdict does. Returns whether the store changed.
async fn first_use(engine: &Engine, secret: &Secret) -> bool {
    let look = engine.store.look_up(&secret.digest()).await.unwrap();
    let facts = look.facts.unwrap();
    let presented = PresentedSecret {
        session: false,
        digest: secret.digest(),
        generation: facts.token.generation,
        token: facts.token.uid,
        stack: facts.stack.uid,
    };
    let call = engine.call(CallerKind::Service, "content-api");
    let describe = engine.store.record_first_use(&call, presented).await;
    describe.unwrap().is_some()
}

async fn rotations(engine: &Engine) -> Vec<String> {
    const HOUR: Overlap = Overlap::For(Duration::from_secs(3600));
    let key = engine.register(KEY).await;
    let (token, first) = engine.issue(&key, "rotated", Some(7200)).await.unwrap();
    let at = (&key, token.uid);
    let mut noted = vec![format!("{}", first_use(engine, &first).await)];
    let (done, second) = rotate(engine, at, (Overlap::UNTIL_FIRST_USE, None)).await;
    let done = done.unwrap();
    noted.push(format!(
        "{:?} {}",
        done.overlap_ends_at, done.token.generation
    ));
    let (done, third) = rotate(engine, at, (HOUR, None)).await;
    noted.push(format!("{:?}", done.unwrap().overlap_ends_at));
    noted.push(states(engine, &[&first, &second, &third]).await);
    for secret in [&second, &third, &third] {
        noted.push(format!("{}", first_use(engine, secret).await));
    }
    noted.push(states(engine, &[&first, &second, &third]).await);
    let (done, fourth) = rotate(engine, at, (HOUR, None)).await;
    done.unwrap();
    noted.push(format!("{}", first_use(engine, &fourth).await));
    let (done, fifth) = rotate(engine, at, (Overlap::For(Duration::ZERO), None)).await;
    done.unwrap();
    noted.push(states(engine, &[&third, &fourth, &fifth]).await);
    let read = engine.store.get(&engine.owner(), &key, token.uid).await;
    let read = read.unwrap();
    noted.push(format!("{} {:?}", read.generation, read.expires_at));
    assert_eq!(read.secrets.newest_hint(), fifth.hint());
    engine.clock.advance(Duration::from_secs(7200));
    let (done, _) = rotate(engine, at, (HOUR, None)).await;
    noted.push(format!("{:?}", refusal(done)));
    noted.push(format!("{}", first_use(engine, &fifth).await));
    let filter = AuditFilter {
        token_uids: vec![token.uid],
        ..AuditFilter::default()
    };
    let call = engine.operator();
    let page = engine.store.list_audit(&call, &filter, (50, None)).await;
    for event in page.unwrap().events {
        noted.push(format!("{:?} {}", event.action, describe(event.outcome)));
    }
    noted
}

async fn repetitions(engine: &Engine) -> Vec<String> {
    let key = engine.register(KEY).await;
    let mut noted = Vec::new();
    let issue = async |id: &str, content: &[u8]| {
        engine.clock.advance(Duration::from_millis(1));
        let (secret, kept) = engine.secret();
        let command = Issue {
            request: Request::parse(id, content).unwrap(),
            ..issue_command(&key, id)
        };
        let done = engine.store.issue(&engine.owner(), &command, &kept).await;
        (done.map(|(issued, _)| issued.token), secret)
    };
    let (done, lost) = issue("once", b"a").await;
    let token = done.unwrap();
    let (done, again) = issue("once", b"a").await;
    let repeated = done.unwrap();
    assert_eq!(repeated.uid, token.uid);
    noted.push(format!("{}", repeated.generation));
    noted.push(states(engine, &[&lost, &again]).await);
    let reused = |done: Result<Token, Error>| match refusal(done) {
        Refusal::RequestIdReused { token_uid } => token_uid == token.uid,
        other => panic!("{other:?}"),
    };
    noted.push(format!(
        "other content {}",
        reused(issue("once", b"b").await.0)
    ));
    let at = (&key, token.uid);
    let (done, former) = rotate(engine, at, (Overlap::UNTIL_FIRST_USE, Some("once"))).await;
    let ends_at = done.unwrap().overlap_ends_at;
    noted.push(format!("rotated {}", reused(issue("once", b"a").await.0)));
    let (done, newest) = rotate(engine, at, (Overlap::UNTIL_FIRST_USE, Some("once"))).await;
    assert_eq!(done.unwrap().overlap_ends_at, ends_at);
    noted.push(states(engine, &[&again, &former, &newest]).await);
    noted.push(format!("{}", first_use(engine, &newest).await));
    noted.push(states(engine, &[&again, &former, &newest]).await);
    let (done, _) = rotate(engine, at, (Overlap::UNTIL_FIRST_USE, Some("once"))).await;
    noted.push(format!(
        "used {}",
        reused(done.map(|rotated| rotated.token))
    ));
    noted
}

async fn look_ups_of_many(engine: &Engine) -> Vec<String> {
    let (store, key) = (&engine.store, engine.register(KEY).await);
    let mut digests = Vec::new();
    let mut tokens = Vec::new();
    for at in 0..5 {
        let (token, secret) = engine.issue(&key, &format!("{at}"), None).await.unwrap();
        digests.push(secret.digest());
        tokens.push(token.uid);
    }
    let unknown = |_| Secret::generate(engine.entropy.as_ref()).unwrap().digest();
    let mut noted = Vec::new();
    // The sizes of the batches are around each size for which there is a separate statement.
    for (known, strange) in [
        (0, 1),
        (1, 0),
        (3, 1),
        (4, 0),
        (5, 0),
        (5, 15),
        (5, 16),
        (5, 95),
    ] {
        let mut asked: Vec<_> = (0..strange).map(unknown).collect();
        asked.extend(&digests[..known]);
        let looks = store.look_up_many(&asked).await.unwrap();
        assert_eq!(looks.facts.len(), known, "{known} of {}", asked.len());
        for (digest, uid) in digests.iter().zip(&tokens).take(known) {
            let facts = &looks.facts[digest];
            assert_eq!(facts.token.uid, *uid);
            let one = store.look_up(digest).await.unwrap().facts.unwrap();
            assert_eq!(&one, facts, "equal to a single lookup");
            noted.push(format!("{} {:?}", facts.token.name, facts.permissions));
        }
    }
    let before = store.look_up_many(&digests).await.unwrap();
    let (_, revision) = store
        .revoke(
            &engine.owner(),
            &Target::new(key.clone(), tokens[2]),
            &reason(),
        )
        .await
        .unwrap();
    assert!(
        !before.snapshot.reflects(revision),
        "a lookup from before the revoke"
    );
    let after = store.look_up_many(&digests).await.unwrap();
    assert!(after.snapshot.reflects(revision));
    for digest in &digests {
        let (before, after) = (&before.facts[digest], &after.facts[digest]);
        noted.push(format!("{} {}", before.token.revoked, after.token.revoked));
    }
    noted
}

/// Formats the outcome of an audit event without its random parts.
fn describe(outcome: Outcome) -> String {
    let change = match outcome {
        Outcome::Done(change) => change,
        Outcome::Refused { reason, count, .. } => return format!("{reason} {count}"),
    };
    let state = |state: Option<Snapshot>| match state {
        Some(Snapshot::Token(token)) => {
            let name = token.name.as_str().to_owned();
            format!("{name} {} {:?}", token.generation, token.expires_at)
        }
        Some(Snapshot::Stack(stack)) => format!("{:?} {:?}", stack.limit, stack.state),
        other => format!("{other:?}"),
    };
    let (before, after) = (state(change.before), state(change.after));
    format!("{before} -> {after} {:?}", change.details)
}

async fn audits(engine: &Engine) -> Vec<String> {
    let (store, key) = (&engine.store, engine.register(KEY).await);
    let mut issued = Vec::new();
    for at in 0..5 {
        let done = engine.issue(&key, &format!("audited {at}"), None).await;
        issued.push(done.unwrap().0.uid);
    }
    let issuer = engine.owner().caller.actor.issuer.clone();
    let of_issuer = |subject: Option<&str>| AuditActor {
        issuer: issuer.clone(),
        subject: subject.map(str::to_owned),
    };
    let refused = |count| {
        let actor = engine.owner().caller.actor.clone();
        let minute = engine.clock.now().minute();
        let note = RefusalNote {
            actor,
            issuer: None,
            action: AuditAction::TokenIssue,
            reason: "NAME_TAKEN",
            minute,
            hidden: None,
        };
        let first = RefusedCall {
            at: later(engine.clock.now(), 1),
            stack_key: Some(KEY.into()),
            token_uid: None,
            request_id: Some("a-key".into()),
            call_id: "first".into(),
        };
        (note, first, count)
    };
    store.record_refusals(&[refused(2)]).await.unwrap();
    store.record_refusals(&[refused(3)]).await.unwrap();
    let mut noted = Vec::new();
    let all = AuditFilter {
        stack_key: Some(key.clone()),
        ..AuditFilter::default()
    };
    for filter in [
        all.clone(),
        AuditFilter {
            actions: Some(vec![AuditAction::StackRegister]),
            ..all.clone()
        },
        AuditFilter {
            actors: vec![of_issuer(None), of_issuer(Some("nobody"))],
            ..all.clone()
        },
        AuditFilter {
            actors: vec![of_issuer(Some("owner"))],
            actions: Some(vec![AuditAction::TokenIssue, AuditAction::StackRegister]),
            ..all.clone()
        },
        AuditFilter {
            refused: Some(true),
            ..all.clone()
        },
        AuditFilter {
            refused: Some(false),
            ..all.clone()
        },
        AuditFilter {
            error_reasons: vec!["TOKEN_LIMIT_REACHED".into(), "NAME_TAKEN".into()],
            ..all.clone()
        },
        AuditFilter {
            request_id: Some("a-key".into()),
            ..AuditFilter::default()
        },
        AuditFilter {
            call_id: Some("first".into()),
            ..AuditFilter::default()
        },
        AuditFilter {
            token_uids: vec![issued[1], issued[3]],
            ..all.clone()
        },
        AuditFilter {
            actions: Some(Vec::new()),
            ..all.clone()
        },
        AuditFilter {
            occurred_before: Some(later(engine.clock.now(), 1)),
            ..all
        },
    ] {
        let mut after = None;
        loop {
            let page = store
                .list_audit(&engine.operator(), &filter, (2, after))
                .await
                .unwrap();
            for event in page.events {
                noted.push(format!(
                    "{:?} {} {:?} {} {}",
                    event.action,
                    event.actor.subject,
                    event.request_id,
                    event.call_id,
                    describe(event.outcome)
                ));
            }
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        noted.push("end".into());
    }
    let everything = AuditFilter::default();
    noted.push(format!(
        "{:?}",
        refusal(
            store
                .list_audit(&engine.owner(), &everything, (2, None))
                .await
                .map(|_| ())
        )
    ));
    noted
}

/// Previews every change. Checks the result that is shown, and that the store does not change.
async fn previews(engine: &Engine) -> Vec<String> {
    let (store, key) = (&engine.store, engine.register(KEY).await);
    let (token, secret) = engine.issue(&key, "live", Some(600)).await.unwrap();
    let (brief, _) = engine.issue(&key, "brief", Some(60)).await.unwrap();
    let preview = |call: Call| Call {
        mode: Mode::Preview,
        ..call
    };
    let (owner, operator) = (preview(engine.owner()), preview(engine.operator()));
    let at = &Target::new(key.clone(), token.uid);
    let mut noted = Vec::new();
    let named = |name: &str| Edit {
        name: Some(TokenName::parse(name).unwrap()),
        ..Edit::default()
    };
    for name in ["renamed", "brief"] {
        let shown = store.update(&owner, at, &named(name)).await;
        noted.push(format!("{:?}", shown.map(|(done, _)| done.token.name).ok()));
    }
    let shown = store.set_expiry(&owner, at, Expiry::Now).await.unwrap();
    noted.push(format!("{:?}", shown.0.state(owner.received_at)));
    let shown = store.revoke(&owner, at, &reason()).await.unwrap();
    noted.push(format!("{:?}", shown.0.state(owner.received_at)));
    let command = Rotate {
        target: Target::new(key.clone(), token.uid),
        overlap: Overlap::UNTIL_FIRST_USE,
        request: Request::parse("once", b"the same").unwrap(),
    };
    let (_, kept) = engine.secret();
    let (shown, _) = store.rotate(&owner, &command, &kept).await.unwrap();
    noted.push(format!(
        "{} {:?}",
        shown.token.generation, shown.overlap_ends_at
    ));
    for step in [StackStep::Suspend, StackStep::Remove] {
        let step = (step, &reason());
        let shown = store.set_stack_state(&operator, &key, step).await;
        noted.push(format!("{:?}", shown.unwrap().0.state));
    }
    let shown = store.set_token_limit(&operator, &key, (1, &reason())).await;
    noted.push(format!("{:?}", shown.unwrap().0.limit));
    let change = MemberChange::TransferTo(person("ann"));
    let shown = store.change_members(&operator, &key, &change).await;
    noted.push(format!("{:?}", shown.unwrap().0.stack.owner));
    let command = register_command(OTHER);
    let shown = store.register_stack(&operator, &command).await;
    noted.push(shown.unwrap().stack.key.to_string());
    assert!(store.get_stack(&operator, &key_of(OTHER)).await.is_err());
    let untouched = store.get(&engine.owner(), &key, token.uid).await.unwrap();
    assert_eq!(untouched, token);
    noted.push(states(engine, &[&secret]).await);
    // If a preview finds that a token has expired, it does not record this; only the real change
    // does.
    engine.clock.advance(Duration::from_secs(60));
    let call = preview(engine.owner());
    let shown = store
        .update(&call, &Target::new(key.clone(), brief.uid), &named("x"))
        .await;
    noted.push(format!("{:?}", refusal(shown)));
    let untouched = store.get(&call, &key, brief.uid).await.unwrap();
    assert_eq!(untouched.ended_at, None);
    noted
}

fn key_of(key: &str) -> StackKey {
    StackKey::parse(key).unwrap()
}

async fn impacts(engine: &Engine) -> Vec<String> {
    let key = engine.register(KEY).await;
    let (token, first) = engine.issue(&key, "used", None).await.unwrap();
    let other = engine.register(OTHER).await;
    let mut noted = Vec::new();
    let describe = async || {
        let impact = engine
            .store
            .impact(&engine.owner(), (&key, token.uid))
            .await;
        format!("{:?}", impact.unwrap())
    };
    noted.push(describe().await);
    first_use(engine, &first).await;
    noted.push(describe().await);
    engine.clock.advance(Duration::from_secs(86_400));
    let overlap = Overlap::For(Duration::ZERO);
    let (done, second) = rotate(engine, (&key, token.uid), (overlap, None)).await;
    done.unwrap();
    first_use(engine, &second).await;
    noted.push(describe().await);
    engine.clock.advance(Duration::from_secs(31 * 86_400));
    noted.push(describe().await);
    let owner = engine.owner();
    let foreign = engine.store.impact(&owner, (&other, token.uid)).await;
    noted.push(format!("{:?}", refusal(foreign)));
    let stranger = engine.call(CallerKind::User, "stranger");
    let foreign = engine.store.impact(&stranger, (&key, token.uid)).await;
    noted.push(format!("{:?}", refusal(foreign)));
    noted
}

async fn schemas(engine: &Engine) -> Vec<String> {
    let store = &engine.store;
    let before = store.epoch();
    let schema = store.schema().await.unwrap();
    assert!(schema.pending.is_empty() && schema.unknown.is_empty());
    store.renew_epoch().await.unwrap();
    store.require_current_schema().await.unwrap();
    assert_ne!(store.epoch(), before);
    store.probe_read().await.unwrap();
    store.beat(engine.clock.now()).await.unwrap();
    schema.applied
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_schemas_have_the_same_tables_and_columns() {
    let Some(server) = postgres::start() else {
        return;
    };
    let _shared = Engine::postgres(&server, "columns").await;
    let columns = "SELECT table_name || '.' || column_name FROM information_schema.columns \
                   WHERE table_schema = 'public' ORDER BY 1";
    let mut shared: Vec<_> = server
        .run("columns", columns)
        .lines()
        .map(str::to_owned)
        .collect();
    // These columns exist only on PostgreSQL: the transaction of a change, because several
    // transactions can run at once, and the identity of the database, because there can be several
    // databases.
    shared.retain(|column| column != "changes.xid" && !column.starts_with("incarnation."));
    let embedded = Engine::sqlite().await;
    let file = embedded._folder.path().join("store.db");
    let url = format!("sqlite://{}?mode=ro", file.display());
    let outside = sea_orm::Database::connect(url).await.unwrap();
    use sea_orm::ConnectionTrait as _;
    let sql = "SELECT m.name || '.' || c.name AS it FROM sqlite_master m, pragma_table_info(m.name) c \
               WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY 1";
    let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, sql);
    let rows = outside.query_all_raw(statement).await.unwrap();
    let mut local: Vec<String> = rows
        .iter()
        .map(|row| row.try_get("", "it").unwrap())
        .collect();
    local.sort();
    shared.sort();
    assert_eq!(local, shared);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_migrators_at_once_one_applies_and_all_succeed() {
    let Some(server) = postgres::start() else {
        return;
    };
    server.create("raced");
    let location: Location = server.url(server.port(), "raced").parse().unwrap();
    let migrate = || async {
        let ambient = (
            ManualClock::new() as Arc<dyn Clock>,
            Arc::new(SeededEntropy::new(1)) as Arc<dyn Entropy>,
        );
        let store = Store::open(&location, PoolSize { connections: 1 }, ambient)
            .await
            .unwrap()
            .deciding_by_own_clock();
        store.migrate().await.unwrap();
        store.require_current_schema().await.unwrap();
        store.epoch()
    };
    let epochs = futures_util::future::join_all((0..5).map(|_| migrate())).await;
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
}
