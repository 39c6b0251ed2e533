//! The settings of a client, which are validated when the client is built.

use std::{error::Error as Cause, path::PathBuf, sync::Arc, time::Duration};

use tokio::runtime::Handle;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::{
    Client, Error,
    cache::{Bounds, VerdictCache},
    credential::Credential,
    transport::Transport,
};
use stacktoken_core::clock::Clock;

use crate::clock::SystemClock;

/// Builds a [`Client`]. [`Client::builder`] creates a builder.
#[must_use]
pub struct Builder {
    addresses: Vec<String>,
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    domain_name: Option<String>,
    allow_plaintext: bool,
    credential: Credential,
    bounds: Bounds,
    cache_entries: usize,
    timeout: Duration,
    connect_timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl Builder {
    pub(super) fn new(address: String) -> Self {
        Self {
            addresses: vec![address],
            ca: None,
            identity: None,
            domain_name: None,
            allow_plaintext: false,
            credential: Credential::None,
            bounds: Bounds {
                freshness: Duration::from_secs(1),
                reuse_for: Duration::from_mins(1),
            },
            cache_entries: 10_000,
            timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
            clock: Arc::new(SystemClock),
        }
    }

    /// Adds the URL of another replica of the same service. The client calls it if the replicas
    /// that were added before it fail.
    pub fn address(mut self, url: impl Into<String>) -> Self {
        self.addresses.push(url.into());
        self
    }

    /// Sets the CA that signed the server's certificate, in PEM, for https. By default, the CAs
    /// that the machine trusts are used.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Sets the client's own certificate and its key, in PEM, for https.
    pub fn identity_pem(mut self, cert: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((cert.into(), key.into()));
        self
    }

    /// Sets the name that the server's certificate must contain, for https. The default is the host
    /// name in the URL.
    pub fn domain_name(mut self, name: impl Into<String>) -> Self {
        self.domain_name = Some(name.into());
        self
    }

    /// Allows http for addresses other than loopback, for example if a service mesh encrypts the
    /// traffic. This client then sends secrets and the caller's JWT unencrypted.
    pub const fn allow_plaintext(mut self) -> Self {
        self.allow_plaintext = true;
        self
    }

    /// Sets a fixed JWT as the caller's credential.
    pub fn bearer(mut self, jwt: impl Into<String>) -> Self {
        self.credential = Credential::Fixed(jwt.into());
        self
    }

    /// Sets a file that contains the caller's JWT. The file is read for every call to the server.
    pub fn bearer_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.credential = Credential::File(path.into());
        self
    }

    /// Sets a function that returns the caller's JWT. The function is called for every call to the
    /// server and must not block for long, so it should return a cached JWT that is renewed
    /// elsewhere.
    pub fn bearer_from<F>(mut self, source: F) -> Self
    where
        F: Fn() -> Result<String, Box<dyn Cause + Send + Sync>> + Send + Sync + 'static,
    {
        self.credential = Credential::From(Box::new(source));
        self
    }

    /// Sets how old an answer from the cache may be. Once this time has passed since a revocation
    /// was acknowledged, no answer says that the token is active. The default is 1 s, as for the
    /// server's `--freshness-bound`. If the two values differ, the larger one determines this
    /// guarantee.
    pub const fn freshness_bound(mut self, bound: Duration) -> Self {
        self.bounds.freshness = bound;
        self
    }

    /// Sets after what time the client asks the server again about a token that is still cached.
    /// From these calls, the server knows that the token is in use, so `last_used_at` lags by at
    /// most this time. The default and maximum is one minute.
    pub const fn reuse_for(mut self, length: Duration) -> Self {
        self.bounds.reuse_for = length;
        self
    }

    /// Sets how many secrets are cached. Each takes about 700 bytes. The default is 10,000.
    pub const fn cache_entries(mut self, entries: usize) -> Self {
        self.cache_entries = entries;
        self
    }

    /// Sets how long a question may take in total, including retries. The default is 2 s.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long connecting to one server may take. The default is 1 s.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Replaces the host's clock, for tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the client. A server need not be reachable yet. Until one is reachable, every
    /// question returns [`Error::Undecided`].
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if a setting is wrong, or if this is called outside of a tokio
    /// runtime.
    pub fn build(self) -> Result<Client, Error> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(Error::setting(
                "build",
                "must be called within a tokio runtime",
            ));
        };
        self.check()?;
        let endpoints = self.addresses.iter().map(|address| self.endpoint(address));
        let endpoints = endpoints.collect::<Result<_, _>>()?;
        let Self {
            credential,
            bounds,
            cache_entries,
            timeout,
            clock,
            ..
        } = self;
        let cache = VerdictCache::new(clock.clone(), bounds, cache_entries);
        let transport = Transport::new(endpoints, credential, clock, timeout);
        Ok(Client::start(&runtime, cache, transport))
    }

    fn check(&self) -> Result<(), Error> {
        let within = |name, value: Duration, least, most| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let problem = format!("is {value:?}: choose {least:?} to {most:?}");
            Err(Error::setting(name, problem))
        };
        let (short, minute) = (Duration::from_millis(10), Duration::from_mins(1));
        let Bounds {
            freshness,
            reuse_for,
        } = self.bounds;
        within("freshness_bound", freshness, short * 10, minute)?;
        within("reuse_for", reuse_for, short, minute)?;
        within("timeout", self.timeout, short, minute)?;
        within("connect_timeout", self.connect_timeout, short, minute)?;
        if self.cache_entries == 0 {
            let problem = "is 0: choose how many secrets to cache, at least 1";
            return Err(Error::setting("cache_entries", problem));
        }
        self.check_pem()?;
        if !self.credential.is_some() && self.identity.is_none() {
            let problem = "is missing: say who calls, by bearer, bearer_file, bearer_from or \
                           identity_pem";
            return Err(Error::setting("bearer", problem));
        }
        Ok(())
    }

    /// Checks that each PEM text contains a certificate or a key. Otherwise, the TLS library would
    /// accept the text as an empty list.
    fn check_pem(&self) -> Result<(), Error> {
        let (cert, key) = self.identity.as_ref().map_or((None, None), |(cert, key)| {
            (Some(cert.as_slice()), Some(key.as_slice()))
        });
        for (name, pem, label) in [
            ("ca_pem", self.ca.as_deref(), "CERTIFICATE-----"),
            ("identity_pem", cert, "CERTIFICATE-----"),
            ("identity_pem", key, "PRIVATE KEY-----"),
        ] {
            let text = pem.map(String::from_utf8_lossy);
            if text.is_some_and(|text| !text.contains(label)) {
                let problem = format!("contains no PEM block that begins with …{label}");
                return Err(Error::setting(name, problem));
            }
        }
        Ok(())
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, Error> {
        let wrong = |problem: String| Error::setting("address", format!("{address}: {problem}"));
        let endpoint = Endpoint::from_shared(address.to_owned());
        let endpoint = endpoint.map_err(|error| wrong(error.to_string()))?;
        let bound = self.bounds.freshness;
        let endpoint = endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            // Detects a server that no longer responds, even while no call is in progress.
            .http2_keep_alive_interval(bound)
            .keep_alive_timeout(bound)
            .keep_alive_while_idle(true);
        match endpoint.uri().scheme_str() {
            Some("https") => {
                let secured = endpoint.tls_config(self.tls());
                secured.map_err(|error| Error::setting("ca_pem", error.to_string()))
            }
            Some("http") => {
                if self.ca.is_some() || self.identity.is_some() {
                    return Err(wrong("certificates require an https:// URL".to_owned()));
                }
                if !self.allow_plaintext && !is_loopback(endpoint.uri().host()) {
                    return Err(wrong(
                        "secrets would go over the network unencrypted: use https://, or \
                         allow_plaintext where something else encrypts"
                            .to_owned(),
                    ));
                }
                Ok(endpoint)
            }
            _ => Err(wrong("must begin with https:// or http://".to_owned())),
        }
    }

    fn tls(&self) -> ClientTlsConfig {
        let mut tls = match &self.ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((cert, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        if let Some(name) = &self.domain_name {
            tls = tls.domain_name(name);
        }
        tls
    }
}

fn is_loopback(host: Option<&str>) -> bool {
    let host = host.unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
