//! The gRPC interface of the use cases. A handler parses a request, calls a use case, and converts
//! the result to a response.

/// Handles one call: parses the message, runs the use case and converts the result. This is a macro
/// because the compiler cannot yet prove that the future of an async closure is `Send`.
macro_rules! handle {
    ($request:expr, $parse:expr, |$call:ident, $command:pat_param| $run:expr $(,)?) => {{
        let (call, message) = $crate::grpc::open($request)?;
        let $call = &call;
        let answered: Result<_, $crate::grpc::status::Failure> = match $parse(message, $call) {
            Ok($command) => {
                let done: Result<_, $crate::app::Error> = async { $run }.await;
                done.map_err(Into::into)
            }
            Err(faults) => Err(faults.into()),
        };
        answered
            .map(Response::new)
            .map_err(|failure| $crate::grpc::status::of(failure, &call.request_id))
    }};
}

/// Like `handle!`, but for a change. If the message has `validate_only` set, the change is only
/// previewed.
macro_rules! handle_change {
    ($request:expr, $parse:expr, |$call:ident, $command:pat_param| $run:expr $(,)?) => {{
        let mut request = $request;
        let mode = $crate::domain::caller::Mode::of(request.get_ref().validate_only);
        if let Some(call) = request
            .extensions_mut()
            .get_mut::<$crate::domain::caller::Call>()
        {
            call.mode = mode;
        }
        handle!(request, $parse, |$call, $command| $run)
    }};
}

mod actions;
mod audit;
pub mod code;
mod convert;
mod exchange;
mod ext_authz;
mod field_violations;
pub mod framing;
pub mod from_cache;
mod health_descriptors;
mod introspection;
mod leaks;
mod redact;
mod stacks;
pub mod status;
mod tokens;
mod watch;
mod wide;

use std::sync::Arc;

use tonic::{Request, Status, service::Routes};

use crate::{
    app::App,
    domain::{caller::Call, routes::RouteTable},
};

/// The code that is generated from `proto/`.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::large_enum_variant,
    reason = "generated; the contract documents it"
)]
pub mod pb {
    pub mod v1 {
        tonic::include_proto!("stacktoken.v1");
    }
    pub mod admin {
        pub mod v1 {
            tonic::include_proto!("stacktoken.admin.v1");
        }
    }
    pub mod audit {
        pub mod v1 {
            tonic::include_proto!("stacktoken.audit.v1");
        }
    }
}

/// The encoded descriptors of the API, with comments, for reflection and for tools.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// Limits on the size of messages, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MessageLimits {
    /// Maximum size of a received message.
    pub decoding: usize,
    /// Maximum size of a sent message.
    pub encoding: usize,
}

/// Builds the router for the API's services and Envoy's authorization service, which uses the route
/// `table`.
#[must_use]
pub fn routes(app: &Arc<App>, table: Arc<RouteTable>, limits: MessageLimits) -> Routes {
    use pb::{
        admin::v1::stack_service_server::StackServiceServer,
        audit::v1::audit_service_server::AuditServiceServer,
        v1::{
            action_service_server::ActionServiceServer,
            exchange_service_server::ExchangeServiceServer, leak_service_server::LeakServiceServer,
            token_service_server::TokenServiceServer,
        },
    };
    let MessageLimits { decoding, encoding } = limits;
    macro_rules! limited {
        ($server:ident, $service:expr) => {
            $server::new($service)
                .max_decoding_message_size(decoding)
                .max_encoding_message_size(encoding)
        };
    }
    Routes::new(limited!(TokenServiceServer, tokens::Tokens(app.clone())))
        .add_service(wide::IntrospectionServer::new(
            introspection::Introspections(app.clone()),
            limits,
        ))
        .add_service(limited!(ActionServiceServer, actions::Actions(app.clone())))
        .add_service(limited!(LeakServiceServer, leaks::Leaks(app.clone())))
        .add_service(limited!(
            ExchangeServiceServer,
            exchange::Exchanges(app.clone())
        ))
        .add_service(limited!(StackServiceServer, stacks::Stacks(app.clone())))
        .add_service(limited!(AuditServiceServer, audit::Audits(app.clone())))
        .add_service(ext_authz::AuthorizationServer(
            ext_authz::Authorization::new(app.clone(), table),
        ))
}

/// Adds reflection v1 and v1alpha, with comments, to the routes.
///
/// # Errors
/// Returns an error if the API's descriptors cannot be decoded. A test ensures that they can.
pub fn add_reflection(
    routes: Routes,
    max_request_bytes: usize,
) -> Result<Routes, tonic_reflection::server::Error> {
    let health = health_descriptors::health()?;
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_file_descriptor_set(health.clone())
            // grpcurl needs the descriptors of the error details to print them.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(routes
        .add_service(
            builder()
                .build_v1()?
                .max_decoding_message_size(max_request_bytes),
        )
        .add_service(
            builder()
                .build_v1alpha()?
                .max_decoding_message_size(max_request_bytes),
        ))
}

/// Splits a request into its message and the `Call` that the middleware attached.
fn open<M>(request: Request<M>) -> Result<(Call, M), Status> {
    let (_, mut extensions, message) = request.into_parts();
    // A request without a `Call` has bypassed the middleware. Its caller is unknown, so the request
    // must fail.
    let call = extensions.remove::<Call>().ok_or_else(status::unlayered)?;
    Ok((call, message))
}
