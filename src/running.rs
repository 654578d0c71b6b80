//! `running.json` in `data_dir`: where the process that holds the files can be asked. The lock on
//! the files says whether there is one; this only says where.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

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

    /// An order server to ask.
    pub fn order_server(&self) -> anyhow::Result<String> {
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
