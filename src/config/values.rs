//! Parsers for flag values. Each error states which values are accepted.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    ops::RangeBounds,
    str::FromStr,
    time::Duration,
};

/// Parses a duration that must be in a range. `expected` is the error message for other durations.
fn within(
    text: &str,
    range: impl RangeBounds<Duration>,
    expected: &str,
) -> Result<Duration, String> {
    let time = duration(text)?;
    if range.contains(&time) {
        Ok(time)
    } else {
        Err(expected.into())
    }
}

/// The accepted units of a duration, as the help lists them. humantime also accepts months and
/// years. They are refused, because they have no fixed length, and because `M` for months is easily
/// mistaken for `m` for minutes.
const UNITS: [&str; 6] = ["ms", "s", "m", "h", "d", "w"];

/// Parses a duration such as `90d` or `1h 30m`. All durations on the command line are parsed here.
///
/// # Errors
/// Returns a message that states which units are accepted.
pub fn duration(text: &str) -> Result<Duration, String> {
    let words = text.split(|letter: char| !letter.is_alphabetic());
    let mut units = words.filter(|word| !word.is_empty());
    let time = humantime::parse_duration(text).ok();
    let time = time.filter(|_| units.all(|unit| UNITS.contains(&unit)));
    time.ok_or_else(|| {
        "expected a duration such as 500ms, 5s, 24h or 90d (units: ms, s, m for minutes, h, d, w)"
            .into()
    })
}

/// Parses a duration that must not be zero, because with zero nothing would work.
pub fn time(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(1)..;
    within(
        text,
        range,
        "expected a duration of at least 1ms, such as 5s: with less, nothing would work",
    )
}

/// Parses a number that may be zero.
pub fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| "expected a whole number, such as 256".into())
}

/// Parses a number that must not be zero, because with zero nothing would work.
pub fn count<T: FromStr>(text: &str) -> Result<T, String> {
    at_least(text, 1)
        .ok_or_else(|| "expected a whole number of at least 1: with 0, nothing would work".into())
}

/// Parses a size limit of at least 1 KiB. A smaller limit would leave no space for a credential.
pub fn bytes<T: FromStr>(text: &str) -> Result<T, String> {
    at_least(text, 1024).ok_or_else(|| {
        "expected a number of bytes of at least 1024: with less, nothing would work".into()
    })
}

fn at_least<T: FromStr>(text: &str, least: u64) -> Option<T> {
    let number: u64 = text.parse().ok()?;
    (number >= least).then(|| text.parse().ok()).flatten()
}

/// Parses an address to listen on. A host name is resolved to its first IPv4 address, so that
/// `localhost` is 127.0.0.1 as clients expect. If it has no IPv4 address, its first address is
/// used.
///
/// # Errors
/// Returns a message that says which values are accepted.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let expected = "expected HOST:PORT, such as 127.0.0.1:50051 or localhost:50051";
    let is_named = text
        .rsplit_once(':')
        .is_some_and(|(host, _)| !host.is_empty());
    if !is_named {
        return Err(expected.into());
    }
    let found: Vec<_> = text.to_socket_addrs().map_err(|_| expected)?.collect();
    let first = found.iter().find(|address| address.is_ipv4());
    first
        .or(found.first())
        .copied()
        .ok_or_else(|| expected.into())
}

/// Parses the URL at which clients reach a port. The URL must have the form of an issuer without a
/// path (RFC 8414 §2), so that clients look for the metadata at the path where it is served.
///
/// # Errors
/// Returns a message that says which values are accepted.
pub fn public_url(text: &str) -> Result<String, String> {
    let expected = "expected https://HOST, https://HOST:PORT or the same with http, such as https://tokens.example.com";
    let authority = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let authority = authority.map(|authority| authority.strip_suffix('/').unwrap_or(authority));
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-._:[]".contains(letter);
    let is_host = |authority: &&str| {
        let starts =
            authority.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '[');
        starts && authority.chars().all(fits)
    };
    authority.filter(is_host).ok_or(expected)?;
    Ok(text.strip_suffix('/').unwrap_or(text).to_owned())
}

/// Parses the time limit of a client command, which must be from 1 ms to 1 h.
///
/// # Errors
/// Returns a message that says which values are accepted.
pub fn call_timeout(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(1)..=Duration::from_hours(1);
    within(text, range, "expected a duration from 1ms to 1h")
}

/// Parses a flush interval. Its range ensures that there is at most one transaction per second, and
/// that little is lost in a crash.
pub fn flush_every(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(1)..=Duration::from_mins(10);
    within(text, range, "expected a duration from 1s to 10m")
}

/// Parses a fraction from 0 to 1.
///
/// # Errors
/// Returns a message that says which values are accepted.
pub fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("expected a number from 0 to 1 such as 0.01".into()),
    }
}

pub fn hours(text: &str) -> Result<Duration, String> {
    let range = Duration::from_hours(1)..;
    within(
        text,
        range,
        "expected a duration of at least 1h, such as 90d",
    )
}

pub fn pause(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_hours(24);
    within(text, range, "expected a duration from 100ms to 24h")
}

/// Parses the permitted clock skew. Clocks that are synchronized with NTP differ only by
/// milliseconds. A clock that is wrong by more than a minute is useless.
pub fn skew(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_mins(1);
    within(text, range, "expected a duration from 100ms to 1m")
}

/// Parses the freshness bound. It must be long enough for four polls over a network, which take
/// about 200 ms.
pub fn bound(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(200)..=Duration::from_mins(1);
    within(text, range, "expected a duration from 200ms to 1m")
}
