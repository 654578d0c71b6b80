//! What the audit reads: the books of one promo and generation up to a fence, and every order or
//! unit that is off. All of it is read from one state of the database.

use lua_free_rules::equation;
use lua_free_rules::promo::Snapshot;
use lua_free_rules::units::{Generation, PromoId, Sequence};
use serde::Serialize;

use super::Ledger;
use super::connection::{Query, Tx};
use crate::error::Result;

/// Something that is off, in words that name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Fault(pub String);

/// The ledger's side of the stock equation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    /// Where the units are. `available` is what the movements add up to.
    pub counts: equation::Books,
    /// What is off.
    pub faults: Vec<Fault>,
}

/// How far the ledger is with one promo and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Movements up to the fence.
    pub movements: i64,
    /// The first number that is missing, if one is.
    pub missing: Option<Sequence>,
}

/// The movements of what is audited, as `m`.
macro_rules! moved {
    () => {
        "(SELECT * FROM stock_movements WHERE promo = {:promo} AND generation = {:generation}) AS m "
    };
}

/// Its orders, as `o`.
macro_rules! bought {
    () => {
        "(SELECT * FROM orders WHERE promo = {:promo} AND generation = {:generation}) AS o "
    };
}

const COUNTS: &str = concat!(
    "SELECT (SELECT CAST(coalesce(sum(m.delta), 0) AS {int}) FROM ",
    moved!(),
    "WHERE m.sequence <= {:fence}) AS available, \
     (SELECT CAST(coalesce(sum(m.delta), 0) AS {int}) FROM ",
    moved!(),
    "WHERE m.sequence <= {:fence} AND m.kind IN ('published', 'added')) AS published, \
     CAST(coalesce(sum(CASE WHEN o.current_number = h.number AND o.state = 'written' \
      THEN -h.delta END), 0) AS {int}) AS written, \
     CAST(coalesce(sum(CASE WHEN o.current_number = h.number AND o.state = 'paid' \
      THEN -h.delta END), 0) AS {int}) AS paid, \
     CAST(coalesce(sum(CASE WHEN o.current_number <> h.number OR o.state NOT IN ('written', 'paid') \
      THEN -h.delta END), 0) AS {int}) AS releasing \
     FROM (SELECT m.order_id, m.number, m.delta FROM ",
    moved!(),
    "WHERE m.kind IN ('reserved', 'reserved_again') AND m.sequence <= {:fence} AND NOT EXISTS ( \
      SELECT 1 FROM stock_movements AS r WHERE r.order_id = m.order_id \
       AND r.number = m.number AND r.kind = 'released' AND r.sequence <= {:fence})) AS h \
     LEFT JOIN orders AS o ON o.id = h.order_id"
);

/// Each says what is off, one row for each order or unit.
const FAULTS: [&str; 11] = [
    concat!(
        "SELECT 'order ' || m.order_id || ' was reserved (movement ' || m.sequence || \
         ') and is not in the ledger' AS fault FROM ",
        moved!(),
        "WHERE m.kind = 'reserved' \
         AND NOT EXISTS (SELECT 1 FROM orders AS o WHERE o.id = m.order_id) LIMIT 20"
    ),
    concat!(
        "SELECT 'order ' || o.id || ' has ' || o.amount || ' units, its movement ' || m.sequence || \
         ' took ' || -m.delta AS fault FROM ",
        moved!(),
        "JOIN orders AS o ON o.id = m.order_id \
         WHERE m.kind IN ('reserved', 'reserved_again') AND o.amount <> -m.delta LIMIT 20"
    ),
    concat!(
        "SELECT 'order ' || o.id || ' belongs to buyer ' || o.buyer || ', it was reserved for ' || \
         coalesce(m.buyer, 0) AS fault FROM ",
        moved!(),
        "JOIN orders AS o ON o.id = m.order_id \
         WHERE m.kind IN ('reserved', 'reserved_again') AND o.buyer <> coalesce(m.buyer, 0) LIMIT 20"
    ),
    concat!(
        "SELECT 'order ' || o.id || ' has no movement' AS fault FROM ",
        bought!(),
        "WHERE NOT EXISTS (SELECT 1 FROM stock_movements AS m \
          WHERE m.order_id = o.id AND m.kind = 'reserved') LIMIT 20"
    ),
    concat!(
        "SELECT 'order ' || o.id || ' was sold at ' || o.unit_price || ' minor units, published was ' \
         || {:price} AS fault FROM ",
        bought!(),
        "WHERE o.unit_price <> {:price} LIMIT 20"
    ),
    concat!(
        "SELECT 'buyer ' || o.buyer || ' holds ' || sum(o.amount) || ' units, allowed are ' || \
         {:per_buyer} AS fault FROM ",
        bought!(),
        "WHERE o.state IN ('written', 'paid') \
         GROUP BY o.buyer HAVING sum(o.amount) > {:per_buyer} LIMIT 20"
    ),
    concat!(
        "SELECT 'order ' || m.order_id || ': reservation ' || m.number || \
         ' was released, but the ledger never ended it' AS fault FROM ",
        moved!(),
        "WHERE m.kind = 'released' AND NOT EXISTS (SELECT 1 FROM releases AS r \
          WHERE r.order_id = m.order_id AND r.number = m.number AND r.amount = m.delta) LIMIT 20"
    ),
    concat!(
        "SELECT 'order ' || o.id || ' is ' || o.state || ', but its units were released' AS fault FROM ",
        bought!(),
        "WHERE o.state IN ('written', 'paid') AND EXISTS ( \
          SELECT 1 FROM releases AS r WHERE r.order_id = o.id AND r.number = o.current_number) LIMIT 20"
    ),
    concat!(
        "SELECT 'order ' || o.id || ' is ' || o.state || ', but its units were never released' \
         AS fault FROM ",
        bought!(),
        "WHERE o.state NOT IN ('written', 'paid') AND NOT EXISTS ( \
          SELECT 1 FROM releases AS r WHERE r.order_id = o.id AND r.number = o.current_number) LIMIT 20"
    ),
    concat!(
        "SELECT 'order ' || d.order_id || ': reservation ' || d.number || ' was ' || d.done || ' ' || \
         count(*) || ' times' AS fault FROM (SELECT m.order_id, m.number, \
          CASE WHEN m.kind = 'released' THEN 'released' ELSE 'made' END AS done FROM ",
        moved!(),
        "WHERE m.order_id IS NOT NULL) AS d GROUP BY d.order_id, d.number, d.done \
         HAVING count(*) > 1 LIMIT 20"
    ),
    concat!(
        "SELECT 'order ' || o.id || ' is paid, but no payment was accepted' AS fault FROM ",
        bought!(),
        "WHERE o.state = 'paid' AND NOT EXISTS (SELECT 1 FROM payments AS p \
          WHERE p.order_id = o.id AND p.state = 'accepted') LIMIT 20"
    ),
];

impl Ledger {
    /// Every promo and generation the ledger knows.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn generations(&self) -> Result<Vec<(PromoId, Generation)>> {
        self.read(
            "SELECT promo, generation FROM stock_movements \
             UNION SELECT promo, generation FROM orders ORDER BY 1, 2",
        )
        .await?
        .fetch_all()
        .await?
        .iter()
        .map(|row| {
            Ok((
                PromoId(row.get("promo")?),
                Generation(row.get("generation")?),
            ))
        })
        .collect()
    }

    /// The highest movement of every promo and generation.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn heights(&self) -> Result<Vec<(PromoId, Generation, Sequence)>> {
        self.read(
            "SELECT promo, generation, max(sequence) AS height FROM stock_movements \
             GROUP BY promo, generation ORDER BY promo, generation",
        )
        .await?
        .fetch_all()
        .await?
        .iter()
        .map(|row| {
            let (promo, generation) = (
                PromoId(row.get("promo")?),
                Generation(row.get("generation")?),
            );
            Ok((promo, generation, Sequence(row.get("height")?)))
        })
        .collect()
    }

    /// Whether the ledger holds every movement up to `fence`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn reached(
        &self,
        promo: PromoId,
        generation: Generation,
        fence: Sequence,
    ) -> Result<Reached> {
        let row = self.read(
            "WITH held AS (SELECT sequence, row_number() OVER (ORDER BY sequence) AS place \
              FROM stock_movements WHERE promo = ? AND generation = ? AND sequence <= ?) \
             SELECT count(*) AS movements, count(CASE WHEN sequence = place THEN 1 END) + 1 AS next \
             FROM held",
        ).await?
        .bind(promo.0)
        .bind(generation.0)
        .bind(fence.0)
        .fetch_one()
        .await?;
        let (movements, next): (i64, i64) = (row.get("movements")?, row.get("next")?);
        Ok(Reached {
            movements,
            missing: (next <= fence.0).then_some(Sequence(next)),
        })
    }

    /// The books of what `fence` describes, up to its sequence number.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn books(&self, fence: &Snapshot) -> Result<Books> {
        let mut tx = self.database.snapshot().await?;
        let row = given(&mut tx, COUNTS, fence).fetch_one().await?;
        let counts = equation::Books {
            published: row.get("published")?,
            available: row.get("available")?,
            reserved: 0,
            written: row.get("written")?,
            paid: row.get("paid")?,
            releasing: row.get("releasing")?,
        };
        let mut faults = Vec::new();
        for query in FAULTS {
            for row in given(&mut tx, query, fence).fetch_all().await? {
                faults.push(Fault(row.get("fault")?));
            }
        }
        tx.commit().await?;
        Ok(Books { counts, faults })
    }
}

/// A query of this file with the facts it asks for.
fn given<'c>(tx: &'c mut Tx, query: &'static str, fence: &Snapshot) -> Query<'c> {
    tx.query(query).bind_named(query, |name| match name {
        "promo" => fence.promo.0,
        "generation" => fence.generation.0,
        "fence" => fence.sequence.0,
        "per_buyer" => fence.terms.per_buyer.into(),
        "price" => fence.terms.price.minor(),
        _ => unreachable!("the audit knows no `{name}`"),
    })
}
