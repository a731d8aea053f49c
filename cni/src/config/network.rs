//! The whole network configuration as the runtime or the parent plugin hands it over, of which `ipam` is one key.

use super::reader::Reader;
use super::{ConfigurationError, Json, Object, nearest};

/// A network configuration: one JSON object.
///
/// ```
/// use whereabouts::config::NetworkConfiguration;
///
/// let network = NetworkConfiguration::parse(br#"{"name": "n", "ipam": {"type": "whereabouts"}}"#)?;
/// assert_eq!(network.name()?.as_deref(), Some("n"));
/// assert!(network.ipam().is_ok());
/// # Ok::<(), whereabouts::config::ConfigurationError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct NetworkConfiguration {
    object: Object,
}

// === impl NetworkConfiguration ===

impl NetworkConfiguration {
    /// Reads the text of a network configuration.
    ///
    /// # Errors
    /// [`ConfigurationError::TooLarge`] above 1 MiB, [`ConfigurationError::Json`], or the text is JSON but no object.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigurationError> {
        if bytes.len() > super::INPUT_LIMIT {
            return Err(ConfigurationError::TooLarge { input: "the network configuration".to_owned() });
        }
        match Json::parse(bytes).map_err(|source| ConfigurationError::Json { source })? {
            Json::Object(object) => Ok(Self { object }),
            other => Err(ConfigurationError::value(
                "the network configuration",
                other.kind(),
                "it is not an object",
                "write the keys name, type, ipam, … in braces, {…}",
            )),
        }
    }

    /// All keys.
    #[must_use]
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// `cniVersion`; `None` where it is absent.
    ///
    /// # Errors
    /// It is not a string.
    pub fn cni_version(&self) -> Result<Option<String>, ConfigurationError> {
        self.top().string("cniVersion")
    }

    /// `name`, the name of the CNI network; `None` where it is absent.
    ///
    /// # Errors
    /// It is not a string.
    pub fn name(&self) -> Result<Option<String>, ConfigurationError> {
        self.top().string("name")
    }

    /// `ipam`, which has been checked to be meant for this plugin.
    ///
    /// # Errors
    /// [`ConfigurationError::MissingIpam`], [`ConfigurationError::OtherPlugin`], or a wrong type.
    pub fn ipam(&self) -> Result<&Object, ConfigurationError> {
        let ipam = self.top().object("ipam")?.ok_or(ConfigurationError::MissingIpam)?;
        match Reader::new(ipam, "ipam.").string("type")?.unwrap_or_default() {
            kind if kind == "whereabouts" => Ok(ipam),
            found => Err(ConfigurationError::OtherPlugin { found: super::warning::shorten(&found) }),
        }
    }

    /// Whether `ipam.type` says that the network is meant for this plugin.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.ipam().is_ok()
    }

    /// The value of `key` in `args.cni` or else in `args`, with the path under which it was found.
    pub(crate) fn argument(&self, key: &str) -> Result<Option<(String, String)>, ConfigurationError> {
        let Some(arguments) = self.top().object("args")? else { return Ok(None) };
        let arguments = Reader::new(arguments, "args.");
        if let Some(cni) = arguments.object("cni")?
            && let Some(value) = Reader::new(cni, "args.cni.").string(key)?
        {
            return Ok(Some((format!("args.cni.{key}"), value)));
        }
        Ok(arguments.string(key)?.map(|value| (arguments.path(key), value)))
    }

    /// The addresses that `runtimeConfig.ips` and `args.cni.ips` ask for, each with the path under which it stands.
    pub(crate) fn requested(&self) -> Result<Vec<(String, String)>, ConfigurationError> {
        let mut requested = Vec::new();
        let mut collect = |reader: Reader<'_>| -> Result<(), ConfigurationError> {
            let ips = reader.strings("ips")?.unwrap_or_default();
            let named = ips.into_iter().enumerate().map(|(n, ip)| (format!("{}[{n}]", reader.path("ips")), ip));
            requested.extend(named);
            Ok(())
        };
        if let Some(runtime) = self.runtime_config()? {
            collect(runtime)?;
        }
        if let Some(arguments) = self.top().object("args")?
            && let Some(cni) = Reader::new(arguments, "args.").object("cni")?
        {
            collect(Reader::new(cni, "args.cni."))?;
        }
        Ok(requested)
    }

    /// `runtimeConfig`, which the runtime fills for the capabilities of the network.
    pub(crate) fn runtime_config(&self) -> Result<Option<Reader<'_>>, ConfigurationError> {
        Ok(self.top().object("runtimeConfig")?.map(|object| Reader::new(object, "runtimeConfig.")))
    }

    fn top(&self) -> Reader<'_> {
        Reader::new(&self.object, "")
    }
}

impl From<Object> for NetworkConfiguration {
    fn from(object: Object) -> Self {
        Self { object }
    }
}

/// A word that must be one of a few.
pub(crate) fn one_of<T: Copy>(key: &str, typed: &str, known: &[(&str, T)]) -> Result<T, ConfigurationError> {
    if let Some((_, value)) = known.iter().find(|(word, _)| word.eq_ignore_ascii_case(typed)) {
        return Ok(*value);
    }
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    let cure = match nearest(typed, words.iter().copied()) {
        Some(near) => format!("did you mean {near}? Known are {}", words.join(", ")),
        None => format!("write one of {}", words.join(", ")),
    };
    Err(ConfigurationError::value(key, typed, "is not known", cure))
}
