//! Takes typed values out of an object; what has the wrong type is an error that says where it stands.

use super::{ConfigurationError, Json, Object};

/// An object and the path under which it stands, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    object: &'a Object,
    /// Ends with a dot, or is empty.
    prefix: &'a str,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(crate) fn new(object: &'a Object, prefix: &'a str) -> Self {
        Self { object, prefix }
    }

    /// The key as a path.
    pub(crate) fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<String>, ConfigurationError> {
        self.read(key, "a string in quotes", |json| json.as_str().map(str::to_owned))
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigurationError> {
        self.read(key, "true or false, without quotes", |json| match json {
            Json::Bool(value) => Some(*value),
            _ => None,
        })
    }

    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, ConfigurationError> {
        self.read(key, "a whole number, without quotes", Json::as_integer)
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<&'a Object>, ConfigurationError> {
        self.read(key, "an object, {…}", Json::as_object)
    }

    pub(crate) fn array(&self, key: &str) -> Result<Option<&'a [Json]>, ConfigurationError> {
        self.read(key, "a list, […]", Json::as_array)
    }

    pub(crate) fn strings(&self, key: &str) -> Result<Option<Vec<String>>, ConfigurationError> {
        let Some(items) = self.array(key)? else { return Ok(None) };
        let read = |(position, item): (usize, &Json)| {
            let wrong = || wrong_type(format!("{}[{position}]", self.path(key)), item, "a string in quotes");
            item.as_str().map(str::to_owned).ok_or_else(wrong)
        };
        items.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// Each object of a list, read by `read`, which gets a reader that knows its path.
    pub(crate) fn objects<T>(
        &self,
        key: &str,
        mut read: impl FnMut(Reader<'_>, &Object) -> Result<T, ConfigurationError>,
    ) -> Result<Option<Vec<T>>, ConfigurationError> {
        let Some(items) = self.array(key)? else { return Ok(None) };
        let read = |(position, item): (usize, &Json)| {
            let path = format!("{}[{position}]", self.path(key));
            let object = item.as_object().ok_or_else(|| wrong_type(path.clone(), item, "an object, {…}"))?;
            read(Reader::new(object, &format!("{path}.")), object)
        };
        items.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
    }

    fn read<T>(
        &self,
        key: &str,
        wanted: &str,
        convert: impl FnOnce(&'a Json) -> Option<T>,
    ) -> Result<Option<T>, ConfigurationError> {
        let Some(json) = self.object.get(key) else { return Ok(None) };
        convert(json).map(Some).ok_or_else(|| wrong_type(self.path(key), json, wanted))
    }
}

fn wrong_type(key: String, json: &Json, wanted: &str) -> ConfigurationError {
    let lower = key.to_ascii_lowercase();
    // A password without its quotes is still a password.
    let value = if lower.contains("password") || lower.contains("pwd") { "…".to_owned() } else { json.to_string() };
    ConfigurationError::value(key, value, format!("this is {}", json.kind()), format!("write {wanted}"))
}
