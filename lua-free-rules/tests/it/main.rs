//! The rules from outside: configuration folders as people write them, good and bad, and any text at
//! all.
// Tests read fixtures; the rules themselves do no I/O.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod any_text;
mod defaults;
mod deploy;
mod fixtures;
mod folder;
