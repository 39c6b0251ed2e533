//! Obtains the JWT of a workload from its provider or from a file.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use http::{HeaderValue, Uri};
use serde::Deserialize;

use super::checked_jwt;
use crate::{
    auth::{self, FetchError},
    cli::{
        exit::{ExitError, FAILURE, UNAVAILABLE},
        otel,
    },
};

/// The variable of GitHub Actions with the URL that issues a JWT.
const GITHUB_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
/// The variable of GitHub Actions with the credential for this URL.
const GITHUB_CREDENTIAL: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";

/// Where the JWT of the workload comes from.
#[derive(Args)]
#[command(next_help_heading = "Identity of the workload")]
pub struct AssertionFlags {
    #[command(flatten)]
    source: Source,
    /// Required with --github: the audience of the JWT, which is that of the issuer on the server.
    /// There is no default, because another installation that accepts the same audience could use
    /// the JWT here
    #[arg(long, env = "STACKTOKEN_AUDIENCE", value_name = "TEXT")]
    audience: Option<String>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The job of GitHub Actions in which this runs. It needs `permissions: id-token: write`
    #[arg(long)]
    github: bool,
    /// The job of GitLab CI/CD in which this runs: the variable that `id_tokens` sets. Default:
    /// `STACKTOKEN_ID_TOKEN`
    #[arg(
        long,
        value_name = "VARIABLE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "STACKTOKEN_ID_TOKEN"
    )]
    gitlab: Option<String>,
    /// The pod of Kubernetes in which this runs: the file of a projected service account token.
    /// Default: `/var/run/secrets/stacktoken/token`
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "/var/run/secrets/stacktoken/token"
    )]
    kubernetes: Option<PathBuf>,
    /// File that contains the JWT of the workload
    #[arg(long, value_name = "FILE")]
    jwt_file: Option<PathBuf>,
}

impl AssertionFlags {
    /// Returns whether the command runs in GitHub Actions, which interprets commands in the log.
    pub const fn is_github(&self) -> bool {
        self.source.github
    }

    /// Returns the JWT of the workload.
    ///
    /// # Errors
    /// Returns an error that names the flag, the variable or the file, but never contains a part of
    /// the JWT.
    pub async fn obtain(&self) -> anyhow::Result<String> {
        if let Some(variable) = &self.source.gitlab {
            let jwt = otel::read(variable).ok_or_else(|| {
                let message = format!(
                    "--gitlab: the variable {variable} is not set: declare it in the job with \
                     `id_tokens: {variable}: aud: ...`"
                );
                ExitError::usage(message)
            })?;
            return checked_jwt(&format!("--gitlab: the variable {variable}"), &jwt);
        }
        let file = match (&self.source.kubernetes, &self.source.jwt_file) {
            (Some(file), _) => Some(("--kubernetes", file)),
            (None, Some(file)) => Some(("--jwt-file", file)),
            (None, None) => None,
        };
        match file {
            Some((flag, file)) => from_file(flag, file),
            None => from_github(self.audience()?).await,
        }
    }

    fn audience(&self) -> anyhow::Result<&str> {
        let audience = self.audience.as_deref().filter(|text| !text.is_empty());
        audience.ok_or_else(|| {
            let message = "--github: --audience is required: give the `audience` of the issuer's \
                           entry on the server (or set STACKTOKEN_AUDIENCE). There is no default, \
                           because a JWT for an audience that other installations share could be \
                           used at each of them";
            ExitError::usage(message).into()
        })
    }
}

/// Reads the JWT of a workload from a file.
fn from_file(flag: &str, file: &PathBuf) -> anyhow::Result<String> {
    let read = fs::read_to_string(file);
    let jwt = read.with_context(|| format!("{flag}: cannot read {}", file.display()))?;
    checked_jwt(&format!("{flag} {}", file.display()), &jwt)
}

/// Requests a JWT for this job of GitHub Actions.
async fn from_github(audience: &str) -> anyhow::Result<String> {
    let variable = |name: &str| {
        otel::read(name).ok_or_else(|| {
            let message = format!(
                "--github: the variable {name} is not set: run this in a job of GitHub Actions with \
                 `permissions: id-token: write`"
            );
            ExitError::usage(message)
        })
    };
    let (url, credential) = (variable(GITHUB_URL)?, variable(GITHUB_CREDENTIAL)?);
    let url = with_audience(&url, audience);
    let url = url.ok_or_else(|| ExitError::usage(format!("--github: {GITHUB_URL} is no URL")))?;
    let credential = HeaderValue::try_from(format!("Bearer {credential}"));
    let mut credential = credential
        .map_err(|_| ExitError::usage(format!("--github: {GITHUB_CREDENTIAL} cannot be sent")))?;
    credential.set_sensitive(true);
    let answer = auth::fetch_with_credential(&url, credential).await;
    let answer = answer.map_err(|error| {
        let code = if is_outage(&error) {
            UNAVAILABLE
        } else {
            FAILURE
        };
        ExitError::new(code, format!("--github: the URL of {GITHUB_URL} {error}"))
    })?;
    let issued = serde_json::from_slice::<Issued>(&answer);
    let issued = issued.map_err(|_| {
        let message = format!("--github: the URL of {GITHUB_URL} answered without a JWT");
        ExitError::new(FAILURE, message)
    })?;
    checked_jwt("--github: the answer of GitHub", &issued.value)
}

/// GitHub's response to the request for a JWT.
#[derive(Deserialize)]
struct Issued {
    value: String,
}

fn with_audience(url: &str, audience: &str) -> Option<Uri> {
    let joint = if url.contains('?') { '&' } else { '?' };
    let encoded: String = audience.bytes().map(percent_encoded).collect();
    let url: Uri = format!("{url}{joint}audience={encoded}").parse().ok()?;
    auth::is_safe_url(&url).then_some(url)
}

fn percent_encoded(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

fn is_outage(error: &FetchError) -> bool {
    match error {
        FetchError::Unreachable(_) | FetchError::TooSlow(_) => true,
        FetchError::Status(status) => status.is_server_error(),
        FetchError::TooLarge | FetchError::File(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audience_is_added_to_the_url() {
        let url = "https://run.actions.example/a?api-version=2.0";
        let full = with_audience(url, "https://tokens.example.com/é").unwrap();
        let expected = "https://run.actions.example/a?api-version=2.0&audience=https%3A%2F%2Ftokens.example.com%2F%C3%A9";
        assert_eq!(full.to_string(), expected);
        assert!(with_audience("http://127.0.0.1:1/a", "x").is_some());
        for wrong in [
            "http://run.example/a",
            "/a",
            "a b",
            "https://user:word@host/a",
        ] {
            assert!(with_audience(wrong, "x").is_none(), "{wrong}");
        }
    }
}
