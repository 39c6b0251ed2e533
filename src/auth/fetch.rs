//! Fetches the bytes of a key set from a URL or a file, within limits on size and time. This module
//! does not know what a key is or when to fetch.

use std::{error::Error as _, path::Path, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::source::KeySource;
use crate::telemetry;

/// Size limit of a key set and of a file of CA certificates: 256 KiB.
const MAX_BYTES: usize = 256 * 1024;
/// The media types of a key set (RFC 7517 §8.5) and of other JSON. A Kubernetes API server offers its
/// keys only as the former, and refuses a request that does not accept it.
const ACCEPTED: &str = "application/jwk-set+json, application/json";
/// Time limit of a whole fetch.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Future that resolves to the fetched bytes.
pub type Fetch = Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send>>;

/// Fetches the bytes of a key set. Tests supply their own implementation.
pub trait KeyFetcher: Send + Sync + 'static {
    /// Starts a fetch. An implementation must limit the time that the fetch takes and the size of
    /// its result.
    fn fetch(&self, source: &KeySource) -> Fetch;
}

/// Error of a fetch. Its text never quotes the URL, which may contain a secret.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The connection could not be established, or it broke.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The HTTP status is not 200.
    #[error("answered {0} where 200 is required; redirects are not followed")]
    Status(StatusCode),
    /// The content exceeds the size limit.
    #[error("is larger than 256 KiB")]
    TooLarge,
    /// The fetch exceeded its time limit.
    #[error("did not answer in full within {0:?}")]
    TooSlow(Duration),
    /// The key file or the file of CA certificates cannot be used.
    #[error("{0}")]
    File(String),
}

/// Fetches over HTTP/1.1 or from the file system. Keeps neither connections nor CA certificates
/// between fetches, which are minutes apart, so that a renewed CA certificate takes effect.
#[derive(Clone, Copy, Debug)]
pub struct HttpFetcher {
    max_time: Duration,
}

impl HttpFetcher {
    /// Creates a fetcher whose fetches take at most `max_time`.
    #[must_use]
    pub const fn within(max_time: Duration) -> Self {
        Self { max_time }
    }
}

impl Default for HttpFetcher {
    /// Creates a fetcher whose fetches take at most 5 seconds.
    fn default() -> Self {
        Self::within(MAX_TIME)
    }
}

impl KeyFetcher for HttpFetcher {
    fn fetch(&self, source: &KeySource) -> Fetch {
        let (source, max_time) = (source.clone(), self.max_time);
        Box::pin(async move {
            tokio::time::timeout(max_time, read(&source))
                .await
                .unwrap_or(Err(FetchError::TooSlow(max_time)))
        })
    }
}

/// Fetches a document with the `authorization` value `credential`. Takes at most 5 seconds, and
/// accepts at most 256 KiB.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch_with_credential(
    url: &Uri,
    credential: HeaderValue,
) -> Result<Vec<u8>, FetchError> {
    let fetching = get_url((url, None), Some(credential));
    let fetched = tokio::time::timeout(MAX_TIME, fetching).await;
    fetched.unwrap_or(Err(FetchError::TooSlow(MAX_TIME)))
}

async fn read(source: &KeySource) -> Result<Vec<u8>, FetchError> {
    match source {
        KeySource::File(path) => read_file(path).await,
        KeySource::Url { url, ca, token } => {
            let credential = credential(token.as_deref()).await?;
            get_url((url, ca.as_deref()), credential).await
        }
    }
}

async fn get_url(
    (url, ca): (&Uri, Option<&Path>),
    credential: Option<HeaderValue>,
) -> Result<Vec<u8>, FetchError> {
    match url.scheme_str() {
        Some("https") => {
            let mut plain = HttpConnector::new();
            plain.enforce_http(false);
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(tls(ca).await?)
                .https_only()
                .enable_http1()
                .wrap_connector(plain);
            get(connector, (url, credential)).await
        }
        _ => get(HttpConnector::new(), (url, credential)).await,
    }
}

async fn get<C>(
    connector: C,
    (url, credential): (&Uri, Option<HeaderValue>),
) -> Result<Vec<u8>, FetchError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let mut request = Request::get(url)
        .header(header::ACCEPT, ACCEPTED)
        .header(header::USER_AGENT, "stacktoken")
        .body(Empty::<&'static [u8]>::new())
        .map_err(|error| FetchError::Unreachable(error.to_string()))?;
    telemetry::context::inject(request.headers_mut());
    if let Some(credential) = credential {
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, credential);
    }
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let answer = client
        .request(request)
        .await
        .map_err(|error| FetchError::Unreachable(root_cause(&error)))?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status()));
    }
    match Limited::new(answer.into_body(), MAX_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
        Err(error) => Err(FetchError::Unreachable(error.to_string())),
    }
}

fn root_cause(error: &hyper_util::client::legacy::Error) -> String {
    let mut cause = error.source();
    let mut words = error.to_string();
    while let Some(inner) = cause {
        words = inner.to_string();
        cause = inner.source();
    }
    words
}

/// Reads the credential for a fetch from a file with one line.
async fn credential(path: Option<&Path>) -> Result<Option<HeaderValue>, FetchError> {
    let Some(path) = path else {
        return Ok(None);
    };
    let named = |why: &dyn std::fmt::Display| {
        FetchError::File(format!("jwks_token_file {}: {why}", path.display()))
    };
    let bytes = Zeroizing::new(read_file(path).await.map_err(|why| named(&why))?);
    let value = [b"Bearer ", bytes.trim_ascii()].concat();
    let value = HeaderValue::from_bytes(&value).ok();
    let mut value = value
        .filter(|value| value.len() > "Bearer ".len())
        .ok_or_else(|| named(&"contains no credential of one line"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

async fn read_file(path: &Path) -> Result<Vec<u8>, FetchError> {
    let cannot = |error| FetchError::File(format!("cannot be read: {error}"));
    let file = tokio::fs::File::open(path).await.map_err(cannot)?;
    let mut bytes = Vec::new();
    let one_more = MAX_BYTES as u64 + 1;
    file.take(one_more)
        .read_to_end(&mut bytes)
        .await
        .map_err(cannot)?;
    if bytes.len() > MAX_BYTES {
        return Err(FetchError::TooLarge);
    }
    Ok(bytes)
}

async fn tls(ca: Option<&Path>) -> Result<ClientConfig, FetchError> {
    let roots = match ca {
        Some(path) => own_roots(path).await?,
        None => tokio::task::spawn_blocking(system_roots)
            .await
            .map_err(|_| FetchError::File("the system's certificates were not read".to_owned()))?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| FetchError::Unreachable(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

async fn own_roots(path: &Path) -> Result<RootCertStore, FetchError> {
    let pem = read_file(path)
        .await
        .map_err(|why| FetchError::File(format!("jwks_ca {}: {why}", path.display())))?;
    let bad = || {
        FetchError::File(format!(
            "jwks_ca {}: contains no usable PEM certificate",
            path.display()
        ))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| bad())?;
        roots.add(certificate).map_err(|_| bad())?;
    }
    if roots.is_empty() {
        return Err(bad());
    }
    Ok(roots)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
