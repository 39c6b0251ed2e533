//! Tests `envoy.service.auth.v3.Authorization/Check`, called the way Envoy calls it. `tests/mesh`
//! uses the real Envoy.

mod answers;
mod clients;
mod outages;
mod requests;
mod routes;

/// A path of the content management API that reads entries.
const ENTRIES: &str = "/v3/content_types/blog/entries";
/// A well-formed secret that was never issued.
const UNKNOWN: &str = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";
