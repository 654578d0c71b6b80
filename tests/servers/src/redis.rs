//! redis-server: one node, with AOF as the test wants it.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::kept::{Kept, connect, finish, free_port, wait_until};

/// When Redis makes what it wrote durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before it answers.
    Always,
    /// Once a second.
    EverySecond,
    /// No append-only file.
    Off,
}

/// A redis-server of one's own.
pub struct Redis {
    kept: Option<Kept>,
    folder: TempDir,
    port: u16,
    fsync: Fsync,
    more: Vec<String>,
}

impl Redis {
    /// Starts one whose append-only file is synced before each answer.
    pub fn start() -> Self {
        Self::with(Fsync::Always, &[])
    }

    /// Starts one with further words for its command line.
    pub fn with(fsync: Fsync, more: &[&str]) -> Self {
        let mut redis = Self {
            kept: None,
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            fsync,
            more: more.iter().map(|word| (*word).to_owned()).collect(),
        };
        redis.restart();
        redis
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.kept.as_ref().map(Kept::pid)
    }

    /// The folder with its append-only file.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// What it answers to a command, line by line.
    pub fn ask(&self, command: &str) -> Vec<String> {
        let port = self.port.to_string();
        let mut client = Command::new("redis-cli");
        client.args(["-p", &port]).args(command.split(' '));
        finish(&mut client).lines().map(str::to_owned).collect()
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut kept) = self.kept.take() {
            kept.kill();
        }
    }

    /// Starts it again, on the same port and files, after it was ended.
    pub fn restart(&mut self) {
        self.kill();
        let log = self.folder.path().join("log");
        let (aof, fsync) = match self.fsync {
            Fsync::Always => ("yes", "always"),
            Fsync::EverySecond => ("yes", "everysec"),
            Fsync::Off => ("no", "no"),
        };
        let folder = self.folder.path().display().to_string();
        let port = self.port.to_string();
        let mut words = vec![
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--dir",
            &folder,
            "--save",
            "",
            "--appendonly",
            aof,
            "--appendfsync",
            fsync,
        ];
        words.extend(self.more.iter().map(String::as_str));
        self.kept = Some(Kept::start(&log, &words));
        let port = self.port;
        wait_until("redis-server", &log, || answers(port));
    }

    /// Forgets everything it has on disk; call it between [`Redis::kill`] and [`Redis::restart`].
    pub fn forget(&self) {
        assert!(self.kept.is_none(), "it still runs");
        let files = self.folder.path().join("appendonlydir");
        std::fs::remove_dir_all(files).unwrap();
    }

    /// Stops it from running without ending it, as a machine that hangs.
    pub fn freeze(&self) {
        if let Some(kept) = &self.kept {
            kept.signal("-STOP");
        }
    }

    /// Lets it run on.
    pub fn thaw(&self) {
        if let Some(kept) = &self.kept {
            kept.signal("-CONT");
        }
    }
}

/// Whether it answers and has loaded its files.
fn answers(port: u16) -> bool {
    let Some(mut stream) = connect(port) else {
        return false;
    };
    let mut answer = [0_u8; 5];
    stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        // One with a password answers too: that it wants it.
        && (&answer == b"+PONG" || &answer == b"-NOAU")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_with_what_it_had_and_ends_with_its_owner() {
        let mut redis = Redis::start();
        let ask = |port, line: &str| {
            let mut stream = connect(port).unwrap();
            stream
                .write_all(format!("{line}\r\nQUIT\r\n").as_bytes())
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        assert!(ask(redis.port(), "SET a 1").starts_with("+OK"));
        redis.restart();
        assert!(ask(redis.port(), "GET a").starts_with("$1\r\n1"));
        redis.kill();
        redis.forget();
        redis.restart();
        assert!(ask(redis.port(), "GET a").starts_with("$-1"));
        let port = redis.port();
        drop(redis);
        assert!(connect(port).is_none());
    }
}
