//! `stacktoken stacks list`: lists the caller's own stacks, with the caller's role in each.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{
    Connect,
    format::Format,
    list::{PageFlags, report_next_page},
    session::Session,
    text::{self, Table},
};
use crate::{
    grpc::pb::v1::{self, token_service_client::TokenServiceClient},
    telemetry::output::print_error,
};

#[derive(Args)]
pub struct Stacks {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the stacks of which the caller is a member, with the caller's role in each
    List(ListStacks),
}

#[derive(Args)]
struct ListStacks {
    #[command(flatten)]
    page: PageFlags,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    connect: Connect,
}

pub async fn stacks(command: Stacks) -> anyhow::Result<ExitCode> {
    let Verb::List(command) = command.command;
    let mut session = Session::new(&command.connect)?;
    let mut request = v1::ListStacksRequest {
        page_size: command.page.size(),
        page_token: command.page.token(),
    };
    let mut stacks = Vec::new();
    loop {
        let rpc = |channel, request| async {
            let mut tokens = TokenServiceClient::new(channel);
            tokens.list_stacks(request).await
        };
        let mut page = session.call(request.clone(), rpc).await?;
        stacks.append(&mut page.stacks);
        if page.next_page_token.is_empty() || command.page.is_single() {
            page.stacks = stacks;
            command
                .output
                .print("stacktoken.v1.ListStacksResponse", &page, table)?;
            if command.output == Format::Text {
                if page.stacks.is_empty() {
                    let hint = "you are a member of no stack: ask an operator to add you";
                    print_error(hint.to_owned());
                }
                report_next_page(&page.next_page_token);
            }
            return Ok(ExitCode::SUCCESS);
        }
        request.page_token = page.next_page_token;
    }
}

fn table(page: &v1::ListStacksResponse) -> String {
    let mut table = Table::new(&["STACK", "NAME", "ORGANIZATION", "STATE", "ROLE"]);
    for stack in &page.stacks {
        table.add(&[
            stack.stack_api_key.clone(),
            stack.name.clone(),
            stack.organization_uid.clone(),
            text::enum_word(stack.state().as_str_name(), "STACK_STATE_"),
            text::enum_word(stack.role().as_str_name(), "ROLE_"),
        ]);
    }
    table.to_string()
}
