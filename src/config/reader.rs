//! Reads values strictly: the type that the key has, within its range, or an error with its place.

use std::path::PathBuf;
use std::time::Duration;

use config::{Value, ValueKind};

use super::ConfigError;
use super::layers::{variable, wrong_type};
use super::schema::{Rule, key};

/// The layered tree.
pub struct Reader {
    tree: Value,
}

impl Reader {
    /// Reads `tree`, in which every key has at least its default.
    pub fn new(tree: Value) -> Self {
        Self { tree }
    }

    /// The number at `path`.
    pub fn number(&self, path: &str) -> Result<u64, ConfigError> {
        let rule = &key(path).expect("every key that is read is in the schema").rule;
        let Rule::Number { min, max, unit, .. } = rule else {
            unreachable!("{path} is a number of the schema");
        };
        let value = self.at(path);
        let parsed = match &value.kind {
            ValueKind::I64(number) => Some(i128::from(*number)),
            ValueKind::U64(number) => Some(i128::from(*number)),
            ValueKind::String(text) if from_environment(value) => digits(text),
            _ => None,
        };
        let Some(number) = parsed else {
            return Err(wrong_type(place(path, value), path, value, rule.expected()));
        };
        match u64::try_from(number) {
            Ok(number) if (*min..=*max).contains(&number) => Ok(number),
            _ => {
                let advice = format!("use {min} to {max} ({unit})");
                Err(refused(place(path, value), path, number.to_string(), advice))
            }
        }
    }

    /// The number at `path`, as a count in memory.
    pub fn size(&self, path: &str) -> Result<usize, ConfigError> {
        let number = self.number(path)?;
        Ok(usize::try_from(number).expect("the schema's ranges fit into the address space"))
    }

    /// The number at `path`, which the schema holds below 2^32.
    pub fn count(&self, path: &str) -> Result<u32, ConfigError> {
        let number = self.number(path)?;
        Ok(u32::try_from(number).expect("the schema's range fits"))
    }

    /// The milliseconds at `path`.
    pub fn millis(&self, path: &str) -> Result<Duration, ConfigError> {
        self.number(path).map(Duration::from_millis)
    }

    /// The text at `path`, as `parse` takes it; what `parse` says of a bad one ends the sentence
    /// "path is text: ".
    pub fn text<T>(
        &self,
        path: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let rule = &key(path).expect("every key that is read is in the schema").rule;
        let value = self.at(path);
        let ValueKind::String(text) = &value.kind else {
            return Err(wrong_type(place(path, value), path, value, rule.expected()));
        };
        parse(text).map_err(|advice| refused(place(path, value), path, format!("{text:?}"), advice))
    }

    /// The absolute path at `path`; none when the text is empty.
    pub fn optional_path(&self, path: &str) -> Result<Option<PathBuf>, ConfigError> {
        self.text(path, |text| if text.is_empty() { Ok(None) } else { absolute(text).map(Some) })
    }

    /// The absolute path at `path`.
    pub fn path(&self, path: &str) -> Result<PathBuf, ConfigError> {
        self.text(path, absolute)
    }

    /// The tables of `[[devices]]`.
    pub fn devices(&self) -> &[Value] {
        match &self.tree.kind {
            ValueKind::Table(root) => match root.get("devices").map(|value| &value.kind) {
                Some(ValueKind::Array(devices)) => devices,
                _ => &[],
            },
            _ => &[],
        }
    }

    fn at(&self, path: &str) -> &Value {
        path.split('.')
            .try_fold(&self.tree, |value, name| match &value.kind {
                ValueKind::Table(table) => table.get(name),
                _ => None,
            })
            .expect("every key of the schema has a default, and no layer replaces a section")
    }
}

/// An absolute path.
pub fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() && !text.contains('\0') { Ok(path) } else { Err("use an absolute path".to_owned()) }
}

/// An error about a value of the right type.
pub fn refused(place: String, path: &str, found: String, advice: String) -> ConfigError {
    ConfigError::Refused { place, key: path.to_owned(), found, advice }
}

/// Where `value` was written.
fn place(path: &str, value: &Value) -> String {
    match value.origin() {
        _ if from_environment(value) => format!("environment variable {}", variable(path)),
        Some(place) => place.to_owned(),
        None => "built-in default".to_owned(),
    }
}

/// The environment has only texts; whoever reads a number reads it from the text.
fn from_environment(value: &Value) -> bool {
    value.origin() == Some("the environment")
}

fn digits(text: &str) -> Option<i128> {
    let plain = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}
