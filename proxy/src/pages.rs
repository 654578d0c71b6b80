//! The pages, in memory: read once at the start, compressed in advance, told apart by a strong ETag for
//! each encoding.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, VARY,
};
use http::{HeaderName, HeaderValue, StatusCode};
use lua_free_rules::refusal::Refusal;
use sha2::{Digest as _, Sha256};

use crate::answer::Answer;
use crate::error::ProxyError;
use crate::request::Header;

/// The page at `/`.
const START: &str = "listItem.html";
const PREFIX: &str = "/resources/";
/// Folders within folders.
const DEPTH_MAX: usize = 8;
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'self'; img-src 'self' data:; frame-ancestors 'none'");

/// One year: browsers that came by https once come by nothing else.
const HTTPS_ONLY: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// All pages.
pub(crate) struct Pages {
    /// By their path below the folder.
    by_name: HashMap<String, Page>,
    /// The answer where there is none.
    missing: Answer,
}

struct Page {
    /// Identity first; then the encodings that are smaller, the smallest first.
    forms: Vec<Form>,
}

/// One encoding of a page, ready to be sent, or to be named as what the client has.
struct Form {
    coding: &'static str,
    tag: String,
    whole: Answer,
    unchanged: Answer,
}

impl Pages {
    /// Reads every file below `folder`, those hidden left out. With `https_only`, browsers are told to
    /// come by https from then on.
    ///
    /// # Errors
    /// If the folder or a file in it cannot be read.
    pub fn load(folder: &Path, https_only: bool) -> Result<Self, ProxyError> {
        let mut by_name = HashMap::new();
        read_folder(folder, "", 0, &mut by_name)
            .map_err(|(path, source)| ProxyError::Pages { path, source })?;
        let mut missing = Answer::refusal(&Refusal::NotFound);
        if https_only {
            let forms = by_name.values_mut().flat_map(|page| &mut page.forms);
            let answers = forms.flat_map(|form| [&mut form.whole, &mut form.unchanged]);
            for answer in answers.chain([&mut missing]) {
                *answer = answer.clone().with(STRICT_TRANSPORT_SECURITY, HTTPS_ONLY);
            }
        }
        Ok(Self { by_name, missing })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The page of a path, in the encoding that the request accepts and unless the client has it.
    pub fn answer(&self, path: &str, header: Header<'_>) -> &Answer {
        let name = if path == "/" {
            Some(START)
        } else {
            path.strip_prefix(PREFIX)
        };
        match name.and_then(|name| self.by_name.get(name)) {
            Some(page) => page.answer(header),
            None => &self.missing,
        }
    }
}

impl Page {
    fn new(name: &str, content: Vec<u8>) -> Self {
        let kind = content_type(name);
        let hash = Sha256::digest(&content);
        let tag: String = hash
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut forms = vec![];
        if is_text(kind) {
            let mut smaller = vec![("br", brotli(&content)), ("gzip", gzip(&content))];
            smaller.retain(|(_, body)| !body.is_empty() && body.len() < content.len());
            smaller.sort_by_key(|(_, body)| body.len());
            forms = smaller;
        }
        forms.insert(0, ("identity", content));
        let forms = forms
            .into_iter()
            .map(|(coding, body)| Form::new(kind, coding, &tag, body))
            .collect();
        Self { forms }
    }

    fn answer(&self, header: Header<'_>) -> &Answer {
        let form = self
            .forms
            .iter()
            .skip(1)
            .find(|form| accepts(header, form.coding))
            .unwrap_or(&self.forms[0]); // the identity form is always there
        if is_held(header, &form.tag) {
            &form.unchanged
        } else {
            &form.whole
        }
    }
}

impl Form {
    fn new(kind: &'static str, coding: &'static str, hash: &str, body: Vec<u8>) -> Self {
        let tag = format!("\"{hash}-{coding}\"");
        // Scripts and styles belong to the page that names them: all are asked for anew, and a
        // matching ETag makes that cheap. Pictures may be a little old.
        let keep = if is_text(kind) && kind != "image/svg+xml" {
            "no-cache"
        } else {
            "public, max-age=3600"
        };
        let mut whole = Answer::new(
            StatusCode::OK,
            HeaderValue::from_static(kind),
            Bytes::from(body),
        )
        .with(CACHE_CONTROL, HeaderValue::from_static(keep))
        .with(VARY, HeaderValue::from_static("accept-encoding"))
        .with(CONTENT_SECURITY_POLICY, POLICY)
        .with(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        if let Ok(value) = HeaderValue::try_from(&tag) {
            whole = whole.with(ETAG, value);
        }
        let unchanged = whole.unchanged();
        if coding != "identity" {
            whole = whole.with(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        Self {
            coding,
            tag,
            whole,
            unchanged,
        }
    }
}

type Failure = (PathBuf, std::io::Error);

fn read_folder(
    folder: &Path,
    prefix: &str,
    depth: usize,
    pages: &mut HashMap<String, Page>,
) -> Result<(), Failure> {
    let failed = |source| (folder.to_owned(), source);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(failed)?;
        let name = format!("{prefix}{name}");
        if kind.is_dir() && depth < DEPTH_MAX {
            read_folder(&path, &format!("{name}/"), depth + 1, pages)?;
        } else if path.is_file() {
            let content = std::fs::read(&path).map_err(|source| (path.clone(), source))?;
            let page = Page::new(&name, content);
            pages.insert(name, page);
        }
    }
    Ok(())
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

fn is_text(kind: &str) -> bool {
    kind.starts_with("text/") || kind == "application/json" || kind == "image/svg+xml"
}

fn brotli(content: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams::default();
    match brotli::BrotliCompress(&mut &*content, &mut body, &parameters) {
        Ok(_) => body,
        Err(_) => Vec::new(),
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
    let written = encoder.write_all(content);
    written.and_then(|()| encoder.finish()).unwrap_or_default()
}

/// Whether the request accepts the coding, by name and with a weight above zero.
fn accepts(header: Header<'_>, coding: &str) -> bool {
    values(header, &ACCEPT_ENCODING).any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(coding));
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        named && weight.is_none_or(|weight| weight.parse().is_ok_and(|q: f32| q > 0.0))
    })
}

fn is_held(header: Header<'_>, tag: &str) -> bool {
    values(header, &IF_NONE_MATCH)
        .any(|held| held == "*" || held.strip_prefix("W/").unwrap_or(held) == tag)
}

fn values<'a>(header: Header<'a>, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    header
        .texts(name)
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn header(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_coding_of_weight_zero_is_not_accepted() {
        for (value, accepted) in [
            ("br", true),
            ("gzip, BR;q=0.5", true),
            ("gzip, br;q=0", false),
            ("gzip, br; q=0.0", false),
            ("brotli", false),
            ("", false),
        ] {
            assert_eq!(
                accepts(Header::from(&header(ACCEPT_ENCODING, value)), "br"),
                accepted,
                "{value}"
            );
        }
    }

    #[test]
    fn a_held_page_is_not_sent_again() {
        let page = Page::new("a.html", b"<p>".repeat(1_000));
        let answer = |map: &HeaderMap| page.answer(Header::from(map)).clone();
        let whole = answer(&HeaderMap::new());
        let tag = whole
            .fields
            .list
            .iter()
            .find(|(name, _)| *name == ETAG)
            .unwrap()
            .1
            .clone();
        let again = answer(&HeaderMap::from_iter([(IF_NONE_MATCH, tag)]));
        assert_eq!(again.status, StatusCode::NOT_MODIFIED);
        assert!(again.body.is_empty());
        let zipped = answer(&header(ACCEPT_ENCODING, "gzip, br"));
        assert!(zipped.body.len() < whole.body.len());
        let other = answer(&header(IF_NONE_MATCH, "W/\"else\""));
        assert_eq!(other.status, StatusCode::OK);
    }
}
