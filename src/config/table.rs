//! Strict reading of one table of the file: unknown keys end here, nothing is coerced.

use config::{Map, Value, ValueKind};

use super::ConfigError;
use super::layers::wrong_type;
use super::reader::refused;
use crate::session::limits::SOURCE_TEXT_CHARS_MAX;

/// One table of the file: a device, its match, or a fault order.
pub struct Table<'a> {
    name: String,
    place: &'a str,
    values: &'a Map<String, Value>,
}

impl<'a> Table<'a> {
    /// Reads `value`, called `name` in errors; its keys are among `known`.
    pub fn new(name: String, value: &'a Value, known: &[&str]) -> Result<Self, ConfigError> {
        let place = value.origin().unwrap_or("[[devices]]");
        let ValueKind::Table(values) = &value.kind else {
            return Err(wrong_type(
                place.to_owned(),
                &name,
                value,
                format!("a table of {}", known.join(", ")),
            ));
        };
        let table = Self { name, place, values };
        if let Some(key) = values.keys().filter(|key| !known.contains(&key.as_str())).min() {
            let known = format!("there are {}", known.join(", "));
            return Err(ConfigError::UnknownKey {
                place: table.place_of(key).to_owned(),
                key: table.path(key),
                known,
            });
        }
        Ok(table)
    }

    /// What is written at the key.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key)
    }

    /// The key's full name.
    pub fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    /// Where the key is written, or else the table.
    pub fn place_of(&self, key: &str) -> &str {
        self.values.get(key).and_then(Value::origin).unwrap_or(self.place)
    }

    /// An error about a value of the right type.
    pub fn refused(&self, key: &str, found: String, advice: String) -> ConfigError {
        refused(self.place_of(key).to_owned(), &self.path(key), found, advice)
    }

    /// `value`, or the error that the key is missing.
    pub fn required<T>(&self, key: &str, value: Option<T>, expected: &str) -> Result<T, ConfigError> {
        value.ok_or_else(|| ConfigError::MissingKey {
            place: self.place.to_owned(),
            key: self.path(key),
            expected: format!("write {expected}"),
        })
    }

    /// Refuses each of `keys`, since none means anything where `why` holds.
    pub fn refuse(&self, keys: &[&str], why: &str) -> Result<(), ConfigError> {
        match keys.iter().find(|key| self.values.contains_key(**key)) {
            Some(key) => {
                let advice = format!("it means nothing here, where {why}: leave it out");
                Err(self.refused(key, "given".to_owned(), advice))
            }
            None => Ok(()),
        }
    }

    /// A text for people or a path, within limits.
    pub fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        let text = self.read(key, "a text in quotes", |kind| match kind {
            ValueKind::String(text) => Some(text.clone()),
            _ => None,
        })?;
        match text {
            Some(text)
                if text.chars().count() > SOURCE_TEXT_CHARS_MAX || text.chars().any(char::is_control) =>
            {
                let advice = format!(
                    "use at most {SOURCE_TEXT_CHARS_MAX} characters, none of them a control character"
                );
                Err(self.refused(key, "not usable".to_owned(), advice))
            }
            text => Ok(text),
        }
    }

    /// What one of `words` means.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => Err(self.refused(key, format!("{text:?}"), format!("use {}", one_of(words)))),
        }
    }

    /// A boolean.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false", |kind| match kind {
            ValueKind::Boolean(value) => Some(*value),
            _ => None,
        })
    }

    /// A whole number.
    pub fn number(&self, key: &str, min: u64, max: u64, unit: &str) -> Result<Option<u64>, ConfigError> {
        let number =
            self.read(key, &format!("a whole number, {min} to {max} ({unit})"), |kind| match kind {
                ValueKind::I64(number) => Some(*number),
                _ => None,
            })?;
        let Some(number) = number else { return Ok(None) };
        match u64::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(self.refused(key, number.to_string(), format!("use {min} to {max} ({unit})"))),
        }
    }

    /// A number, whole or not, in frames a second.
    pub fn rate(&self, key: &str, min: f64, max: f64) -> Result<Option<f64>, ConfigError> {
        let rate =
            self.read(key, &format!("a number, {min} to {max} (frames a second)"), |kind| match kind {
                ValueKind::I64(number) => i32::try_from(*number).ok().map(f64::from),
                ValueKind::Float(number) => Some(*number),
                _ => None,
            })?;
        match rate {
            Some(rate) if !(min..=max).contains(&rate) => {
                Err(self.refused(key, rate.to_string(), format!("use {min} to {max} (frames a second)")))
            }
            rate => Ok(rate),
        }
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&ValueKind) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let wrong = || wrong_type(self.place_of(key).to_owned(), &self.path(key), value, expected.to_owned());
        read(&value.kind).ok_or_else(wrong).map(Some)
    }
}

/// A list of words, for errors.
pub fn one_of<T>(words: &[(&str, T)]) -> String {
    let quoted: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    format!("one of {}", quoted.join(", "))
}
