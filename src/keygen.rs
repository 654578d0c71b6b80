//! `floodgate keygen`: a signing key from the system's randomness.

use std::path::Path;

use lua_free_rules::keys::Key;

use crate::{Failure, Outcome, secrets};

pub fn keygen(id: &str, out: Option<&Path>) -> Outcome {
    let secret = secrets::random_base64()?;
    Key::new(id, secret.as_bytes()).map_err(|error| Failure::Config(vec![error.to_string()]))?;
    match out {
        None => println!("{secret}"),
        Some(path) => {
            secrets::write_new(path, &secret)?;
            println!(
                "wrote {}; name it in floodgate.toml:\n\n[keys]\nactive = \"{id}\"\n\n\
                 [[keys.accepted]]\nid = \"{id}\"\nfile = \"{}\"",
                path.display(),
                path.display()
            );
        }
    }
    Ok(())
}
