//! Cookies in the header fields of requests and answers.

use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

/// The cookie's value; none where it is not there or there is more than one.
pub(crate) fn read<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(found, _)| found.trim() == name).map(|(_, value)| value.trim());
    let (value, None) = (values.next()?, values.next()) else { return None };
    Some(value)
}

/// Has the browser keep a cookie.
pub(crate) fn add(response: &mut Response, text: String) {
    let value = HeaderValue::try_from(text).expect("our cookies are plain text");
    response.headers_mut().append(SET_COOKIE, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_read_only_where_there_is_one() {
        let with = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, HeaderValue::from_static(line));
            }
            read(&headers, "__Host-postern").map(ToOwned::to_owned)
        };

        assert_eq!(with(&["a=b; __Host-postern=x; c=d"]), Some("x".to_owned()));
        assert_eq!(with(&["a=b", "__Host-postern=x"]), Some("x".to_owned()));
        assert_eq!(with(&["x__Host-postern=x; __host-postern=y"]), None);
        assert_eq!(with(&["__Host-postern=x; __Host-postern=y"]), None, "whose is it?");
        assert_eq!(with(&["__Host-postern=x", "__Host-postern=x"]), None);
        assert_eq!(with(&[]), None);
    }
}
