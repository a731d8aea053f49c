//! JSON as the Go plugin reads it: keys match without regard to case, the last of several equal keys counts, `null` is
//! the same as an absent key.
//!
//! Members stay in document order and repeated ones are kept, because only together do they say which one is last.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The most bytes of JSON or YAML that are read from anywhere: 1 MiB. Kubernetes refuses larger objects.
pub const INPUT_LIMIT: usize = 1 << 20;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`, which means the same as an absent key.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// A string.
    String(String),
    /// A list.
    Array(Vec<Json>),
    /// An object.
    Object(Object),
}

/// A JSON object: its members in document order, repeated keys included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    members: Vec<(String, Json)>,
}

// === impl Json ===

impl Json {
    /// Reads one JSON value and nothing after it. Bytes that are not UTF-8 become U+FFFD, as in Go.
    ///
    /// # Errors
    /// What is wrong with the text, and where.
    ///
    /// ```
    /// use whereabouts::config::Json;
    ///
    /// let json = Json::parse(br#"{"Range": "10.0.0.0/24", "range": null}"#)?;
    /// let range = json.as_object().and_then(|object| object.get("range"));
    /// assert_eq!(range, Some(&Json::String("10.0.0.0/24".to_owned())));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&String::from_utf8_lossy(bytes))
    }

    /// The object that the value is.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    /// The string that the value is.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The list that the value is.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Json]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// The whole number that the value is.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        if let Self::Number(number) = self { number.as_i64() } else { None }
    }

    /// What the value is, for messages: "a string", "a list", ….
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(object) => {
                let mut map = serializer.serialize_map(Some(object.members.len()))?;
                for (key, value) in &object.members {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

// === impl Object ===

impl Object {
    /// The value of the last member with this key, without regard to case; `None` when there is none but `null`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.members
            .iter()
            .rev()
            .find(|(member, value)| *value != Json::Null && equal_keys(member, key))
            .map(|(_, value)| value)
    }

    /// Whether a member with this key exists, even one that is `null`.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.members.iter().any(|(member, _)| equal_keys(member, key))
    }

    /// The keys and values in document order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.members.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Appends a member; where the key exists already, the new value is the one that counts.
    pub fn insert(&mut self, key: impl Into<String>, value: Json) {
        self.members.push((key.into(), value));
    }
}

/// Whether two keys are the same for Go: letter by letter without case, which makes the long s an s and the Kelvin sign
/// a k.
#[must_use]
pub(super) fn equal_keys(left: &str, right: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    };
    left.chars().map(fold).eq(right.chars().map(fold))
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    /// How YAML writes null.
    fn visit_none<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        Json::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        // YAML has infinity and not-a-number, JSON has not.
        Ok(serde_json::Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut object = Object::default();
        while let Some((key, value)) = access.next_entry::<String, Json>()? {
            object.insert(key, value);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, key: &str, expected: Option<&str>) {
        let json = Json::parse(text.as_bytes()).unwrap();
        assert_eq!(json.as_object().unwrap().get(key).map(ToString::to_string).as_deref(), expected, "{text}");
    }

    #[test]
    fn keys_match_without_case_and_the_last_one_counts() {
        check(r#"{"RANGE": 1}"#, "range", Some("1"));
        check(r#"{"IPRanges": [1]}"#, "ipRanges", Some("[1]"));
        check(r#"{"ranges": 1}"#, "range", None);
        check(r#"{"range": 1, "Range": 2}"#, "range", Some("2"));
        check(r#"{"range": 1, "Range": 2, "range": 3}"#, "range", Some("3"));
        check("{\"do\u{17f}\": 1}", "dos", Some("1"));
        check("{\"\u{212a}ey\": 1}", "key", Some("1"));
    }

    #[test]
    fn null_is_the_same_as_absent() {
        check(r#"{"range": null}"#, "range", None);
        check(r#"{"range": 1, "range": null}"#, "range", Some("1"));
        assert!(Json::parse(br#"{"A": null}"#).unwrap().as_object().unwrap().has("a"));
    }

    #[test]
    fn whatever_follows_the_value_is_an_error() {
        assert!(Json::parse(b"{} {}").is_err());
        assert!(Json::parse(b"").is_err());
        assert!(Json::parse(b"{\"a\": }").is_err());
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced() {
        assert_eq!(Json::parse(b"\"a\xff\"").unwrap(), Json::String("a\u{fffd}".to_owned()));
    }

    #[test]
    fn nesting_that_would_exhaust_the_stack_is_an_error() {
        assert!(Json::parse("[".repeat(100_000).as_bytes()).is_err());
    }

    pub(crate) fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::Bool),
            any::<i64>().prop_map(|number| Json::Number(number.into())),
            any::<String>().prop_map(Json::String),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Json::Array),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Json::Object(Object { members })),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(json in any_json()) {
            prop_assert_eq!(Json::parse(json.to_string().as_bytes()).unwrap(), json);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Json::parse(&bytes);
        }
    }
}
