//! Reads a configuration folder and hands its text to the rules; what they refuse is reported whole.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use engine::embedded::Options;
use lua_free_rules::config::{Config, File, Files, parse};

use crate::{Failure, Outcome};

/// Largest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How long a request waits for its turn in the engine, and once more for its answer: both together
/// less than an edge waits for an order server, so that the order server is the one who answers.
const ENGINE_PATIENCE: Duration = Duration::from_secs(2);

/// A configuration and the folder that its paths are relative to.
pub struct Loaded {
    pub config: Config,
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

    pub fn engine(&self) -> PathBuf {
        self.data_dir().join("engine.db")
    }

    pub fn engine_options(&self) -> Options {
        Options {
            stream_max: self.config.node.orders.stream_max,
            patience: ENGINE_PATIENCE,
            ..Options::default()
        }
    }
}

/// Loads the folder.
///
/// # Errors
/// Every error in it, each with file, line and column.
pub fn load(folder: &Path) -> Outcome<Loaded> {
    let (files, mut errors) = read(folder);
    match parse(&files) {
        Ok(config) if errors.is_empty() => Ok(Loaded {
            config,
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
pub fn check(folder: &Path) -> Outcome {
    let loaded = load(folder)?;
    for warning in &loaded.config.warnings {
        println!("warning: {warning}");
    }
    println!(
        "{}: good; {} items, {} promos",
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
