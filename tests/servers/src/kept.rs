//! A process that is killed when its owner is dropped, and also when the owner's process dies without
//! dropping anything: a shell between the two waits for the end of its own input.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest that a server may take to answer after its start; generous, since tests share cores.
const START_MAX: Duration = Duration::from_secs(120);
/// Longest that it is waited for a process to stand still.
const STOP_MAX: Duration = Duration::from_secs(10);
/// The shell: starts what it is given, tells its process id, and kills it when told so, or when its own
/// input ends: then its owner is gone, and the folder goes too.
const KEEPER: &str = r#"log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!
read -r told; kill -9 $! 2>/dev/null; wait $! 2>/dev/null; [ "$told" ] || rm -rf "${log%/*}""#;

/// A process and the shell that keeps it.
pub(crate) struct Kept {
    keeper: Child,
    pid: u32,
}

impl Kept {
    /// Starts a program; what it prints goes to `log`, which lies in the program's own folder: the folder
    /// is removed when the owner is gone, also if he could not do it himself.
    pub(crate) fn start<S: AsRef<OsStr>>(log: &Path, program: &[S]) -> Self {
        let mut keeper = Command::new("sh")
            .arg("-c")
            .arg(KEEPER)
            .arg("keeper")
            .arg(log)
            .args(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let pid = line.trim().parse().unwrap();
        Self { keeper, pid }
    }

    /// The process, not the shell.
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it as a crash does, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        signal(self.pid, "-KILL");
        if let Some(mut told) = self.keeper.stdin.take() {
            told.write_all(b"kill\n").unwrap();
        }
        self.keeper.wait().unwrap();
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&self) -> bool {
        runs(self.pid)
    }

    /// Stops it from running, or lets it run on: `-STOP`, `-CONT`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid, name);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Whatever it says, the process is gone.
        let _ = self.keeper.wait();
    }
}

/// Runs a program to its end; panics with what it printed if it fails.
pub(crate) fn finish(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let print = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        print(&output.stdout),
        print(&output.stderr)
    );
    print(&output.stdout)
}

/// Whether the tests run as root, who may not run every server.
pub(crate) fn is_root() -> bool {
    static IS_ROOT: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| finish(Command::new("id").arg("-u")).trim() == "0");
    *IS_ROOT
}

pub(crate) fn signal(pid: u32, name: &str) {
    // A process that is gone already needs no signal.
    let _ = Command::new("kill")
        .args([name, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    if name == "-STOP" {
        // Threads that run on another core run on for a moment: they could answer in it.
        let until = Instant::now() + STOP_MAX;
        while !is_stopped(pid) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether none of its threads runs.
fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    let mut states = threads
        .flatten()
        .filter_map(|thread| Some(stat(&thread.path())?.0));
    states.all(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
}

/// The process ids of a process's children.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|child| stat(&process(*child)).is_some_and(|(_, parent)| parent == pid))
        .collect()
}

fn process(pid: u32) -> std::path::PathBuf {
    format!("/proc/{pid}").into()
}

/// Whether a process runs. What was killed stays in the table until its parent has looked: `Z`.
pub(crate) fn runs(pid: u32) -> bool {
    stat(&process(pid)).is_some_and(|(state, _)| state != 'Z')
}

/// State and parent of a process or thread, by its folder in `/proc`.
fn stat(folder: &Path) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// A port of the loopback interface that was free just now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Waits until `is_up` says so; panics with the server's log if it never does.
pub(crate) fn wait_until(what: &str, log: &Path, mut is_up: impl FnMut() -> bool) {
    let until = Instant::now() + START_MAX;
    while !is_up() {
        assert!(
            Instant::now() < until,
            "{what} does not answer:\n{}",
            std::fs::read_to_string(log).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A connection to a port of the loopback interface.
pub(crate) fn connect(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    Some(stream)
}
