//! What operators do with entries of the stream that could not be written.

use lua_free_rules::refusal::Refusal;

use super::Call;
use super::admin::as_operator;
use crate::answer::Reply;
use crate::dead_letters::{self, Which};
use crate::error::Result;

/// Entries that are shown unless the request says otherwise, and at most.
const SHOWN: i64 = 100;
const SHOWN_MAX: i64 = 1_000;
/// Longest id: two numbers of 20 characters.
const ID_BYTES_MAX: usize = 41;

pub async fn list(call: Call) -> Result<Reply> {
    as_operator(&call, "admin/deadletters", async {
        let max = call.query()?.optional_integer("max", 1..=SHOWN_MAX)?;
        let max = usize::try_from(max.unwrap_or(SHOWN)).unwrap_or_default();
        Reply::ok(&dead_letters::list(call.shop.engine.as_ref(), max).await?)
    })
    .await
}

pub async fn replay(call: Call) -> Result<Reply> {
    let which = which(&call);
    let what = match &which {
        Ok(Which::One(id)) => format!("admin/deadletters/replay {id}"),
        Ok(Which::All) => "admin/deadletters/replay all".to_owned(),
        Err(_) => "admin/deadletters/replay".to_owned(),
    };
    as_operator(&call, &what, async {
        let which = which?;
        let replayed = dead_letters::replay(call.shop.engine.as_ref(), which).await?;
        if matches!(which, Which::One(_)) && replayed.replayed.is_empty() {
            return Err(Refusal::NotFound.into());
        }
        Reply::ok(&replayed)
    })
    .await
}

/// The entry that `id` names, or all of them.
fn which(call: &Call) -> Result<Which> {
    let fields = call.fields()?;
    match fields.text("id", ID_BYTES_MAX)? {
        "all" => Ok(Which::All),
        id => {
            let id = id.parse();
            let id = id.map_err(|words| Refusal::BadParameter(format!("`id` is {words}")))?;
            Ok(Which::One(id))
        }
    }
}
