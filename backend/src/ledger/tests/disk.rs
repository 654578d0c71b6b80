//! What SQLite does when the disk fails.

use super::*;

#[tokio::test]
async fn a_commit_that_the_disk_refuses_spoils_no_later_one() {
    let home = Home::open(Kind::Sqlite).await;
    let ledger = &home.ledger;
    let Database::Sqlite { writer, .. } = &ledger.database else {
        panic!("it is SQLite");
    };
    let mut refused = false;
    let mut connection = writer.acquire().await.unwrap();
    let mut handle = connection.lock_handle().await.unwrap();
    handle.set_commit_hook(move || std::mem::replace(&mut refused, true));
    drop(handle);
    drop(connection);
    let events = [published(50), reserved(2, 5, 1)];
    ledger.write_events(&events, NOW).await.unwrap_err();
    let written = ledger.write_events(&events, NOW).await.unwrap();
    assert_eq!((written.new, written.repeated), (2, 0));
}
