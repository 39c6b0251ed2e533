//! Converts `ActionService` messages.

use crate::{
    domain::{
        caller::Call,
        catalogue::{Action, ActionAccess, Catalogue, Rule},
        field::Violations,
    },
    grpc::pb::v1,
};

#[expect(clippy::unnecessary_wraps, reason = "parsers have one shape")]
pub const fn list_actions(_: v1::ListActionsRequest, _: &Call) -> Result<(), Violations> {
    Ok(())
}

/// Builds the response with the whole catalogue in effect.
pub fn catalogue(catalogue: &Catalogue) -> v1::ListActionsResponse {
    v1::ListActionsResponse {
        version: catalogue.version().to_owned(),
        actions: catalogue.actions().iter().map(row).collect(),
    }
}

fn row(action: &Action) -> v1::Action {
    let access = match action.access {
        ActionAccess::Read => v1::ActionAccess::Read,
        ActionAccess::Write => v1::ActionAccess::Write,
    };
    let (rule, fact) = match &action.rule {
        Rule::Grantable => (v1::ActionRule::Grantable, None),
        Rule::Never => (v1::ActionRule::Never, None),
        Rule::Conditional(fact) => {
            let fact = v1::Fact {
                name: fact.name.to_string(),
                value: fact.value,
            };
            (v1::ActionRule::Conditional, Some(fact))
        }
    };
    v1::Action {
        name: action.name.to_string(),
        module: action.module.name().to_owned(),
        access: access.into(),
        rule: rule.into(),
        fact,
        branch_bound: action.branch_bound,
    }
}
