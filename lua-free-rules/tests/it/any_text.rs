//! Whatever stands in the files: no panic, bounded work, and errors that point into their file.

use lua_free_rules::config::{ConfigError, File, Files, parse};
use proptest::prelude::*;

use crate::folder::{in_repository, read};

fn file(name: &str, text: String) -> File {
    File {
        name: name.to_owned(),
        text,
    }
}

fn files(node: String, catalog: String, promo: String) -> Files {
    Files {
        node: file("floodgate.toml", node),
        catalog: file("catalog.toml", catalog),
        promos: vec![file("promos/a.toml", promo)],
    }
}

fn check(files: &Files) -> Result<(), TestCaseError> {
    let errors = match parse(files) {
        Ok(config) => config.warnings,
        Err(errors) => {
            prop_assert!(!errors.is_empty());
            errors
        }
    };
    prop_assert!(errors.is_sorted());
    for error in &errors {
        check_position(files, error)?;
    }
    Ok(())
}

fn check_position(files: &Files, error: &ConfigError) -> Result<(), TestCaseError> {
    let all = [&files.node, &files.catalog]
        .into_iter()
        .chain(&files.promos);
    let found = all.into_iter().find(|file| file.name == error.file);
    prop_assert!(found.is_some());
    let text = found.map_or("", |file| file.text.as_str());
    // The end of the text, where something is missing, is a place too.
    let line = text.split('\n').nth(error.line - 1);
    prop_assert!(line.is_some(), "{}", error);
    let width = line.unwrap_or_default().chars().count();
    prop_assert!((1..=width + 1).contains(&error.column), "{}", error);
    prop_assert!(!error.message.contains(char::is_control));
    prop_assert!(error.message.chars().count() < 1_000, "{}", error);
    Ok(())
}

/// A line that is nearly right.
fn line() -> impl Strategy<Value = String> {
    let keys: &[&str] = &[
        "id",
        "item",
        "title",
        "price",
        "stock",
        "image",
        "starts_at",
        "starts_in",
        "ends_at",
        "lasts",
        "challenge",
        "token",
        "token.ttl",
        "listen",
        "admin",
        "rates",
        "edge",
        "edge.tls",
        "limits.body_max",
        "accepted",
        "active",
        "otp_delivery",
        "otp_webhook",
        "per_second",
        "x",
        "\"\\u0000\"",
    ];
    let values: &[&str] = &[
        "1",
        "-1",
        "0",
        "99999999999999999999",
        "1.5",
        "nan",
        "true",
        "\"\"",
        "\"99.00\"",
        "\"1h\"",
        "\"é\\n\\u001b\"",
        "[]",
        "[1, \"altcha\", \"none\"]",
        "{}",
        "{ per_second = 0, burst = 1 }",
        "2026-12-01T10:00:00Z",
        "2026-12-01T10:00:00",
        "0000-01-01T00:00:00+23:59",
        "2026-12-01",
        "23:59:60",
        "[{ id = 1 }]",
        "\"0.0.0.0:80\"",
        "[\"127.0.0.1:0\"]",
        "\"",
    ];
    let headers: &[&str] = &[
        "[edge]",
        "[edge.limits]",
        "[orders]",
        "[accounts]",
        "[keys]",
        "[[keys.accepted]]",
        "[[item]]",
        "[item]",
        "[token]",
        "[operator]",
        "# é",
        "\u{feff}",
        "\r",
    ];
    prop_oneof![
        4 => (prop::sample::select(keys), prop::sample::select(values))
            .prop_map(|(key, value)| format!("{key} = {value}")),
        1 => prop::sample::select(headers).prop_map(str::to_owned),
    ]
}

fn nearly() -> impl Strategy<Value = String> {
    prop::collection::vec(line(), 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn any_text(node in any::<String>(), catalog in any::<String>(), promo in any::<String>()) {
        check(&files(node, catalog, promo))?;
    }

    #[test]
    fn nearly_right(node in nearly(), catalog in nearly(), promo in nearly()) {
        check(&files(node, catalog, promo))?;
    }

    #[test]
    fn the_shipped_files_with_a_piece_torn_out(
        which in 0_usize..4, at in any::<prop::sample::Index>(), length in 0_usize..40,
        put in "[\\PC\\n]{0,8}",
    ) {
        let mut files = read(&in_repository("config"));
        let text = match which {
            0 => &mut files.node.text,
            1 => &mut files.catalog.text,
            other => &mut files.promos[other - 2].text,
        };
        let start = text.floor_char_boundary(at.index(text.len()));
        let end = text.floor_char_boundary(start + length);
        text.replace_range(start..end, &put);
        check(&files)?;
    }
}

#[test]
fn the_work_is_bounded() {
    let many = |line: &str| line.repeat((1 << 20) / line.len());
    let texts = [
        many("a"),
        many("a."),
        many("["),
        many("[["),
        many("a=["),
        many("x={"),
        many("\n"),
        many("[[item]]\n"),
        many("[[keys.accepted]]\nid='a'\n"),
        format!("listen = [{}]", many("\"127.0.0.1:1\",")),
        format!("[edge]\nupstreams = [{}]", many("\"127.0.0.1:1\",")),
        (0..60_000).map(|n| format!("listem{n}=1\n")).collect(),
        (0..20_000)
            .map(|n| format!("[[item]]\nid={n}\ntitle='a'\nprice='1'\nstock=1\n"))
            .collect(),
        format!("title = \"{}\"", many("é")),
        many("x") + &many("y"),
    ];
    for text in texts {
        let all = files(text.clone(), text.clone(), text);
        let errors = parse(&all).unwrap_err();
        assert!(errors.len() <= 303, "{}", errors.len());
        assert!(errors.is_sorted());
        assert!(
            errors
                .iter()
                .all(|error| error.message.chars().count() < 1_000)
        );
    }
}
