//! CNI_ARGS: the old way to hand arguments to a plugin, `KEY=VALUE` with semicolons between them.

use std::fmt;

use crate::config::StaticArguments;

/// What CNI_ARGS says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// Static addresses: `IP` and `GATEWAY`.
    pub addresses: StaticArguments,
    /// The Kubernetes pod that is called for.
    pub pod: Option<Pod>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`; empty where the runtime does not say.
    pub namespace: String,
    /// `K8S_POD_NAME`, never empty.
    pub name: String,
    /// `K8S_POD_UID`, where the runtime says it.
    pub uid: Option<String>,
}

/// What is wrong with CNI_ARGS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgumentsError {
    /// A pair without exactly one equals sign.
    #[error("ARGS: invalid pair \"{pair}\": write CNI_ARGS as KEY=VALUE;KEY=VALUE")]
    Pair {
        /// The pair.
        pair: String,
    },
    /// Keys that this plugin does not know.
    #[error("ARGS: unknown args [{}]: leave them out of CNI_ARGS, or add IgnoreUnknown=1", pairs.join(" "))]
    Unknown {
        /// All of them, with their values.
        pairs: Vec<String>,
    },
    /// `IgnoreUnknown` is neither true nor false.
    #[error("ARGS: IgnoreUnknown={value}: write 1, true, 0 or false")]
    Boolean {
        /// What was written.
        value: String,
    },
    /// A value that no lease can carry.
    #[error("ARGS: {key}={value}: longer than {LIMIT} bytes, or with control characters: shorten it in CNI_ARGS")]
    Value {
        /// The key.
        key: String,
        /// The beginning of the value.
        value: String,
    },
}

/// The longest name or id of a pod, in bytes: what Kubernetes allows for names.
const LIMIT: usize = 253;

// === impl Arguments ===

impl Arguments {
    /// Reads CNI_ARGS; keys are case-sensitive, and the last of equal keys counts.
    ///
    /// # Errors
    /// [`ArgumentsError`].
    ///
    /// ```
    /// use whereabouts::cni::Arguments;
    ///
    /// let arguments = Arguments::parse("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;COLOUR=red")?;
    /// assert_eq!(arguments.pod.map(|pod| pod.to_string()).as_deref(), Some("default/web-0"));
    /// assert!(Arguments::parse("COLOUR=red").is_err());
    /// # Ok::<(), whereabouts::cni::ArgumentsError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, ArgumentsError> {
        let mut arguments = Self::default();
        let mut pod = Pod { namespace: String::new(), name: String::new(), uid: None };
        let mut ignore_unknown = false;
        let mut unknown = Vec::new();
        for pair in text.split(';').filter(|_| !text.is_empty()) {
            let (key, value) = split_pair(pair)?;
            let filled = (!value.is_empty()).then(|| value.to_owned());
            match key {
                "IgnoreUnknown" => ignore_unknown = read_boolean(value)?,
                "IP" => arguments.addresses.ip = filled,
                "GATEWAY" => arguments.addresses.gateway = filled,
                "K8S_POD_NAME" => pod.name = check(key, value)?,
                "K8S_POD_NAMESPACE" => pod.namespace = check(key, value)?,
                "K8S_POD_UID" => pod.uid = Some(check(key, value)?).filter(|uid| !uid.is_empty()),
                // The sandbox's container id, which is CNI_CONTAINERID too.
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                _ => unknown.push(crate::config::shorten(pair)),
            }
        }
        if !ignore_unknown && !unknown.is_empty() {
            return Err(ArgumentsError::Unknown { pairs: unknown });
        }
        arguments.pod = (!pod.name.is_empty()).then_some(pod);
        Ok(arguments)
    }
}

// === impl Pod ===

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn split_pair(pair: &str) -> Result<(&str, &str), ArgumentsError> {
    let parts = pair.split_once('=').filter(|(_, value)| !value.contains('='));
    parts.ok_or_else(|| ArgumentsError::Pair { pair: crate::config::shorten(pair) })
}

fn read_boolean(value: &str) -> Result<bool, ArgumentsError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(ArgumentsError::Boolean { value: crate::config::shorten(value) }),
    }
}

fn check(key: &str, value: &str) -> Result<String, ArgumentsError> {
    if value.len() <= LIMIT && !value.chars().any(char::is_control) {
        return Ok(value.to_owned());
    }
    Err(ArgumentsError::Value { key: key.to_owned(), value: crate::config::shorten(value) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_kubelet_sends() {
        let text = "K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u-1;IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p";
        let pod = Arguments::parse(text).unwrap().pod.unwrap();
        assert_eq!((pod.to_string().as_str(), pod.uid.as_deref()), ("ns/p", Some("u-1")));
        // A runtime that says no namespace, and one that says no name.
        assert_eq!(Arguments::parse("K8S_POD_NAME=p").unwrap().pod.unwrap().to_string(), "/p");
        assert_eq!(Arguments::parse("K8S_POD_NAMESPACE=ns").unwrap().pod, None);
        // K8S_POD_UID is known here, while the Go plugin refuses it without IgnoreUnknown.
        assert!(Arguments::parse("K8S_POD_UID=u").is_ok());
    }

    #[test]
    fn addresses() {
        let arguments = Arguments::parse("IP=10.0.0.1/24,10.0.0.2/24;GATEWAY=10.0.0.254").unwrap();
        assert_eq!(arguments.addresses.ip.as_deref(), Some("10.0.0.1/24,10.0.0.2/24"));
        assert_eq!(arguments.addresses.gateway.as_deref(), Some("10.0.0.254"));
        assert_eq!(Arguments::parse("").unwrap(), Arguments::default());
        assert_eq!(Arguments::parse("IP=a;IP=b").unwrap().addresses.ip.as_deref(), Some("b"));
    }

    #[track_caller]
    fn refused(text: &str, words: &[&str]) {
        let error = Arguments::parse(text).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{word} is not in: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for text in ["IP", "IP=a=b", "IP=a;", ";", "=;=;x"] {
            refused(text, &["invalid pair", "KEY=VALUE"]);
        }
        refused("COLOUR=red;ip=x;IP=10.0.0.1/8", &["unknown args [COLOUR=red ip=x]", "IgnoreUnknown=1"]);
        refused("COLOUR=red;IgnoreUnknown=0", &["COLOUR=red"]);
        refused("IgnoreUnknown=yes", &["IgnoreUnknown=yes", "1, true, 0 or false"]);
        refused(&format!("K8S_POD_NAME={}", "p".repeat(254)), &["K8S_POD_NAME=ppp", "253 bytes"]);
        refused("K8S_POD_UID=a\0b", &["K8S_POD_UID", "control characters"]);
        for text in ["COLOUR=red;IgnoreUnknown=TRUE", "IgnoreUnknown=1;COLOUR="] {
            assert!(Arguments::parse(text).is_ok());
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), near in "([A-Z8_]{0,4}[=;]?[a-z0-9./,]{0,4};?){0,6}") {
            let _ = Arguments::parse(&text);
            let _ = Arguments::parse(&near);
        }
    }
}
