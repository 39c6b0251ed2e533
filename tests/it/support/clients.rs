//! Clients by role, and what can be read off a failed call.

use std::{
    error::Error as _,
    time::{Duration, Instant},
};

use stacktoken::grpc::pb::{
    admin::v1::{RegisterRequest, stack_service_client::StackServiceClient},
    audit::v1::audit_service_client::AuditServiceClient,
    v1::{
        introspection_service_client::IntrospectionServiceClient,
        token_service_client::TokenServiceClient,
    },
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Sends one credential, or none.
#[derive(Clone)]
pub struct Credential(Option<MetadataValue<Ascii>>);

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

type Transport = InterceptedService<Channel, Credential>;

/// One caller's clients of every service.
#[derive(Clone)]
pub struct Client {
    pub tokens: TokenServiceClient<Transport>,
    pub introspection: IntrospectionServiceClient<Transport>,
    pub stacks: StackServiceClient<Transport>,
    pub audit: AuditServiceClient<Transport>,
}

impl Client {
    pub fn new(channel: Channel, authorization: Option<String>) -> Self {
        let value = authorization.map(|text| MetadataValue::try_from(text).unwrap());
        let credential = Credential(value);
        Self {
            tokens: TokenServiceClient::with_interceptor(channel.clone(), credential.clone()),
            introspection: IntrospectionServiceClient::with_interceptor(
                channel.clone(),
                credential.clone(),
            ),
            stacks: StackServiceClient::with_interceptor(channel.clone(), credential.clone()),
            audit: AuditServiceClient::with_interceptor(channel, credential),
        }
    }
}

/// Registers a stack at a replica that was just started. Until its database is reached it refuses
/// calls; none is cut off.
pub async fn register_once_served(operator: &mut Client, request: RegisterRequest) -> String {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let refused = match operator.stacks.register(request.clone()).await {
            Ok(registered) => return registered.into_inner().stack.unwrap().stack_api_key,
            Err(status) => status,
        };
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(refused.source().is_none(), "cut off: {refused:?}");
        assert!(Instant::now() < until, "{refused:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The google.rpc details of a failed call.
pub fn details(status: &Status) -> ErrorDetails {
    status.get_error_details()
}

/// The ErrorInfo reason of a failed call.
pub fn reason(status: &Status) -> String {
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "stacktoken");
    info.reason
}

/// The fields that a failed call names, in order.
pub fn fields(status: &Status) -> Vec<String> {
    let bad = status
        .get_details_bad_request()
        .unwrap_or_else(|| panic!("no BadRequest: {status:?}"));
    bad.field_violations
        .into_iter()
        .map(|fault| fault.field)
        .collect()
}
