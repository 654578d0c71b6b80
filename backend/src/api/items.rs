//! `/item/…`: the catalogue. Answers carry the promo as it stands at this moment.

use lua_free_rules::fields::Fields;
use lua_free_rules::item::ItemAnswer;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{ItemId, Money};

use super::{Call, admin};
use crate::answer::Reply;
use crate::error::Result;
use crate::ledger::NewItem;

const TITLE_BYTES_MAX: usize = 200;
const DESCRIPTION_BYTES_MAX: usize = 4_000;
const URL_BYTES_MAX: usize = 500;

pub async fn list(call: Call) -> Result<Reply> {
    let items = call.shop.catalogue.list().await?;
    let promos = call.shop.promos.all().await;
    let answers: Vec<ItemAnswer<'_>> = items
        .iter()
        .map(|item| item.answer(&promos, call.now))
        .collect();
    Reply::ok(&answers)
}

pub async fn get(call: Call) -> Result<Reply> {
    let id = ItemId(call.query()?.id("id")?);
    let item = call.shop.catalogue.item(id).await?;
    let item = item.ok_or(Refusal::NotFound)?;
    let promos = call.shop.promos.all().await;
    Reply::ok(&item.answer(&promos, call.now))
}

pub async fn create(call: Call) -> Result<Reply> {
    admin::as_operator(&call, "item/create", async {
        let fields = call.fields()?;
        let item = read_item(&fields)?;
        if item.title.is_none() || item.price.is_none() || item.stock.is_none() {
            let words = "`title`, `price` and `stock` are needed".to_owned();
            return Err(Refusal::BadParameter(words).into());
        }
        Reply::ok(&call.shop.catalogue.create(&item).await?)
    })
    .await
}

pub async fn update(call: Call) -> Result<Reply> {
    admin::as_operator(&call, &admin::named(&call, "item/update", "id"), async {
        let fields = call.fields()?;
        let (id, item) = (ItemId(fields.id("id")?), read_item(&fields)?);
        let item = call.shop.catalogue.update(id, &item).await?;
        Reply::ok(&item.ok_or(Refusal::NotFound)?)
    })
    .await
}

fn read_item(fields: &Fields) -> Result<NewItem<'_>> {
    let price: Option<Money> = fields
        .optional_text("price", 24)?
        .map(str::parse)
        .transpose()
        .map_err(Refusal::BadParameter)?;
    let img_url = fields.optional_text("imgUrl", URL_BYTES_MAX)?;
    if img_url.is_some_and(|url| !url.starts_with('/') && !url.starts_with("https://")) {
        let words = "`imgUrl` must begin with / or https://".to_owned();
        return Err(Refusal::BadParameter(words).into());
    }
    Ok(NewItem {
        title: fields.optional_text("title", TITLE_BYTES_MAX)?,
        price,
        stock: fields.optional_integer("stock", 0..=i64::from(u32::MAX))?,
        description: fields.optional_text("description", DESCRIPTION_BYTES_MAX)?,
        img_url,
    })
}
