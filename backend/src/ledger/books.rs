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

/// The facts every query below starts from.
macro_rules! given {
    ($query:literal) => {
        concat!(
            "WITH given AS (SELECT ? AS promo, ? AS generation, ? AS fence, ? AS per_buyer, ",
            "? AS price), moved AS (SELECT m.* FROM stock_movements AS m, given ",
            "WHERE m.promo = given.promo AND m.generation = given.generation), ",
            "made AS (SELECT * FROM moved WHERE kind IN ('reserved', 'reserved_again')), ",
            "bought AS (SELECT o.* FROM orders AS o, given ",
            "WHERE o.promo = given.promo AND o.generation = given.generation) ",
            $query
        )
    };
}

const COUNTS: &str = given!(
    "SELECT (SELECT CAST(coalesce(sum(delta), 0) AS {int}) FROM moved, given \
      WHERE sequence <= fence) AS available, \
     (SELECT CAST(coalesce(sum(delta), 0) AS {int}) FROM moved, given \
      WHERE sequence <= fence AND kind IN ('published', 'added')) AS published, \
     CAST(coalesce(sum(CASE WHEN b.current_number = h.number AND b.state = 'written' \
      THEN -h.delta END), 0) AS {int}) AS written, \
     CAST(coalesce(sum(CASE WHEN b.current_number = h.number AND b.state = 'paid' \
      THEN -h.delta END), 0) AS {int}) AS paid, \
     CAST(coalesce(sum(CASE WHEN b.current_number <> h.number OR b.state NOT IN ('written', 'paid') \
      THEN -h.delta END), 0) AS {int}) AS releasing \
     FROM (SELECT made.order_id, made.number, made.delta FROM made, given \
           WHERE made.sequence <= given.fence AND NOT EXISTS ( \
            SELECT 1 FROM stock_movements AS r WHERE r.order_id = made.order_id \
             AND r.number = made.number AND r.kind = 'released' AND r.sequence <= given.fence)) AS h \
     LEFT JOIN bought AS b ON b.id = h.order_id"
);

/// Each says what is off, one row for each order or unit.
const FAULTS: [&str; 11] = [
    given!(
        "SELECT 'order ' || order_id || ' was reserved (movement ' || sequence || \
         ') and is not in the ledger' AS fault FROM moved \
         WHERE kind = 'reserved' AND order_id NOT IN (SELECT id FROM bought) LIMIT 20"
    ),
    given!(
        "SELECT 'order ' || b.id || ' has ' || b.amount || ' units, its movement ' || m.sequence || \
         ' took ' || -m.delta AS fault FROM made AS m JOIN bought AS b ON b.id = m.order_id \
         WHERE b.amount <> -m.delta LIMIT 20"
    ),
    given!(
        "SELECT 'order ' || b.id || ' belongs to buyer ' || b.buyer || ', it was reserved for ' || \
         coalesce(m.buyer, 0) AS fault FROM made AS m JOIN bought AS b ON b.id = m.order_id \
         WHERE b.buyer <> coalesce(m.buyer, 0) LIMIT 20"
    ),
    given!(
        "SELECT 'order ' || b.id || ' has no movement' AS fault FROM bought AS b WHERE NOT EXISTS ( \
         SELECT 1 FROM made AS m WHERE m.order_id = b.id AND m.kind = 'reserved') LIMIT 20"
    ),
    given!(
        "SELECT 'order ' || b.id || ' was sold at ' || b.unit_price || ' minor units, published was ' \
         || given.price AS fault FROM bought AS b, given WHERE b.unit_price <> given.price LIMIT 20"
    ),
    given!(
        "SELECT 'buyer ' || b.buyer || ' holds ' || sum(b.amount) || ' units, allowed are ' || \
         given.per_buyer AS fault FROM bought AS b, given WHERE b.state IN ('written', 'paid') \
         GROUP BY b.buyer, given.per_buyer HAVING sum(b.amount) > given.per_buyer LIMIT 20"
    ),
    given!(
        "SELECT 'order ' || m.order_id || ': reservation ' || m.number || \
         ' was released, but the ledger never ended it' AS fault FROM moved AS m \
         WHERE m.kind = 'released' AND NOT EXISTS (SELECT 1 FROM releases AS r \
          WHERE r.order_id = m.order_id AND r.number = m.number AND r.amount = m.delta) LIMIT 20"
    ),
    given!(
        "SELECT 'order ' || b.id || ' is ' || b.state || ', but its units were released' AS fault \
         FROM bought AS b WHERE b.state IN ('written', 'paid') AND EXISTS ( \
          SELECT 1 FROM releases AS r WHERE r.order_id = b.id AND r.number = b.current_number) LIMIT 20"
    ),
    given!(
        "SELECT 'order ' || b.id || ' is ' || b.state || ', but its units were never released' AS fault \
         FROM bought AS b WHERE b.state NOT IN ('written', 'paid') AND NOT EXISTS ( \
          SELECT 1 FROM releases AS r WHERE r.order_id = b.id AND r.number = b.current_number) LIMIT 20"
    ),
    given!(
        "SELECT 'order ' || d.order_id || ': reservation ' || d.number || ' was ' || d.done || ' ' || \
         count(*) || ' times' AS fault FROM (SELECT order_id, number, \
          CASE WHEN kind = 'released' THEN 'released' ELSE 'made' END AS done FROM moved \
          WHERE order_id IS NOT NULL) AS d GROUP BY d.order_id, d.number, d.done \
         HAVING count(*) > 1 LIMIT 20"
    ),
    given!(
        "SELECT 'order ' || b.id || ' is paid, but no payment was accepted' AS fault FROM bought AS b \
         WHERE b.state = 'paid' AND NOT EXISTS (SELECT 1 FROM payments AS p \
          WHERE p.order_id = b.id AND p.state = 'accepted') LIMIT 20"
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

/// A query of this file with the facts it starts from.
fn given<'c>(tx: &'c mut Tx, query: &'static str, fence: &Snapshot) -> Query<'c> {
    tx.query(query)
        .bind(fence.promo.0)
        .bind(fence.generation.0)
        .bind(fence.sequence.0)
        .bind(fence.terms.per_buyer)
        .bind(fence.terms.price.minor())
}
