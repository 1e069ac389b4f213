//! What a reporter says beside where it is: a visit, how long to wait, page or JSON.

use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use http_body::Body as _;
use postern_shared::wire::v1::BeaconRequest;

use super::device::Device;
use crate::api::prefer;
use crate::http::{ApiError, body, json};

/// Longest body of a report, in bytes.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// What the body of a report says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The visit that the report belongs to.
    pub(super) visit: Option<u64>,
    /// How long to wait for hosts to confirm; only a form says it here.
    pub(super) wait: Option<Duration>,
    /// What it says of the device; only the page's form does.
    pub(super) device: Option<Device>,
}

/// Reads the body of a report: nothing, a [`BeaconRequest`] as JSON, or a form with its fields
/// and `wait`.
pub(super) async fn read(request: Request) -> Result<Said, ApiError> {
    if request.body().is_end_stream() {
        return Ok(Said::default());
    }
    let (parts, body) = request.into_parts();
    let bytes = body::read(body, BODY_BYTES_MAX).await?;
    if bytes.is_empty() {
        return Ok(Said::default());
    }
    let media_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        let BeaconRequest { visit } = json::parse(&bytes)?;
        let visit = visit.as_deref().map(|visit| read_visit(visit, "/visit")).transpose()?;
        return Ok(Said { visit, ..Said::default() });
    }
    if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return read_form(&bytes);
    }
    let detail = "send nothing, JSON (`Content-Type: application/json`) or a form".to_owned();
    Err(ApiError::UnsupportedMediaType { detail })
}

fn read_form(bytes: &[u8]) -> Result<Said, ApiError> {
    let mut said = Said::default();
    for (name, value) in form_urlencoded::parse(bytes) {
        match name.as_ref() {
            "visit" if said.visit.is_none() => said.visit = Some(read_visit(&value, "/visit")?),
            "wait" if said.wait.is_none() => {
                let wait = prefer::capped(&value);
                let wait = wait.ok_or_else(|| ApiError::field("/wait", "write whole seconds"))?;
                said.wait = Some(wait);
            }
            "device" if said.device.is_none() => {
                let device = Device::parse(&value);
                let words = || ApiError::field("/device", "write remember, itself or forget");
                said.device = Some(device.ok_or_else(words)?);
            }
            "visit" | "wait" | "device" => {
                return Err(ApiError::field(format!("/{name}"), "is there twice"));
            }
            _ => {
                let detail = "the form has the fields `visit`, `wait` and `device` only".to_owned();
                return Err(ApiError::BadRequest { detail });
            }
        }
    }
    Ok(said)
}

/// Says whether a browser tells that our own page has sent the request, and not one of others.
pub(super) fn is_from_page(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin")
}

/// Visits are written as 16 hexadecimal digits.
fn read_visit(text: &str, pointer: &str) -> Result<u64, ApiError> {
    let is_visit = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let visit = u64::from_str_radix(text, 16).ok().filter(|_| is_visit);
    visit.ok_or_else(|| ApiError::field(pointer, "must be the `visit` of an earlier answer"))
}

/// Says whether a browser or a proxy only looks ahead: nobody has asked for anything.
pub(crate) fn is_prefetch(headers: &HeaderMap) -> bool {
    const NAMES: [&str; 4] = ["sec-purpose", "purpose", "x-purpose", "x-moz"];
    const WORDS: [&str; 3] = ["prefetch", "prerender", "preview"];
    let mut lines = NAMES.into_iter().flat_map(|name| headers.get_all(name));
    lines.any(|line| {
        let text = String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase();
        WORDS.iter().any(|word| text.contains(word))
    })
}

/// Says whether the caller would rather have a page than JSON: only who names `text/html`, and
/// likes it no less than JSON, is taken for a browser.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let (mut page, mut json) = (0, 0);
    for range in lines.flat_map(|line| line.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1_000, thousandths);
        if media_type.eq_ignore_ascii_case("text/html") {
            page = weight;
        } else if media_type.eq_ignore_ascii_case("application/json") {
            json = weight;
        }
    }
    0 < page && json <= page
}

/// Reads a weight such as `0.8` in thousandths; what is none counts as nothing.
fn thousandths(weight: &str) -> u32 {
    let weight: f32 = weight.parse().unwrap_or(0.0);
    // Within 0 to 1, so nothing is lost.
    (weight.clamp(0.0, 1.0) * 1_000.0) as u32
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    async fn read_as(media_type: &str, body: &'static str) -> Result<Said, &'static str> {
        let request =
            Request::post("/").header(CONTENT_TYPE, media_type).body(Body::from(body)).unwrap();
        read(request).await.map_err(|error| error.slug())
    }

    #[tokio::test]
    async fn nothing_json_and_forms_are_read() {
        const FORM: &str = "application/x-www-form-urlencoded";
        const JSON: &str = "application/json; charset=utf-8";
        let visit = |visit, wait| {
            Ok(Said { visit, wait: Option::map(wait, Duration::from_secs), device: None })
        };

        for (media_type, body, expected) in [
            ("text/plain", "", visit(None, None)),
            (JSON, "{}", visit(None, None)),
            (JSON, r#"{"visit":"00000000000000ff"}"#, visit(Some(255), None)),
            (FORM, "wait=5", visit(None, Some(5))),
            (FORM, "visit=00000000000000FF&wait=99", visit(Some(255), Some(30))),
            (JSON, r#"{"visit":"+0000000000000ff"}"#, Err("invalid")),
            (JSON, r#"{"visit":"ff"}"#, Err("invalid")),
            (JSON, r#"{"address":"203.0.113.7"}"#, Err("invalid")),
            (JSON, "wait=5", Err("bad_request")),
            (FORM, "device=itself", Ok(Said { device: Some(Device::Itself), ..Said::default() })),
            (FORM, "device=mine", Err("invalid")),
            (FORM, "device=forget&device=forget", Err("invalid")),
            (FORM, "wait=soon", Err("invalid")),
            (FORM, "wait=1&wait=2", Err("invalid")),
            (FORM, "address=203.0.113.7", Err("bad_request")),
            ("text/plain", "hello", Err("unsupported_media_type")),
        ] {
            assert_eq!(read_as(media_type, body).await, expected, "{media_type} {body}");
        }
    }

    #[test]
    fn looking_ahead_is_told_from_asking() {
        for (name, value, expected) in [
            ("sec-purpose", "prefetch;prerender", true),
            ("purpose", "Prefetch", true),
            ("x-moz", "prefetch", true),
            ("x-purpose", "preview", true),
            ("sec-fetch-mode", "navigate", false),
            ("purpose", "", false),
        ] {
            let mut headers = HeaderMap::new();
            let name = HeaderName::from_static(name);
            headers.insert(name.clone(), HeaderValue::from_static(value));
            assert_eq!(is_prefetch(&headers), expected, "{name}: {value}");
        }
    }

    #[test]
    fn only_who_names_html_gets_a_page() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("text/html;q=0.5, application/json;q=0.4", true),
            ("text/html;q=0.5, application/json", false),
            ("text/html;q=0", false),
            ("*/*", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(wants_page(&headers), expected, "{accept}");
        }
        assert!(!wants_page(&HeaderMap::new()));
    }
}
