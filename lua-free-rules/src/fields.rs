//! The fields of a request: JSON body, form body or query, read the same way by the edge and by the
//! order servers, so that both refuse the same things in the same words.

use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// Most fields a request may have.
const FIELDS_MAX: usize = 64;

/// The fields of one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body: a JSON object, or a form.
    ///
    /// # Errors
    /// [`Refusal::MediaType`] for any other content type, [`Refusal::BadParameter`] for what is not
    /// well-formed.
    pub fn from_body(content_type: Option<&str>, body: &[u8]) -> Result<Self, Refusal> {
        let essence = content_type
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        if essence.eq_ignore_ascii_case("application/json") {
            Self::from_json(body)
        } else if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Self::from_form(body)
        } else if body.is_empty() && essence.is_empty() {
            Ok(Self::default())
        } else {
            Err(Refusal::MediaType)
        }
    }

    /// Reads the query of a URL, without its `?`.
    ///
    /// # Errors
    /// [`Refusal::BadParameter`] for what is not well-formed.
    pub fn from_query(query: Option<&str>) -> Result<Self, Refusal> {
        Self::from_form(query.unwrap_or_default().as_bytes())
    }

    /// The id of that name in a query: what [`Self::from_query`] and [`Self::id`] say together. A query that
    /// says nothing else is read as it stands.
    ///
    /// # Errors
    /// [`Refusal::BadParameter`], as theirs.
    pub fn id_in_query(query: Option<&str>, name: &str) -> Result<i64, Refusal> {
        match query.and_then(|query| sole_id(query, name)) {
            Some(id) => Ok(id),
            None => Self::from_query(query)?.id(name),
        }
    }

    fn from_json(body: &[u8]) -> Result<Self, Refusal> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) if map.len() <= FIELDS_MAX => Ok(Self(map)),
            Ok(Value::Object(_)) => Err(bad("too many fields")),
            Ok(_) => Err(bad("the body must be a JSON object")),
            Err(_) => Err(bad("the body is not well-formed JSON")),
        }
    }

    fn from_form(body: &[u8]) -> Result<Self, Refusal> {
        let mut map = Map::new();
        for (name, value) in form_urlencoded::parse(body) {
            // The parser puts U+FFFD where the bytes are not UTF-8.
            if name.contains('\u{fffd}') || value.contains('\u{fffd}') {
                return Err(bad("the form is not UTF-8"));
            }
            if map
                .insert(name.clone().into_owned(), Value::String(value.into_owned()))
                .is_some()
            {
                return Err(bad(&format!("`{name}` appears twice")));
            }
            if map.len() > FIELDS_MAX {
                return Err(bad("too many fields"));
            }
        }
        Ok(Self(map))
    }

    /// A text of at most `bytes_max` bytes, without control characters; `None` if it is missing,
    /// null or empty.
    ///
    /// # Errors
    /// [`Refusal::BadParameter`] naming the field.
    pub fn optional_text(&self, name: &str, bytes_max: usize) -> Result<Option<&str>, Refusal> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) if text.len() > bytes_max => {
                Err(bad(&format!("`{name}` is longer than {bytes_max} bytes")))
            }
            Some(Value::String(text)) if has_control(text) => {
                Err(bad(&format!("`{name}` has control characters")))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(bad(&format!("`{name}` must be a text"))),
        }
    }

    /// A text of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`Refusal::BadParameter`] naming the field, also if it is missing.
    pub fn text(&self, name: &str, bytes_max: usize) -> Result<&str, Refusal> {
        self.optional_text(name, bytes_max)?
            .ok_or_else(|| bad(&format!("`{name}` is missing")))
    }

    /// A whole number in `range`; `None` if it is missing, null or empty. Digits in a string count
    /// as a number, since forms know nothing else.
    ///
    /// # Errors
    /// [`Refusal::BadParameter`] naming the field.
    pub fn optional_integer(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<i64>, Refusal> {
        let number = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) if text.is_empty() => return Ok(None),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) if text.len() <= 20 => text.parse().ok(),
            Some(_) => None,
        };
        match number {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(bad(&format!(
                "`{name}` must be a whole number from {} to {}",
                range.start(),
                range.end()
            ))),
        }
    }

    /// A whole number in `range`.
    ///
    /// # Errors
    /// [`Refusal::BadParameter`] naming the field, also if it is missing.
    pub fn integer(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<i64, Refusal> {
        self.optional_integer(name, range)?
            .ok_or_else(|| bad(&format!("`{name}` is missing")))
    }

    /// An id: a whole number above zero.
    ///
    /// # Errors
    /// [`Refusal::BadParameter`] naming the field.
    pub fn id(&self, name: &str) -> Result<i64, Refusal> {
        self.integer(name, 1..=ID_MAX)
    }
}

/// The largest id: what a JavaScript number holds exactly.
pub const ID_MAX: i64 = (1 << 53) - 1;

/// The id in `name=digits`; `None` for whatever needs a second look.
fn sole_id(query: &str, name: &str) -> Option<i64> {
    let digits = query.strip_prefix(name)?.strip_prefix('=')?;
    let is_plain = digits.len() <= 15 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let id = digits.parse().ok().filter(|_| is_plain)?;
    (1..=ID_MAX).contains(&id).then_some(id)
}

/// Looks at many bytes at a time where they are plain ASCII, as in tokens.
fn has_control(text: &str) -> bool {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte);
    let all_plain = text.bytes().fold(true, |all, byte| all & is_plain(byte));
    !all_plain && text.chars().any(char::is_control)
}

fn bad(words: &str) -> Refusal {
    Refusal::BadParameter(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_and_form_say_the_same() {
        let json = Fields::from_body(
            Some("application/json; charset=utf-8"),
            br#"{"a":7,"b":"x y"}"#,
        );
        let form = Fields::from_body(Some("application/x-www-form-urlencoded"), b"a=7&b=x+y");
        for fields in [json.unwrap(), form.unwrap()] {
            assert_eq!(fields.id("a"), Ok(7));
            assert_eq!(fields.text("b", 10), Ok("x y"));
            assert_eq!(fields.text("b", 2), Err(bad("`b` is longer than 2 bytes")));
            assert_eq!(fields.id("c"), Err(bad("`c` is missing")));
        }
    }

    #[test]
    fn what_is_odd_is_refused() {
        let json = |body: &[u8]| Fields::from_body(Some("application/json"), body).err();
        assert!(json(b"[1]").is_some());
        assert!(json(b"{\"a\":").is_some());
        assert!(json(b"{\"a\":\"\xff\"}").is_some());
        assert!(json(&b"[".repeat(10_000)).is_some());
        let form = Fields::from_body(Some("application/x-www-form-urlencoded"), b"a=%ff");
        assert_eq!(form, Err(bad("the form is not UTF-8")));
        assert!(Fields::from_query(Some("id=1&id=2")).is_err());
        assert_eq!(
            Fields::from_body(Some("text/xml"), b"<a/>"),
            Err(Refusal::MediaType)
        );
        assert_eq!(Fields::from_body(None, b"a=1"), Err(Refusal::MediaType));
        let fields = Fields::from_body(
            Some("application/json"),
            br#"{"a":-1,"b":1.5,"c":"1e3","d":99999999999999999999}"#,
        )
        .unwrap();
        for name in ["a", "b", "c", "d"] {
            assert!(fields.id(name).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_read_the_same_in_either_way(query in "(id|i|idx)?=?[0-9+%x]{0,20}(&a=b)?") {
            let query = Some(query.as_str());
            let whole = Fields::from_query(query).and_then(|fields| fields.id("id"));
            prop_assert_eq!(Fields::id_in_query(query, "id"), whole);
        }

        #[test]
        fn no_body_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            for kind in ["application/json", "application/x-www-form-urlencoded", ""] {
                if let Ok(fields) = Fields::from_body(Some(kind), &body) {
                    let _ = fields.id("a");
                }
            }
        }
    }
}
