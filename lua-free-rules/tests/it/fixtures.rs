//! `tests/config/good`: folders that parse, with `warnings.txt` if there are any. `tests/config/bad`:
//! folders that do not, with the exact messages in `expected.txt`. `UPDATE_EXPECTED=1` writes both
//! anew; read the change before you keep it. Where `role.txt` names a role, the folder is read for it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use lua_free_rules::config::{Config, ConfigError, Role, parse_for};

use crate::folder::{in_repository, names, read};

#[test]
fn a_good_folder_parses() {
    let good = in_repository("tests/config/good");
    let mut report = String::new();
    for case in names(&good) {
        let folder = good.join(&case);
        match parsed(&folder) {
            Ok(config) => {
                let file = folder.join("warnings.txt");
                compare(&case, &file, &lines(&config.warnings), &mut report);
            }
            Err(errors) => write!(report, "{case} has errors:\n{}\n", lines(&errors)).unwrap(),
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn a_bad_folder_tells_every_error_and_its_remedy() {
    let bad = in_repository("tests/config/bad");
    let cases = names(&bad);
    assert!(cases.len() >= 22, "only {} cases were found", cases.len());
    let mut report = String::new();
    for case in cases {
        let folder = bad.join(&case);
        match parsed(&folder) {
            Ok(_) => writeln!(report, "{case} has no errors").unwrap(),
            Err(errors) => {
                let file = folder.join("expected.txt");
                compare(&case, &file, &lines(&errors), &mut report);
            }
        }
    }
    assert!(
        report.is_empty(),
        "\n{report}\nUPDATE_EXPECTED=1 writes the messages anew."
    );
}

fn parsed(folder: &Path) -> Result<Config, Vec<ConfigError>> {
    let role = fs::read_to_string(folder.join("role.txt"))
        .ok()
        .map(|name| {
            let named = |role: &Role| role.name() == name.trim();
            Role::ALL.into_iter().find(named).unwrap()
        });
    parse_for(&read(folder), role)
}

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}

/// Adds to the report where `told` differs from what `file` expects. No file expects nothing.
fn compare(case: &str, file: &Path, told: &str, report: &mut String) {
    let expected = fs::read_to_string(file).unwrap_or_default();
    if expected == told {
        return;
    }
    if std::env::var("UPDATE_EXPECTED").is_ok_and(|value| value == "1") {
        if told.is_empty() {
            fs::remove_file(file).unwrap();
        } else {
            fs::write(file, told).unwrap();
        }
        return;
    }
    writeln!(report, "{case}:").unwrap();
    let missing = expected
        .lines()
        .filter(|line| !told.lines().any(|other| other == *line));
    for line in missing {
        writeln!(report, "  - {line}").unwrap();
    }
    let added = told
        .lines()
        .filter(|line| !expected.lines().any(|other| other == *line));
    for line in added {
        writeln!(report, "  + {line}").unwrap();
    }
    writeln!(
        report,
        "  (- expected, + told; the same lines in another order differ too)"
    )
    .unwrap();
}
