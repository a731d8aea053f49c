//! A call of the runtime: environment and standard input, checked as far as they can be before anything is written.

use std::io::Read;
use std::path::PathBuf;

use super::environment::is_cni_name;
use super::{Arguments, CniError, Command, Environment, Pod, PreviousResult, SpecVersion, refuse_own_namespace};
use crate::config::{
    Configuration, ConfigurationError, FlatFile, INPUT_LIMIT, Json, Loaded, LossyConfiguration, NetworkConfiguration,
    Surroundings, Warning, find_flat_file,
};

/// A call of the runtime.
#[derive(Debug)]
pub struct Incoming {
    /// The version in which the answer is to be written.
    pub version: SpecVersion,
    /// What is known whatever is wrong with the call: where the log goes, where the ledger is.
    pub lossy: LossyConfiguration,
    /// What is to be done, or why it cannot be.
    pub request: Result<Request, CniError>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Request {
    /// Assign addresses.
    Add(Box<AddRequest>),
    /// Free what an attachment holds.
    Delete(DeleteRequest),
    /// See whether an attachment still holds its addresses.
    Check(Box<CheckRequest>),
    /// Free what no valid attachment holds.
    Collect(CollectRequest),
    /// Say whether an ADD would be served.
    Status(Box<StatusRequest>),
    /// Say which versions are known.
    Version,
}

/// What DEL and GC name: an interface in a container, in a CNI network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attachment {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub interface: String,
    /// `name` of the network configuration.
    pub network: String,
}

/// ADD, checked.
#[derive(Debug)]
pub struct AddRequest {
    /// What asks.
    pub attachment: Attachment,
    /// The Kubernetes pod, if there is one.
    pub pod: Option<Pod>,
    /// CNI_NETNS.
    pub netns: Option<PathBuf>,
    /// What is configured, of which this build can do everything.
    pub configuration: Configuration,
    /// What is odd about it.
    pub warnings: Vec<Warning>,
}

/// CHECK, checked.
#[derive(Debug)]
pub struct CheckRequest {
    /// As in the ADD that is checked.
    pub add: AddRequest,
    /// What that ADD, and the rest of the chain, gave.
    pub previous: PreviousResult,
}

/// DEL. All that it needs is an attachment, and not even all of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRequest {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub interface: String,
    /// `name` of the network configuration, where the call has one.
    pub network: Option<String>,
}

/// GC, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectRequest {
    /// `name` of the network configuration: only what this host recorded under it may be freed.
    pub network: String,
    /// What is to be kept. `None` where the runtime gave no list: then nothing is freed. An empty list frees all of this
    /// host's attachments to this network.
    pub valid: Option<Vec<ValidAttachment>>,
}

/// An attachment that GC is to keep.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ValidAttachment {
    /// The container.
    pub container_id: String,
    /// The interface in it.
    pub interface: String,
}

/// STATUS, checked.
#[derive(Debug)]
pub struct StatusRequest {
    /// What is configured, of which this build can do everything.
    pub configuration: Configuration,
    /// What is odd about it.
    pub warnings: Vec<Warning>,
}

/// What a call hands over, read but not judged.
struct Input<'a> {
    environment: &'a Environment,
    surroundings: Surroundings,
    /// Empty for VERSION.
    network: Result<NetworkConfiguration, CniError>,
    flat_file: Result<Option<FlatFile>, ConfigurationError>,
    /// The flat file that a variable of the environment names was needed, and is not there.
    missing: Option<ConfigurationError>,
    /// About the search for the flat file.
    warnings: Vec<Warning>,
}

// === impl Incoming ===

impl Incoming {
    /// Reads and checks a call. Standard input is not read for VERSION, for an unknown verb, and where the environment
    /// is not in order.
    ///
    /// ```
    /// use whereabouts::cni::{Environment, Incoming, Request};
    ///
    /// let environment = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
    /// let incoming = Incoming::read(&Environment::from_pairs(environment), &mut b"{ broken".as_slice());
    /// assert!(matches!(incoming.request, Ok(Request::Delete(delete)) if delete.container_id == "c1"));
    /// ```
    #[must_use]
    pub fn read(environment: &Environment, stdin: &mut dyn Read) -> Self {
        let surroundings = environment.surroundings();
        let command = environment.command().and_then(|command| environment.check(command).map(|()| command));
        let command = match command {
            Ok(Command::Version) => return Self::without_input(&surroundings, Ok(Request::Version)),
            Ok(command) => command,
            Err(error) => return Self::without_input(&surroundings, Err(error.into())),
        };
        let network = read_all(stdin).and_then(|bytes| Ok(NetworkConfiguration::parse(&bytes)?));
        let mut warnings = Vec::new();
        let flat_file = match &network {
            Ok(network) => find_flat_file(network, &surroundings, &mut warnings),
            Err(_) => surroundings.flat_files.find(None, &mut warnings),
        };
        let (mut host_warnings, mut missing) = (Vec::new(), None);
        let instead;
        let usable_flat_file = match &flat_file {
            Ok(file) => file.as_ref(),
            Err(error) => {
                let found = surroundings.flat_files.find(None, &mut Vec::new());
                (instead, missing) = match found {
                    Err(error @ ConfigurationError::NoFlatFile { .. }) => (None, Some(error)),
                    found => (found.ok().flatten(), None),
                };
                host_warnings.push(instead_of(error, instead.as_ref()));
                instead.as_ref()
            }
        };
        let mut lossy = LossyConfiguration::read(network.as_ref().ok(), usable_flat_file, &surroundings);
        lossy.warnings.splice(..0, host_warnings);
        let version = SpecVersion::parse(lossy.cni_version.as_deref().unwrap_or_default());
        let input = Input { environment, surroundings, network, flat_file, missing, warnings };
        let request = match command {
            // Nothing but the attachment counts, and that has been checked.
            Command::Del => input.delete(&lossy),
            Command::Add => input.add(Command::Add).map(|add| Request::Add(Box::new(add))),
            Command::Check => input.check(),
            Command::Gc => input.collect(),
            Command::Status => input.status(),
            Command::Version => Ok(Request::Version),
        };
        // What the whole configuration says is not said twice.
        let told = request.as_ref().map_or(&[][..], Request::warnings);
        lossy.warnings.retain(|warning| !told.contains(warning));
        Self { version: version.unwrap_or(SpecVersion::NEWEST), lossy, request }
    }

    fn without_input(surroundings: &Surroundings, request: Result<Request, CniError>) -> Self {
        let flat_file = surroundings.flat_files.find(None, &mut Vec::new()).ok().flatten();
        let lossy = LossyConfiguration::read(None, flat_file.as_ref(), surroundings);
        Self { version: SpecVersion::NEWEST, lossy, request }
    }
}

/// DEL and GC must work on the right ledger whatever the flat file that the network names has become: what says where
/// that is usually stands in the host's own.
fn instead_of(error: &ConfigurationError, flat_file: Option<&FlatFile>) -> Warning {
    let source = match flat_file {
        Some(file) => file.path.display().to_string(),
        None => "the network's configuration and the defaults".to_owned(),
    };
    Warning::new("flat file", "", format!("{error}; until then data_dir and the log come from {source}"))
}

// === impl Request ===

impl Request {
    fn warnings(&self) -> &[Warning] {
        match self {
            Self::Add(add) => &add.warnings,
            Self::Check(check) => &check.add.warnings,
            Self::Status(status) => &status.warnings,
            Self::Delete(_) | Self::Collect(_) | Self::Version => &[],
        }
    }
}

// === impl Input ===

impl Input<'_> {
    fn add(self, command: Command) -> Result<AddRequest, CniError> {
        let network = self.network?;
        let (name, version) = check_head(&network, command)?;
        let attachment = Attachment {
            container_id: self.environment.container_id()?.to_owned(),
            interface: self.environment.interface()?.to_owned(),
            network: name,
        };
        let netns = self.environment.netns();
        // Other plugins ask this of ADD and DEL; a DEL that is refused would leave what a forced ADD has made.
        if command == Command::Add
            && !self.environment.overrides_netns()
            && let Some(netns) = &netns
        {
            refuse_own_namespace(netns)?;
        }
        let arguments = Arguments::parse(self.environment.arguments()?)?;
        let flat_file = self.flat_file?;
        let loaded = Configuration::load_with(&network, flat_file.as_ref(), &arguments.addresses, &self.surroundings)?;
        let Loaded { configuration, warnings } = with_warnings(self.warnings, loaded);
        let pod = arguments.pod.as_ref().map(|pod| format!("a call for the Kubernetes pod {pod}"));
        can_serve(&configuration, version, pod.as_deref())?;
        Ok(AddRequest { attachment, pod: arguments.pod, netns, configuration, warnings })
    }

    fn check(self) -> Result<Request, CniError> {
        let previous = match &self.network {
            Ok(network) => PreviousResult::read(network.object()),
            // Which `add` tells.
            Err(_) => Ok(PreviousResult::default()),
        };
        // A version without CHECK is told before what CHECK would need.
        let add = self.add(Command::Check)?;
        Ok(Request::Check(Box::new(CheckRequest { add, previous: previous? })))
    }

    fn delete(self, lossy: &LossyConfiguration) -> Result<Request, CniError> {
        Ok(Request::Delete(DeleteRequest {
            container_id: self.environment.container_id()?.to_owned(),
            interface: self.environment.interface()?.to_owned(),
            network: lossy.network.clone(),
        }))
    }

    /// The rest of the configuration does not matter to GC: what is to be freed is known from the ledger, if it is the
    /// right one. Nobody waits for a GC as a pod does for its DEL, so it need not guess.
    fn collect(self) -> Result<Request, CniError> {
        let network = self.network?;
        let (name, _) = check_head(&network, Command::Gc)?;
        self.missing.map_or(Ok(()), Err)?;
        Ok(Request::Collect(CollectRequest { network: name, valid: read_valid_attachments(&network)? }))
    }

    fn status(self) -> Result<Request, CniError> {
        let network = self.network?;
        check_head(&network, Command::Status)?;
        let flat_file = self.flat_file?;
        let arguments = Arguments::default();
        let loaded = Configuration::load_with(&network, flat_file.as_ref(), &arguments.addresses, &self.surroundings)?;
        let Loaded { configuration, warnings } = with_warnings(self.warnings, loaded);
        configuration.require_available(None)?;
        Ok(Request::Status(Box::new(StatusRequest { configuration, warnings })))
    }
}

fn with_warnings(mut warnings: Vec<Warning>, mut loaded: Loaded) -> Loaded {
    warnings.append(&mut loaded.warnings);
    Loaded { warnings, ..loaded }
}

/// Reads a configuration as an ADD without CNI_ARGS would, for people who want to know beforehand whether it would work.
/// `use_for_pods` is as in [`Configuration::require_available`].
pub(crate) fn load_for_add(
    network: &NetworkConfiguration,
    use_for_pods: Option<&str>,
    surroundings: &Surroundings,
) -> Result<Loaded, CniError> {
    let (_, version) = check_head(network, Command::Add)?;
    let loaded = Configuration::load(network, &Arguments::default().addresses, surroundings)?;
    can_serve(&loaded.configuration, version, use_for_pods)?;
    Ok(loaded)
}

/// Whether an ADD of this version can be served with the configuration, as far as that is known without the ledger.
fn can_serve(configuration: &Configuration, version: SpecVersion, use_for_pods: Option<&str>) -> Result<(), CniError> {
    version.can_return(configuration.result_families())?;
    Ok(configuration.require_available(use_for_pods)?)
}

/// What every verb but DEL asks of a configuration: a well-formed name, and a version that has the verb.
fn check_head(network: &NetworkConfiguration, command: Command) -> Result<(String, SpecVersion), CniError> {
    let name = network.name()?.filter(|name| !name.is_empty()).ok_or(ConfigurationError::MissingName)?;
    if !is_cni_name(&name) || name.len() > NETWORK_LIMIT {
        return Err(CniError::Configuration(ConfigurationError::value(
            "name",
            &name,
            "invalid characters found in network name, or too long",
            "use at most 253 letters, digits, '_', '.' and '-', and begin with a letter or a digit",
        )));
    }
    let version = SpecVersion::parse(&network.cni_version()?.unwrap_or_default())?;
    version.knows(command)?;
    Ok((name, version))
}

/// The longest name of a CNI network, in bytes. Every lease carries it.
const NETWORK_LIMIT: usize = 253;

/// `cni.dev/valid-attachments`, and `cni.dev/attachments`, which libcni writes beside it for plugins of the first days.
/// Where they differ, what either of them lists is kept.
fn read_valid_attachments(network: &NetworkConfiguration) -> Result<Option<Vec<ValidAttachment>>, CniError> {
    let mut valid: Option<Vec<ValidAttachment>> = None;
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        // An absent list and `null`, which is how Go writes a list that nobody made, are no list.
        let Some(list) = network.object().get(key) else { continue };
        let wrong = |key: &str, value: &Json| CniError::Attachments {
            key: key.to_owned(),
            value: crate::config::shorten(&value.to_string()),
        };
        let found = valid.get_or_insert_default();
        for (position, entry) in list.as_array().ok_or_else(|| wrong(key, list))?.iter().enumerate() {
            let text = |name: &str| {
                let value = entry.as_object().and_then(|entry| entry.get(name)).and_then(Json::as_str);
                let value = value.filter(|value| !value.is_empty());
                value.map(str::to_owned).ok_or_else(|| wrong(&format!("{key}[{position}]"), entry))
            };
            let attachment = ValidAttachment { container_id: text("containerID")?, interface: text("ifname")? };
            found.push(attachment);
        }
    }
    Ok(valid.map(|mut valid| {
        let mut seen = std::collections::HashSet::new();
        valid.retain(|attachment| seen.insert(attachment.clone()));
        valid
    }))
}

/// Reads one byte more than is allowed at most, so that too much is told from just enough.
fn read_all(stdin: &mut dyn Read) -> Result<Vec<u8>, CniError> {
    let mut bytes = Vec::new();
    stdin.take(INPUT_LIMIT as u64 + 1).read_to_end(&mut bytes).map_err(|source| CniError::Input { source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
