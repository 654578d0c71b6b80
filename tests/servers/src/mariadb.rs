//! mariadbd: one node whose commits are durable, with a user who has a password.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::kept::{Kept, connect, finish, free_port, is_root, wait_until};

/// Who may do everything in it.
const USER: &str = "shop";
const PASSWORD: &str = "open sesame, at once/100%";

/// A mariadbd of one's own.
pub struct MariaDb {
    kept: Option<Kept>,
    folder: TempDir,
    port: u16,
    more: Vec<String>,
    databases: AtomicU32,
}

impl MariaDb {
    /// Starts one.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with further words for its command line.
    pub fn with(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut install = Command::new("mariadb-install-db");
        install
            .args(["--no-defaults", "--skip-test-db"])
            .args(["--auth-root-authentication-method=normal"])
            .args([
                "--innodb-log-file-size=4M",
                "--innodb-data-file-path=ibdata1:4M:autoextend",
            ])
            .arg(format!("--datadir={}", data.display()));
        if is_root() {
            install.arg("--user=root");
        }
        finish(&mut install);
        let grant = format!(
            "CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n\
             GRANT ALL ON *.* TO '{USER}'@'127.0.0.1';\n"
        );
        std::fs::write(folder.path().join("init.sql"), grant).unwrap();
        let mut mariadb = Self {
            kept: None,
            folder,
            port: free_port(),
            more: more.iter().map(|word| (*word).to_owned()).collect(),
            databases: AtomicU32::new(0),
        };
        mariadb.restart();
        mariadb
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
        self.ask("", &format!("CREATE DATABASE {name} CHARACTER SET latin1"));
        self.url(&name)
    }

    /// The URL, without a password, of a database.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// What it answers, line by line, a tab between columns.
    pub fn ask(&self, database: &str, sql: &str) -> String {
        let mut client = Command::new("mariadb");
        client
            .args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1"])
            .args(["--batch", "--skip-column-names", "--user", USER])
            .arg(format!("--port={}", self.port))
            .arg(format!("--execute={sql}"))
            .arg(database)
            .env("MYSQL_PWD", PASSWORD);
        finish(&mut client)
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
        let folder = self.folder.path();
        let log = folder.join("log");
        let mut words = vec![
            server(),
            "--no-defaults".to_owned(),
            format!("--datadir={}", folder.join("data").display()),
            format!("--socket={}", folder.join("socket").display()),
            format!("--pid-file={}", folder.join("pid").display()),
            format!("--init-file={}", folder.join("init.sql").display()),
            format!("--port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            "--skip-name-resolve".to_owned(),
            "--innodb-flush-log-at-trx-commit=1".to_owned(),
            "--innodb-log-file-size=4M".to_owned(),
            "--innodb-data-file-path=ibdata1:4M:autoextend".to_owned(),
            "--innodb-buffer-pool-size=64M".to_owned(),
        ];
        if is_root() {
            words.push("--user=root".to_owned());
        }
        words.extend(self.more.iter().cloned());
        self.kept = Some(Kept::start(&log, &words));
        let port = self.port;
        wait_until("mariadbd", &log, || answers(port));
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

/// The program: Debian keeps it off the path of most users.
fn server() -> String {
    let path = "/usr/sbin/mariadbd";
    let is_there = std::path::Path::new(path).is_file();
    if is_there { path } else { "mariadbd" }.to_owned()
}

/// Whether it greets who connects.
fn answers(port: u16) -> bool {
    use std::io::Read as _;
    let Some(mut stream) = connect(port) else {
        return false;
    };
    // Length, number and protocol version of its greeting.
    let mut greeting = [0_u8; 5];
    stream.read_exact(&mut greeting).is_ok() && greeting[4] == 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_with_what_it_had_and_ends_with_its_owner() {
        let mut mariadb = MariaDb::start();
        let url = mariadb.fresh();
        let name = url.rsplit_once('/').unwrap().1;
        mariadb.ask(name, "CREATE TABLE a (b INT); INSERT INTO a VALUES (7)");
        mariadb.kill();
        assert!(connect(mariadb.port()).is_none());
        mariadb.restart();
        assert_eq!(mariadb.ask(name, "SELECT b FROM a"), "7\n");
        assert_ne!(mariadb.fresh(), url);
        let (port, folder) = (mariadb.port(), mariadb.folder.path().to_owned());
        drop(mariadb);
        assert!(connect(port).is_none() && !folder.exists());
    }
}
