//! Tests that reflection serves the whole contract, so that `grpcurl` needs no proto files.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorProto;
use tonic::Code;

use crate::support::{TestServer, raw};

/// Defines a client for one version of the reflection service. The versions differ only in name.
macro_rules! version {
    ($version:ident) => {
        pub mod $version {
            use tonic::Status;
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest,
                server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse::{
                    self, FileDescriptorResponse, ListServicesResponse,
                },
            };

            use crate::support::TestServer;

            async fn ask(
                server: &TestServer,
                question: MessageRequest,
            ) -> Result<MessageResponse, Status> {
                let mut client = ServerReflectionClient::new(server.channel().await);
                let request = ServerReflectionRequest {
                    host: String::new(),
                    message_request: Some(question),
                };
                let answers = client.server_reflection_info(tokio_stream::iter([request]));
                let answer = answers.await?.into_inner().message().await?.unwrap();
                Ok(answer.message_response.unwrap())
            }

            pub async fn list_services(server: &TestServer) -> Result<Vec<String>, Status> {
                match ask(server, MessageRequest::ListServices(String::new())).await? {
                    ListServicesResponse(listed) => {
                        let names = listed.service.into_iter().map(|service| service.name);
                        Ok(names.collect())
                    }
                    other => panic!("{other:?}"),
                }
            }

            pub async fn files_of(
                server: &TestServer,
                symbol: &str,
            ) -> Result<Vec<Vec<u8>>, Status> {
                let question = MessageRequest::FileContainingSymbol(symbol.into());
                match ask(server, question).await? {
                    FileDescriptorResponse(found) => Ok(found.file_descriptor_proto),
                    other => panic!("{other:?}"),
                }
            }
        }
    };
}

version!(v1);
version!(v1alpha);

fn ours() -> Vec<String> {
    let services = raw::services();
    services
        .iter()
        .map(|service| service.full_name().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_list_our_services_and_health_without_credentials() {
    let server = TestServer::start().await;
    for listed in [
        v1::list_services(&server).await.unwrap(),
        v1alpha::list_services(&server).await.unwrap(),
    ] {
        let listed: BTreeSet<_> = listed.into_iter().collect();
        for name in ours() {
            assert!(listed.contains(&name), "{name} is not in {listed:?}");
        }
        assert!(listed.contains("grpc.health.v1.Health"), "{listed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_describe_our_services_with_their_comments() {
    let server = TestServer::start().await;
    for name in ours() {
        for files in [
            v1::files_of(&server, &name).await.unwrap(),
            v1alpha::files_of(&server, &name).await.unwrap(),
        ] {
            let file = FileDescriptorProto::decode(files[0].as_slice()).unwrap();
            let package = file.package();
            let services = file.service.iter();
            let mut named = services.map(|service| format!("{package}.{}", service.name()));
            assert!(named.any(|service| service == name), "{name}");
            let comments = file.source_code_info.unwrap().location;
            let comments = comments.iter().filter(|at| at.leading_comments.is_some());
            assert!(comments.count() > 5, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_details_of_errors_can_be_described_too() {
    let server = TestServer::start().await;
    for detail in [
        "ErrorInfo",
        "BadRequest",
        "QuotaFailure",
        "RetryInfo",
        "RequestInfo",
    ] {
        let files = v1::files_of(&server, &format!("google.rpc.{detail}"))
            .await
            .unwrap();
        assert!(!files.is_empty(), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_that_is_switched_off_is_not_there() {
    let server = TestServer::start_with(|tuning| tuning.reflection = false).await;
    for answered in [
        v1::list_services(&server).await,
        v1alpha::list_services(&server).await,
    ] {
        let status = answered.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        raw::require_form(&status, "reflection");
    }
}
