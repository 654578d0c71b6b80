//! One TOML file and what was noted about it: errors and warnings, each with line and column in the
//! end. Their number and length are bounded, whatever the file holds.

use std::cell::RefCell;

use toml::de::DeTable;

use super::reader::Table;
use super::{ConfigError, File};

/// Largest file that is read.
const BYTES_MAX: usize = 1 << 20;
/// Notes kept of one file: more than anyone mends at once, few enough to bound the work.
const NOTES_MAX: usize = 100;
/// Longest string or key that is worth repeating in a message.
pub(super) const SHOWN_CHARS_MAX: usize = 64;

/// One file, and what was noted about it.
pub(super) struct Source<'a> {
    file: &'a File,
    errors: RefCell<Notes>,
    warnings: RefCell<Notes>,
}

#[derive(Default)]
struct Notes {
    kept: Vec<(usize, String)>,
    dropped: usize,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self {
            file,
            errors: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    pub(super) fn name(&self) -> &'a str {
        &self.file.name
    }

    /// Reads the file by `read`; `None` if it is not TOML, which is noted.
    pub(super) fn read<T>(&self, read: impl FnOnce(&mut Table<'_>) -> T) -> Option<T> {
        let text = &self.file.text;
        if text.len() > BYTES_MAX {
            let words = format!(
                "the file has {} bytes: at most {BYTES_MAX} are read",
                text.len()
            );
            self.error(0, words);
            return None;
        }
        match DeTable::parse(text) {
            Ok(root) => {
                let mut table = Table::new(self, root.get_ref(), String::new(), 0);
                let found = read(&mut table);
                table.finish();
                Some(found)
            }
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                let problem = match error.message() {
                    "duplicate key" => "this key stands here a second time, keep one",
                    other => other,
                };
                self.error(at, format!("this is not TOML: {problem}"));
                None
            }
        }
    }

    /// Notes an error at byte `at`.
    pub(super) fn error(&self, at: usize, message: impl Into<String>) {
        self.errors.borrow_mut().add(at, message.into());
    }

    /// Whether further errors are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.errors.borrow().kept.len() >= NOTES_MAX
    }

    /// Notes something that is allowed, yet hardly meant.
    pub(super) fn warn(&self, at: usize, message: impl Into<String>) {
        self.warnings.borrow_mut().add(at, message.into());
    }

    /// The errors and the warnings, each with line and column.
    pub(super) fn into_notes(self) -> (Vec<ConfigError>, Vec<ConfigError>) {
        (
            self.errors.into_inner().located(self.file),
            self.warnings.into_inner().located(self.file),
        )
    }
}

impl Notes {
    fn add(&mut self, at: usize, message: String) {
        if self.kept.len() < NOTES_MAX {
            self.kept.push((at, message));
        } else {
            self.dropped += 1;
        }
    }

    fn located(mut self, file: &File) -> Vec<ConfigError> {
        if self.dropped > 0 {
            let words = format!("and {} more in this file: mend these first", self.dropped);
            self.kept.push((file.text.len(), words));
        }
        let locate = |(at, message): (usize, String)| {
            let (line, column) = position(&file.text, at);
            ConfigError {
                file: file.name.clone(),
                line,
                column,
                message: one_line(&message),
            }
        };
        self.kept.into_iter().map(locate).collect()
    }
}

/// Line and column, both from 1, the column in characters, of byte `at`.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
    let in_line = before[line_start..].trim_start_matches('\u{feff}');
    (line, 1 + in_line.chars().count())
}

/// The message without anything that would break or colour the line it is printed on.
fn one_line(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    for letter in message.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// At most [`SHOWN_CHARS_MAX`] characters of `text`.
pub(super) fn shown(text: &str) -> String {
    let mut letters = text.chars();
    let mut short: String = letters.by_ref().take(SHOWN_CHARS_MAX).collect();
    if letters.next().is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_characters_from_one() {
        let text = "a\nbé x\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, 2), (2, 1));
        assert_eq!(position(text, 6), (2, 4));
        // Inside of `é`, and after the end.
        assert_eq!(position(text, 4), (2, 2));
        assert_eq!(position(text, 999), (3, 1));
        assert_eq!(position("", 0), (1, 1));
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(one_line("a\nb\u{1b}c"), "a\\nb\\u{1b}c");
        assert_eq!(shown(&"é".repeat(65)), format!("{}…", "é".repeat(64)));
    }
}
