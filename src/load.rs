//! Reads a configuration folder and hands its text to the rules; what they refuse is reported whole.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use lua_free_rules::config::{Config, File, Files, Node, Role, parse_for};

use crate::{Failure, Outcome};

/// Largest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration and the folder that its paths are relative to.
pub struct Loaded {
    pub config: Config,
    /// The role it was read for; none for `run` and the commands.
    pub role: Option<Role>,
    folder: PathBuf,
}

impl Loaded {
    /// A path as written in the configuration, from here.
    pub fn path(&self, written: &str) -> PathBuf {
        self.folder.join(written)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.path(&self.config.node.data_dir)
    }

    /// Makes `data_dir` if there is none, and keeps others out of it: it holds keys, numbers and orders.
    pub fn make_data_dir(&self) -> anyhow::Result<()> {
        let path = self.data_dir();
        std::fs::create_dir_all(&path)
            .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(0o700)))
            .with_context(|| format!("cannot make {} and keep others out", path.display()))
    }

    /// The file of an embedded engine.
    pub fn engine(&self) -> PathBuf {
        self.data_dir().join("engine.db")
    }

    /// Whether engine and ledger are files that one process has for itself.
    pub fn is_exclusive(&self) -> bool {
        !self.config.node.engine.is_shared() && !self.config.node.database.is_shared()
    }

    /// Whether neither of them is a file of this machine.
    pub fn is_shared(&self) -> bool {
        self.config.node.engine.is_shared() && self.config.node.database.is_shared()
    }

    /// The name of this process, which does `what`: as written, or made of its host's name.
    pub fn node_name(&self, what: &str) -> String {
        self.config.node.name_on(&host_name(), what)
    }

    /// A name for a command: many may be on their way at once, beside the process of the written name.
    pub fn command_name(&self, command: &str) -> String {
        let what = format!("{command}-{}", std::process::id());
        Node::default().name_on(&host_name(), &what)
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| "host".to_owned(), |name| name.trim().to_owned())
}

/// Loads the folder, for a process of that role.
///
/// # Errors
/// Every error in it, each with file, line and column.
pub fn load(folder: &Path, role: Option<Role>) -> Outcome<Loaded> {
    let (files, mut errors) = read(folder);
    match parse_for(&files, role) {
        Ok(config) if errors.is_empty() => Ok(Loaded {
            config,
            role,
            folder: folder.to_owned(),
        }),
        Ok(_) => Err(Failure::Config(errors)),
        // What is said of a file that could not be read, or of one that leans on it, means nothing.
        Err(_) if files.node.name.is_empty() || files.catalog.name.is_empty() => {
            Err(Failure::Config(errors))
        }
        Err(found) => {
            errors.extend(found.iter().map(ToString::to_string));
            Err(Failure::Config(errors))
        }
    }
}

/// `floodgate check`.
pub fn check(folder: &Path, role: Option<Role>) -> Outcome {
    let loaded = load(folder, role)?;
    for warning in &loaded.config.warnings {
        println!("warning: {warning}");
    }
    let role = role.map_or_else(String::new, |role| format!(" for `floodgate {role}`"));
    println!(
        "{}: good{role}; {} items, {} promos",
        folder.display(),
        loaded.config.catalog.len(),
        loaded.config.promos.len()
    );
    Ok(())
}

/// The files that can be read, and an error for each that cannot.
fn read(folder: &Path) -> (Files, Vec<String>) {
    let mut errors = Vec::new();
    let mut take = |path: PathBuf| match read_text(&path) {
        Ok(text) => Some(File {
            name: path.display().to_string(),
            text,
        }),
        Err(why) => {
            errors.push(format!("{}: {why}", path.display()));
            None
        }
    };
    let node = take(folder.join("floodgate.toml"));
    let catalog = take(folder.join("catalog.toml"));
    let promos = promo_files(folder).into_iter().filter_map(take).collect();
    let none = || File {
        name: String::new(),
        text: String::new(),
    };
    let files = Files {
        node: node.unwrap_or_else(none),
        catalog: catalog.unwrap_or_else(none),
        promos,
    };
    (files, errors)
}

fn promo_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join("promos"))
        .into_iter()
        .flatten()
        .flatten();
    let mut paths: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    paths.sort();
    paths
}

fn read_text(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if size > FILE_BYTES_MAX {
        return Err(format!(
            "larger than {FILE_BYTES_MAX} bytes: is this a configuration file?"
        ));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        format!("line {line} is not UTF-8: save the file as UTF-8")
    })
}
