//! What one file must know of another: ids are given once, a promo sells an item that exists, and no
//! more of it than there is, and an item is in one sale at a time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::reader::Found;
use super::source::Source;
use super::{catalog, promo};
use crate::units::{ItemId, PromoId, Timestamp};

type PromoFile<'a> = (Source<'a>, Option<promo::Draft>);

/// Notes where the files do not agree. `items` is `None` for a catalogue that could not be read.
pub(super) fn check(
    catalog: &Source<'_>,
    items: Option<&[catalog::Draft]>,
    promos: &[PromoFile<'_>],
) {
    if let Some(items) = items {
        let known = check_item_ids(catalog, items);
        for (source, draft) in promos {
            if let Some(draft) = draft {
                check_item(source, draft, catalog.name(), items, &known);
            }
        }
    }
    check_promo_ids(promos);
    check_windows(promos);
}

fn check_item_ids<'d>(
    source: &Source<'_>,
    items: &'d [catalog::Draft],
) -> BTreeMap<ItemId, &'d catalog::Draft> {
    let mut known = BTreeMap::new();
    for draft in items {
        let Some(id) = draft.id else { continue };
        match known.entry(id.value) {
            Entry::Vacant(free) => {
                free.insert(draft);
            }
            Entry::Occupied(_) => {
                let words = format!(
                    "item id {} is given twice: give each item its own",
                    id.value
                );
                source.error(id.at, words);
            }
        }
    }
    known
}

fn check_item(
    source: &Source<'_>,
    draft: &promo::Draft,
    catalog_name: &str,
    items: &[catalog::Draft],
    known: &BTreeMap<ItemId, &catalog::Draft>,
) {
    let Some(wanted) = draft.item else { return };
    let Some(item) = known.get(&wanted.value) else {
        // An item whose id could not be read may be the one that is meant.
        if items.iter().all(|item| item.id.is_some()) {
            let words = format!(
                "item {} is not in {catalog_name}: {}",
                wanted.value,
                known_items(known)
            );
            source.error(wanted.at, words);
        }
        return;
    };
    if let (Some(stock), Some(there)) = (draft.stock, item.stock)
        && stock.value > there.value
    {
        let words = format!(
            "`stock` is {}, but {catalog_name} has {} units of item {}: write at most that many, \
             or raise it there",
            stock.value, there.value, wanted.value
        );
        source.error(stock.at, words);
    }
    if let (Some(price), Some(everyday)) = (draft.price, item.price)
        && price.value >= everyday.value
    {
        let words = format!(
            "`price` is {}, which is not below the everyday price of item {}, {}",
            price.value, wanted.value, everyday.value
        );
        source.warn(price.at, words);
    }
}

fn known_items(known: &BTreeMap<ItemId, &catalog::Draft>) -> String {
    const SHOWN_MAX: usize = 10;
    if known.is_empty() {
        return "it has no items yet, add it under `[[item]]`".to_owned();
    }
    let ids: Vec<_> = known
        .keys()
        .take(SHOWN_MAX)
        .map(ToString::to_string)
        .collect();
    let more = if known.len() > SHOWN_MAX { ", …" } else { "" };
    format!(
        "use one that is ({}{more}), or add it there",
        ids.join(", ")
    )
}

fn check_promo_ids(promos: &[PromoFile<'_>]) {
    let mut known: BTreeMap<PromoId, &str> = BTreeMap::new();
    for (source, draft) in promos {
        let Some(id) = draft.as_ref().and_then(|draft| draft.id) else {
            continue;
        };
        if let Some(other) = known.get(&id.value) {
            let words = format!(
                "promo id {} is taken by {other}: give each promo its own",
                id.value
            );
            source.error(id.at, words);
        } else {
            known.insert(id.value, source.name());
        }
    }
}

/// A window that is the same whenever its promo is published.
struct Window<'a> {
    source: &'a Source<'a>,
    start: Found<Timestamp>,
    end: Timestamp,
}

fn check_windows(promos: &[PromoFile<'_>]) {
    let mut windows: BTreeMap<ItemId, Vec<Window<'_>>> = BTreeMap::new();
    for (source, draft) in promos {
        let Some(draft) = draft else { continue };
        if let (Some(item), Some((start, end)), Some(written)) =
            (draft.item, draft.window(), draft.start)
            && start < end
        {
            let start = written.map(|_| start);
            windows
                .entry(item.value)
                .or_default()
                .push(Window { source, start, end });
        }
    }
    for (item, mut windows) in windows {
        windows.sort_by_key(|window| (window.start.value, window.source.name()));
        let mut latest: Option<&Window<'_>> = None;
        for window in &windows {
            match latest {
                Some(earlier) if window.start.value < earlier.end => {
                    let words = format!(
                        "item {item} is already on sale then, by {} until {}: start at or after \
                         that, or change the other",
                        earlier.source.name(),
                        earlier.end.to_rfc3339()
                    );
                    window.source.error(window.start.at, words);
                    if window.end > earlier.end {
                        latest = Some(window);
                    }
                }
                _ => latest = Some(window),
            }
        }
    }
}
