//! Opening a database: who is let in, what is asked of it, and texts that come back as they were.

use super::*;

on_each_database!(
    texts_come_back_as_they_were,
    blanks_make_no_payment_of_another,
    a_row_that_somebody_holds_is_an_outage,
    looking_changes_nothing,
);

async fn texts_come_back_as_they_were(home: &Home) {
    let title = "Söckchen 🧦 \u{201e}zwei\u{201c} % _ \\ ' ";
    let new = NewItem {
        title: Some(title),
        price: Some(price()),
        stock: Some(5),
        description: Some(""),
        img_url: None,
    };
    let made = home.ledger.create_item(&new).await.unwrap();
    let kept = home.ledger.item(made.id).await.unwrap().unwrap();
    assert_eq!(
        (kept.title.as_str(), kept.description.as_str()),
        (title, "")
    );
    let changed = NewItem {
        description: Some(title),
        ..NewItem::default()
    };
    let changed = home.ledger.update_item(made.id, &changed).await.unwrap();
    let changed = changed.unwrap();
    assert_eq!(
        (changed.title.as_str(), changed.description.as_str()),
        (title, title)
    );
    assert_eq!((changed.price, changed.stock), (price(), 5));
    let nobody = home.ledger.update_item(ItemId(99), &new).await.unwrap();
    assert!(nobody.is_none());
    let call = home.ledger.note_call("who", title, NOW).await.unwrap();
    home.ledger.note_outcome(call, "ok").await.unwrap();
    let calls = home.ledger.calls(9).await.unwrap();
    assert_eq!(
        (calls[0].what.as_str(), calls[0].outcome.as_str()),
        (title, "ok")
    );
}

async fn blanks_make_no_payment_of_another(home: &Home) {
    let batch = [published(50), reserved(2, 5, 1)];
    home.ledger.write_events(&batch, NOW).await.unwrap();
    let pay = async |reference| {
        let paid = home
            .ledger
            .receive_payment(reference, order(2), price(), NOW);
        paid.await.map(|payment| payment.state)
    };
    assert_eq!(pay("demo:1").await.unwrap(), PaymentState::Accepted);
    for other in ["demo:1 ", "DEMO:1"] {
        match pay(other).await {
            // MariaDB does not tell blanks at the end apart.
            Err(BackendError::Refused(Refusal::BadParameter(_))) => {
                assert_eq!((home.kind, other), (Kind::MariaDb, "demo:1 "));
            }
            paid => assert_eq!(paid.unwrap(), PaymentState::RefundDue),
        }
    }
}

async fn a_row_that_somebody_holds_is_an_outage(home: &Home) {
    let batch = [published(50), reserved(2, 5, 1)];
    home.ledger.write_events(&batch, NOW).await.unwrap();
    let other = home.another().await;
    let mut holding = other.begin().await.unwrap();
    let held = holding.query("UPDATE orders SET buyer = 6 WHERE id = '7-1-2'");
    held.execute().await.unwrap();
    let error = home
        .ledger
        .cancel(order(2), BuyerId(5), NOW)
        .await
        .unwrap_err();
    assert!(error.is_outage() && !error.is_poison(), "{error:?}");
    // It was not committed: the buyer is who he was.
    drop(holding);
    let cancelled = home.ledger.cancel(order(2), BuyerId(5), NOW).await.unwrap();
    assert_eq!(cancelled.state, State::Cancelled);
}

async fn looking_changes_nothing(home: &Home) {
    let batch = [published(50), reserved(2, 5, 2)];
    home.ledger.write_events(&batch, NOW).await.unwrap();
    let past = Past::read(&home.settings, PromoId(7)).await.unwrap();
    assert_eq!(past.movements.len(), 2);
    assert!(past.movements[0].is_supply && !past.movements[1].is_supply);
    assert_eq!(past.movements[1].order, Some(order(2)));
    assert_eq!((past.orders[0].id, past.orders[0].amount), (order(2), 2));
    let looked = Database::look(&home.settings).await.unwrap();
    let mut tx = looked.snapshot().await.unwrap();
    let change = tx.query("UPDATE orders SET buyer = 6").execute().await;
    assert!(change.is_err());
}

fn servers() -> [(LedgerSettings, String); 2] {
    [
        (MARIADB.fresh(), MARIADB.password()),
        (POSTGRES.fresh(), POSTGRES.password()),
    ]
    .map(|(url, password)| (on_server(url.clone(), password), url))
}

#[tokio::test]
async fn a_wrong_password_is_not_told() {
    for (settings, _) in servers() {
        let wrong = LedgerSettings {
            password: Some(Secret::new("a wrong one")),
            ..settings.clone()
        };
        let none = LedgerSettings {
            password: None,
            ..settings
        };
        for settings in [wrong, none] {
            assert!(!format!("{settings:?}").contains("a wrong one"));
            let error = Ledger::open(&settings).await.unwrap_err();
            let words = format!("{error} {error:?}");
            assert!(!words.contains("a wrong one"), "{words}");
            assert!(error.is_outage(), "{words}");
        }
    }
}

#[tokio::test]
async fn tls_that_is_required_is_not_gone_without() {
    for (settings, url) in servers() {
        let required = LedgerSettings {
            database: format!("{url}?sslmode=require").try_into().unwrap(),
            ..settings
        };
        let error = Ledger::open(&required).await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("tls"), "{error}");
    }
}

#[tokio::test]
async fn settings_that_may_lose_orders_are_noticed() {
    let [(mariadb, _), (postgres, _)] = servers();
    let weak = async |settings: &LedgerSettings| {
        let ledger = Ledger::open(settings).await.unwrap();
        ledger.database.weak_durability().await.unwrap()
    };
    assert_eq!(weak(&mariadb).await, None);
    assert_eq!(weak(&postgres).await, None);
    MARIADB.ask("", "SET GLOBAL innodb_flush_log_at_trx_commit = 2");
    let found = weak(&mariadb).await;
    MARIADB.ask("", "SET GLOBAL innodb_flush_log_at_trx_commit = 1");
    assert_eq!(
        found.as_deref(),
        Some("innodb_flush_log_at_trx_commit is 2, not 1")
    );
    let config::Database::Server(server) = &postgres.database else {
        panic!("it is a server");
    };
    let off = format!(
        "ALTER DATABASE {} SET synchronous_commit = off",
        server.name
    );
    POSTGRES.ask("postgres", &off);
    let found = weak(&postgres).await;
    assert_eq!(found.as_deref(), Some("synchronous_commit is off, not on"));
}

/// A certificate and its key, in files that a database server may read.
fn certificate() -> (tempfile::TempDir, String, String) {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (pem, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
    std::fs::write(&pem, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    // Where tests run as root, postgres does not; elsewhere the key is its own already.
    let _ = std::process::Command::new("chown")
        .arg("postgres")
        .arg(&key)
        .stderr(std::process::Stdio::null())
        .status();
    let shown = |path: PathBuf| path.display().to_string();
    (dir, shown(pem), shown(key))
}

#[tokio::test]
async fn the_way_to_a_server_is_encrypted_where_it_is_asked_for() {
    let (_dir, pem, key) = certificate();
    let mariadb = MariaDb::with(&[&format!("--ssl-cert={pem}"), &format!("--ssl-key={key}")]);
    let postgres = Postgres::with(&[
        "-c",
        "ssl=on",
        "-c",
        &format!("ssl_cert_file={pem}"),
        "-c",
        &format!("ssl_key_file={key}"),
    ]);
    let ciphers = [
        (
            on_server(
                format!("{}?sslmode=require", mariadb.fresh()),
                mariadb.password(),
            ),
            "SELECT variable_value AS cipher FROM information_schema.session_status \
             WHERE variable_name = 'Ssl_cipher'",
        ),
        (
            on_server(
                format!("{}?sslmode=require", postgres.fresh()),
                postgres.password(),
            ),
            "SELECT coalesce(cipher, '') AS cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        ),
    ];
    for (settings, cipher) in ciphers {
        let ledger = Ledger::open(&settings).await.unwrap();
        let row = ledger
            .read(cipher)
            .await
            .unwrap()
            .fetch_one()
            .await
            .unwrap();
        assert_ne!(row.get::<String>("cipher").unwrap(), "");
        // Nobody whom this machine trusts has signed the certificate.
        let mut checked = settings;
        if let config::Database::Server(server) = &mut checked.database {
            server.tls = config::TlsMode::VerifyFull;
        }
        Ledger::open(&checked).await.unwrap_err();
    }
}
