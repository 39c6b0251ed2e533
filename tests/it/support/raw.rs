//! Makes raw calls with any path, any metadata and any message. Every error is checked against the
//! contract's error format.

use std::{collections::BTreeMap, sync::LazyLock};

use prost::bytes::{Buf as _, BufMut as _};
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};
use stacktoken::grpc::{DESCRIPTORS, code::name_of, pb::v1::ErrorReason};
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap},
    transport::Channel,
};
use tonic_types::StatusExt as _;

use super::{TestIssuer, TestServer};

/// A codec that does not encode or decode anything.
#[derive(Clone, Copy, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length).to_vec()))
    }
}

/// The metadata of a request. A name can occur several times.
#[derive(Clone, Default)]
pub struct Metadata(pub Vec<(&'static str, Vec<u8>)>);

impl Metadata {
    /// Returns metadata without a credential.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Returns metadata with this value for `authorization`.
    pub fn authorization(value: impl Into<Vec<u8>>) -> Self {
        Self(vec![("authorization", value.into())])
    }

    /// Returns metadata with this JWT as the credential.
    pub fn bearer(jwt: &str) -> Self {
        Self::authorization(format!("Bearer {jwt}"))
    }

    /// Adds a pair.
    pub fn and(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    pub fn put_into(self, metadata: &mut MetadataMap) {
        for (name, value) in self.0 {
            if name.ends_with("-bin") {
                let value = tonic::metadata::MetadataValue::from_bytes(&value);
                metadata.append_bin(name, value);
            } else {
                let value = AsciiMetadataValue::try_from(value.as_slice()).unwrap();
                metadata.append(AsciiMetadataKey::from_static(name), value);
            }
        }
    }
}

const WATCH: &str = "/stacktoken.v1.IntrospectionService/Watch";

/// Calls the RPC with this path. Asserts that an error has the contract's format.
pub async fn call(
    channel: &Channel,
    path: &str,
    sent: Metadata,
    message: Vec<u8>,
) -> Result<Vec<u8>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(message);
    sent.put_into(request.metadata_mut());
    let target = PathAndQuery::try_from(path).unwrap();
    let answered = if path == WATCH {
        // A stream does not end on its own, so only its first message is returned.
        let streamed = client.server_streaming(request, target, Raw).await;
        match streamed.map(tonic::Response::into_inner) {
            Ok(mut told) => told.message().await.map(|first| first.expect("a message")),
            Err(status) => Err(status),
        }
    } else {
        let answered = client.unary(request, target, Raw).await;
        answered.map(tonic::Response::into_inner)
    };
    answered.inspect_err(|status| require_form(status, path))
}

/// The code of each reason, as the comments in the contract state it.
static CODES: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let reasons = pool.get_enum_by_name("stacktoken.v1.ErrorReason").unwrap();
    let file = reasons.parent_file();
    let comments = &file.file_descriptor_proto().source_code_info;
    let code = |value: prost_reflect::EnumValueDescriptor| {
        let mut places = comments.as_ref().unwrap().location.iter();
        let place = places.find(|place| place.path == value.path()).unwrap();
        let code = place.leading_comments().trim().split('.').next().unwrap();
        let reason = value.name().trim_start_matches("ERROR_REASON_");
        (reason.to_owned(), code.to_owned())
    };
    reasons.values().map(code).collect()
});

/// Asserts that an error has a message, a reason from the contract and the request id.
pub fn require_form(status: &Status, what: &str) {
    assert_ne!(status.code(), Code::Ok, "{what}");
    assert!(!status.message().is_empty(), "{what}: {status:?}");
    let info = status.get_details_error_info();
    let info = info.unwrap_or_else(|| panic!("{what}: no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "stacktoken", "{what}");
    let known = ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason));
    assert!(known.is_some(), "{what}: {}", info.reason);
    let code = name_of(status.code());
    assert_eq!(
        CODES[&info.reason], code,
        "{what}: wrong code for {}",
        info.reason
    );
    let request = status.get_details_request_info();
    let request = request.unwrap_or_else(|| panic!("{what}: no RequestInfo: {status:?}"));
    let id = status.metadata().get("x-request-id");
    let id = id.unwrap_or_else(|| panic!("{what}: no x-request-id: {status:?}"));
    assert_eq!(request.request_id, id.to_str().unwrap(), "{what}");
    assert!(!request.request_id.is_empty(), "{what}");
    require_pushback(status, what);
}

/// Asserts that `grpc-retry-pushback-ms` equals the delay in `RetryInfo`, and is absent if there is
/// no delay.
fn require_pushback(status: &Status, what: &str) {
    let delay = status.get_details_retry_info();
    let delay = delay.and_then(|info| info.retry_delay);
    let told = status.metadata().get("grpc-retry-pushback-ms");
    let told = told.map(|value| value.to_str().unwrap().parse::<u128>().unwrap());
    assert_eq!(
        told,
        delay.map(|delay| delay.as_millis()),
        "{what}: {status:?}"
    );
}

/// Returns the code and the reason in the result of a call.
pub fn outcome<T>(answered: &Result<T, Status>) -> (Code, String) {
    match answered {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), super::reason(status)),
    }
}

/// Returns the services in the descriptors of the contract.
pub fn services() -> Vec<ServiceDescriptor> {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let ours = pool
        .services()
        .filter(|service| service.full_name().starts_with("stacktoken."));
    ours.collect()
}

/// Returns every RPC in the descriptors of the contract.
pub fn methods() -> Vec<MethodDescriptor> {
    let methods = services()
        .into_iter()
        .flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.collect()
}

/// Returns the path of an RPC.
pub fn path_of(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// The kind of caller that a test uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestCaller {
    Owner,
    Admin,
    Developer,
    ContentManager,
    Stranger,
    Operator,
    Introspector,
    ServiceWithoutRole,
    Workload,
}

impl TestCaller {
    pub const ALL: [Self; 9] = [
        Self::Owner,
        Self::Admin,
        Self::Developer,
        Self::ContentManager,
        Self::Stranger,
        Self::Operator,
        Self::Introspector,
        Self::ServiceWithoutRole,
        Self::Workload,
    ];

    /// Returns the `sub` that callers of this kind have.
    pub const fn subject(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Developer => "developer",
            Self::ContentManager => "content-manager",
            Self::Stranger => "stranger",
            Self::Operator => "operator",
            Self::Introspector => "content-api",
            Self::ServiceWithoutRole => "mailer",
            Self::Workload => super::federated::JOB,
        }
    }

    /// Returns a JWT for this kind of caller, valid now.
    pub fn jwt(self, server: &TestServer) -> String {
        self.jwt_of(&server.issuer, server.clock.seconds())
    }

    /// Returns a JWT for this kind of caller, signed by `issuer` at `now`.
    pub fn jwt_of(self, issuer: &TestIssuer, now: i64) -> String {
        match self {
            Self::Operator => issuer.operator(self.subject(), now),
            Self::Introspector | Self::ServiceWithoutRole => issuer.service(self.subject(), now),
            Self::Workload => issuer.job(now),
            _ => issuer.user(self.subject(), now),
        }
    }
}
