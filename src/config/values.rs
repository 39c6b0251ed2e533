//! Parsers of flag values. Each error says which values are accepted.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    ops::RangeBounds,
    str::FromStr,
    time::Duration,
};

/// Parses a duration in a range. `expected` is the error for any other duration.
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

/// Units of a duration, as the help lists them. humantime also accepts months and years. They are
/// refused, because they have no fixed length and because `M` for months is easily mistaken for
/// `m`, minutes.
const UNITS: [&str; 6] = ["ms", "s", "m", "h", "d", "w"];

/// Parses a duration such as `90d` or `1h 30m`. All durations on the command line are parsed here.
///
/// # Errors
/// Returns a text that says which units are accepted.
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

/// Parses a duration greater than zero, for settings with which nothing would work at zero.
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

/// Parses a number greater than zero, for settings with which nothing would work at zero.
pub fn count<T: FromStr>(text: &str) -> Result<T, String> {
    at_least(text, 1)
        .ok_or_else(|| "expected a whole number of at least 1: with 0, nothing would work".into())
}

/// Parses a size. A message or header with less than 1 KiB has no space for a credential.
pub fn bytes<T: FromStr>(text: &str) -> Result<T, String> {
    at_least(text, 1024).ok_or_else(|| {
        "expected a number of bytes of at least 1024: with less, nothing would work".into()
    })
}

fn at_least<T: FromStr>(text: &str, least: u64) -> Option<T> {
    let number: u64 = text.parse().ok()?;
    (number >= least).then(|| text.parse().ok()).flatten()
}

/// Parses an address to listen on. A host name is resolved to its first IPv4 address, or to its
/// first address if it has none, so that clients find `localhost` where they expect it.
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

/// Parses how long a command waits for a server. The time must be greater than zero and must be
/// bounded.
///
/// # Errors
/// Returns a message that says which values are accepted.
pub fn call_timeout(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(1)..=Duration::from_hours(1);
    within(text, range, "expected a duration from 1ms to 1h")
}

/// Parses a flush interval. The limits ensure that there is at most one transaction per second, and
/// that a crash loses little.
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

/// Parses the permitted clock skew. Clocks that NTP synchronizes differ only by milliseconds, and a
/// clock that is wrong by more than a minute is useless.
pub fn skew(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_mins(1);
    within(text, range, "expected a duration from 100ms to 1m")
}

/// Parses the freshness bound. The bound must leave time for four polls over a network, which take
/// about 200 ms.
pub fn bound(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(200)..=Duration::from_mins(1);
    within(text, range, "expected a duration from 200ms to 1m")
}
