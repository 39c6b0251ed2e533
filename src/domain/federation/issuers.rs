//! Holds the issuers of workloads' JWTs that the operator has configured.

use std::collections::BTreeMap;

use super::{Provider, Replay};
use crate::domain::stack::StackKey;

/// An issuer of workloads' JWTs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederationIssuer {
    /// The operator's name for the issuer, which must never change.
    pub name: String,
    /// The provider, which determines the rules that a token needs.
    pub provider: Provider,
    /// The audience of the issuer's JWTs.
    pub audience: String,
    /// How often a JWT can be exchanged.
    pub replay: Replay,
    /// The stacks whose tokens may trust the issuer. `None` permits all stacks.
    pub stacks: Option<Vec<StackKey>>,
}

impl FederationIssuer {
    /// Returns whether tokens of this stack may trust the issuer.
    #[must_use]
    pub fn serves(&self, stack: &StackKey) -> bool {
        let stacks = self.stacks.as_ref();
        stacks.is_none_or(|stacks| stacks.contains(stack))
    }
}

/// The configured issuers, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FederationIssuers(BTreeMap<String, FederationIssuer>);

impl FederationIssuers {
    /// Returns the issuer with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&FederationIssuer> {
        self.0.get(name)
    }

    /// Returns the issuers that tokens of this stack may trust, in the order of their names.
    pub fn of_stack<'a>(
        &'a self,
        stack: &'a StackKey,
    ) -> impl Iterator<Item = &'a FederationIssuer> {
        self.0.values().filter(move |issuer| issuer.serves(stack))
    }
}

impl FromIterator<FederationIssuer> for FederationIssuers {
    fn from_iter<I: IntoIterator<Item = FederationIssuer>>(issuers: I) -> Self {
        let named = issuers.into_iter().map(|each| (each.name.clone(), each));
        Self(named.collect())
    }
}
