//! The headers of a checked request, as Envoy hands them over: in a map whose duplicates are
//! joined with `,`, or one by one. Compared as the least careful reader would.

use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use zeroize::Zeroizing;

use crate::domain::routes::fold;

/// A header that was sent: its name in lower case, and its value.
type Header = (String, Zeroizing<Vec<u8>>);

/// All headers, in no order.
pub(super) struct Headers(Vec<Header>);

/// How often a header was sent.
pub(super) enum Sent<'a> {
    /// Not at all, or with nothing in it.
    Not,
    /// Once.
    Once(&'a str),
    /// More than once, or in a spelling or with bytes that it cannot have.
    Badly,
}

impl Headers {
    /// Takes them out of the request, so that no second copy of a credential stays behind.
    pub(super) fn take(http: &mut HttpRequest) -> Self {
        let joined = std::mem::take(&mut http.headers).into_iter();
        let joined = joined.map(|(name, value)| (name, value.into_bytes()));
        let single = http.header_map.take().unwrap_or_default().headers;
        let single = single.into_iter().flat_map(|header| {
            let (text, raw) = (header.value.into_bytes(), header.raw_value);
            // Envoy fills one of them; two that differ are two headers.
            let second = (!text.is_empty() && !raw.is_empty() && text != raw).then(|| text.clone());
            let first = if raw.is_empty() { text } else { raw };
            let name = header.key;
            std::iter::once(first)
                .chain(second)
                .map(move |value| (name.clone(), value))
        });
        let all = joined.chain(single);
        Self(
            all.map(|(name, value)| (name.to_ascii_lowercase(), Zeroizing::new(value)))
                .collect(),
        )
    }

    /// The header of this name, which is one that can be sent only once.
    pub(super) fn only(&self, name: &str) -> Sent<'_> {
        let folded = fold(name);
        let mut alike = self.0.iter().filter(|(sent, _)| fold(sent) == folded);
        let Some((sent, value)) = alike.next() else {
            return Sent::Not;
        };
        if alike.next().is_some() || sent != name {
            return Sent::Badly;
        }
        match std::str::from_utf8(value) {
            Ok("") => Sent::Not,
            Ok(value) if !value.contains(',') => Sent::Once(value),
            _ => Sent::Badly,
        }
    }

    /// Whether a header was sent whose name is such.
    pub(super) fn any(&self, is_such: impl Fn(&str) -> bool) -> bool {
        self.0.iter().any(|(sent, _)| is_such(sent))
    }
}
