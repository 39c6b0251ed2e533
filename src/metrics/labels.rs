//! Labels of the metrics.

use prometheus_client::encoding::EncodeLabelSet;

/// The RPC and the status of a call.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CallLabels {
    /// `package.Service/Method`, or `_OTHER`.
    pub rpc_method: &'static str,
    /// The gRPC status by name, such as `OK`.
    pub rpc_response_status_code: &'static str,
    /// Why the call failed: the reason in the API contract, otherwise the status. `None` if the
    /// call succeeded.
    pub error_type: Option<&'static str>,
}

/// The catalogue of actions in effect.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CatalogueLabel {
    /// Version of the catalogue, a hash of its rows.
    pub version: String,
}

/// The running program.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct BuildLabel {
    /// Version of the program.
    pub version: &'static str,
}

/// A reason of the API contract.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Name of the reason, without the prefix `REASON_`.
    pub reason: &'static str,
}

/// The answer to a check by Envoy.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CheckLabels {
    /// `ALLOWED`, `DENIED` or `UNDECIDED`.
    pub outcome: &'static str,
    /// `OK`, or the reason why the request is not allowed.
    pub reason: &'static str,
}

/// A service of the health protocol.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ServiceLabel {
    /// Full name of the service; empty for the process as a whole.
    pub service: &'static str,
}

/// Why a connection was refused or closed early.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WhyLabel {
    /// `address`, `accept`, `handshake`, `slow` or `displaced`.
    pub why: &'static str,
}

/// The outcome of a report that a secret leaked.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LeakLabel {
    /// `REVOKED`, `DEAD`, `SUPERSEDED` or `UNKNOWN`.
    pub outcome: &'static str,
}

/// The role of a certificate.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CertificateLabel {
    /// `server` or `client_ca`.
    pub certificate: &'static str,
}

/// A table of the store.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TableLabel {
    /// Name of the table.
    pub table: &'static str,
}

/// A period within which tokens expire.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WithinLabel {
    /// `1d`, `7d` or `30d`.
    pub within: &'static str,
}
