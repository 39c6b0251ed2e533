//! Data about a call that is known before its handler runs.

use std::{pin::Pin, time::Duration};

use tokio::time::Sleep;

use super::stream_limits::StreamPermit;
use crate::{auth::policy::Rule, telemetry::traces::CallTrace};

/// What the direct path has already found out about a call when it hands the call to the ordinary
/// path.
#[derive(Default)]
pub(super) struct Start {
    pub arrived_at: Option<Duration>,
    pub trace: Option<CallTrace>,
    /// Ends at the deadline of the call.
    pub timer: Option<Pin<Box<Sleep>>>,
}

/// What was determined about a call before its future started.
pub(super) struct Opened {
    pub rule: Option<&'static Rule>,
    pub permit: Option<StreamPermit>,
    pub timer: Option<Pin<Box<Sleep>>>,
}
