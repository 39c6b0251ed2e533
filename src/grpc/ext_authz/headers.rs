//! The headers of the request that Envoy wants to have checked. Envoy sends either a map, in which
//! the values of repeated headers are joined with `,`, or a list. Names are compared as leniently
//! as the most lenient server compares them.

use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use zeroize::Zeroizing;

use crate::domain::routes::is_same_header;

/// A header: its name in lower case, and its value.
type Header = (String, Zeroizing<Vec<u8>>);

/// All headers, in no particular order.
pub(super) struct Headers(Vec<Header>);

/// The result of looking up a header that may occur at most once.
pub(super) enum HeaderValue<'a> {
    /// The header is absent or empty.
    Absent,
    /// The header occurs once, with this value.
    Once(&'a str),
    /// The header is repeated, has a different spelling, or has an invalid value.
    Invalid,
}

impl Headers {
    /// Moves the headers out of the request, so that no copy of a credential remains in it.
    pub(super) fn take(http: &mut HttpRequest) -> Self {
        let joined = std::mem::take(&mut http.headers).into_iter();
        let joined = joined.map(|(name, value)| (name, value.into_bytes()));
        let single = http.header_map.take().unwrap_or_default().headers;
        let single = single.into_iter().flat_map(|header| {
            let (text, raw) = (header.value.into_bytes(), header.raw_value);
            // Envoy sets either the text or the raw value. If both are set and differ, they count
            // as two headers, so that the header is rejected as repeated.
            let second = (!text.is_empty() && !raw.is_empty() && text != raw).then(|| text.clone());
            let first = if raw.is_empty() { text } else { raw };
            let name = header.key;
            std::iter::once(first)
                .chain(second)
                .map(move |value| (name.clone(), value))
        });
        let all = joined.chain(single);
        Self(
            all.map(|(mut name, value)| {
                name.make_ascii_lowercase();
                (name, Zeroizing::new(value))
            })
            .collect(),
        )
    }

    /// Looks up a header that must occur at most once.
    pub(super) fn only(&self, name: &str) -> HeaderValue<'_> {
        let mut alike = self.0.iter().filter(|(sent, _)| is_same_header(sent, name));
        let Some((sent, value)) = alike.next() else {
            return HeaderValue::Absent;
        };
        if alike.next().is_some() || sent != name {
            return HeaderValue::Invalid;
        }
        match std::str::from_utf8(value) {
            Ok("") => HeaderValue::Absent,
            Ok(value) if !value.contains(',') => HeaderValue::Once(value),
            _ => HeaderValue::Invalid,
        }
    }

    /// Returns whether the predicate holds for the name of any header.
    pub(super) fn any(&self, is_such: impl Fn(&str) -> bool) -> bool {
        self.0.iter().any(|(sent, _)| is_such(sent))
    }
}
