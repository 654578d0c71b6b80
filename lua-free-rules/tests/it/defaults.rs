//! The configuration that `make run` uses: it parses, shows every key there is, and tells the truth
//! about their defaults.

use std::collections::BTreeSet;

use lua_free_rules::challenge::Kind;
use lua_free_rules::config::{ConfigError, End, Files, Node, OtpDelivery, Promo, Start, parse};
use lua_free_rules::promo::DEFAULT_DOOR;
use lua_free_rules::units::{Millis, Timestamp};

use crate::folder::{in_repository, read};

/// A key that no table knows: the message about it lists those that it does know.
const NO_KEY: &str = "no-such-key";

fn shipped() -> Files {
    read(&in_repository("config"))
}

fn messages(errors: Vec<ConfigError>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn the_shipped_configuration_is_ready_to_run() {
    let config = parse(&shipped()).unwrap();
    assert_eq!(messages(config.warnings), [""; 0]);
    assert_eq!(config.node.accounts.otp_delivery, OtpDelivery::Echo);
    let mut node = config.node;
    node.accounts.otp_delivery = Node::default().accounts.otp_delivery;
    assert_eq!(node, Node::default(), "apart from otp_delivery");

    let titles: Vec<_> = config.catalog.iter().map(|item| item.id.0).collect();
    assert_eq!(titles, [1, 2, 3]);
    for item in &config.catalog {
        let picture = item.img_url.strip_prefix("/resources/").unwrap();
        assert!(in_repository("html").join(picture).is_file(), "{picture}");
    }
    let [concert, sneakers] = config.promos.as_slice() else {
        panic!("two promos");
    };
    assert_eq!(sneakers.start, Start::In(Millis::new(0)));
    assert_eq!((sneakers.stock, sneakers.per_buyer), (100, 2));
    assert_eq!(concert.start, Start::In(Millis::seconds(60)));
    assert_eq!((concert.stock, concert.per_buyer), (50, 1));
    let day = Millis::seconds(24 * 3_600);
    assert!(
        config
            .promos
            .iter()
            .all(|promo| promo.end == End::After(day))
    );
}

#[test]
fn a_node_may_leave_everything_out() {
    let mut files = shipped();
    files.node.text.clear();
    assert_eq!(parse(&files).unwrap().node, Node::default());
}

#[test]
fn the_defaults_that_are_told_are_the_defaults() {
    let mut files = shipped();
    let (text, told) = with_told_defaults(&files.node.text);
    files.node.text = text;
    assert_eq!(parse(&files).unwrap().node, Node::default());
    assert!(told >= 40, "only {told} defaults were found");
}

/// The file with each value replaced by the default its comment tells, and how many there were.
fn with_told_defaults(text: &str) -> (String, usize) {
    let (mut made, mut comment, mut told) = (String::new(), String::new(), 0);
    for line in text.lines() {
        if let Some(words) = line.strip_prefix("# ") {
            comment.push_str(words);
            comment.push(' ');
            continue;
        }
        if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let (_, default) = comment.split_once("Default: ").unwrap_or_else(|| {
                panic!("the comment on {key} tells no default");
            });
            made.push_str(&format!("{key} = {}\n", default.trim()));
            told += 1;
        } else {
            made.push_str(&format!("{line}\n"));
        }
        comment.clear();
    }
    (made, told)
}

#[test]
fn every_key_there_is_is_shown() {
    let mut files = shipped();
    // A setting without a default stands there as `#key = …`, a comment has a blank after its `#`.
    let text = std::mem::take(&mut files.node.text);
    let shown: Vec<_> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => line,
        })
        .collect();
    let with_unknown: Vec<_> = shown
        .iter()
        .flat_map(|line| match line.starts_with('[') {
            true => vec![(*line).to_owned(), format!("{NO_KEY} = 0")],
            false => vec![(*line).to_owned()],
        })
        .collect();
    files.node.text = format!("{NO_KEY} = 0\n{}", with_unknown.join("\n"));

    let (mut tables, mut known) = (0, BTreeSet::new());
    for error in parse(&files).unwrap_err() {
        if let Some((place, keys)) = error.message.split_once(": the keys here are ") {
            assert!(place.contains(NO_KEY), "{error}");
            tables += 1;
            known.extend(keys.split(", ").map(|key| key.trim_matches('`').to_owned()));
        } else {
            assert!(!error.message.starts_with("unknown key"), "{error}");
        }
    }
    let headers = shown.iter().filter(|line| line.starts_with('[')).count();
    assert_eq!(tables, headers + 1, "each table answered");
    for key in known {
        let is_shown = shown.iter().any(|line| {
            let header = line.trim_matches(['[', ']']);
            line.starts_with(&format!("{key} ="))
                || header == key
                || header.ends_with(&format!(".{key}"))
        });
        assert!(
            is_shown || ["per_second", "burst", "env"].contains(&key.as_str()),
            "{key}"
        );
    }
}

#[test]
fn what_a_promo_leaves_out_has_the_default_that_the_shipped_one_tells() {
    let config = parse(&shipped()).unwrap();
    let [concert, sneakers] = config.promos.as_slice() else {
        panic!("two promos");
    };
    let tuned = |promo: &Promo| {
        let challenges = promo.challenges.clone();
        (promo.door, promo.pay_within, promo.token_ttl, challenges)
    };
    assert_eq!(tuned(concert), tuned(sneakers));
    assert_eq!(
        tuned(concert),
        (
            DEFAULT_DOOR,
            Millis::seconds(15 * 60),
            Millis::seconds(2 * 60),
            vec![Kind::Altcha, Kind::Image]
        )
    );
    let terms = concert.terms(Timestamp(1_000));
    assert_eq!(terms.starts_at, Timestamp(61_000));
}
