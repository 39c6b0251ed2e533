//! Compares permissions for modules that are not built in on both engines. The store keeps these
//! permissions unchanged, whatever catalogue is in effect.

use std::collections::BTreeMap;

use stacktoken::{
    domain::{
        catalogue::Catalogue,
        catalogue_file,
        clock::Clock as _,
        edit::{Edit, Part, PermissionsEdit, PermissionsParts},
        etag::Target,
        labels::Labels,
        permissions::{Access, Draft, DraftBranches, Permissions},
        verdict::{ActionQuestion, Facts, evaluate},
    },
    store::{AuditFilter, Issue, ListQuery, Order, TokenFilter},
};

use super::{Engine, KEY, issue_command, refusal};

const OWN: &str = include_str!("../../../docs/catalogue.toml");

fn permissions() -> Permissions {
    let granted = r#"{"access":"READ_WRITE","modules":[{"module":"segment","access":"READ"},{"module":"experiment","access":"READ_WRITE"},{"module":"entry","access":"READ"}]}"#;
    let draft: Draft = serde_json::from_str(granted).unwrap();
    draft.try_into().unwrap()
}

/// Evaluates actions of custom and of built-in modules, both with the catalogue file and without
/// it.
fn verdicts(engine: &Engine, facts: &Facts) -> String {
    let asked = [
        "experiment.update",
        "segment.read",
        "entry.read",
        "role.read",
    ];
    let asked = asked.map(|name| ActionQuestion {
        name: name.into(),
        ..ActionQuestion::default()
    });
    let own = catalogue_file::parse(OWN).unwrap();
    let verdicts = [own, Catalogue::builtin()]
        .map(|catalogue| evaluate(&catalogue, Some(facts), KEY, &asked, engine.clock.now()));
    format!("{verdicts:?}")
}

fn parts(parts: PermissionsParts) -> Edit {
    Edit {
        permissions: Some(PermissionsEdit::Parts(parts)),
        ..Edit::default()
    }
}

pub async fn own_modules(engine: &Engine) -> Vec<String> {
    let (store, key) = (&engine.store, engine.register(KEY).await);
    let owner = engine.owner();
    let (secret, kept) = engine.secret();
    let command = Issue {
        permissions: permissions(),
        ..issue_command(&key, "own")
    };
    let (issued, _) = store.issue(&owner, &command, &kept).await.unwrap();
    let token = issued.token;
    let target = Target::new(key.clone(), token.uid);
    let mut noted = Vec::new();
    let facts = store
        .look_up(&secret.digest())
        .await
        .unwrap()
        .facts
        .unwrap();
    assert_eq!(facts.permissions, permissions());
    noted.push(verdicts(engine, &facts));
    let many = store.look_up_many(&[secret.digest()]).await.unwrap();
    assert_eq!(many.facts[&secret.digest()], facts);
    for edit in [
        Edit {
            labels: Some(Labels::parse(BTreeMap::from([("team".into(), "shop".into())])).unwrap()),
            ..Edit::default()
        },
        parts(PermissionsParts {
            branches: Part::Set(DraftBranches {
                branches: vec!["main".into()],
                aliases: Vec::new(),
            }),
            ..PermissionsParts::default()
        }),
        parts(PermissionsParts {
            access: Some(Access::ReadWrite),
            branches: Part::Remove,
            ..PermissionsParts::default()
        }),
    ] {
        let (done, _) = store.update(&owner, &target, &edit).await.unwrap();
        noted.push(format!("{:?}", done.token.permissions.draft()));
    }
    let low = parts(PermissionsParts {
        access: Some(Access::Read),
        ..PermissionsParts::default()
    });
    let low = store.update(&owner, &target, &low).await.map(|_| ());
    noted.push(format!("{:?}", refusal(low)));
    let read = store.get(&owner, &key, token.uid).await.unwrap();
    assert_eq!(read.permissions, permissions());
    let query = ListQuery {
        stack_key: Some(key.clone()),
        filter: TokenFilter::default(),
        order: Order::NewestFirst,
        size: 10,
        after: None,
    };
    let page = store.list(&owner, &query).await.unwrap();
    assert_eq!(page.tokens, [read]);
    let everything = AuditFilter::default();
    let operator = engine.operator();
    let page = store.list_audit(&operator, &everything, (50, None)).await;
    let describe = page.unwrap().events.into_iter().map(|event| {
        let named = format!("{event:?}").contains("experiment");
        format!("{:?} {named}", event.action)
    });
    // All events occur at the same instant, so their order is undefined.
    let mut describe: Vec<_> = describe.collect();
    describe.sort();
    noted.extend(describe);
    noted
}
