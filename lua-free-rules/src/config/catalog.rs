//! `catalog.toml`: the items to seed, one `[[item]]` each. Fields and bounds.

use super::CatalogItem;
use super::reader::{Found, Table};
use crate::units::{ItemId, Money};

/// Largest id: readers of JSON keep whole numbers exact up to here.
pub(super) const ID_MAX: i64 = (1 << 53) - 1;
/// Most units of one item.
pub(super) const STOCK_MAX: u32 = 10_000_000;
const TITLE_CHARS_MAX: usize = 200;
const DESCRIPTION_CHARS_MAX: usize = 2_000;
const IMAGE_CHARS_MAX: usize = 500;

/// An item as far as it could be read.
pub(super) struct Draft {
    pub(super) id: Option<Found<ItemId>>,
    pub(super) price: Option<Found<Money>>,
    pub(super) stock: Option<Found<u32>>,
    title: Option<String>,
    description: Option<String>,
    img_url: Option<String>,
}

impl Draft {
    /// The item, if all of it could be read.
    pub(super) fn item(self) -> Option<CatalogItem> {
        Some(CatalogItem {
            id: self.id?.value,
            title: self.title?,
            price: self.price?.value,
            stock: self.stock?.value,
            description: self.description?,
            img_url: self.img_url?,
        })
    }
}

pub(super) fn read(table: &mut Table<'_>) -> Vec<Draft> {
    table.tables("item", |table| Draft {
        id: id(table, "id").map(|found| found.map(ItemId)),
        title: title(table),
        price: price(table),
        stock: required_number(table, "stock", "500", 0..=STOCK_MAX),
        description: description(table),
        img_url: image(table),
    })
}

/// A required whole number within `range`.
pub(super) fn required_number<T>(
    table: &mut Table<'_>,
    key: &'static str,
    example: &str,
    range: std::ops::RangeInclusive<T>,
) -> Option<Found<T>>
where
    T: Copy + std::fmt::Display + PartialOrd + TryFrom<i64>,
{
    if table.key_at(key).is_none() {
        table.missing(key, example);
    }
    table.number_in(key, range)
}

/// A required id.
pub(super) fn id(table: &mut Table<'_>, key: &'static str) -> Option<Found<i64>> {
    required_number(table, key, "1", 1..=ID_MAX)
}

/// The required price.
pub(super) fn price(table: &mut Table<'_>) -> Option<Found<Money>> {
    let price = table.required::<Money>("price", "\"99.00\"")?;
    if price.value.minor() == 0 {
        let name = table.name("price");
        table.error(
            price.at,
            format!("`{name}` is zero: write one above zero, like \"99.00\""),
        );
        return None;
    }
    Some(price)
}

fn title(table: &mut Table<'_>) -> Option<String> {
    let title = table.required::<String>("title", "\"Sneakers\"")?;
    let name = table.name("title");
    let problem = if title.value.trim().is_empty() {
        format!("`{name}` is empty: write the item's name")
    } else if title.value.contains(char::is_control) {
        format!("`{name}` has a line break or another control character in it: write one line")
    } else if title.value.chars().nth(TITLE_CHARS_MAX).is_some() {
        format!("`{name}` is too long: at most {TITLE_CHARS_MAX} characters")
    } else {
        return Some(title.value);
    };
    table.error(title.at, problem);
    None
}

fn description(table: &mut Table<'_>) -> Option<String> {
    let Some(text) = table.get::<String>("description") else {
        return Some(String::new());
    };
    if text.value.chars().nth(DESCRIPTION_CHARS_MAX).is_some() {
        let name = table.name("description");
        table.error(
            text.at,
            format!("`{name}` is too long: at most {DESCRIPTION_CHARS_MAX} characters"),
        );
        return None;
    }
    Some(text.value)
}

fn image(table: &mut Table<'_>) -> Option<String> {
    let Some(image) = table.get::<String>("image") else {
        return Some(String::new());
    };
    if is_path_here(&image.value) {
        return Some(image.value);
    }
    let name = table.name("image");
    table.error(
        image.at,
        format!(
            "`{name}` must be a path on this site, like \"/resources/img/sneakers.svg\": one `/` \
             in front, no blanks, at most {IMAGE_CHARS_MAX} characters"
        ),
    );
    None
}

/// Whether a browser stays on this site with it. Browsers read `\` as `/`, and `//` as another host.
fn is_path_here(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'\\' | b'"' | b'<' | b'>');
    path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= IMAGE_CHARS_MAX
        && path.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_stays_on_this_site() {
        assert!(is_path_here("/resources/img/a.svg?v=1"));
        for bad in [
            "",
            "a.svg",
            "//evil.example/a",
            "/\\evil.example/a",
            "https://a/",
            "/a b",
            "/é",
        ] {
            assert!(!is_path_here(bad), "{bad}");
        }
    }
}
