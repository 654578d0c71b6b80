//! Orders into SQL: Floodgate's order writer beside the naive design on MariaDB and PostgreSQL; beside
//! one transaction each on SQLite, which takes one writer at a time.
//!
//! The servers keep their own defaults, which make every commit durable. Each measurement has a database
//! of its own.

use backend::{LedgerSettings, Secret};
use floodgate_servers::{MariaDb, Postgres};
use lua_free_rules::config;

use super::report::{Comparison, Measured, Way};
use super::{Failure, Measuring, naive, writing};

/// What was measured so far, and the servers.
pub struct Rounds {
    mariadb: MariaDb,
    postgres: Postgres,
    on_mariadb: Comparison,
    on_postgres: Comparison,
    on_sqlite: Comparison,
}

impl Rounds {
    /// Starts the servers. The sizes are MariaDB's and PostgreSQL's own defaults.
    pub fn start(measuring: &Measuring) -> Self {
        let compare = |server: &str, others: Way| {
            let writer = format!("order writer, batches of {}", measuring.batch);
            let writer = Way::new(writer, measuring.orders);
            Comparison::new(format!("orders into {server}"), vec![writer, others])
        };
        let naive = format!("naive, {} connections", naive::CONNECTIONS);
        let naive = |least| Way::new(naive.clone(), measuring.few()).beaten_by(least);
        Self {
            mariadb: MariaDb::with(&[
                "--innodb-log-file-size=96M",
                "--innodb-buffer-pool-size=128M",
            ]),
            postgres: Postgres::with(&["-c", "shared_buffers=128MB"]),
            on_mariadb: compare("MariaDB, flushed at each commit", naive(10.0)),
            on_postgres: compare("PostgreSQL, flushed at each commit", naive(50.0)),
            on_sqlite: compare(
                "SQLite, synchronous=FULL",
                Way::new("one transaction each", measuring.few()),
            ),
        }
    }

    /// Measures each way once.
    pub async fn round(&mut self, measuring: &Measuring) -> Result<(), Failure> {
        let batch = measuring.batch;
        for (index, way) in self.on_mariadb.ways.iter_mut().enumerate() {
            let seconds = if index == 0 {
                let ledger = ledger(self.mariadb.fresh(), self.mariadb.password())?;
                writing::seconds(&ledger, way.orders, batch).await?
            } else {
                naive::on_mariadb(&self.mariadb, way.orders).await?
            };
            way.add(Measured::new(way.orders, seconds));
        }
        for (index, way) in self.on_postgres.ways.iter_mut().enumerate() {
            let seconds = if index == 0 {
                let ledger = ledger(self.postgres.fresh(), self.postgres.password())?;
                writing::seconds(&ledger, way.orders, batch).await?
            } else {
                naive::on_postgres(&self.postgres, way.orders).await?
            };
            way.add(Measured::new(way.orders, seconds));
        }
        for (way, batch) in self.on_sqlite.ways.iter_mut().zip([batch, 1]) {
            let directory = tempfile::tempdir_in(&measuring.folder)?;
            let ledger = LedgerSettings::sqlite(directory.path(), "ledger.db");
            let seconds = writing::seconds(&ledger, way.orders, batch).await?;
            way.add(Measured::new(way.orders, seconds));
        }
        Ok(())
    }

    /// The comparisons.
    pub fn end(self) -> Vec<Comparison> {
        vec![self.on_mariadb, self.on_postgres, self.on_sqlite]
    }
}

fn ledger(url: String, password: &str) -> Result<LedgerSettings, Failure> {
    Ok(LedgerSettings {
        database: config::Database::try_from(url)?,
        password: Some(Secret::new(password)),
        data_dir: std::path::PathBuf::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_way_does_the_whole_work() {
        let folder = tempfile::tempdir().unwrap();
        let measuring = Measuring::small(folder.path());
        let mut rounds = Rounds::start(&measuring);
        rounds.round(&measuring).await.unwrap();
        let comparisons = rounds.end();
        assert_eq!(comparisons.len(), 3);
        assert!(comparisons.iter().all(|each| each.is_whole(1)));
    }
}
