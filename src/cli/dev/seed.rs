//! Registers the two stacks of `dev` at the first start, in the same way as any other stack.

use crate::{
    domain::{
        caller::{Call, Mode},
        refusal::Refusal,
        stack::{DEFAULT_TOKEN_LIMIT, Person, Role, StackKey},
        text::{Issuer, StackName, Subject},
        timestamp::Timestamp,
    },
    store::{Error, MemberChange, Register, Store},
};

use super::people::ISSUER;

/// The demo stack, which has an owner, an admin and a developer.
pub const STACK: &str = "blt00c0ffee00c0ffee";
/// A second stack, whose only member is the owner of the demo stack.
pub const SECOND_STACK: &str = "blt0000decade000000";

pub async fn seed(store: &Store, now: Timestamp) -> anyhow::Result<()> {
    let call = operator(now);
    if register(store, &call, STACK, "Demo").await? {
        let key = StackKey::parse(STACK)?;
        for (subject, role) in [("admin", Role::Admin), ("developer", Role::Developer)] {
            let change = MemberChange::Set(person(subject)?, role);
            store.change_members(&call, &key, &change).await?;
        }
    }
    register(store, &call, SECOND_STACK, "Second").await?;
    Ok(())
}

/// Registers a stack unless it already exists. Returns whether the stack is new.
async fn register(store: &Store, call: &Call, key: &str, name: &str) -> anyhow::Result<bool> {
    let command = Register {
        stack_key: StackKey::parse(key)?,
        name: StackName::parse(name)?,
        organization_uid: "demo".to_owned(),
        owner: person("owner")?,
        token_limit: DEFAULT_TOKEN_LIMIT,
        request: None,
    };
    match store.register_stack(call, &command).await {
        Ok(_) => Ok(true),
        Err(Error::Refused(Refusal::StackKeyTaken { .. })) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn person(subject: &str) -> anyhow::Result<Person> {
    let issuer = Issuer::parse(ISSUER)?;
    Ok(Person {
        issuer,
        subject: Subject::parse(subject)?,
        email: None,
    })
}

fn operator(now: Timestamp) -> Call {
    Call::of_program((ISSUER, "operator"), "dev".to_owned(), (now, Mode::Apply))
}
