//! postgres: one node whose commits are durable, with a user who has a password.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::kept::{Kept, children_of, finish, free_port, is_root, runs, signal, wait_until};

/// Who may do everything in it.
const USER: &str = "shop";
const PASSWORD: &str = "open sesame, at once/100%";

/// A postgres of one's own.
pub struct Postgres {
    kept: Option<Kept>,
    folder: TempDir,
    port: u16,
    more: Vec<String>,
    databases: AtomicU32,
}

impl Postgres {
    /// Starts one.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with further words for its command line, like `-c`, `fsync=off`.
    pub fn with(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("password");
        std::fs::write(&secret, PASSWORD).unwrap();
        if is_root() {
            finish(
                Command::new("chown")
                    .args(["-R", "postgres"])
                    .arg(folder.path()),
            );
        }
        let words = [
            program("initdb").display().to_string(),
            "--no-sync".to_owned(),
            "--auth=scram-sha-256".to_owned(),
            "--encoding=UTF8".to_owned(),
            "--locale=C".to_owned(),
            format!("--username={USER}"),
            format!("--pwfile={}", secret.display()),
            format!("--pgdata={}", folder.path().join("data").display()),
        ];
        let words = as_postgres(&words);
        finish(Command::new(&words[0]).args(&words[1..]));
        let mut postgres = Self {
            kept: None,
            folder,
            port: free_port(),
            more: more.iter().map(|word| (*word).to_owned()).collect(),
            databases: AtomicU32::new(0),
        };
        postgres.restart();
        postgres
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The password of the user in its URLs.
    pub const fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The URL, without a password, of a database that nobody used yet.
    pub fn fresh(&self) -> String {
        let name = format!("shop{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.ask(
            "postgres",
            &format!("CREATE DATABASE {name} TEMPLATE template0"),
        );
        self.url(&name)
    }

    /// The URL, without a password, of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// What it answers, line by line, a `|` between columns.
    pub fn ask(&self, database: &str, sql: &str) -> String {
        finish(&mut self.client(database, sql))
    }

    fn client(&self, database: &str, sql: &str) -> Command {
        let mut client = Command::new("psql");
        client
            .args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet"])
            .args([
                "--host=127.0.0.1",
                "--set=ON_ERROR_STOP=1",
                "--username",
                USER,
            ])
            .arg(format!("--port={}", self.port))
            .arg(format!("--command={sql}"))
            .arg(database)
            .env("PGPASSWORD", PASSWORD);
        client
    }

    /// Ends it as a crash does: all its processes at once.
    pub fn kill(&mut self) {
        let Some(mut kept) = self.kept.take() else {
            return;
        };
        let pid = kept.pid();
        // What hangs cannot start another one meanwhile.
        signal(pid, "-STOP");
        let children = children_of(pid);
        for child in &children {
            signal(*child, "-KILL");
        }
        kept.kill();
        while children.iter().any(|child| runs(*child)) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts it again, on the same port and files, after it was ended.
    pub fn restart(&mut self) {
        self.kill();
        let folder = self.folder.path();
        let log = folder.join("log");
        let mut words = vec![
            program("postgres").display().to_string(),
            "-D".to_owned(),
            folder.join("data").display().to_string(),
            "-p".to_owned(),
            self.port.to_string(),
            "-h".to_owned(),
            "127.0.0.1".to_owned(),
            "-k".to_owned(),
            folder.display().to_string(),
            "-c".to_owned(),
            "shared_buffers=64MB".to_owned(),
        ];
        words.extend(self.more.iter().cloned());
        let kept = Kept::start(&log, &as_postgres(&words));
        wait_until("postgres", &log, || {
            assert!(
                kept.is_running(),
                "{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            let asked = self.client("postgres", "SELECT 1").output().unwrap();
            asked.status.success()
        });
        self.kept = Some(kept);
    }

    /// Stops it from running without ending it, as a machine that hangs.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it run on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        if let Some(kept) = &self.kept {
            kept.signal(name);
            for child in children_of(kept.pid()) {
                signal(child, name);
            }
        }
    }
}

/// Where the program is: Debian keeps the server's programs off the path.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let found = versions
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.is_file())
        .max();
    found.unwrap_or_else(|| Path::new(name).to_owned())
}

/// The command, under a user who may run it: postgres refuses to be root.
fn as_postgres(words: &[String]) -> Vec<String> {
    let mut command = Vec::new();
    if is_root() {
        let user = [
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
        ];
        command.extend(user.map(str::to_owned));
    }
    command.extend_from_slice(words);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::connect;

    #[test]
    fn it_comes_back_with_what_it_had_and_ends_with_its_owner() {
        let mut postgres = Postgres::start();
        let url = postgres.fresh();
        let name = url.rsplit_once('/').unwrap().1;
        postgres.ask(name, "CREATE TABLE a (b INT); INSERT INTO a VALUES (7)");
        postgres.kill();
        assert!(connect(postgres.port()).is_none());
        postgres.restart();
        assert_eq!(postgres.ask(name, "SELECT b FROM a"), "7\n");
        assert_ne!(postgres.fresh(), url);
        let (port, folder) = (postgres.port(), postgres.folder.path().to_owned());
        drop(postgres);
        assert!(connect(port).is_none() && !folder.exists());
    }
}
