//! `envoy.service.auth.v3.Authorization/Check`, asked as Envoy asks. The real Envoy stands in
//! front in `tests/mesh`.

mod answers;
mod outages;
mod requests;
mod routes;

/// A path of the API that reads entries.
const ENTRIES: &str = "/v3/content_types/blog/entries";
/// A well-formed secret that nobody was given.
const UNKNOWN: &str = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";
