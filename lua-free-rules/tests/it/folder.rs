//! Reads configuration folders for the tests.

use std::fs;
use std::path::{Path, PathBuf};

use lua_free_rules::config::{File, Files};

/// A folder of the repository.
pub fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The configuration in `folder`; its files are named relative to it.
pub fn read(folder: &Path) -> Files {
    let file = |name: String| File {
        text: fs::read_to_string(folder.join(&name)).unwrap(),
        name,
    };
    let promos = match folder.join("promos") {
        promos if promos.is_dir() => names(&promos),
        _ => Vec::new(),
    };
    Files {
        node: file("floodgate.toml".to_owned()),
        catalog: file("catalog.toml".to_owned()),
        promos: promos
            .iter()
            .map(|name| file(format!("promos/{name}")))
            .collect(),
    }
}

/// The names in `folder`, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
