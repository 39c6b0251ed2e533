//! gRPC in front of the use cases: parse once, call, convert back. The only room, with the
//! server's, that sees generated types.

/// One call from message to message: parsed whole, run, converted back. A macro, since the
/// compiler cannot yet see that the future of an async closure may move between threads.
macro_rules! answer {
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

mod audit;
mod convert;
mod ext_authz;
mod faults;
pub mod in_words;
mod introspection;
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

/// What the contract's compiler made of `proto/`.
#[expect(
    missing_docs,
    clippy::pedantic,
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

/// The contract with its comments, for reflection and for whoever walks it.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The largest message that is read, and the largest that is sent, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MessageLimits {
    /// Read.
    pub decoding: usize,
    /// Sent.
    pub encoding: usize,
}

/// The services of the contract, and Envoy's, which judges requests by this table.
#[must_use]
pub fn routes(app: &Arc<App>, table: Arc<RouteTable>, limits: MessageLimits) -> Routes {
    use pb::{
        admin::v1::stack_service_server::StackServiceServer,
        audit::v1::audit_service_server::AuditServiceServer,
        v1::token_service_server::TokenServiceServer,
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
        .add_service(limited!(StackServiceServer, stacks::Stacks(app.clone())))
        .add_service(limited!(AuditServiceServer, audit::Audits(app.clone())))
        .add_service(ext_authz::AuthorizationServer(
            ext_authz::Authorization::new(app.clone(), table),
        ))
}

/// The routes with reflection, v1 and v1alpha, comments included.
///
/// # Errors
/// Where the contract's descriptors do not decode, which a test rules out.
pub fn add_reflection(
    routes: Routes,
    max_request_bytes: usize,
) -> Result<Routes, tonic_reflection::server::Error> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that grpcurl can print the details of an error.
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

/// The call that the layers made of this request, and its message.
fn open<M>(request: Request<M>) -> Result<(Call, M), Status> {
    let (_, mut extensions, message) = request.into_parts();
    // Without the layers there is no caller; nothing may run then.
    let call = extensions.remove::<Call>().ok_or_else(status::unlayered)?;
    Ok((call, message))
}
