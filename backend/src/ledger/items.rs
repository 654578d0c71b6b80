//! Items: the catalogue. Stock and sales follow the stock movements.

use lua_free_rules::config::CatalogItem;
use lua_free_rules::item::Item;
use lua_free_rules::units::{ItemId, Money};
use sqlx::Row as _;

use super::Ledger;
use crate::error::{BackendError, Result};

/// Most items one list shows.
const ITEMS_MAX: i64 = 1_000;

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
        let mut tx = self.begin().await?;
        for item in catalog {
            sqlx::query(
                "INSERT INTO items (id, title, price, stock, description, img_url) \
                 VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            )
            .bind(item.id.0)
            .bind(&item.title)
            .bind(item.price.minor())
            .bind(item.stock)
            .bind(&item.description)
            .bind(&item.img_url)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Every item, by id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn items(&self) -> Result<Vec<Item>> {
        sqlx::query(
            "SELECT id, title, price, stock, description, sales, img_url FROM items \
             ORDER BY id LIMIT ?",
        )
        .bind(ITEMS_MAX)
        .fetch_all(&self.readers)
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
        let row = sqlx::query(
            "SELECT id, title, price, stock, description, sales, img_url FROM items WHERE id = ?",
        )
        .bind(id.0)
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(read_item).transpose()
    }

    /// Adds an item under the next free id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn create_item(&self, item: &NewItem<'_>) -> Result<Item> {
        let row = sqlx::query(
            "INSERT INTO items (title, price, stock, description, img_url) VALUES (?, ?, ?, ?, ?) \
             RETURNING id, title, price, stock, description, sales, img_url",
        )
        .bind(item.title.unwrap_or_default())
        .bind(item.price.unwrap_or_default().minor())
        .bind(item.stock.unwrap_or_default())
        .bind(item.description.unwrap_or_default())
        .bind(item.img_url.unwrap_or_default())
        .fetch_one(&self.writer)
        .await?;
        read_item(&row)
    }

    /// Changes an item; `None` if there is no such item.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn update_item(&self, id: ItemId, item: &NewItem<'_>) -> Result<Option<Item>> {
        let row = sqlx::query(
            "UPDATE items SET title = coalesce(?, title), price = coalesce(?, price), \
             stock = coalesce(?, stock), description = coalesce(?, description), \
             img_url = coalesce(?, img_url) WHERE id = ? \
             RETURNING id, title, price, stock, description, sales, img_url",
        )
        .bind(item.title)
        .bind(item.price.map(Money::minor))
        .bind(item.stock)
        .bind(item.description)
        .bind(item.img_url)
        .bind(id.0)
        .fetch_optional(&self.writer)
        .await?;
        row.as_ref().map(read_item).transpose()
    }
}

fn read_item(row: &sqlx::sqlite::SqliteRow) -> Result<Item> {
    let id = ItemId(row.try_get("id")?);
    let minor: i64 = row.try_get("price")?;
    Ok(Item {
        id,
        title: row.try_get("title")?,
        price: Money::from_minor(minor).ok_or_else(|| {
            BackendError::Unexpected(format!("item {id} has the price {minor}, out of range"))
        })?,
        stock: row.try_get("stock")?,
        description: row.try_get("description")?,
        sales: row.try_get("sales")?,
        img_url: row.try_get("img_url")?,
    })
}
