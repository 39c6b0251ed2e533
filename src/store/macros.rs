//! Macros that run a store method in a transaction. They add a trace span, measure the duration,
//! take a queue permit and retry conflicts.

/// Runs the block in a write transaction, and retries it if the transaction conflicts with another
/// one. This is a macro, because the compiler cannot yet prove that the future of an async closure
/// is `Send`. `$name` is the name of the operation in metrics and traces. With `Mode::Preview`, the
/// same transaction runs but is rolled back at its end.
macro_rules! write_tx {
    ($store:expr, $name:literal, |$tx:ident| $work:block) => {
        write_tx!($store, $crate::domain::caller::Mode::Apply, $name, |$tx| {
            $work
        })
    };
    // For a change of one stack. It first waits in the queue of the stack, without holding a
    // connection.
    ($store:expr, ($stack:expr), $name:literal, |$tx:ident| $work:block) => {
        write_tx!(
            $store,
            ($crate::domain::caller::Mode::Apply, $stack),
            $name,
            |$tx| $work
        )
    };
    ($store:expr, ($mode:expr, $stack:expr), $name:literal, |$tx:ident| $work:block) => {{
        match $store.permit_queues.take($stack).await {
            Ok(_turn) => {
                let locked = $crate::store::engine::permit_queues::StackRef::from($stack);
                write_tx!(@begun $store, $mode, $name, Some(&locked), |$tx| $work)
            }
            Err(error) => Err(error),
        }
    }};
    ($store:expr, $mode:expr, $name:literal, |$tx:ident| $work:block) => {
        write_tx!(@begun $store, $mode, $name, None, |$tx| $work)
    };
    // Begins by locking the stack, if one is given.
    (@begun $store:expr, $mode:expr, $name:literal, $locked:expr, |$tx:ident| $work:block) => {{
        let operation = $store.begin_operation($name);
        let mut pauses = $crate::store::RETRY_AFTER.into_iter();
        loop {
            let done: Result<_, $crate::store::Error> = match $store.begin_write($locked).await {
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
                    operation.end(done.as_ref().err().and_then($crate::store::Error::kind));
                    break done;
                }
            }
        }
    }};
}

/// Runs a change of a stack or of its tokens in a write transaction, like `write_tx!`. Its block
/// must return a `Changed`, which proves that the change is recorded.
macro_rules! change_tx {
    ($store:expr, ($($scope:tt)*), $name:literal, |$tx:ident| $work:block) => {
        write_tx!($store, ($($scope)*), $name, |$tx| $work)
            .map($crate::store::record::Changed::into_value)
    };
    ($store:expr, $mode:expr, $name:literal, |$tx:ident| $work:block) => {
        write_tx!($store, $mode, $name, |$tx| $work)
            .map($crate::store::record::Changed::into_value)
    };
}

/// Runs several reads on one snapshot. Takes a permit from the caller's share of the read
/// connections.
macro_rules! read_tx {
    ($store:expr, $call:expr, $name:literal, |$tx:ident| $work:block) => {{
        let operation = $store.begin_operation($name);
        let done: Result<_, $crate::store::Error> = async {
            let transaction = $store.begin_read(&$call.caller.sharer()).await?;
            let $tx = &transaction;
            let done: Result<_, $crate::store::Error> = async { $work }.await;
            // The rows are valid even if the rollback fails. The connection is closed in that case.
            let _ = transaction.rollback().await;
            done
        }
        .await;
        operation.end(done.as_ref().err().and_then($crate::store::Error::kind));
        done
    }};
}
