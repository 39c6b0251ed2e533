//! Tests which tokens `RevokeAll` revokes on PostgreSQL, and what prevents it. The preview is made
//! at one replica, and the change at the other.

use std::collections::{BTreeMap, BTreeSet};

use stacktoken::{
    domain::clock::{Clock as _, SystemClock},
    grpc::pb::{
        admin::v1::SetMemberRequest,
        audit::v1::{AuditEvent, ListRequest},
        v1::{self, CallerKind, RevokeFilter, Role},
    },
};
use tonic::{Code, Status, transport::Endpoint};

use crate::{
    cluster::{Cluster, Replica},
    support::{
        Client,
        clients::details,
        issue_request, methods, person,
        requests::{
            EVERY_TOKEN, Issued, get_request, issued_by, overlap_for, refused, revoke_all_request,
            rotate_request,
        },
    },
};

fn unused_since(at: prost_types::Timestamp) -> RevokeFilter {
    RevokeFilter {
        unused_since: Some(at),
        ..Default::default()
    }
}

async fn ask(
    replica: &Replica,
    stack: &str,
    filter: &RevokeFilter,
    hash: Option<&str>,
) -> Result<v1::RevokeAllResponse, Status> {
    let request = revoke_all_request(stack, filter, hash);
    let answered = replica.owner.clone().tokens.revoke_all(request).await;
    answered.map(tonic::Response::into_inner)
}

/// Previews `RevokeAll` at replica A.
async fn preview(cluster: &Cluster, filter: &RevokeFilter) -> v1::RevokeAllResponse {
    let shown = ask(&cluster.a, &cluster.stack, filter, None).await.unwrap();
    assert_eq!(shown.revision, "", "nothing was changed");
    shown
}

/// Calls `RevokeAll` at replica B with the hash from the preview.
async fn revoke(
    cluster: &Cluster,
    filter: &RevokeFilter,
    hash: &str,
) -> Result<v1::RevokeAllResponse, Status> {
    ask(&cluster.b, &cluster.stack, filter, Some(hash)).await
}

fn require_changed(answered: Result<v1::RevokeAllResponse, Status>, count: usize) {
    let status = answered.unwrap_err();
    let wanted = (Code::Aborted, "PREVIEW_CHANGED".to_owned());
    assert_eq!(refused(&status), wanted);
    let info = details(&status).error_info().cloned().unwrap();
    assert_eq!(info.metadata["count"], count.to_string());
}

async fn issued(cluster: &Cluster, name: &str) -> Issued {
    cluster.issue(name).await.into()
}

async fn seen(cluster: &Cluster, uid: &str) -> v1::Token {
    let request = get_request(&cluster.stack, uid);
    let seen = cluster.a.owner.clone().tokens.get(request).await.unwrap();
    seen.into_inner().token.unwrap()
}

/// Issues a token as an admin of the stack other than the owner.
async fn of_an_admin(cluster: &Cluster) -> Issued {
    let member = SetMemberRequest {
        stack_api_key: cluster.stack.clone(),
        member: Some(person("ann")),
        role: Role::Admin.into(),
        validate_only: false,
    };
    let mut operator = cluster.a.operator.clone();
    operator.stacks.set_member(member).await.unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", cluster.a.address)).unwrap();
    let now = SystemClock::new().now().seconds();
    let jwt = cluster.issuer.user("ann", now);
    let channel = endpoint.connect().await.unwrap();
    let mut ann = Client::new(channel, Some(format!("Bearer {jwt}")));
    let request = issue_request(&cluster.stack, "ann's");
    let answer = ann.tokens.issue(request).await.unwrap();
    answer.into_inner().into()
}

async fn rows(cluster: &Cluster) -> Vec<AuditEvent> {
    let request = ListRequest {
        stack_api_key: cluster.stack.clone(),
        methods: vec![methods::REVOKE_ALL.into()],
        ..Default::default()
    };
    let answer = cluster.a.operator.clone().audit.list(request).await;
    let events = answer.unwrap().into_inner().events.into_iter();
    events
        .filter(|event| event.error_reason.is_empty())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_filter_takes_its_tokens_and_no_other_on_postgres_too() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let used = issued(&cluster, "old, used").await;
    let old = issued(&cluster, "old").await;
    let dead = issued(&cluster, "dead").await;
    cluster.revoke(&dead.uid).await.unwrap();
    let anns = of_an_admin(&cluster).await;
    let since = seen(&cluster, &anns.uid).await.issued_at.unwrap();
    cluster.b.warm(&cluster.stack, &used.secret).await;
    let both = RevokeFilter {
        unused_since: Some(since),
        ..issued_by("ann", CallerKind::Unspecified)
    };
    let own = RevokeFilter {
        unused_since: Some(since),
        ..issued_by("owner", CallerKind::User)
    };
    let before_all = seen(&cluster, &used.uid).await.issued_at.unwrap();
    let table: [(RevokeFilter, Vec<&Issued>); 9] = [
        (EVERY_TOKEN, vec![&used, &old, &anns]),
        (issued_by("ann", CallerKind::Unspecified), vec![&anns]),
        (issued_by("ann", CallerKind::User), vec![&anns]),
        (issued_by("ann", CallerKind::Operator), vec![]),
        (issued_by("nobody", CallerKind::Unspecified), vec![]),
        (unused_since(since), vec![&old]),
        (unused_since(before_all), vec![]),
        (both, vec![]),
        (own, vec![&old]),
    ];
    for (filter, wanted) in &table {
        let shown = preview(&cluster, filter).await;
        let found: BTreeSet<_> = shown.token_uids.iter().collect();
        let wanted: BTreeSet<_> = wanted.iter().map(|token| &token.uid).collect();
        assert_eq!(found, wanted, "{filter:?}");
        assert_eq!(shown.count as usize, wanted.len());
    }
    let (filter, _) = &table[8];
    let shown = preview(&cluster, filter).await.preview_hash;
    let done = revoke(&cluster, filter, &shown).await.unwrap();
    assert_eq!(done.token_uids, std::slice::from_ref(&old.uid));
    for (token, live) in [(&used, true), (&anns, true), (&old, false)] {
        let asked = cluster
            .a
            .introspect_since(&cluster.stack, &token.secret, &done.revision);
        assert_eq!(asked.await.unwrap().active, live, "{}", token.uid);
    }
    let told = rows(&cluster).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].details["filter.issued_by.subject"], "owner");

    for token in [&used, &anns] {
        cluster.a.warm(&cluster.stack, &token.secret).await;
        cluster.b.warm(&cluster.stack, &token.secret).await;
    }
    let shown = preview(&cluster, &EVERY_TOKEN).await.preview_hash;
    let done = revoke(&cluster, &EVERY_TOKEN, &shown).await.unwrap();
    assert_eq!(done.count, 2);
    for token in [&used, &anns] {
        let here = cluster.b.introspect(&cluster.stack, &token.secret).await;
        assert!(
            !here.unwrap().active,
            "inactive at once on the replica that revoked"
        );
        let asked = cluster
            .a
            .introspect_since(&cluster.stack, &token.secret, &done.revision);
        assert!(!asked.await.unwrap().active);
    }
    let told: BTreeMap<_, _> = rows(&cluster)
        .await
        .into_iter()
        .filter(|event| event.details["preview_hash"] == shown)
        .map(|event| (event.token_uid.clone(), event.details))
        .collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[&anns.uid]["count"], "2");
    assert_eq!(told[&anns.uid]["reason"], "a breach");
    assert_eq!(
        seen(&cluster, &dead.uid).await.revoke_reason,
        "",
        "an ended token is not revoked again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_since_the_preview_stops_it_on_postgres_too() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let first = issued(&cluster, "first").await;

    let shown = preview(&cluster, &EVERY_TOKEN).await.preview_hash;
    let second = issued(&cluster, "second").await;
    require_changed(revoke(&cluster, &EVERY_TOKEN, &shown).await, 2);

    let shown = preview(&cluster, &EVERY_TOKEN).await.preview_hash;
    cluster.revoke(&second.uid).await.unwrap();
    require_changed(revoke(&cluster, &EVERY_TOKEN, &shown).await, 1);

    let third = issued(&cluster, "third").await;
    let since = seen(&cluster, &third.uid).await.issued_at.unwrap();
    let unused = unused_since(since);
    let shown = preview(&cluster, &unused).await;
    assert_eq!(shown.token_uids, std::slice::from_ref(&first.uid));
    cluster.a.warm(&cluster.stack, &first.secret).await;
    require_changed(revoke(&cluster, &unused, &shown.preview_hash).await, 0);

    // The hash belongs to a preview of another stack, or to one with another filter.
    let other = cluster.register().await;
    let shown = ask(&cluster.a, &other, &EVERY_TOKEN, None).await.unwrap();
    require_changed(revoke(&cluster, &EVERY_TOKEN, &shown.preview_hash).await, 2);
    let owners = issued_by("owner", CallerKind::Unspecified);
    let shown = preview(&cluster, &owners).await.preview_hash;
    require_changed(revoke(&cluster, &EVERY_TOKEN, &shown).await, 2);
    for token in [&first, &third] {
        cluster.b.warm(&cluster.stack, &token.secret).await;
    }
    assert!(rows(&cluster).await.is_empty(), "nothing was done");

    // A rotation does not change the set. The revoke ends the new secret too.
    let shown = preview(&cluster, &EVERY_TOKEN).await.preview_hash;
    let rotate = rotate_request(&cluster.stack, &first.uid, overlap_for(60));
    let newer = cluster.a.owner.clone().tokens.rotate(rotate).await.unwrap();
    let newer = newer.into_inner().secret;
    let done = revoke(&cluster, &EVERY_TOKEN, &shown).await.unwrap();
    assert_eq!(done.count, 2);
    for secret in [&first.secret, &newer, &third.secret] {
        let asked = cluster
            .a
            .introspect_since(&cluster.stack, secret, &done.revision);
        assert!(!asked.await.unwrap().active);
    }
    require_changed(revoke(&cluster, &EVERY_TOKEN, &shown).await, 0);
}
