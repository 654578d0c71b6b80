//! Reads the tables of a TOML file and remembers where everything stood. A single pass notes every
//! error and goes on with the default in place of what was wrong, so that one mistake hides no other.

use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::source::{SHOWN_CHARS_MAX, Source, shown};
use super::value::{Leaf, Quantity};

/// Most entries in one list of values.
const LIST_MAX: usize = 1_000;

/// Something found in a file, and where it starts, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

impl<T> Found<T> {
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Found<U> {
        Found {
            value: change(self.value),
            at: self.at,
        }
    }
}

/// A table that is being read. It learns its known keys by being asked for them; [`Table::finish`]
/// then notes those that nobody asked for.
pub(super) struct Table<'a> {
    source: &'a Source<'a>,
    entries: &'a DeTable<'a>,
    path: String,
    at: usize,
    known: Vec<&'static str>,
    absent: Vec<Absent>,
}

/// A note that something is missing: one of these keys should be there.
struct Absent {
    keys: Vec<&'static str>,
    message: String,
}

impl<'a> Table<'a> {
    pub(super) fn new(
        source: &'a Source<'a>,
        entries: &'a DeTable<'a>,
        path: String,
        at: usize,
    ) -> Self {
        Self {
            source,
            entries,
            path,
            at,
            known: Vec::new(),
            absent: Vec::new(),
        }
    }

    /// Notes an error at byte `at` of the file.
    pub(super) fn error(&self, at: usize, message: impl Into<String>) {
        self.source.error(at, message);
    }

    /// Notes a warning at byte `at` of the file.
    pub(super) fn warn(&self, at: usize, message: impl Into<String>) {
        self.source.warn(at, message);
    }

    /// Notes an error about the table as a whole, at its head.
    pub(super) fn error_here(&self, message: impl Into<String>) {
        self.source.error(self.at, message);
    }

    /// Where the table starts.
    pub(super) fn start(&self) -> usize {
        self.at
    }

    /// Where `key` itself stands, whatever its value is worth.
    pub(super) fn key_at(&self, key: &str) -> Option<usize> {
        let (written, _) = self.entries.get_key_value(key)?;
        Some(written.span().start)
    }

    /// `key` with the tables it is in, as it is named in messages.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn ask(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.entries.get(key)
    }

    fn value<T: Leaf>(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Found<T>> {
        let at = value.span().start;
        let problem = match value.get_ref() {
            DeValue::String(text) if text.chars().nth(T::CHARS_MAX).is_some() => {
                format!(
                    "`{}` is too long: at most {} characters",
                    self.name(key),
                    T::CHARS_MAX
                )
            }
            plain => match T::from_toml(plain) {
                Some(Ok(value)) => return Some(Found { value, at }),
                Some(Err(problem)) => problem,
                None => format!(
                    "`{}` must be {}, not {}",
                    self.name(key),
                    T::EXPECTED,
                    kind(plain)
                ),
            },
        };
        self.error(at, problem);
        None
    }

    /// The value of `key`, if it is written and good.
    pub(super) fn get<T: Leaf>(&mut self, key: &'static str) -> Option<Found<T>> {
        let value = self.ask(key)?;
        self.value(key, value)
    }

    /// The value of `key`, or `default`.
    pub(super) fn or<T: Leaf>(&mut self, key: &'static str, default: T) -> T {
        self.get(key).map_or(default, |found| found.value)
    }

    /// The value of `key`, which must be written; `example` shows how.
    pub(super) fn required<T: Leaf>(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Found<T>> {
        if self.key_at(key).is_none() {
            self.missing(key, example);
        }
        self.get(key)
    }

    /// Notes that `key` is missing; `example` shows how to write it.
    pub(super) fn missing(&mut self, key: &'static str, example: &str) {
        let name = self.name(key);
        self.absent(
            &[key],
            format!("`{name}` is missing: write one like `{key} = {example}`"),
        );
    }

    /// Notes that one of `keys` should be there, unless it turns out to be there misspelt.
    pub(super) fn absent(&mut self, keys: &[&'static str], message: impl Into<String>) {
        self.absent.push(Absent {
            keys: keys.to_vec(),
            message: message.into(),
        });
    }

    /// Where the value at the end of `path` stands.
    pub(super) fn value_at(&self, path: &[&str]) -> Option<usize> {
        let (first, rest) = path.split_first()?;
        let mut value = self.entries.get(*first)?;
        for key in rest {
            value = value.get_ref().get(*key)?;
        }
        Some(value.span().start)
    }

    /// A whole number within `range`, if it is written and good.
    pub(super) fn number_in<T>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<Found<T>>
    where
        T: Copy + Display + PartialOrd + TryFrom<i64>,
    {
        let written = self.get::<i64>(key)?;
        match T::try_from(written.value) {
            Ok(value) if range.contains(&value) => Some(written.map(|_| value)),
            _ => {
                self.out_of_range(key, written, range.start(), range.end());
                None
            }
        }
    }

    /// A whole number within `range`, or `default`.
    pub(super) fn number<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: Copy + Display + PartialOrd + TryFrom<i64>,
    {
        self.number_in(key, range)
            .map_or(default, |found| found.value)
    }

    /// A length of time or a size within `range`, if it is written and good.
    pub(super) fn within<T: Quantity>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<Found<T>> {
        let written = self.get::<T>(key)?;
        if range.contains(&written.value) {
            return Some(written);
        }
        let (least, most) = (range.start().show(), range.end().show());
        self.out_of_range(key, written.map(Quantity::show), least, most);
        None
    }

    /// A length of time or a size within `range`, or `default`.
    pub(super) fn quantity<T: Quantity>(
        &mut self,
        key: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        self.within(key, range).map_or(default, |found| found.value)
    }

    fn out_of_range<V: Display, B: Display>(
        &self,
        key: &str,
        written: Found<V>,
        least: B,
        most: B,
    ) {
        let name = self.name(key);
        let words = format!(
            "`{name}` is {}: it must be from {least} to {most}",
            written.value
        );
        self.error(written.at, words);
    }

    /// The values of the array `key`; those that are no good are noted and left out.
    pub(super) fn list<T: Leaf>(&mut self, key: &'static str) -> Option<Vec<Found<T>>> {
        let value = self.ask(key)?;
        let Some(entries) = value.get_ref().as_array() else {
            let words = format!(
                "`{}` must be a list in [ ], each entry {}, not {}",
                self.name(key),
                T::EXPECTED,
                kind(value.get_ref())
            );
            self.error(value.span().start, words);
            return None;
        };
        if entries.len() > LIST_MAX {
            let name = self.name(key);
            let words = format!("`{name}` has {} entries: at most {LIST_MAX}", entries.len());
            self.error(value.span().start, words);
            return None;
        }
        let read = |entry| self.value(key, entry);
        Some(entries.iter().filter_map(read).collect())
    }

    /// Whether `key` is a list, good or bad.
    pub(super) fn is_list(&self, key: &str) -> bool {
        self.entry_count(key).is_some()
    }

    /// Whether `key` is a list without an entry.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        self.entry_count(key) == Some(0)
    }

    fn entry_count(&self, key: &str) -> Option<usize> {
        Some(self.entries.get(key)?.get_ref().as_array()?.len())
    }

    /// The table `key` read by `read`, if it is written.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table<'_>) -> T,
    ) -> Option<T> {
        let value = self.ask(key)?;
        let name = self.name(key);
        let Some(entries) = value.get_ref().as_table() else {
            let words = format!(
                "`{name}` must be a table, written `[{name}]` or `{key} = {{ … }}`, not {}",
                kind(value.get_ref())
            );
            self.error(value.span().start, words);
            return None;
        };
        Some(self.enter(entries, name, value.span().start, read))
    }

    /// The section `key` read by `read`; one that is not written is read as an empty one, which
    /// makes its defaults.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Table<'_>) -> T,
    ) -> T {
        self.table(key, &mut read).unwrap_or_else(|| {
            let nothing = DeTable::new();
            self.enter(&nothing, self.name(key), self.at, read)
        })
    }

    /// Each of the tables `[[key]]` read by `read`.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Table<'_>) -> T,
    ) -> Vec<T> {
        let Some(value) = self.ask(key) else {
            return Vec::new();
        };
        let name = self.name(key);
        let complain = |value: &Spanned<DeValue<'_>>| {
            let words = format!(
                "`{name}` must be tables, each under `[[{name}]]`, not {}",
                kind(value.get_ref())
            );
            self.error(value.span().start, words);
        };
        let Some(entries) = value.get_ref().as_array() else {
            complain(value);
            return Vec::new();
        };
        let mut found = Vec::new();
        for entry in entries {
            match entry.get_ref().as_table() {
                Some(table) => {
                    let at = entry.span().start;
                    found.push(self.enter(table, name.clone(), at, &mut read));
                }
                None => complain(entry),
            }
        }
        found
    }

    fn enter<T>(
        &self,
        entries: &DeTable<'_>,
        path: String,
        at: usize,
        read: impl FnOnce(&mut Table<'_>) -> T,
    ) -> T {
        let mut table = Table::new(self.source, entries, path, at);
        let found = read(&mut table);
        table.finish();
        found
    }

    /// Notes every key that nobody asked for, and what is missing.
    pub(super) fn finish(self) {
        let mut meant = Vec::new();
        for key in self.entries.keys() {
            let written = key.get_ref().as_ref();
            if self.known.contains(&written) {
                continue;
            }
            // Looking for what was meant costs most here: not for what nobody will see.
            let message = if self.source.is_full() {
                String::new()
            } else {
                let near = nearest(written, &self.known);
                meant.extend(near);
                self.unknown(written, near)
            };
            self.error(key.span().start, message);
        }
        for Absent { keys, message } in &self.absent {
            if !keys.iter().any(|key| meant.contains(key)) {
                self.error_here(message);
            }
        }
    }

    fn unknown(&self, written: &str, near: Option<&str>) -> String {
        let place = match self.path.as_str() {
            "" => String::new(),
            path => format!(" in `{path}`"),
        };
        let remedy = near.map_or_else(
            || {
                let mut known = self.known.clone();
                known.sort_unstable();
                known.dedup();
                let known: Vec<_> = known.iter().map(|key| format!("`{key}`")).collect();
                format!("the keys here are {}", known.join(", "))
            },
            |near| format!("did you mean `{near}`?"),
        );
        format!("unknown key `{}`{place}: {remedy}", shown(written))
    }
}

/// The known word that `written` was probably meant to be.
fn nearest<'w>(written: &str, known: &[&'w str]) -> Option<&'w str> {
    if written.len() > SHOWN_CHARS_MAX {
        return None;
    }
    known
        .iter()
        .map(|word| (strsim::osa_distance(written, word), *word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min()
        .map(|(_, word)| word)
}

/// What stands there, in words.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
