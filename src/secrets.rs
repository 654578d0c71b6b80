//! Where secrets come from: files or the environment, or, for `run`, generated once in `data_dir`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use backend::payment::Webhook;
use backend::{LedgerSettings, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lua_free_rules::config::{KeyFile, PaymentProvider, SecretSource};
use lua_free_rules::keys::{Key, KeyRing, is_sample};

use crate::load::Loaded;
use crate::{Failure, Outcome};

/// The id of the key that `run` generates.
const GENERATED_KEY: &str = "k1";
/// Fewest characters of an operator's token or webhook secret.
const SECRET_CHARS_MIN: usize = 16;

/// 32 random bytes in base64.
pub fn random_base64() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).context("the system gives no randomness")?;
    Ok(STANDARD.encode(bytes))
}

/// Writes a secret to a file that must not exist yet, readable by its owner alone.
pub fn write_new(path: &Path, secret: &str) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(format!("{secret}\n").as_bytes())?;
    file.sync_all()?;
    Ok(())
}

/// The key ring: as configured, or one generated key.
pub fn key_ring(loaded: &Loaded) -> Outcome<KeyRing> {
    let keys = &loaded.config.node.keys;
    let Some(active) = &keys.active else {
        let secret = generated(&loaded.data_dir().join("token.key"))?;
        return ring(loaded, &[(GENERATED_KEY.to_owned(), secret)], GENERATED_KEY);
    };
    let secrets = keys
        .accepted
        .iter()
        .map(|key| Ok((key.id.clone(), key_secret(loaded, key)?)))
        .collect::<anyhow::Result<Vec<_>>>()
        .map_err(|error| Failure::Config(vec![format!("{error:#}")]))?;
    ring(loaded, &secrets, active)
}

/// The operator's token: as configured, or generated.
pub fn operator_token(loaded: &Loaded) -> Outcome<String> {
    let operator = &loaded.config.node.operator;
    secret(
        loaded,
        operator.token_file.as_deref(),
        operator.token_env.as_deref(),
        "operator.token",
    )
}

/// The secret of the demo provider's webhook: as configured, or generated.
pub fn webhook_secret(loaded: &Loaded) -> Outcome<String> {
    secret(
        loaded,
        loaded.config.node.payment.webhook_secret_file.as_deref(),
        None,
        "webhook.secret",
    )
}

/// The payment providers beside the demo, with the secrets that sign their calls.
pub fn webhooks(loaded: &Loaded) -> Outcome<Vec<Webhook>> {
    let providers = loaded.config.node.payment.providers.iter();
    providers
        .map(|provider| webhook(loaded, provider))
        .collect()
}

fn webhook(loaded: &Loaded, provider: &PaymentProvider) -> Outcome<Webhook> {
    let sources = [Some(&provider.secret), provider.previous_secret.as_ref()];
    let secrets = sources.into_iter().flatten().map(|source| {
        let (text, from) = from_source(loaded, source);
        good(loaded, text, from).map(Secret::new)
    });
    let secrets = secrets.collect::<Outcome<Vec<_>>>()?;
    Ok(Webhook::new(&provider.name, secrets, provider.tolerance))
}

/// What it takes to open the ledger.
pub fn ledger(loaded: &Loaded) -> Outcome<LedgerSettings> {
    let node = &loaded.config.node;
    let password = match (&node.database_password.file, &node.database_password.env) {
        (Some(file), _) => Some(from_file(&loaded.path(file))),
        (None, Some(name)) => Some(from_environment(name)),
        (None, None) => None,
    };
    let password = password
        .transpose()
        .map_err(|error| Failure::Config(vec![format!("{error:#}")]))?;
    if password.as_ref().is_some_and(String::is_empty) {
        let words = "the database's password is empty: write it where the configuration says";
        return Err(Failure::Config(vec![words.to_owned()]));
    }
    Ok(LedgerSettings {
        database: node.database.clone(),
        password: password.map(Secret::new),
        data_dir: loaded.data_dir(),
    })
}

fn secret(
    loaded: &Loaded,
    file: Option<&str>,
    variable: Option<&str>,
    generated_name: &str,
) -> Outcome<String> {
    let text = match (file, variable) {
        (Some(file), _) => from_file(&loaded.path(file)),
        (None, Some(name)) => from_environment(name),
        (None, None) => generated(&loaded.data_dir().join(generated_name)),
    };
    good(loaded, text, file.or(variable).unwrap_or(generated_name))
}

/// The secret, if it is hard to guess; outside of `run` a sample is refused too.
fn good(loaded: &Loaded, text: anyhow::Result<String>, from: &str) -> Outcome<String> {
    let text = text.map_err(|error| Failure::Config(vec![format!("{error:#}")]))?;
    if text.len() < SECRET_CHARS_MIN {
        let words = format!("the secret in {from} has fewer than {SECRET_CHARS_MIN} characters");
        return Err(Failure::Config(vec![words]));
    }
    if loaded.role.is_some() && is_sample(text.as_bytes()) {
        let words =
            format!("the secret in {from} is a sample that anyone can guess: draw one by chance");
        return Err(Failure::Config(vec![words]));
    }
    Ok(text)
}

/// The password of the engine's Redis, if it has one.
pub fn engine_password(loaded: &Loaded) -> Outcome<Option<String>> {
    let Some(source) = &loaded.config.node.engine.password else {
        return Ok(None);
    };
    let (text, _) = from_source(loaded, source);
    let text = text.map_err(|error| Failure::Config(vec![format!("{error:#}")]))?;
    Ok(Some(text))
}

fn from_source<'s>(loaded: &Loaded, source: &'s SecretSource) -> (anyhow::Result<String>, &'s str) {
    match source {
        SecretSource::File(file) => (from_file(&loaded.path(file)), file),
        SecretSource::Env(variable) => (from_environment(variable), variable),
    }
}

fn key_secret(loaded: &Loaded, key: &KeyFile) -> anyhow::Result<String> {
    match (&key.file, &key.env) {
        (Some(file), None) => from_file(&loaded.path(file)),
        (None, Some(name)) => from_environment(name),
        _ => bail!("key `{}` needs either `file` or `env`", key.id),
    }
}

fn ring(loaded: &Loaded, secrets: &[(String, String)], active: &str) -> Outcome<KeyRing> {
    let build = || -> anyhow::Result<KeyRing> {
        let mut keys = Vec::new();
        for (id, secret) in secrets {
            let bytes = STANDARD
                .decode(secret)
                .with_context(|| format!("key `{id}` is not base64: make one with `keygen`"))?;
            if loaded.role.is_some() && is_sample(&bytes) {
                bail!(
                    "key `{id}` is a sample that anyone can guess: make one with `floodgate keygen`"
                );
            }
            keys.push(Key::new(id, &bytes)?);
        }
        Ok(KeyRing::new(keys, active)?)
    };
    build().map_err(|error| Failure::Config(vec![format!("{error:#}")]))
}

fn generated(path: &Path) -> anyhow::Result<String> {
    if !path.exists() {
        write_new(path, &random_base64()?)?;
    }
    from_file(path)
}

fn from_file(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the secret in {}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn from_environment(name: &str) -> anyhow::Result<String> {
    let text = std::env::var(name)
        .with_context(|| format!("the environment variable {name} holds no secret"))?;
    Ok(text.trim().to_owned())
}
