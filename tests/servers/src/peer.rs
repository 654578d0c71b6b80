//! Any other server, for a comparison: its files are written into a folder of its own, and it is started there.
//! In files and words `@PORT@` and `@FOLDER@` stand for what it was given.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::kept::{Kept, children_of, free_port, wait_until};

/// A server of one's own.
pub struct Peer {
    kept: Kept,
    folder: TempDir,
    port: u16,
}

impl Peer {
    /// Starts the program that `words` name, and waits until `is_up` says so of its port.
    pub fn start(
        files: &[(&str, &str)],
        words: &[&str],
        mut is_up: impl FnMut(u16) -> bool,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Some give up root, and must be able to go through it.
        open_to_all(folder.path());
        let port = free_port();
        let own = |text: &str| {
            let text = text.replace("@PORT@", &port.to_string());
            text.replace("@FOLDER@", &folder.path().display().to_string())
        };
        for (name, text) in files {
            let path = folder.path().join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).unwrap();
            }
            std::fs::write(path, own(text)).unwrap();
        }
        let words: Vec<String> = words.iter().map(|word| own(word)).collect();
        let log = folder.path().join("log");
        let kept = Kept::start(&log, &words);
        let what = words.join(" ");
        wait_until(&what, &log, || is_up(port));
        Self { kept, folder, port }
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Its processes: the one that was started, and what that one started.
    pub fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.kept.pid()];
        let mut next = 0;
        while let Some(pid) = all.get(next).copied() {
            all.extend(children_of(pid));
            next += 1;
        }
        all
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Workers outlive a master that is killed, and one that still runs replaces those who are.
        self.kept.signal("-STOP");
        for pid in self.processes().into_iter().skip(1) {
            crate::kept::signal(pid, "-KILL");
        }
        self.kept.kill();
    }
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_that_replaces_its_workers_leaves_none_behind() {
        let words = ["sh", "-c", "while :; do sleep 8@PORT@; done"];
        let peer = Peer::start(&[], &words, |_| true);
        let worker = format!("sleep\08{}\0", peer.port());
        let works = || {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            let mut words = processes.map(|process| std::fs::read(process.path().join("cmdline")));
            words.any(|words| words.is_ok_and(|words| words == worker.as_bytes()))
        };
        while !works() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        drop(peer);
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!works());
    }
}
