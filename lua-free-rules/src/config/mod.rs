//! What is written in TOML, and its errors. Reading files is the shell's work; here text becomes
//! settings, or a list of every error in it, each with file, line and column and what would be right.
//!
//! `source` holds a file and what was noted about it, `reader` walks its tables, `value` reads what
//! stands behind `=`. Each section has a file with its fields, defaults and bounds side by side.
//! `agree` holds what one file must know of another, `role` what a process of its own needs beyond.

mod accounts;
mod agree;
mod catalog;
mod database;
mod edge;
mod engine;
mod node;
mod orders;
mod payment;
mod promo;
mod reader;
mod role;
mod sale;
mod secrets;
mod source;
mod value;

pub use accounts::{Accounts, OtpDelivery};
pub use database::{Database, DatabaseKind, DatabasePassword, DatabaseServer, TlsMode};
pub use edge::{Edge, ItemCache, Puzzles, Rates, RequestLimits, Tls};
pub use engine::{Engine, EngineKind, RedisAddress};
pub use node::Node;
pub use orders::{OrderServers, Writer};
pub use payment::{Payment, PaymentProvider, SecretSource};
pub use role::Role;
pub use sale::{CatalogItem, End, Promo, Start};
pub use secrets::{KeyFile, Keys, Operator};
pub use value::{Address, Size};

use source::Source;

/// The text of a configuration folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    /// `floodgate.toml`.
    pub node: File,
    /// `catalog.toml`.
    pub catalog: File,
    /// Each file of `promos/`.
    pub promos: Vec<File>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct File {
    /// Its name, as it is to be shown to people.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// A configuration without an error.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The nodes.
    pub node: Node,
    /// The items to seed, as they are listed.
    pub catalog: Vec<CatalogItem>,
    /// The promos, in the order of their files.
    pub promos: Vec<Promo>,
    /// What is allowed, yet hardly meant; sorted as errors are.
    pub warnings: Vec<ConfigError>,
}

/// What is wrong at one place, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct ConfigError {
    /// The file, by the name it was given with.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// What is wrong, and what would be right. One line.
    pub message: String,
}

/// Reads a configuration.
///
/// # Errors
/// Every error in every file, sorted by file, line and column; of one file at most a hundred, and a
/// file that is not TOML has one.
pub fn parse(files: &Files) -> Result<Config, Vec<ConfigError>> {
    parse_for(files, None)
}

/// Reads a configuration for a process of that role: what the role needs and does not find is an error
/// too.
///
/// # Errors
/// Those of [`parse`], and what the role lacks, at once.
pub fn parse_for(files: &Files, role: Option<Role>) -> Result<Config, Vec<ConfigError>> {
    let node_source = Source::new(&files.node);
    let catalog_source = Source::new(&files.catalog);
    let node = reader::read(&node_source, |table| Node::read(table, role));
    let catalog = reader::read(&catalog_source, catalog::read);
    let promos: Vec<_> = files
        .promos
        .iter()
        .map(|file| {
            let source = Source::new(file);
            let draft = reader::read(&source, promo::read);
            (source, draft)
        })
        .collect();
    agree::check(&catalog_source, catalog.as_deref(), &promos);

    let (sources, promos): (Vec<_>, Vec<_>) = promos.into_iter().unzip();
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    for source in [node_source, catalog_source].into_iter().chain(sources) {
        let (found, doubts) = source.into_notes();
        errors.extend(found);
        warnings.extend(doubts);
    }
    errors.sort_unstable();
    warnings.sort_unstable();
    // What could not be built has an error: every part that is missing was noted where it is read.
    match node {
        Some(node) if errors.is_empty() => Ok(Config {
            node,
            catalog: catalog
                .into_iter()
                .flatten()
                .filter_map(catalog::Draft::item)
                .collect(),
            promos: promos
                .into_iter()
                .flatten()
                .filter_map(promo::Draft::promo)
                .collect(),
            warnings,
        }),
        _ => Err(errors),
    }
}
