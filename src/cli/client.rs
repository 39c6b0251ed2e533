//! The two client verbs, so that a newcomer needs no other tool. A secret is read from
//! standard input and written to standard output, and is never an argument.

use std::{
    collections::HashMap,
    fs,
    io::{self, IsTerminal as _, Read as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use tonic::{Code, Request, Status, metadata::MetadataValue};
use zeroize::Zeroizing;

use super::connect::Server;
use crate::grpc::{
    in_words,
    pb::v1::{
        self, introspection_service_client::IntrospectionServiceClient,
        token_service_client::TokenServiceClient,
    },
};

/// Exit codes that scripts can tell apart: see the README.
const NOT_FOUND: u8 = 3;
const REFUSED: u8 = 4;
const UNAVAILABLE: u8 = 5;

#[derive(Args)]
struct Connect {
    #[command(flatten)]
    server: Server,
    /// The stack's public key
    #[arg(long, value_name = "KEY")]
    stack: String,
    /// The caller's JWT
    #[arg(long, env = "STACKTOKEN_JWT", hide_env_values = true, hide = true)]
    jwt: Option<String>,
    /// A file that holds the caller's JWT; or set STACKTOKEN_JWT
    #[arg(long, env = "STACKTOKEN_JWT_FILE", value_name = "FILE")]
    jwt_file: Option<PathBuf>,
}

#[derive(Args)]
pub struct Issue {
    #[command(flatten)]
    connect: Connect,
    /// The token's name, unique among the live tokens of the stack
    #[arg(long)]
    name: String,
    /// What it is for
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// What it may do at most
    #[arg(long, value_enum)]
    access: Access,
    /// When it expires: never, a date such as 2027-01-31 (00:00 UTC), or an RFC 3339 instant
    #[arg(long, value_name = "WHEN")]
    expires: String,
    /// Narrow it to a module, as in `entry:read-write`; may be given several times
    #[arg(long = "module", value_name = "NAME:ACCESS")]
    modules: Vec<String>,
    /// Narrow it to a branch; may be given several times
    #[arg(long = "branch", value_name = "NAME")]
    branches: Vec<String>,
    /// Narrow it to a branch alias; may be given several times
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Access {
    Read,
    ReadWrite,
}

#[derive(Args)]
pub struct Introspect {
    #[command(flatten)]
    connect: Connect,
    /// An action at hand, such as `entry.update`; may be given several times
    #[arg(long = "action", value_name = "MODULE.VERB")]
    actions: Vec<String>,
    /// The branch that is worked on
    #[arg(long, default_value = "", hide_default_value = true)]
    branch: String,
    /// The branch alias that was named
    #[arg(long, default_value = "", hide_default_value = true)]
    alias: String,
    /// A fact, such as `has_approvers=false`; may be given several times
    #[arg(long = "fact", value_name = "NAME=VALUE")]
    facts: Vec<String>,
}

pub async fn issue(command: Issue) -> anyhow::Result<ExitCode> {
    let request = v1::IssueRequest {
        stack_api_key: command.connect.stack.clone(),
        name: command.name,
        description: command.description,
        permissions: Some(permissions(
            command.access,
            &command.modules,
            (command.branches, command.aliases),
        )?),
        request_id: String::new(),
        validate_only: false,
        expiry: Some(expiry(&command.expires)?),
    };
    let (channel, request) = command.connect.prepare(request).await?;
    match TokenServiceClient::new(channel).issue(request).await {
        Ok(issued) => {
            let v1::IssueResponse { token, secret, .. } = issued.into_inner();
            let uid = token.map(|token| token.token_uid).unwrap_or_default();
            eprintln!("issued token {uid}; this is the only time its secret is shown");
            println!("{secret}");
            Ok(ExitCode::SUCCESS)
        }
        Err(status) => Ok(told(&status)),
    }
}

pub async fn introspect(command: Introspect) -> anyhow::Result<ExitCode> {
    let facts: HashMap<_, _> = command
        .facts
        .iter()
        .map(|text| fact(text))
        .collect::<Result<_, _>>()?;
    let question = |name: String| v1::ActionQuestion {
        name,
        branch: command.branch.clone(),
        branch_alias: command.alias.clone(),
        facts: facts.clone(),
    };
    let request = v1::IntrospectRequest {
        token: secret_from_stdin()?.trim().to_owned(),
        stack_api_key: command.connect.stack.clone(),
        actions: command.actions.into_iter().map(question).collect(),
        min_revision: String::new(),
    };
    let (channel, request) = command.connect.prepare(request).await?;
    match IntrospectionServiceClient::new(channel)
        .introspect(request)
        .await
    {
        Ok(answer) => {
            let answer = answer.into_inner();
            println!("{}", in_words::introspection(&answer));
            let good = answer.active && answer.decision() != v1::Decision::Deny;
            Ok(if good {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(REFUSED)
            })
        }
        Err(status) => Ok(told(&status)),
    }
}

impl Connect {
    /// A connection, and the request with the caller's credential on it.
    async fn prepare<T>(
        self,
        message: T,
    ) -> anyhow::Result<(tonic::transport::Channel, Request<T>)> {
        let jwt = match (self.jwt, &self.jwt_file) {
            (Some(jwt), _) => Some(jwt),
            (None, Some(file)) => Some(
                fs::read_to_string(file)
                    .with_context(|| format!("--jwt-file: cannot read {}", file.display()))?,
            ),
            (None, None) if self.server.has_certificate() => None,
            (None, None) => bail!("no credential: set STACKTOKEN_JWT, or give --jwt-file FILE"),
        };
        let mut request = Request::new(message);
        if let Some(jwt) = jwt {
            let credential = MetadataValue::try_from(format!("Bearer {}", jwt.trim()));
            let credential = credential.context("the JWT holds characters that cannot be sent")?;
            request.metadata_mut().insert("authorization", credential);
        }
        let channel = self.server.connect().await?;
        Ok((channel, request))
    }
}

fn secret_from_stdin() -> anyhow::Result<Zeroizing<String>> {
    if io::stdin().is_terminal() {
        eprintln!("paste the secret, then end with Ctrl-D:");
    }
    let mut secret = Zeroizing::new(String::with_capacity(1024));
    io::stdin()
        .take(1024)
        .read_to_string(&mut secret)
        .context("standard input")?;
    if secret.trim().is_empty() {
        bail!("no secret on standard input: pipe it in, as in `stacktoken introspect … < secret`");
    }
    Ok(secret)
}

/// What the server said, on standard error, and the exit code for it.
fn told(status: &Status) -> ExitCode {
    eprintln!("stacktoken: {:?}: {}", status.code(), status.message());
    ExitCode::from(match status.code() {
        Code::NotFound => NOT_FOUND,
        Code::Unavailable | Code::DeadlineExceeded => UNAVAILABLE,
        _ => REFUSED,
    })
}

fn access(access: Access) -> i32 {
    match access {
        Access::Read => v1::Access::Read.into(),
        Access::ReadWrite => v1::Access::ReadWrite.into(),
    }
}

fn permissions(
    ceiling: Access,
    modules: &[String],
    (branches, aliases): (Vec<String>, Vec<String>),
) -> anyhow::Result<v1::Permissions> {
    let grants: Vec<_> = modules
        .iter()
        .map(|text| grant(text))
        .collect::<Result<_, _>>()?;
    let narrowed = !branches.is_empty() || !aliases.is_empty();
    Ok(v1::Permissions {
        access: access(ceiling),
        modules: (!grants.is_empty()).then_some(v1::ModuleGrants { grants }),
        branches: narrowed.then_some(v1::BranchGrants { branches, aliases }),
    })
}

fn grant(text: &str) -> anyhow::Result<v1::ModuleGrant> {
    let (module, granted) = match text.split_once(':') {
        Some((module, "read")) => (module, Access::Read),
        Some((module, "read-write")) => (module, Access::ReadWrite),
        _ => bail!("--module {text}: expected NAME:read or NAME:read-write"),
    };
    Ok(v1::ModuleGrant {
        module: module.to_owned(),
        access: access(granted),
    })
}

fn expiry(text: &str) -> anyhow::Result<v1::Expiry> {
    use v1::expiry::Expiry;
    let expiry = match text {
        "never" => Expiry::Never(true),
        date if date.len() == 10 => Expiry::OnDate(date.to_owned()),
        instant => Expiry::At(in_words::parse_instant(instant).with_context(|| {
            format!("--expires {instant}: expected never, YYYY-MM-DD or an RFC 3339 instant")
        })?),
    };
    Ok(v1::Expiry {
        expiry: Some(expiry),
    })
}

fn fact(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once('=').with_context(|| {
        format!("--fact {text}: expected NAME=true or NAME=false, such as has_approvers=false")
    })?;
    Ok((name.to_owned(), value.to_owned()))
}
