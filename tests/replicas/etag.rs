//! Tests changes with the etag of the version that was read, over two replicas on one PostgreSQL.

use futures_util::future::join_all;
use stacktoken::grpc::pb::v1;
use tonic::Code;

use crate::{
    cluster::Cluster,
    support::{
        reason,
        requests::{Issued, get_request, update_request},
    },
};

fn describe(stack: &str, uid: &str, (text, etag): (&str, &str)) -> v1::UpdateRequest {
    let token = v1::Token {
        description: text.into(),
        ..Default::default()
    };
    v1::UpdateRequest {
        etag: etag.into(),
        ..update_request(stack, uid, &["description"], token)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_owners_at_two_replicas_who_read_the_same_token_exactly_one_changes_it() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for round in 0..5 {
        let token = Issued::from(cluster.issue(&format!("token {round}")).await);
        let get = || get_request(&cluster.stack, &token.uid);
        let mut owner = cluster.b.owner.clone();
        let read = owner.tokens.get(get()).await.unwrap().into_inner();
        let etag = read.token.unwrap().etag;
        let changes = (0..20).map(|n| {
            let replica = if n % 2 == 0 { &cluster.a } else { &cluster.b };
            let mut owner = replica.owner.clone();
            let text = format!("by {n}");
            let request = describe(&cluster.stack, &token.uid, (&text, &etag));
            // The queue of a stack is limited, so callers that find it full try again.
            async move {
                loop {
                    match owner.tokens.update(request.clone()).await {
                        Ok(changed) => return (text, Ok(changed.into_inner())),
                        Err(status) if status.code() == Code::Unavailable => {}
                        Err(status) => return (text, Err(status)),
                    }
                }
            }
        });
        let ended = join_all(changes).await;
        let won: Vec<_> = ended
            .iter()
            .filter_map(|(text, done)| Some((text, done.as_ref().ok()?)))
            .collect();
        let [(text, changed)] = won[..] else {
            panic!("{won:?}")
        };
        for (_, lost) in ended.iter().filter(|(_, done)| done.is_err()) {
            let status = lost.as_ref().unwrap_err();
            assert_eq!(status.code(), Code::Aborted);
            assert_eq!(reason(status), "ETAG_MISMATCH");
        }
        let seen = owner.tokens.get(get()).await.unwrap().into_inner();
        let seen = seen.token.unwrap();
        assert_eq!(&seen.description, text);
        assert_eq!(seen.etag, changed.token.as_ref().unwrap().etag);
    }
}
