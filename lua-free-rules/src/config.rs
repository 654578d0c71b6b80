//! What is written in TOML, and its errors.
