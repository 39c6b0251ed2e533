//! gRPC clients for each role, and helpers that extract the details from an error status.

use std::{
    error::Error as _,
    time::{Duration, Instant},
};

use stacktoken::grpc::pb::{
    admin::v1::{RegisterRequest, stack_service_client::StackServiceClient},
    audit::v1::audit_service_client::AuditServiceClient,
    v1::{
        action_service_client::ActionServiceClient, exchange_service_client::ExchangeServiceClient,
        introspection_service_client::IntrospectionServiceClient,
        leak_service_client::LeakServiceClient, token_service_client::TokenServiceClient,
    },
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_types::{ErrorDetails, StatusExt as _};

/// An interceptor that sends one credential, or none.
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

/// The clients of one caller. There is one client for each service.
#[derive(Clone)]
pub struct Client {
    pub tokens: TokenServiceClient<Transport>,
    pub leaks: LeakServiceClient<Transport>,
    pub exchange: ExchangeServiceClient<Transport>,
    pub introspection: IntrospectionServiceClient<Transport>,
    pub actions: ActionServiceClient<Transport>,
    pub stacks: StackServiceClient<Transport>,
    pub audit: AuditServiceClient<Transport>,
}

impl Client {
    pub fn new(channel: Channel, authorization: Option<String>) -> Self {
        let value = authorization.map(|text| MetadataValue::try_from(text).unwrap());
        let credential = Credential(value);
        Self {
            tokens: TokenServiceClient::with_interceptor(channel.clone(), credential.clone()),
            leaks: LeakServiceClient::with_interceptor(channel.clone(), credential.clone()),
            exchange: ExchangeServiceClient::with_interceptor(channel.clone(), credential.clone()),
            introspection: IntrospectionServiceClient::with_interceptor(
                channel.clone(),
                credential.clone(),
            ),
            actions: ActionServiceClient::with_interceptor(channel.clone(), credential.clone()),
            stacks: StackServiceClient::with_interceptor(channel.clone(), credential.clone()),
            audit: AuditServiceClient::with_interceptor(channel, credential),
        }
    }
}

/// Registers a stack at a replica that was just started. The replica may refuse calls until it has
/// reached its database, but must answer every one.
pub async fn register_once_served(operator: &mut Client, request: RegisterRequest) -> String {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let refused = match operator.stacks.register(request.clone()).await {
            Ok(registered) => return registered.into_inner().stack.unwrap().stack_api_key,
            Err(status) => status,
        };
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(
            refused.source().is_none(),
            "the call was dropped: {refused:?}"
        );
        assert!(Instant::now() < until, "{refused:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the google.rpc details of a failed call.
pub fn details(status: &Status) -> ErrorDetails {
    status.get_error_details()
}

/// Returns the ErrorInfo reason of a failed call.
pub fn reason(status: &Status) -> String {
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "stacktoken");
    info.reason
}

/// Returns the fields that the error of a failed call names, in order.
pub fn fields(status: &Status) -> Vec<String> {
    let bad = status
        .get_details_bad_request()
        .unwrap_or_else(|| panic!("no BadRequest: {status:?}"));
    bad.field_violations
        .into_iter()
        .map(|fault| fault.field)
        .collect()
}
