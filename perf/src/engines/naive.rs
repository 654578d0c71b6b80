//! The naive SQL design, which Floodgate is compared with: for each order a transaction that takes a unit
//! off one row and inserts the order, over 64 connections. Its SQL is no part of Floodgate's.
//!
//! It is given its best: a connection of his own for each of 64 buyers at a time, prepared statements,
//! tables without any index but their keys.

use std::str::FromStr as _;
use std::time::Instant;

use floodgate_servers::{MariaDb, Postgres};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::task::JoinSet;

use super::Failure;
use super::buyers::{finish, split};

/// Connections that buy at once.
pub const CONNECTIONS: usize = 64;

const TAKE: &str = "UPDATE stock SET n = n - 1 WHERE id = 1 AND n >= 1";
const LEFT: &str = "SELECT n FROM stock WHERE id = 1";
const MADE: &str = "SELECT COUNT(*) FROM orders";

const STOCK: &str = "CREATE TABLE stock (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)";
const ORDERS_OF_MARIADB: &str = "CREATE TABLE orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, \
    buyer BIGINT NOT NULL, item BIGINT NOT NULL, amount INT NOT NULL, price BIGINT NOT NULL, \
    made_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)";
const ORDERS_OF_POSTGRES: &str = "CREATE TABLE orders (id BIGINT GENERATED ALWAYS AS IDENTITY \
    PRIMARY KEY, buyer BIGINT NOT NULL, item BIGINT NOT NULL, amount INT NOT NULL, \
    price BIGINT NOT NULL, made_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP)";

/// The seconds that all orders take, over connections of `$options`. The drivers share no type that
/// could be named here.
macro_rules! buy_all {
    ($options:expr, $insert:literal, $orders:expr) => {{
        let mut buyers = Vec::new();
        for lane in split((1..=i64::try_from($orders)?).collect(), CONNECTIONS) {
            buyers.push(($options.connect().await?, lane));
        }
        let begun = Instant::now();
        let mut lanes = JoinSet::new();
        for (mut connection, lane) in buyers {
            lanes.spawn(async move {
                for buyer in lane {
                    let mut tx = connection.begin().await?;
                    let taken = sqlx::query(TAKE).execute(&mut *tx).await?;
                    if taken.rows_affected() != 1 {
                        return Err(Failure::from("sold out too early"));
                    }
                    let insert = sqlx::query($insert).bind(buyer);
                    insert.execute(&mut *tx).await?;
                    tx.commit().await?;
                }
                Ok::<_, Failure>(())
            });
        }
        finish(lanes).await?;
        begun.elapsed().as_secs_f64()
    }};
}

/// Seconds that so many orders take on MariaDB.
pub async fn on_mariadb(server: &MariaDb, orders: usize) -> Result<f64, Failure> {
    let url = server.fresh();
    let ask = |sql: &str| server.ask(database(&url), sql);
    ask(&tables(ORDERS_OF_MARIADB, orders));
    let options = MySqlConnectOptions::from_str(&url)?.password(server.password());
    let seconds = buy_all!(
        options,
        "INSERT INTO orders (buyer, item, amount, price) VALUES (?, 1, 1, 9900)",
        orders
    );
    check(&ask(LEFT), &ask(MADE), orders)?;
    Ok(seconds)
}

/// Seconds that so many orders take on PostgreSQL.
pub async fn on_postgres(server: &Postgres, orders: usize) -> Result<f64, Failure> {
    let url = server.fresh();
    let ask = |sql: &str| server.ask(database(&url), sql);
    ask(&tables(ORDERS_OF_POSTGRES, orders));
    let options = PgConnectOptions::from_str(&url)?.password(server.password());
    let seconds = buy_all!(
        options,
        "INSERT INTO orders (buyer, item, amount, price) VALUES ($1, 1, 1, 9900)",
        orders
    );
    check(&ask(LEFT), &ask(MADE), orders)?;
    Ok(seconds)
}

fn tables(orders_table: &str, orders: usize) -> String {
    format!("{STOCK}; {orders_table}; INSERT INTO stock (id, n) VALUES (1, {orders})")
}

fn database(url: &str) -> &str {
    url.rsplit_once('/').map_or("", |(_, name)| name)
}

fn check(left: &str, made: &str, orders: usize) -> Result<(), Failure> {
    let (left, made): (i64, usize) = (left.trim().parse()?, made.trim().parse()?);
    if left == 0 && made == orders {
        return Ok(());
    }
    Err(format!("{made} of {orders} orders were made, {left} units are left").into())
}
