//! The servers that are compared, each as its users would set it up for speed: their configuration is in
//! `perf/peers/`.

use std::path::{Path, PathBuf};

use floodgate_servers::Peer;

use super::Failure;
use super::exchange::{Answer, fetch};
use super::work::Work;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Floodgate,
    Bare,
    NginxReturn,
    NginxCache,
    NginxLua,
    Haproxy,
    Varnish,
}

/// All of them, Floodgate first.
pub const ALL: [Kind; 7] = [
    Kind::Floodgate,
    Kind::Bare,
    Kind::NginxReturn,
    Kind::NginxCache,
    Kind::NginxLua,
    Kind::Haproxy,
    Kind::Varnish,
];

const MODULES: &str = "/usr/lib/nginx/";
const CONFIG: &str = include_str!("../../config/floodgate.toml");
const CATALOG: &str = include_str!("../../config/catalog.toml");
const PROMO: &str = include_str!("../../config/promos/crowd.toml");
/// More connections than are opened, none of them closed while it is measured.
const LIMITS: &str =
    "connections_max = 1000000\nconnections_per_address_max = 1000000\nidle_timeout = \"1h\"";
/// So long that an item's details take the 1.2 KB of a usual one.
const DESCRIPTION_CHARS: usize = 800;

/// Where things are, and how many workers each server gets.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The binary of Floodgate.
    pub floodgate: PathBuf,
    /// This binary, for the bare responder.
    pub perf: PathBuf,
    /// The folder of the shop's pages.
    pub pages: PathBuf,
    /// Threads or processes that serve.
    pub workers: usize,
    /// The core that a server with one worker is bound to.
    pub core: Option<usize>,
}

impl Kind {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Floodgate => "Floodgate",
            Self::Bare => "bare epoll responder",
            Self::NginxReturn => "nginx, fixed answer",
            Self::NginxCache => "nginx, proxy_cache",
            Self::NginxLua => "nginx + Lua, shared dictionary",
            Self::Haproxy => "haproxy, cache",
            Self::Varnish => "varnish",
        }
    }

    /// Starts it. `body` is the item as Floodgate answers it, and `origin` serves it.
    ///
    /// # Panics
    /// If it is missing on this machine or does not start.
    pub fn start(self, setting: &Setting, body: &[u8], origin: u16) -> Peer {
        let text = String::from_utf8_lossy(body);
        let own = |config: &str| {
            let config = config.replace("@WORKERS@", &setting.workers.to_string());
            let config = config.replace("@ORIGIN@", &origin.to_string());
            config.replace("@BODY@", &text)
        };
        let item = Work::item();
        let nginx = |config: &str| setting.nginx(&own(config), &[("item.json", &text)], &item);
        match self {
            Self::Floodgate => setting.floodgate(),
            Self::Bare => setting.bare(200, body),
            Self::NginxReturn => nginx(include_str!("../../peers/nginx-return.conf")),
            Self::NginxCache => nginx(include_str!("../../peers/nginx-cache.conf")),
            Self::NginxLua => nginx(include_str!("../../peers/nginx-lua.conf")),
            Self::Haproxy => {
                let config = own(include_str!("../../peers/haproxy.cfg"));
                let words = ["haproxy", "-db", "-f", "@FOLDER@/haproxy.cfg"];
                setting.start(&[("haproxy.cfg", &config)], &words, &item)
            }
            Self::Varnish => {
                let config = own(include_str!("../../peers/varnish.vcl"));
                let words = [
                    "varnishd",
                    "-F",
                    "-j",
                    "none",
                    "-f",
                    "@FOLDER@/varnish.vcl",
                    "-a",
                    "127.0.0.1:@PORT@",
                    "-n",
                    "@FOLDER@/state",
                    "-s",
                    "malloc,64m",
                    "-p",
                    "thread_pools=1",
                    "-p",
                    "thread_pool_min=100",
                ];
                setting.start(&[("varnish.vcl", &config)], &words, &item)
            }
        }
    }
}

impl Setting {
    /// The same on the core where the load is: for what a server asks.
    pub fn beside(&self) -> Self {
        Self {
            core: self.core.map(|core| core + 1),
            ..self.clone()
        }
    }

    /// The core that the load is bound to.
    pub fn load_core(&self) -> Option<usize> {
        self.core.map(|core| core + 1)
    }

    /// The bare responder, which is also the origin of those that keep copies.
    pub fn bare(&self, status: u16, body: &[u8]) -> Peer {
        let text = String::from_utf8_lossy(body);
        let (perf, workers) = (self.perf.display().to_string(), self.workers.to_string());
        let words = [
            &perf,
            "bare",
            "--port",
            "@PORT@",
            "--status",
            &status.to_string(),
            "--body",
            "@FOLDER@/answer.json",
            "--workers",
            &workers,
        ];
        let ready = Work {
            status,
            ..Work::item()
        };
        self.start(&[("answer.json", &text)], &words, &ready)
    }

    /// nginx, with further files in its folder.
    pub fn nginx(&self, config: &str, files: &[(&str, &str)], ready: &Work) -> Peer {
        let config = config
            .replace("@WORKERS@", &self.workers.to_string())
            .replace(" modules/", &format!(" {MODULES}modules/"));
        let mut all = vec![("nginx.conf", config.as_str())];
        all.extend(files);
        self.start(&all, &["nginx", "-c", "@FOLDER@/nginx.conf"], ready)
    }

    /// Floodgate with everything on: rules, limits, metrics.
    fn floodgate(&self) -> Peer {
        let config = CONFIG
            .replace("127.0.0.1:18080", "127.0.0.1:@PORT@")
            .replace("connections_per_address_max = 10000", LIMITS)
            .replace(
                "pages = \"../html\"",
                &format!("pages = {:?}\nthreads = {}", self.pages, self.workers),
            );
        let catalog = catalog();
        let files = [
            ("config/floodgate.toml", config.as_str()),
            ("config/catalog.toml", &catalog),
            ("config/promos/crowd.toml", PROMO),
        ];
        let floodgate = self.floodgate.display().to_string();
        let words = [&floodgate, "run", "--config", "@FOLDER@/config"];
        self.start(&files, &words, &Work::item())
    }

    /// Starts the program that `words` name, and waits until it answers `ready` rightly.
    pub fn start(&self, files: &[(&str, &str)], words: &[&str], ready: &Work) -> Peer {
        let core = self.core.map(|core| core.to_string());
        let mut all = Vec::new();
        if let Some(core) = &core {
            all.extend(["taskset", "-c", core]);
        }
        all.extend(words);
        Peer::start(files, &all, |port| {
            ask(port, ready).is_ok_and(|answer| answer.status == ready.status)
        })
    }
}

/// A shop with one item.
pub fn catalog() -> String {
    let words = "What the crowd comes for. ".repeat(DESCRIPTION_CHARS / 26);
    CATALOG.replace("What the crowd comes for.", words.trim_end())
}

/// One request, and what is answered.
///
/// # Errors
/// If there is no answer in time, or none that can be read.
pub fn ask(port: u16, work: &Work) -> Result<Answer, Failure> {
    let request = work.requests.first().ok_or("nothing to ask")?;
    fetch(port, request)
}

/// The binary beside this one.
pub fn beside(perf: &Path, name: &str) -> PathBuf {
    perf.with_file_name(name)
}
