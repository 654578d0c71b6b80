//! What is written in TOML, and its errors. Reading files is the shell's work; here text becomes
//! settings, or a list of every error in it, each with file, line and column and what would be right.

mod node;
mod sale;

pub use node::{
    Accounts, Address, Database, Edge, EngineKind, ItemCache, KeyFile, Keys, Node, Operator,
    OrderServers, OtpDelivery, Payment, Puzzles, Rates, RequestLimits, Size, Tls, Writer,
};
pub use sale::{CatalogItem, End, Promo, Start};
