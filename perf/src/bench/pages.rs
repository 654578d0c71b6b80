//! A page that was compressed beforehand: from the edge's memory, beside nginx with a file that was compressed
//! beforehand too, and beside a responder that has nothing but these bytes.

use std::os::unix::fs::PermissionsExt as _;

use floodgate_servers::Peer;
use tempfile::TempDir;

use super::Failure;
use super::exchange::fetch;
use super::peers::{Kind, Setting};
use super::work::{Doing, Work, request};

const NGINX: &str = "nginx, compressed file";
/// The largest of them.
const PAGE: &str = "/resources/item.html";
/// Longer than any page here.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// Servers that have the page, beside Floodgate.
pub struct Pages {
    bare: Peer,
    nginx: Peer,
    /// The page as Floodgate sends it.
    body: Vec<u8>,
    _folder: TempDir,
}

impl Pages {
    /// Starts them. They have the page as Floodgate sends it, which must be the file that it was made from.
    pub fn start(setting: &Setting, floodgate: &Peer) -> Result<Self, Failure> {
        let answer = fetch(floodgate.port(), &asked(None))?;
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

        let config = setting.nginx_config(include_str!("../../peers/nginx-static.conf"));
        let config = config.replace("@PAGES@", &folder.path().display().to_string());
        let files = [("nginx.conf", config.as_str())];
        let words = ["nginx", "-c", "@FOLDER@/nginx.conf"];
        let first = Work::page(asked(None));
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
            bare: setting.start_for(&first, &[], &bare),
            nginx: setting.start_for(&first, &files, &words),
            body: answer.body,
            _folder: folder,
        };
        for peer in [&pages.bare, &pages.nginx] {
            let answer = fetch(peer.port(), &asked(None))?;
            if (answer.status, &answer.body) != (200, &pages.body) {
                return Err("a page is another one than Floodgate's".into());
            }
        }
        Ok(pages)
    }

    /// The page, and who sends it.
    pub fn whole<'a>(&'a self, floodgate: &'a Peer) -> Vec<Doing<'a>> {
        let page = |(name, peer)| Doing::new(name, peer, Work::page(asked(None)));
        let all = [
            (Kind::Floodgate.name(), floodgate),
            (Kind::Bare.name(), &self.bare),
            (NGINX, &self.nginx),
        ];
        all.map(page).into()
    }

    /// The page for who has it already, and who tells him so: each by the tag that it gave itself.
    pub fn unchanged<'a>(&'a self, floodgate: &'a Peer) -> Result<Vec<Doing<'a>>, Failure> {
        let mut all = Vec::new();
        for (name, peer) in [(Kind::Floodgate.name(), floodgate), (NGINX, &self.nginx)] {
            let answer = fetch(peer.port(), &asked(None))?;
            let tag = answer.header("etag").ok_or("a page without a tag")?;
            let work = Work::unchanged(asked(Some(tag)));
            let again = fetch(peer.port(), &asked(Some(tag)))?;
            if (again.status, again.body.as_slice()) != (304, b"".as_slice()) {
                return Err(format!("{name} sends the page again").into());
            }
            all.push(Doing::new(name, peer, work));
        }
        Ok(all)
    }
}

/// The request, as a browser makes it that has the page with this tag already.
fn asked(tag: Option<&str>) -> String {
    let mut headers = vec![("Accept-Encoding", "br, gzip")];
    headers.extend(tag.map(|tag| ("If-None-Match", tag)));
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
