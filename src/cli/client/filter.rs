//! The filters of `stacktoken list`. A token is listed if it matches all filters.

use clap::Args;

use super::values::{self, Access, Moment};
use crate::{
    cli::exit::ExitError,
    domain::{
        clock::{Clock as _, SystemClock},
        field::Problem,
        secret,
        text::{NamePart, TokenName},
    },
    grpc::pb::v1,
};

#[derive(Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterFlags {
    /// Only tokens in this state; can be repeated. Default: tokens in any state
    #[arg(long = "state", value_enum, value_name = "STATE")]
    states: Vec<State>,
    /// Only tokens of exactly this name
    #[arg(long, value_parser = TokenName::parse, value_name = "NAME")]
    name: Option<TokenName>,
    /// Only tokens whose name contains this text
    #[arg(long, value_parser = NamePart::parse, value_name = "TEXT")]
    name_contains: Option<NamePart>,
    /// Only tokens with this label; can be repeated
    #[arg(long = "label", value_parser = values::label, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// Only tokens with this access
    #[arg(long, value_enum)]
    access: Option<Access>,
    /// Only tokens with a live secret that ends in these four characters
    #[arg(long, value_parser = hint, value_name = "LAST4")]
    secret_hint: Option<String>,
    /// Only tokens that this caller issued, by issuer (`iss`) and subject (`sub`) as `get` shows
    /// them
    #[arg(long, num_args = 2, value_names = ["ISSUER", "SUBJECT"])]
    issued_by: Option<Vec<String>>,
    /// Only tokens that expire before this time: a duration from now such as 30d, a date or an RFC
    /// 3339 timestamp
    #[arg(long, value_parser = values::moment, value_name = "WHEN")]
    expires_before: Option<Moment>,
    /// Only tokens that expire at or after this time: a duration from now such as 30d, a date or an
    /// RFC 3339 timestamp
    #[arg(long, value_parser = values::moment, value_name = "WHEN")]
    expires_from: Option<Moment>,
    /// Only tokens not used since this time: an age such as 90d, a date or an RFC 3339 timestamp
    #[arg(long, value_parser = values::moment, value_name = "WHEN")]
    unused_since: Option<Moment>,
    /// Only tokens issued at or after this time: an age such as 7d, a date or an RFC 3339 timestamp
    #[arg(long, value_parser = values::moment, value_name = "WHEN")]
    issued_from: Option<Moment>,
    /// Only tokens issued before this time: an age such as 7d, a date or an RFC 3339 timestamp
    #[arg(long, value_parser = values::moment, value_name = "WHEN")]
    issued_before: Option<Moment>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum State {
    /// Live
    Active,
    /// Its expiry has been reached
    Expired,
    /// Revoked, or its stack was removed
    Revoked,
}

impl State {
    const fn to_message(self) -> v1::TokenState {
        match self {
            Self::Active => v1::TokenState::Active,
            Self::Expired => v1::TokenState::Expired,
            Self::Revoked => v1::TokenState::Revoked,
        }
    }
}

fn hint(text: &str) -> Result<String, Problem> {
    secret::parse_hint(text)
}

/// Builds the filter on the caller who issued a token. The filter matches any kind of caller.
///
/// # Errors
/// Returns an error if the subject is a URL and the issuer is not, because they were probably
/// swapped.
fn actor(words: &[String]) -> anyhow::Result<v1::Actor> {
    let mut words = words.iter().cloned();
    let (issuer, subject) = (words.next(), words.next());
    let (issuer, subject) = (issuer.unwrap_or_default(), subject.unwrap_or_default());
    let [issuer_is_url, subject_is_url] =
        [&issuer, &subject].map(|text| text.starts_with("https://"));
    if subject_is_url && !issuer_is_url {
        let message = "--issued-by takes the issuer first and then the subject";
        return Err(ExitError::usage(message).into());
    }
    Ok(v1::Actor {
        issuer,
        subject,
        ..v1::Actor::default()
    })
}

impl FilterFlags {
    /// Converts the filters to a request without a stack. Relative times are resolved with the
    /// clock of this machine.
    ///
    /// # Errors
    /// Returns an error if a label is given twice, or if issuer and subject are swapped.
    pub fn to_message(&self) -> anyhow::Result<v1::ListRequest> {
        let now = SystemClock::new().now();
        let ahead = |moment: &Option<Moment>| moment.map(|moment| moment.ahead_of(now));
        let ago = |moment: &Option<Moment>| moment.map(|moment| moment.before(now));
        let states = self.states.iter().map(|state| state.to_message().into());
        let name = self.name.as_ref().map(TokenName::as_str);
        let part = self.name_contains.as_ref().map(NamePart::as_str);
        Ok(v1::ListRequest {
            states: states.collect(),
            name: name.unwrap_or_default().to_owned(),
            name_contains: part.unwrap_or_default().to_owned(),
            labels: values::distinct_labels(&self.labels)?,
            access: self.access.map(Access::to_message).unwrap_or_default(),
            issued_by: self.issued_by.as_deref().map(actor).transpose()?,
            secret_hint: self.secret_hint.clone().unwrap_or_default(),
            expires_before: ahead(&self.expires_before),
            expires_from: ahead(&self.expires_from),
            unused_since: ago(&self.unused_since),
            issued_from: ago(&self.issued_from),
            issued_before: ago(&self.issued_before),
            ..v1::ListRequest::default()
        })
    }
}
