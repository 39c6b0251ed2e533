//! The deadline of a call: the client's `grpc-timeout` if it is shorter than the server's own
//! timeout.

use std::time::Duration;

use http::HeaderMap;

/// Returns the timeout for a request with these headers, which is at most `ours`.
pub(super) fn of(headers: &HeaderMap, ours: Duration) -> Duration {
    let asked = headers
        .get("grpc-timeout")
        .and_then(|value| parse(value.to_str().ok()?));
    // This is slightly shorter than the client's own timeout, so that our error arrives before the
    // client gives up.
    let asked = asked.map(|timeout| timeout.saturating_sub((timeout / 10).min(MARGIN)));
    asked.map_or(ours, |asked| asked.min(ours))
}

const MARGIN: Duration = Duration::from_millis(5);

/// Parses a timeout of 1 to 8 digits and a unit, as gRPC over HTTP/2 specifies it.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Duration = Duration::from_millis(300);

    fn with(timeout: &str) -> Duration {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", timeout.parse().unwrap());
        of(&headers, OURS)
    }

    #[test]
    fn the_shorter_of_the_callers_timeout_and_ours_counts() {
        assert_eq!(of(&HeaderMap::new(), OURS), OURS);
        for longer in ["1H", "1M", "1S", "400m", "99999999H"] {
            assert_eq!(with(longer), OURS, "{longer}");
        }
        // The result is slightly shorter than the caller's timeout, so that our answer reaches the
        // caller in time.
        assert_eq!(with("100m"), Duration::from_millis(95));
        assert_eq!(with("10m"), Duration::from_millis(9));
        assert_eq!(with("0n"), Duration::ZERO);
    }

    #[test]
    fn what_is_no_timeout_is_ignored() {
        for text in ["", "S", "-1S", "1", "1 S", "1s", "123456789S", "1.5S"] {
            assert_eq!(with(text), OURS, "{text:?}");
        }
    }
}
