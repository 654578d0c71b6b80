//! `running.json` in `data_dir`: where the process that holds the files can be asked. The lock on
//! the files says whether there is one; this only says where.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Method, RequestBuilder};
use serde::{Deserialize, Serialize};

/// How long the running process may take to answer.
const ASK_MAX: Duration = Duration::from_secs(10);

/// The addresses of a running process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    pub pid: u32,
    pub edge: SocketAddr,
    pub edge_admin: SocketAddr,
    pub orders: Vec<SocketAddr>,
    pub orders_admin: SocketAddr,
}

impl Running {
    /// Writes it whole or not at all.
    pub fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let draft = data_dir.join("running.json.new");
        std::fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&draft, path(data_dir))?;
        Ok(())
    }

    /// Reads it.
    pub fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let path = path(data_dir);
        let text = std::fs::read(&path).with_context(|| {
            format!(
                "a process holds the files, but {} cannot be read",
                path.display()
            )
        })?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Removes it; the process is about to end.
    pub fn remove(data_dir: &Path) {
        // Left behind it would only name addresses that no longer answer.
        let _ = std::fs::remove_file(path(data_dir));
    }

    /// A request to an order server, with the operator's token. It goes to this machine and to no
    /// proxy that the environment may name.
    pub fn ask(&self, method: Method, path: &str, token: &str) -> anyhow::Result<RequestBuilder> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(ASK_MAX)
            .build()?;
        Ok(client
            .request(method, format!("{}{path}", self.order_server()?))
            .bearer_auth(token))
    }

    fn order_server(&self) -> anyhow::Result<String> {
        let address = self
            .orders
            .first()
            .context("the running process has no order server")?;
        Ok(format!("http://{address}"))
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("running.json")
}
