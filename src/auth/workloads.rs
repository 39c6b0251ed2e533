//! Parses the keys that only `[[issuers]]` entries for workloads have, and checks that such entries
//! do not conflict with other entries.

use std::collections::HashMap;

use super::{
    entry::{Entry, IssuersError},
    issuers::IssuerEntry,
};
use crate::domain::{
    caller::CallerKind,
    federation::{FederationIssuer, Provider, Replay},
    stack::StackKey,
    text,
};

/// The keys that only an entry for workloads can have.
const KEYS: [&str; 4] = ["name", "provider", "stacks", "replay"];

impl Entry<'_> {
    /// Parses the keys of an entry for workloads. Returns `None` for another kind of caller.
    pub fn workload(&self, caller: CallerKind) -> Result<Option<FederationIssuer>, IssuersError> {
        if caller != CallerKind::Workload {
            let key = KEYS.iter().find(|key| self.get(key).is_some());
            return key.map_or(Ok(None), |key| {
                Err(self.fault(key, "is only for caller = \"workload\": remove it"))
            });
        }
        let provider = self.provider()?;
        Ok(Some(FederationIssuer {
            name: self.name()?,
            provider,
            audience: self.text("audience")?.to_owned(),
            stacks: self.stacks()?,
            replay: self.replay()?.unwrap_or(provider.default_replay()),
        }))
    }

    fn name(&self) -> Result<String, IssuersError> {
        text::parse_slug(self.text("name")?)
            .map_err(|problem| self.fault("name", &problem.to_string()))
    }

    fn provider(&self) -> Result<Provider, IssuersError> {
        Provider::from_name(self.text("provider")?).ok_or_else(|| {
            let names = Provider::ALL.map(Provider::name).join(", ");
            let problem = format!("is not a provider: write one of {names}");
            self.fault("provider", &problem)
        })
    }

    fn stacks(&self) -> Result<Option<Vec<StackKey>>, IssuersError> {
        let Some(texts) = self.texts("stacks")? else {
            return Ok(None);
        };
        if texts.is_empty() {
            let problem = "is empty and would allow no stack: list API keys, or remove it to allow \
                           all stacks";
            return Err(self.fault("stacks", problem));
        }
        let keys = texts.into_iter().map(|text| {
            StackKey::parse(text)
                .map_err(|problem| self.fault("stacks", &format!("contains {text:?}: {problem}")))
        });
        keys.collect::<Result<_, _>>().map(Some)
    }

    fn replay(&self) -> Result<Option<Replay>, IssuersError> {
        let Some(text) = self.optional_text("replay")? else {
            return Ok(None);
        };
        let problem = "must be \"once\" or \"reusable\"";
        let replay = Replay::from_name(text).ok_or_else(|| self.fault("replay", problem))?;
        Ok(Some(replay))
    }
}

/// Checks that the entries for workloads do not conflict with each other or with other entries. A
/// name must be unique, because tokens refer to it. Entries with the same `iss` must have different
/// audiences, because only the audience distinguishes them. All SPIFFE entries must have different
/// audiences, because a SPIFFE JWT may lack `iss`.
pub(super) fn check(entries: &[IssuerEntry]) -> Result<(), IssuersError> {
    let mut names = HashMap::new();
    for (entry, number) in entries.iter().zip(1..) {
        let Some(workload) = &entry.workload else {
            continue;
        };
        let fault = |key: &str, problem: &str| {
            IssuersError(format!("issuers entry {number}, `{key}` {problem}"))
        };
        if let Some(other) = names.insert(&workload.name, number) {
            let problem = format!(
                "is the name of entry {other} too: give each issuer a name of its own, which is \
                 permanent because tokens refer to it"
            );
            return Err(fault("name", &problem));
        }
        let shares = |other: &IssuerEntry| {
            other.audience == entry.audience
                && (other.issuer == entry.issuer || (entry.is_spiffe() && other.is_spiffe()))
        };
        let mut others = entries.iter().zip(1..);
        if let Some((_, other)) = others.find(|(it, at)| *at != number && shares(it)) {
            let problem = format!(
                "is that of entry {other} too, which accepts JWTs of the same issuer: give the \
                 entry an audience that nothing else uses, because only the audience tells them \
                 apart"
            );
            return Err(fault("audience", &problem));
        }
    }
    Ok(())
}
