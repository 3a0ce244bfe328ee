//! The layers of the config and where each value was written: the file's values carry `file:line`,
//! the environment's their variable, the flags' their name. Unknown keys end here.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use config::{Config, Environment, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema::{KEYS, Key, Rule, is_section, key, known_beside};
use super::{ConfigError, DEFAULT_PATH, Overrides};

/// Bytes of a config file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How a variable of the environment begins.
const PREFIX: &str = "SHUTTERD";
/// What stands between the parts of its name.
const SEPARATOR: &str = "__";

/// The file, as a source of the `config` crate.
#[derive(Clone, Debug, Default)]
pub struct FileLayer {
    table: Map<String, Value>,
}

impl Source for FileLayer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.table.clone())
    }
}

impl FileLayer {
    /// Reads `path`, which must exist, or else the default file, which may be absent.
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let named = path.unwrap_or(Path::new(DEFAULT_PATH));
        match read_text(named) {
            Ok(text) => Self::parse(named, &text),
            Err(ConfigError::Unreadable { source, .. })
                if path.is_none() && source.kind() == ErrorKind::NotFound =>
            {
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file = File { path, text };
        let root = DeTable::parse(text).map_err(|error| file.no_toml(&error))?;
        let mut table = Map::new();
        for (name, value) in root.get_ref() {
            let place = file.place(name.span().start);
            let name = name.get_ref().as_ref();
            let expected = match (name, value.get_ref()) {
                ("devices", DeValue::Array(_)) => None,
                ("devices", _) => Some("[[devices]], once for each device".to_owned()),
                (section, DeValue::Table(inner)) if is_section(section) => {
                    file.check_section(section, inner)?;
                    None
                }
                (section, _) if is_section(section) => Some("a section".to_owned()),
                (name, _) if name.contains('.') => {
                    let (key, known) = (name.to_owned(), known_beside(""));
                    return Err(ConfigError::UnknownKey { place, key, known });
                }
                (name, value) => no_scalar(key(name).ok_or_else(|| unknown(place.clone(), name))?, value),
            };
            let value = file.value(&place, value)?;
            if let Some(expected) = expected {
                return Err(wrong_type(place, name, &value, expected));
            }
            table.insert(name.to_owned(), value);
        }
        Ok(Self { table })
    }
}

/// The variables that set keys, by name. Their names are checked here: the `config` crate would take
/// any case of them, and a value for a whole section.
pub fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut ours = Vec::new();
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX).and_then(|name| name.strip_prefix(SEPARATOR)) else {
            continue;
        };
        let path = rest.to_lowercase().replace(SEPARATOR, ".");
        let place = format!("environment variable {name}");
        if path == "devices" || path.starts_with("devices.") {
            let known = "devices are set in the file only".to_owned();
            return Err(ConfigError::UnknownKey { place, key: path, known });
        }
        if key(&path).is_none() || variable(&path) != name {
            return Err(unknown(place, &path));
        }
        let value = value.into_string().map_err(|value| ConfigError::WrongType {
            place,
            key: path,
            found: format!("{value:?}"),
            expected: "UTF-8".to_owned(),
        })?;
        ours.push((name, value));
    }
    Ok(ours)
}

/// Layers everything; each value of the tree says where it was written.
pub fn merge(
    file: FileLayer,
    environment: Vec<(String, String)>,
    overrides: &Overrides,
) -> Result<Value, ConfigError> {
    let mut builder = Config::builder();
    for key in &KEYS {
        builder = match key.rule {
            Rule::Number { default, .. } => builder.set_default(key.path, default)?,
            Rule::Text { default, .. } => builder.set_default(key.path, default)?,
        };
    }
    let names: HashMap<String, String> = environment.into_iter().collect();
    builder = builder.add_source(file).add_source(
        Environment::with_prefix(PREFIX).prefix_separator(SEPARATOR).separator(SEPARATOR).source(Some(names)),
    );
    let paths = [
        ("state_dir", "--state-dir", &overrides.state_dir),
        ("runtime_dir", "--runtime-dir", &overrides.runtime_dir),
        ("media_dir", "--media-dir", &overrides.media_dir),
    ];
    for (key, flag, path) in paths {
        if let Some(path) = path {
            builder = builder.set_override(key, flag_value(flag, absolute(flag, key, path)?))?;
        }
    }
    let texts = [
        ("api.tcp", "--tcp", &overrides.tcp),
        ("http.listen", "--http", &overrides.http),
        ("log.level", "--log-level", &overrides.log_level),
    ];
    for (key, flag, text) in texts {
        if let Some(text) = text {
            builder = builder.set_override(key, flag_value(flag, text.clone()))?;
        }
    }
    Ok(builder.build()?.cache)
}

/// The variable that sets the key at `path`.
pub fn variable(path: &str) -> String {
    format!("{PREFIX}{SEPARATOR}{}", path.replace('.', SEPARATOR).to_uppercase())
}

/// A value as people wrote it, with its type where that isn't plain.
pub fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Boolean(value) => format!("the boolean {value}"),
        ValueKind::I64(value) => format!("the number {value}"),
        ValueKind::U64(value) => format!("the number {value}"),
        ValueKind::I128(value) => format!("the number {value}"),
        ValueKind::U128(value) => format!("the number {value}"),
        ValueKind::Float(value) => format!("the number {value:?}"),
        ValueKind::String(value) => format!("the text {:?}", value.chars().take(80).collect::<String>()),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
    }
}

/// An error about the type of `value`.
pub fn wrong_type(place: String, path: &str, value: &Value, expected: String) -> ConfigError {
    ConfigError::WrongType { place, key: path.to_owned(), found: shown(value), expected }
}

fn unknown(place: String, path: &str) -> ConfigError {
    ConfigError::UnknownKey { place, key: path.to_owned(), known: known_beside(path) }
}

/// What belongs at `key` when `value` is a table or a list; layering would lose where it stands.
fn no_scalar(key: &Key, value: &DeValue<'_>) -> Option<String> {
    matches!(value, DeValue::Table(_) | DeValue::Array(_)).then(|| key.rule.expected())
}

fn flag_value(flag: &str, text: String) -> Value {
    Value::new(Some(&format!("flag {flag}")), ValueKind::String(text))
}

fn absolute(flag: &str, key: &str, path: &PathBuf) -> Result<String, ConfigError> {
    let refused = |found: String, advice: String| ConfigError::Refused {
        place: format!("flag {flag}"),
        key: key.to_owned(),
        found,
        advice,
    };
    let absolute = std::path::absolute(path)
        .map_err(|error| refused(format!("{path:?}"), format!("use an absolute path ({error})")))?;
    absolute
        .into_os_string()
        .into_string()
        .map_err(|path| refused(format!("{path:?}"), "use a path in UTF-8".to_owned()))
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    let length = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(length).is_ok_and(|bytes| bytes <= FILE_BYTES_MAX) {
        Ok(text)
    } else {
        Err(ConfigError::TooLong { path: path.to_owned(), bytes_max: FILE_BYTES_MAX })
    }
}

/// A file while its values are given their places.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn place(&self, offset: usize) -> String {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{}:{line}", self.path.display())
    }

    fn no_toml(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or_default();
        let place = self.place(span.start);
        let words = self.text.get(span).filter(|words| (1..=60).contains(&words.trim().len()));
        let problem = match words {
            Some(words) => format!("{} at {:?}", error.message(), words.trim()),
            None => error.message().to_owned(),
        };
        ConfigError::Syntax { place, problem }
    }

    fn check_section(&self, section: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in table {
            let path = format!("{section}.{}", name.get_ref());
            let place = self.place(name.span().start);
            let key = key(&path).ok_or_else(|| unknown(place.clone(), &path))?;
            if let Some(expected) = no_scalar(key, value.get_ref()) {
                return Err(wrong_type(place.clone(), &path, &self.value(&place, value)?, expected));
            }
        }
        Ok(())
    }

    /// The value for the `config` crate, its origin where its key stands.
    fn value(&self, place: &String, value: &Spanned<DeValue<'_>>) -> Result<Value, ConfigError> {
        let refused = |found: &str, advice: &str| ConfigError::Syntax {
            place: place.clone(),
            problem: format!("{found} {advice}"),
        };
        let kind = match value.get_ref() {
            DeValue::String(text) => ValueKind::String(text.clone().into_owned()),
            DeValue::Boolean(value) => ValueKind::Boolean(*value),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(ValueKind::I64)
                .map_err(|_| refused(number.as_str(), "is too large for a number"))?,
            DeValue::Float(number) => number
                .as_str()
                .parse()
                .map(ValueKind::Float)
                .map_err(|_| refused(number.as_str(), "is no number"))?,
            DeValue::Datetime(time) => {
                return Err(refused(&time.to_string(), "is a date, and no key takes one"));
            }
            DeValue::Array(items) => {
                let item = |item| self.value(&self.place(Spanned::span(item).start), item);
                ValueKind::Array(items.iter().map(item).collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => {
                let entry = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                    let name: &Spanned<std::borrow::Cow<'_, str>> = name;
                    let place = self.place(name.span().start);
                    Ok((name.get_ref().clone().into_owned(), self.value(&place, value)?))
                };
                ValueKind::Table(table.iter().map(entry).collect::<Result<_, ConfigError>>()?)
            }
        };
        Ok(Value::new(Some(place), kind))
    }
}
