//! `stacktoken introspect`: reads a secret from standard input and prints the verdict on its token.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _, Read as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use zeroize::Zeroizing;

use super::{Connect, values};
use crate::{
    cli::{exit, output},
    grpc::{
        in_words,
        pb::v1::{self, introspection_service_client::IntrospectionServiceClient},
    },
};

#[derive(Args)]
pub struct Introspect {
    #[command(flatten)]
    connect: Connect,
    /// An action to check, such as `entry.update`; can be repeated
    #[arg(long = "action", value_name = "MODULE.VERB")]
    actions: Vec<String>,
    /// The branch that the action applies to
    #[arg(long, default_value = "", hide_default_value = true)]
    branch: String,
    /// The branch alias that the request names
    #[arg(long, default_value = "", hide_default_value = true)]
    alias: String,
    /// A fact about the request, such as `has_approvers=false`; can be repeated
    #[arg(long = "fact", value_parser = values::fact, value_name = "NAME=VALUE")]
    facts: Vec<(String, String)>,
}

impl Introspect {
    fn questions(&self) -> Vec<v1::ActionQuestion> {
        let facts: HashMap<_, _> = self.facts.iter().cloned().collect();
        let question = |name: &String| v1::ActionQuestion {
            name: name.clone(),
            branch: self.branch.clone(),
            branch_alias: self.alias.clone(),
            facts: facts.clone(),
        };
        self.actions.iter().map(question).collect()
    }
}

pub async fn introspect(command: Introspect) -> anyhow::Result<ExitCode> {
    let request = v1::IntrospectRequest {
        token: secret_from_stdin()?.trim().to_owned(),
        stack_api_key: command.connect.stack.clone(),
        actions: command.questions(),
        min_revision: String::new(),
    };
    let rpc = |channel, request| async {
        let mut introspection = IntrospectionServiceClient::new(channel);
        introspection.introspect(request).await
    };
    let answer = command.connect.call(request, rpc).await?;
    output::line(&in_words::introspection(&answer))?;
    // If the server sends a decision that this version does not know, the action counts as denied.
    let allowed = command.actions.is_empty() || answer.decision() == v1::Decision::Allow;
    Ok(if answer.active && allowed {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::REFUSED)
    })
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
    anyhow::ensure!(
        !secret.trim().is_empty(),
        "no secret on standard input: pipe it in, as in `stacktoken introspect … < secret`"
    );
    Ok(secret)
}
