//! The labels of what is counted.

use prometheus_client::encoding::EncodeLabelSet;

/// One RPC and how it ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CallLabels {
    /// `package.Service/Method`, or `_OTHER`.
    pub rpc_method: &'static str,
    /// The gRPC status by name, such as `OK`.
    pub rpc_status_code: &'static str,
}

/// A reason of the contract.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Its name, without the prefix.
    pub reason: &'static str,
}

/// How Envoy was answered.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CheckLabels {
    /// `ALLOWED`, `DENIED` or `UNDECIDED`.
    pub outcome: &'static str,
    /// `OK`, or why not.
    pub reason: &'static str,
}

/// A service of the health protocol.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ServiceLabel {
    /// Its full name; empty for the process as a whole.
    pub service: &'static str,
}

/// Why a connection was not kept.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WhyLabel {
    /// `address`, `accept`, `handshake` or `slow`.
    pub why: &'static str,
}

/// What came of a report that a secret leaked.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LeakLabel {
    /// `REVOKED`, `DEAD`, `SUPERSEDED` or `UNKNOWN`.
    pub outcome: &'static str,
}

/// A certificate, by its part.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CertificateLabel {
    /// `server` or `client_ca`.
    pub certificate: &'static str,
}

/// A table of the store.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TableLabel {
    /// Its name.
    pub table: &'static str,
}

/// How soon.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WithinLabel {
    /// `1d`, `7d` or `30d`.
    pub within: &'static str,
}
