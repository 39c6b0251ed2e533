//! Parsers of flag values. Each error says which values are accepted.

use std::time::Duration;

pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a time such as 500ms, 5s or 24h".into())
}

/// Parses how long a command waits for a server. The time must be greater than zero and must be
/// bounded.
///
/// # Errors
/// Returns a text that says which values are accepted.
pub fn call_timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time >= Duration::from_millis(1) && time <= Duration::from_hours(1) => Ok(time),
        _ => Err("expected a time from 1ms to 1h".into()),
    }
}

/// Parses a flush interval. The limits ensure that there is at most one transaction per second, and
/// that a crash loses little.
pub fn flush_every(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        every if every >= Duration::from_secs(1) && every <= Duration::from_mins(10) => Ok(every),
        _ => Err("expected a time from 1s to 10m".into()),
    }
}

pub fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("expected a number from 0 to 1 such as 0.01".into()),
    }
}

pub fn hours(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time >= Duration::from_hours(1) => Ok(time),
        _ => Err("expected a time of at least 1h, such as 90d".into()),
    }
}

pub fn pause(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time >= Duration::from_millis(100) && time <= Duration::from_hours(24) => Ok(time),
        _ => Err("expected a time from 100ms to 24h".into()),
    }
}

/// Parses the permitted clock skew. Clocks that NTP synchronizes differ only by milliseconds, and a
/// clock that is wrong by more than a minute is useless.
pub fn skew(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        skew if skew >= Duration::from_millis(100) && skew <= Duration::from_mins(1) => Ok(skew),
        _ => Err("expected a time from 100ms to 1m".into()),
    }
}

/// Parses the freshness bound. The bound must leave time for four polls over a network, which take
/// about 200 ms.
pub fn bound(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        bound if bound >= Duration::from_millis(200) && bound <= Duration::from_mins(1) => {
            Ok(bound)
        }
        _ => Err("expected a time from 200ms to 1m".into()),
    }
}
