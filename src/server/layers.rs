//! The layers that a call passes before its handler, by name and in order. Each layer can refuse
//! the call. If several layers would, the first one does, which `tests/it/layers.rs` checks for
//! each pair of neighbors. So the error that a client gets depends neither on timing nor on which
//! of the two paths its call takes.

/// A layer in front of every RPC that needs a credential. Health and reflection pass only the first
/// five layers and [`Layer::Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The request is a gRPC call (`server/protocol.rs`).
    Protocol,
    /// The headers are not too large (`server/headers.rs`).
    HeaderSize,
    /// The peer reads its responses (`server/connections/backlog.rs`).
    UnreadResponses,
    /// The RPC exists (`auth/policy.rs`).
    Rpc,
    /// The messages are not compressed (`server/protocol.rs`).
    Encoding,
    /// The clock can be trusted (`domain/clock.rs`).
    Clock,
    /// The credential is valid (`auth/authenticator.rs`).
    Credential,
    /// The kind of caller may call the RPC (`domain/caller.rs`).
    CallerKind,
    /// The caller has not made too many changes (`app/throttle.rs`).
    ChangeRate,
    /// The message arrives, and there is only one (`server/message.rs`).
    Message,
    /// A permit is free, unless the cache can answer (`server/permits.rs`).
    Permit,
    /// The handler, which checks the fields of the message (`grpc/convert`) and runs the use case.
    Handler,
}

/// All layers, in the order in which a call passes them.
pub const LAYERS: [Layer; 12] = [
    Layer::Protocol,
    Layer::HeaderSize,
    Layer::UnreadResponses,
    Layer::Rpc,
    Layer::Encoding,
    Layer::Clock,
    Layer::Credential,
    Layer::CallerKind,
    Layer::ChangeRate,
    Layer::Message,
    Layer::Permit,
    Layer::Handler,
];
