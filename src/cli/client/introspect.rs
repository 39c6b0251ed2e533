//! `stacktoken introspect`: reads a secret from standard input and prints the verdict on its token.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _, Read as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, builder::NonEmptyStringValueParser};
use zeroize::Zeroizing;

use super::{Connect, format::Format, session::Session, text, values};
use crate::{
    cli::exit::{self, ExitError},
    domain::{secret, stack::StackKey, text as text_rules},
    grpc::pb::v1::{self, introspection_service_client::IntrospectionServiceClient},
    telemetry::output::print_error,
};

#[derive(Args)]
#[command(
    after_help = "Example:\n  stacktoken introspect --stack blt00c0ffee00c0ffee \\\n    --jwt-file service.jwt --action entry.publish --branch main < secret"
)]
pub struct Introspect {
    /// Stack API key that was presented with the token
    #[arg(long, env = "STACKTOKEN_STACK", value_parser = NonEmptyStringValueParser::new(), value_name = "KEY")]
    stack: String,
    /// An action to check, such as `entry.update`; can be repeated
    #[arg(long = "action", value_name = "MODULE.VERB")]
    actions: Vec<String>,
    /// The branch that the action applies to
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), requires = "actions", value_name = "NAME")]
    branch: Option<String>,
    /// The branch alias that the request names
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), requires = "actions", value_name = "NAME")]
    alias: Option<String>,
    /// A fact about the request, such as `has_approvers=false`; can be repeated
    #[arg(long = "fact", value_parser = values::fact, requires = "actions", value_name = "NAME=VALUE")]
    facts: Vec<(String, bool)>,
    /// A part to print in addition to the verdict; can be repeated
    #[arg(long = "include", value_enum, value_name = "PART")]
    include: Vec<values::Include>,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Json, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    connect: Connect,
}

impl Introspect {
    fn questions(&self) -> anyhow::Result<Vec<v1::ActionQuestion>> {
        let facts: HashMap<_, _> = values::distinct_facts(&self.facts)?.into_iter().collect();
        let question = |name: &String| v1::ActionQuestion {
            name: name.clone(),
            branch: self.branch.clone().unwrap_or_default(),
            branch_alias: self.alias.clone().unwrap_or_default(),
            facts: facts.clone(),
        };
        Ok(self.actions.iter().map(question).collect())
    }
}

pub async fn introspect(command: Introspect) -> anyhow::Result<ExitCode> {
    let actions = command.questions()?;
    let mut session = Session::new(&command.connect)?;
    let presented = secret_from_stdin()?;
    require_no_credential(presented.trim())?;
    let request = v1::IntrospectRequest {
        token: presented.trim().to_owned(),
        stack_api_key: command.stack.clone(),
        actions,
        min_revision: String::new(),
        include: (command.include.iter())
            .map(|part| part.to_message())
            .collect(),
    };
    let rpc = |channel, request| async {
        let mut introspection = IntrospectionServiceClient::new(channel);
        introspection.introspect(request).await
    };
    let answer = session.call(request, rpc).await?;
    let name = "stacktoken.v1.IntrospectResponse";
    command.output.print(name, &answer, text::verdict)?;
    // Treats a decision that this version does not know as a denial.
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
    if secret.trim().is_empty() {
        let message =
            "no secret on standard input: pipe it in, as in `stacktoken introspect … < secret`";
        return Err(ExitError::usage(message).into());
    }
    Ok(secret)
}

/// Refuses input that is certainly not a token secret, before it is sent. Input that only lacks the
/// current form of a secret is sent with a warning, because a newer server may use another form.
///
/// # Errors
/// Returns an error that names standard input.
fn require_no_credential(presented: &str) -> anyhow::Result<()> {
    let what = if text_rules::holds_jwt(presented) {
        "a JWT, which belongs in --jwt-file"
    } else if StackKey::parse(presented).is_ok() {
        "the API key of a stack, which belongs in --stack"
    } else {
        if secret::recognize(presented).is_none() {
            let note = "note: standard input contains no secret of a management token: a secret \
                        begins with stk1_ and has 51 characters, the last of them a checksum";
            print_error(note.to_owned());
        }
        return Ok(());
    };
    let message = format!(
        "standard input contains {what}, not the secret of a management token; nothing was sent"
    );
    Err(ExitError::usage(message).into())
}
