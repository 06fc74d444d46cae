//! `If-None-Match`: whether the client already has the answer that it would get (RFC 9110, 13.1.2).

use axum::http::{HeaderMap, header};

/// Whether a request says that the client has the version that `etag` names. `etag` includes its quotes.
pub(super) fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let lines = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn any_of_the_tags_may_match() {
        let known = |lines: &[&'static str]| {
            let all = lines.iter().map(|line| (header::IF_NONE_MATCH, HeaderValue::from_static(line)));
            is_known(&all.collect(), "\"7\"")
        };
        for yes in [&["\"7\""][..], &["W/\"7\""], &["\"6\", \"7\""], &["*"], &["\"6\"", "\"7\""]] {
            assert!(known(yes), "{yes:?}");
        }
        for no in [&[][..], &[""], &["7"], &["\"77\""], &["\"6\", W/\"8\""]] {
            assert!(!known(no), "{no:?}");
        }
    }
}
