//! Items: the catalogue. Stock and sales follow the stock movements.

use lua_free_rules::config::CatalogItem;
use lua_free_rules::item::Item;
use lua_free_rules::units::{ItemId, Money};

use super::Ledger;
use super::connection::Tx;
use super::retry::retried;
use super::values::Row;
use crate::error::{BackendError, Result};

/// Most items one list shows.
const ITEMS_MAX: i64 = 1_000;

const ONE: &str =
    "SELECT id, title, price, stock, description, sales, img_url FROM items WHERE id = ?";

/// What an operator says of an item; what is `None` stays as it is.
#[derive(Debug, Default)]
pub struct NewItem<'a> {
    /// Its name.
    pub title: Option<&'a str>,
    /// Its everyday price.
    pub price: Option<Money>,
    /// Units in the shop.
    pub stock: Option<i64>,
    /// What it is.
    pub description: Option<&'a str>,
    /// Where its picture is.
    pub img_url: Option<&'a str>,
}

impl Ledger {
    /// Adds the items that are not there yet.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn seed(&self, catalog: &[CatalogItem]) -> Result<()> {
        retried(|| async {
            let mut tx = self.begin().await?;
            for item in catalog {
                if item_in(&mut tx, item.id).await?.is_none() {
                    let new = NewItem {
                        title: Some(&item.title),
                        price: Some(item.price),
                        stock: Some(item.stock.into()),
                        description: Some(&item.description),
                        img_url: Some(&item.img_url),
                    };
                    insert(&mut tx, item.id, &new).await?;
                }
            }
            tx.commit().await
        })
        .await
    }

    /// Every item, by id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn items(&self) -> Result<Vec<Item>> {
        self.read(
            "SELECT id, title, price, stock, description, sales, img_url FROM items \
             ORDER BY id LIMIT ?",
        )
        .await?
        .bind(ITEMS_MAX)
        .fetch_all()
        .await?
        .iter()
        .map(read_item)
        .collect()
    }

    /// One item.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn item(&self, id: ItemId) -> Result<Option<Item>> {
        let row = self.read(ONE).await?.bind(id.0).fetch_optional().await?;
        row.as_ref().map(read_item).transpose()
    }

    /// Adds an item under the next free id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn create_item(&self, item: &NewItem<'_>) -> Result<Item> {
        retried(|| async {
            let mut tx = self.begin().await?;
            let next = tx
                .query("SELECT coalesce(max(id), 0) + 1 AS id FROM items")
                .fetch_one()
                .await?;
            let id = ItemId(next.get("id")?);
            // Whoever adds another one at the same time meets the key.
            insert(&mut tx, id, item).await?;
            let item = item_in(&mut tx, id).await?;
            tx.commit().await?;
            item.ok_or_else(|| BackendError::Unexpected(format!("item {id} is gone")))
        })
        .await
    }

    /// Changes an item; `None` if there is no such item.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn update_item(&self, id: ItemId, item: &NewItem<'_>) -> Result<Option<Item>> {
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.query(
                "UPDATE items SET title = coalesce(?, title), price = coalesce(?, price), \
                 stock = coalesce(?, stock), description = coalesce(?, description), \
                 img_url = coalesce(?, img_url) WHERE id = ?",
            )
            .bind(item.title)
            .bind(item.price.map(Money::minor))
            .bind(item.stock)
            .bind(item.description)
            .bind(item.img_url)
            .bind(id.0)
            .execute()
            .await?;
            let item = item_in(&mut tx, id).await?;
            tx.commit().await?;
            Ok(item)
        })
        .await
    }
}

async fn insert(tx: &mut Tx, id: ItemId, item: &NewItem<'_>) -> Result<()> {
    tx.query(
        "INSERT INTO items (id, title, price, stock, description, img_url) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(id.0)
    .bind(item.title.unwrap_or_default())
    .bind(item.price.unwrap_or_default().minor())
    .bind(item.stock.unwrap_or_default())
    .bind(item.description.unwrap_or_default())
    .bind(item.img_url.unwrap_or_default())
    .execute()
    .await?;
    Ok(())
}

async fn item_in(tx: &mut Tx, id: ItemId) -> Result<Option<Item>> {
    let row = tx.query(ONE).bind(id.0).fetch_optional().await?;
    row.as_ref().map(read_item).transpose()
}

fn read_item(row: &Row) -> Result<Item> {
    let id = ItemId(row.get("id")?);
    let minor: i64 = row.get("price")?;
    Ok(Item {
        id,
        title: row.get("title")?,
        price: Money::from_minor(minor).ok_or_else(|| {
            BackendError::Unexpected(format!("item {id} has the price {minor}, out of range"))
        })?,
        stock: row.get("stock")?,
        description: row.get("description")?,
        sales: row.get("sales")?,
        img_url: row.get("img_url")?,
    })
}
