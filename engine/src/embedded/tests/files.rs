//! The file: its lock, its rights, and files that are not ours.

use super::*;

fn open(path: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(path, Arc::new(ManualClock::new(START)), Options::default())
}

#[test]
fn one_process_holds_it_and_the_next_may_have_it_afterwards() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path());
    let first = open(&path).unwrap();
    for _ in 0..2 {
        assert!(matches!(open(&path), Err(OpenError::Locked(at)) if at == path));
    }
    drop(first);
    let second = open(&path).unwrap();
    assert!(matches!(open(&path), Err(OpenError::Locked(_))));
    drop(second);
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = TempDir::new().unwrap();
    let path = file(directory.path());
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let engine = open(&path).unwrap();
    assert!(engine.promos().await.unwrap().1.is_empty());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    let expected = [
        "engine.db",
        "engine.db-shm",
        "engine.db-wal",
        "engine.db.lock",
    ];
    assert_eq!(names, expected);
    drop(engine);
}

#[test]
fn each_commit_waits_for_the_disk() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path());
    let db = schema::open_writer(&path).unwrap();
    let pragma = |name: &str| -> String {
        db.query_row(
            &format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}"),
            [],
            |row| row.get(0),
        )
        .unwrap()
    };
    assert_eq!(pragma("journal_mode"), "wal");
    assert_eq!(pragma("synchronous"), "2");
}

#[test]
fn a_reader_cannot_write() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path());
    let _writer = schema::open_writer(&path).unwrap();
    let reader = schema::open_reader(&path).unwrap();
    assert!(reader.execute("DELETE FROM stream", []).is_err());
}

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("ledger.db");
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE orders (id INTEGER)")
        .unwrap();
    drop(other);
    assert!(matches!(open(&path), Err(OpenError::Foreign(_))));

    let path = directory.path().join("text.db");
    std::fs::write(
        &path,
        "this is not a database, and long enough to be none".repeat(20),
    )
    .unwrap();
    assert!(matches!(open(&path), Err(OpenError::Sqlite(_))));

    let path = directory.path().join("nowhere").join("engine.db");
    assert!(matches!(open(&path), Err(OpenError::Io { .. })));

    let path = file(directory.path());
    drop(open(&path).unwrap());
    let later = Connection::open(&path).unwrap();
    later.pragma_update(None, "user_version", 1_000).unwrap();
    drop(later);
    assert!(matches!(open(&path), Err(OpenError::Newer(_))));
}
