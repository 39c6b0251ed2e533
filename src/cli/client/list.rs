//! `stacktoken list`: lists the tokens of a stack.

use std::process::ExitCode;

use clap::Args;

use super::{
    Connect,
    filter::FilterFlags,
    format::Format,
    session::Session,
    stack_key,
    text::{self, Table},
};
use crate::{
    cli::exit::ExitError,
    grpc::pb::v1::{self, TokenOrder, token_service_client::TokenServiceClient},
    telemetry::output::print_error,
};

#[derive(Args)]
#[command(
    after_help = "Example:\n  stacktoken list --stack blt00c0ffee00c0ffee \\\n    --jwt-file owner.jwt --state active --unused-since 90d"
)]
pub struct List {
    #[command(flatten)]
    scope: Scope,
    /// Order of the tokens
    #[arg(long, value_enum, default_value_t = Order::Newest, value_name = "ORDER")]
    order: Order,
    #[command(flatten)]
    page: PageFlags,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    connect: Connect,
}

/// Whose tokens are listed.
#[derive(Args)]
struct Scope {
    /// API key of the stack
    #[arg(
        long = "stack",
        id = "stack",
        env = "STACKTOKEN_STACK",
        value_parser = stack_key,
        value_name = "KEY"
    )]
    key: Option<String>,
    /// List the tokens of all stacks, in the order newest or oldest; for operators only
    #[arg(long)]
    all_stacks: bool,
}

impl Scope {
    /// If listing all stacks was refused, adds to the error that only operators may do so.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        match error.downcast::<ExitError>() {
            Ok(failed) if self.all_stacks && failed.is_usage() => failed
                .with_hint("--all-stacks is for operators only")
                .into(),
            Ok(failed) => failed.into(),
            Err(error) => error,
        }
    }

    /// Returns the stack whose tokens to list; empty for all stacks.
    fn stack(&self) -> Result<String, ExitError> {
        match (&self.key, self.all_stacks) {
            (Some(key), false) => Ok(key.clone()),
            (None, true) => Ok(String::new()),
            (Some(_), true) => Err(ExitError::usage(
                "--stack (also set by STACKTOKEN_STACK) and --all-stacks exclude each other: keep \
                 one",
            )),
            (None, false) => Err(ExitError::usage(
                "--stack KEY is required (also set by STACKTOKEN_STACK), or --all-stacks",
            )),
        }
    }
}

/// Which page to print. Without these flags, all pages are printed as one.
#[derive(Args)]
pub struct PageFlags {
    /// Print only one page, with at most this many entries, from 1 to 100. Default: all pages
    #[arg(long, value_parser = page_size, value_name = "COUNT")]
    page_size: Option<i32>,
    /// Print only the page that follows the page with this token
    #[arg(long, value_name = "TOKEN")]
    page_token: Option<String>,
}

impl PageFlags {
    /// Returns whether only one page is printed.
    pub fn is_single(&self) -> bool {
        self.page_size.is_some() || self.page_token.is_some()
    }

    /// Returns the page size to request. If all pages are printed, this is the maximum.
    pub fn size(&self) -> i32 {
        let default = if self.is_single() { 0 } else { LARGEST_PAGE };
        self.page_size.unwrap_or(default)
    }

    /// Returns the page token to send; empty for the first page.
    pub fn token(&self) -> String {
        self.page_token.clone().unwrap_or_default()
    }
}

const LARGEST_PAGE: i32 = 100;

fn page_size(text: &str) -> Result<i32, &'static str> {
    let size = text.parse().ok();
    let size = size.filter(|size| (1..=LARGEST_PAGE).contains(size));
    size.ok_or("expected a number from 1 to 100; leave it out to print all pages")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Order {
    /// By issue, the newest first
    Newest,
    /// By issue, the oldest first
    Oldest,
    /// By expiry, the soonest first; tokens that never expire come last
    Expires,
    /// By name
    Name,
}

impl Order {
    const fn to_message(self) -> TokenOrder {
        match self {
            Self::Newest => TokenOrder::NewestFirst,
            Self::Oldest => TokenOrder::OldestFirst,
            Self::Expires => TokenOrder::ExpiresFirst,
            Self::Name => TokenOrder::Name,
        }
    }
}

pub async fn list(command: List) -> anyhow::Result<ExitCode> {
    if command.scope.all_stacks && [Order::Expires, Order::Name].contains(&command.order) {
        let message = "--order expires and --order name are for the tokens of one stack: with \
                       --all-stacks, use newest or oldest";
        return Err(ExitError::usage(message).into());
    }
    let mut request = v1::ListRequest {
        stack_api_key: command.scope.stack()?,
        page_size: command.page.size(),
        page_token: command.page.token(),
        order: command.order.to_message().into(),
        ..command.filter.to_message()?
    };
    let mut session = Session::new(&command.connect)?;
    let mut tokens = Vec::new();
    loop {
        let rpc = |channel, request| async {
            let mut tokens = TokenServiceClient::new(channel);
            tokens.list(request).await
        };
        let called = session.call(request.clone(), rpc).await;
        let mut page = called.map_err(|error| command.scope.explain(error))?;
        tokens.append(&mut page.tokens);
        if page.next_page_token.is_empty() || command.page.is_single() {
            page.tokens = tokens;
            print(&command, &page)?;
            return Ok(ExitCode::SUCCESS);
        }
        request.page_token = page.next_page_token;
    }
}

fn print(command: &List, page: &v1::ListResponse) -> anyhow::Result<()> {
    let name = "stacktoken.v1.ListResponse";
    let is_everywhere = command.scope.all_stacks;
    command
        .output
        .print(name, page, |page| table(&page.tokens, is_everywhere))?;
    if command.output == Format::Text {
        if let Some(limit) = &page.limit {
            let (used, max) = (limit.used, limit.max);
            print_error(format!("{used} of at most {max} live tokens in the stack"));
        }
        report_next_page(&page.next_page_token);
    }
    Ok(())
}

/// Reports on standard error how to print the next page, if there is one.
pub fn report_next_page(token: &str) {
    if !token.is_empty() {
        print_error(format!(
            "there is a next page: --page-token {}",
            text::printable(token)
        ));
    }
}

/// Formats tokens as a table. If `is_everywhere`, adds a column with the stack of each token.
fn table(tokens: &[v1::Token], is_everywhere: bool) -> String {
    let mut headings = vec![
        "TOKEN",
        "NAME",
        "STATE",
        "ACCESS",
        "SECRETS",
        "EXPIRES",
        "LAST USED",
    ];
    if is_everywhere {
        headings.push("STACK");
    }
    let mut table = Table::new(&headings);
    for token in tokens {
        let mut row = vec![
            token.token_uid.clone(),
            token.name.clone(),
            text::enum_word(token.state().as_str_name(), "TOKEN_STATE_"),
            text::access(token.permissions.as_ref()),
            text::hints(&token.secrets),
            text::instant(token.expires_at.as_ref(), "never"),
            text::instant(token.last_used_at.as_ref(), "never"),
        ];
        if is_everywhere {
            row.push(token.stack_api_key.clone());
        }
        table.add(&row);
    }
    table.to_string()
}
