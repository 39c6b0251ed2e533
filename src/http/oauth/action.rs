//! Parses the form parameter `action`: the name of an action and its context, as in
//! `entry.update;branch=main;fact.has_approvers=false`.

use super::OauthError;
use crate::grpc::pb::v1::ActionQuestion;

/// Parses one value of `action`. The RPC checks names and lengths.
///
/// # Errors
/// A part is unknown, repeated, or has no value.
pub(super) fn parse(text: &str) -> Result<ActionQuestion, OauthError> {
    let mut parts = text.split(';');
    let mut question = ActionQuestion {
        name: parts.next().unwrap_or_default().to_owned(),
        ..ActionQuestion::default()
    };
    for part in parts {
        let (key, value) = part.split_once('=').ok_or_else(wrong)?;
        match key.strip_prefix("fact.") {
            Some(fact) => {
                let stated = value.parse().map_err(|_| wrong())?;
                if question.facts.insert(fact.to_owned(), stated).is_some() {
                    return Err(wrong());
                }
            }
            None => set(&mut question, key, value)?,
        }
    }
    Ok(question)
}

fn set(question: &mut ActionQuestion, key: &str, value: &str) -> Result<(), OauthError> {
    let field = match key {
        "branch" => &mut question.branch,
        "branch_alias" => &mut question.branch_alias,
        _ => return Err(wrong()),
    };
    if value.is_empty() || !field.is_empty() {
        return Err(wrong());
    }
    value.clone_into(field);
    Ok(())
}

fn wrong() -> OauthError {
    OauthError::invalid_request(
        "action is a name such as entry.update, followed by any of ;branch=NAME, ;branch_alias=NAME and ;fact.NAME=true or =false, each at most once",
    )
}
