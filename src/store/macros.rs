//! How every method of the store is run: one transaction, with its span, its turn and its retries.

/// One transaction for writing, begun again while another is in its way. A macro, since the
/// compiler cannot yet see that the future of an async closure may move between threads. The
/// name is what traces call it. With the mode of a call, a preview is the very same
/// transaction, undone at its end.
macro_rules! writing {
    ($store:expr, $name:literal, |$tx:ident| $work:block) => {
        writing!($store, $crate::domain::caller::Mode::Apply, $name, |$tx| {
            $work
        })
    };
    // Of one stack: it waits for its turn first, without a connection.
    ($store:expr, ($stack:expr), $name:literal, |$tx:ident| $work:block) => {
        writing!(
            $store,
            ($crate::domain::caller::Mode::Apply, $stack),
            $name,
            |$tx| $work
        )
    };
    ($store:expr, ($mode:expr, $stack:expr), $name:literal, |$tx:ident| $work:block) => {{
        match $store.turns.take($stack).await {
            Ok(_turn) => writing!($store, $mode, $name, |$tx| $work),
            Err(error) => Err(error),
        }
    }};
    ($store:expr, $mode:expr, $name:literal, |$tx:ident| $work:block) => {{
        let span = $store.span($name);
        let mut pauses = $crate::store::RETRY_AFTER.into_iter();
        loop {
            let done: Result<_, $crate::store::Error> = match $store.begin_write().await {
                Ok(transaction) => {
                    let $tx = &transaction;
                    let done = async { $work }.await;
                    $crate::store::settle($store, transaction, $mode, done).await
                }
                Err(error) => Err(error),
            };
            match (&done, pauses.next()) {
                (
                    Err($crate::store::Error::Conflict(_) | $crate::store::Error::Untrusted),
                    Some(pause),
                ) => {
                    tokio::time::sleep(pause).await;
                }
                _ => {
                    $store.note(&done);
                    span.end(done.as_ref().err().and_then($crate::store::Error::kind));
                    break done;
                }
            }
        }
    }};
}

/// Several reads on one snapshot, with a share of the connections that its caller has.
macro_rules! reading {
    ($store:expr, $call:expr, $name:literal, |$tx:ident| $work:block) => {{
        let span = $store.span($name);
        let done: Result<_, $crate::store::Error> = async {
            let transaction = $store.begin_read(&$call.caller.actor).await?;
            let $tx = &transaction;
            let done: Result<_, $crate::store::Error> = async { $work }.await;
            // What was read stands; a connection that does not roll back is closed.
            let _ = transaction.rollback().await;
            done
        }
        .await;
        span.end(done.as_ref().err().and_then($crate::store::Error::kind));
        done
    }};
}
