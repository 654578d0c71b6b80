//! A page that was compressed beforehand: from the edge's memory, beside nginx with a file that was compressed
//! beforehand too, and beside a responder that has nothing but these bytes.

use std::os::unix::fs::PermissionsExt as _;

use floodgate_servers::Peer;
use tempfile::TempDir;

use super::Failure;
use super::compare::compare;
use super::exchange::fetch;
use super::peers::{Kind, Setting};
use super::report::Table;
use super::work::{Work, request};
use crate::cli;

/// The largest of them.
const PAGE: &str = "/resources/item.html";
/// Longer than any page here.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// Servers that have the page.
struct Pages {
    floodgate: Peer,
    bare: Peer,
    nginx: Peer,
    _folder: TempDir,
}

impl Pages {
    /// Starts them. They have the page as Floodgate sends it, which must be the file that it was made from.
    fn start(setting: &Setting) -> Result<Self, Failure> {
        let floodgate = Kind::Floodgate.start(setting, &[], 0);
        let answer = fetch(floodgate.port(), &asked(&[]))?;
        if (answer.status, answer.header("content-encoding")) != (200, Some("br")) {
            return Err("Floodgate's page is not compressed".into());
        }
        let page = std::fs::read(setting.pages.join("item.html"))?;
        if decompressed(&answer.body)? != page {
            return Err("Floodgate's page is another one".into());
        }
        // nginx's workers are not root.
        let folder = tempfile::tempdir()?;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open)?;
        std::fs::create_dir(folder.path().join("resources"))?;
        let file = folder.path().join("resources/item.html");
        let small = file.with_extension("html.br");
        std::fs::write(&file, page)?;
        std::fs::write(&small, &answer.body)?;

        let config = include_str!("../../peers/nginx-static.conf");
        let config = config.replace("@PAGES@", &folder.path().display().to_string());
        let (perf, workers) = (setting.perf.display(), setting.workers);
        let (perf, workers) = (perf.to_string(), workers.to_string());
        let small = small.display().to_string();
        let bare = [
            &perf,
            "bare",
            "--port",
            "@PORT@",
            "--body",
            &small,
            "--workers",
            &workers,
        ];
        let pages = Self {
            bare: setting.start(&[], &bare, &whole()),
            nginx: setting.nginx(&config, &[], &whole()),
            floodgate,
            _folder: folder,
        };
        for (name, peer) in pages.named() {
            if fetch(peer.port(), &asked(&[]))?.body != answer.body {
                return Err(format!("{name} has another page").into());
            }
        }
        Ok(pages)
    }

    fn named(&self) -> [(&'static str, &Peer); 3] {
        [
            (Kind::Floodgate.name(), &self.floodgate),
            (Kind::Bare.name(), &self.bare),
            ("nginx, compressed file", &self.nginx),
        ]
    }
}

/// Measures the page, and what is said to those who have it already.
///
/// # Errors
/// If a server sends another page, or sends it to those who have it.
pub fn measure(
    cli: &cli::Bench,
    setting: &Setting,
    tables: &mut Vec<Table>,
) -> Result<(), Failure> {
    let pages = Pages::start(setting)?;
    let [floodgate, bare, nginx] = pages.named();
    let mut tags = Vec::new();
    for (name, peer) in [floodgate, nginx] {
        let answer = fetch(peer.port(), &asked(&[]))?;
        let tag = answer.header("etag").ok_or("a page without a tag")?;
        let again = fetch(peer.port(), &asked(&[tag]))?;
        if again.status != 304 {
            return Err(format!("{name} sends the page again").into());
        }
        tags.push(tag.to_owned());
    }
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let unchanged = Work::page("page that has not changed", 304, asked(&tags));
    for &connections in &cli.connections {
        let servers = [floodgate, bare, nginx];
        tables.push(compare(cli, setting, &whole(), connections, &servers)?);
    }
    for &connections in &cli.connections {
        let servers = [floodgate, nginx];
        tables.push(compare(cli, setting, &unchanged, connections, &servers)?);
    }
    Ok(())
}

fn whole() -> Work {
    Work::page("page, compressed beforehand", 200, asked(&[]))
}

/// The request, as a browser makes it that has the page with one of these tags already.
fn asked(tags: &[&str]) -> String {
    let tags = tags.join(", ");
    let mut headers = vec![("Accept-Encoding", "br, gzip")];
    if !tags.is_empty() {
        headers.push(("If-None-Match", &tags));
    }
    request("GET", PAGE, &headers, "")
}

fn decompressed(body: &[u8]) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut whole = Vec::new();
    brotli::Decompressor::new(body, 4_096)
        .take(PAGE_BYTES_MAX as u64)
        .read_to_end(&mut whole)?;
    Ok(whole)
}
