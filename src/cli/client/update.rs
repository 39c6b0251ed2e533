//! `stacktoken update`: changes the name, description, permissions or labels of a token.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use prost_types::FieldMask;

use super::{
    federation,
    target::{ChangeOptions, Which},
    text,
    values::{self, Access},
};
use crate::{
    domain::text::TokenName,
    grpc::pb::v1::{self, token_service_client::TokenServiceClient},
};

#[derive(Args)]
#[command(
    after_help = "Example:\n  stacktoken update --stack blt00c0ffee00c0ffee \\\n    --jwt-file owner.jwt --name deploy --new-name deploy-eu --branch main --label team=shop"
)]
pub struct Update {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    edit: EditFlags,
    #[command(flatten)]
    options: ChangeOptions,
}

/// What to change. Everything else stays as it is.
#[derive(Args)]
#[command(next_help_heading = "Changes")]
#[group(required = true, multiple = true)]
struct EditFlags {
    /// The new name, unique among the live tokens of the stack
    #[arg(long, value_parser = TokenName::parse, value_name = "NAME")]
    new_name: Option<TokenName>,
    /// What the token is for; empty to remove the description
    #[arg(long)]
    description: Option<String>,
    /// The most that the token may do
    #[arg(long, value_enum)]
    access: Option<Access>,
    /// Restrict the token to this module instead of those before, as in `entry:read-write`; can be
    /// repeated
    #[arg(long = "module", value_parser = values::grant, value_name = "NAME:ACCESS")]
    modules: Vec<v1::ModuleGrant>,
    /// Remove the restriction to modules
    #[arg(long, conflicts_with = "modules")]
    all_modules: bool,
    /// Restrict the token to this branch instead of the branches and aliases before; can be
    /// repeated
    #[arg(long = "branch", value_name = "NAME")]
    branches: Vec<String>,
    /// Restrict the token to this branch alias instead of the branches and aliases before; can be
    /// repeated
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Remove the restriction to branches and aliases
    #[arg(long, conflicts_with_all = ["branches", "aliases"])]
    all_branches: bool,
    /// Let workloads of this issuer exchange instead of those before, under the rules that --claim and
    /// --claim-prefix give. Only for a federated token; ends all its sessions
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// What a claim of the workload must be, as in `repository_id=74`; can be repeated
    #[arg(
        long = "claim",
        value_parser = federation::claim,
        value_name = "PATH=VALUE",
        requires = "issuer"
    )]
    claims: Vec<federation::Claim>,
    /// What a claim of the workload must begin with, ending in `/`, `:` or `@`; can be repeated
    #[arg(
        long = "claim-prefix",
        value_parser = federation::claim,
        value_name = "PATH=VALUE",
        requires = "issuer"
    )]
    claim_prefixes: Vec<federation::Claim>,
    /// How long a secret of a workload lives, from 1m to 1h. Default: 15m
    #[arg(
        long,
        value_parser = federation::session_for,
        value_name = "TIME",
        requires = "issuer"
    )]
    session_for: Option<Duration>,
    /// Label the token with this instead of the labels before; can be repeated
    #[arg(long = "label", value_parser = values::label, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// Remove all labels
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
}

impl EditFlags {
    /// Returns the paths of the fields to change.
    fn paths(&self) -> Vec<String> {
        let narrows_branches = !self.branches.is_empty() || !self.aliases.is_empty();
        let paths = [
            ("name", self.new_name.is_some()),
            ("description", self.description.is_some()),
            ("labels", self.no_labels || !self.labels.is_empty()),
            ("federation", self.issuer.is_some()),
            ("permissions.access", self.access.is_some()),
            (
                "permissions.modules",
                self.all_modules || !self.modules.is_empty(),
            ),
            (
                "permissions.branches",
                self.all_branches || narrows_branches,
            ),
        ];
        let named = paths.into_iter().filter(|(_, is_named)| *is_named);
        named.map(|(path, _)| path.to_owned()).collect()
    }

    /// Returns a token with the new values, without an id. If [`Self::paths`] contains a part of
    /// the permissions that this token lacks, the server removes that part.
    fn token(&self) -> anyhow::Result<v1::Token> {
        let grants = self.modules.clone();
        let branches = v1::BranchGrants {
            branches: self.branches.clone(),
            aliases: self.aliases.clone(),
        };
        let permissions = v1::Permissions {
            access: self.access.map(Access::to_message).unwrap_or_default(),
            modules: (!grants.is_empty()).then_some(v1::ModuleGrants { grants }),
            branches: (branches != v1::BranchGrants::default()).then_some(branches),
        };
        let name = self.new_name.as_ref().map(TokenName::as_str);
        Ok(v1::Token {
            name: name.unwrap_or_default().to_owned(),
            description: self.description.clone().unwrap_or_default(),
            permissions: Some(permissions),
            labels: values::distinct_labels(&self.labels)?,
            federation: self.issuer.as_ref().map(|issuer| {
                let claims = [&self.claims[..], &self.claim_prefixes[..]];
                federation::message(issuer, claims, self.session_for)
            }),
            ..v1::Token::default()
        })
    }
}

pub async fn update(command: Update) -> anyhow::Result<ExitCode> {
    // The flags are checked before the name is looked up, so that a wrong flag causes no call.
    let mut token = command.edit.token()?;
    let options = &command.options;
    let (mut session, token_uid) = options.start(&command.which).await?;
    token.token_uid.clone_from(&token_uid);
    let request = v1::UpdateRequest {
        stack_api_key: options.on.key.clone(),
        token: Some(token),
        update_mask: Some(FieldMask {
            paths: command.edit.paths(),
        }),
        validate_only: options.change.validate_only,
        etag: options.change.etag(),
    };
    let rpc = |channel, request| async {
        let mut tokens = TokenServiceClient::new(channel);
        tokens.update(request).await
    };
    let answer = session.change(&token_uid, request, rpc).await?;
    let name = "stacktoken.v1.UpdateResponse";
    options.output.print(name, &answer, |answer| {
        let token = text::token(&answer.token.clone().unwrap_or_default());
        if options.change.validate_only {
            let impact = text::impact(answer.impact.as_ref());
            format!("token {token_uid} would be:\n{token}{impact}")
        } else {
            format!("updated token {token_uid}\n{token}")
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
