//! Sessions of federated tokens. An exchange is one transaction that starts a session under the
//! lock of its stack, so that its checks and limits are exact even if exchanges race.

pub(in crate::store) mod assertions;
pub(in crate::store) mod candidates;
pub(in crate::store) mod end;
pub(in crate::store) mod end_presented;
pub(in crate::store) mod exchange;
pub(in crate::store) mod live;
