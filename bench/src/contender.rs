//! Who is measured: a plugin by path and configuration, or a floor.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Stands for the folder of a plugin's state wherever a configuration names one.
pub const DATA_DIR: &str = "{data_dir}";

/// Stands for the kubeconfig of a node, where a cluster is the store.
pub const KUBECONFIG: &str = "{kubeconfig}";

/// Stands for the range that the containers get addresses of, where a cluster is the store.
pub const RANGE: &str = "{range}";

/// A program that takes part.
#[derive(Debug, Clone)]
pub struct Contender {
    /// What the tables call it.
    pub name: String,
    /// Path of the program.
    pub program: PathBuf,
    /// What it is.
    pub kind: Kind,
}

/// What a contender is, which decides how it is called and how it comes to hold addresses beforehand.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A program that ends at once: what any process costs.
    FloorEmpty,
    /// A program that makes one durable commit: what any process costs that remembers something.
    FloorCommit,
    /// A program that makes two durable commits, and reads and replaces an object of a cluster.
    FloorRequests,
    /// This project's plugin; it is filled through the engine, in batches.
    Ours(Value),
    /// The reference `host-local` plugin; it is filled by writing its files.
    HostLocal(Value),
    /// Another IPAM plugin; nothing is known about how it keeps what it holds, so it starts empty.
    Other(Value),
}

/// `NAME=PROGRAM,CONFIG`, as typed.
#[derive(Debug, Clone)]
pub struct PluginArgument {
    name: String,
    program: PathBuf,
    config: PathBuf,
}

/// `NAME=NUMBER`, as typed: the most addresses that a contender is made to hold.
#[derive(Debug, Clone)]
pub struct AtMostArgument {
    /// The contender's name.
    pub name: String,
    /// Addresses.
    pub held: u64,
}

// === impl Contender ===

impl Contender {
    /// The program that does nothing; it lies beside `folder`'s other programs.
    pub fn floor_empty(folder: &Path) -> Self {
        Self { name: "floor: empty".into(), program: folder.join("floor-empty"), kind: Kind::FloorEmpty }
    }

    /// The program that makes one commit; it lies beside `folder`'s other programs.
    pub fn floor_commit(folder: &Path) -> Self {
        Self { name: "floor: commit".into(), program: folder.join("floor-commit"), kind: Kind::FloorCommit }
    }

    /// The program that makes two commits and two requests; it lies beside `folder`'s other programs.
    pub fn floor_requests(folder: &Path) -> Self {
        Self { name: "floor: requests".into(), program: folder.join("floor-requests"), kind: Kind::FloorRequests }
    }

    /// This project's plugin where a cluster is the store.
    pub fn ours_in_cluster(program: PathBuf) -> Self {
        let config = json!({
            "cniVersion": "1.0.0",
            "name": "bench",
            "type": "bridge",
            "ipam": {
                "type": "whereabouts",
                "datastore": "kubernetes",
                "kubernetes": { "kubeconfig": KUBECONFIG },
                // Another plugin's pools of the unnamed network would have to be moved over first.
                "network_name": "bench",
                "range": RANGE,
            },
        });
        Self { name: "whereabouts".into(), program, kind: Kind::Ours(config) }
    }

    /// This project's plugin with a /8 to give away.
    pub fn ours(program: PathBuf) -> Self {
        let config = json!({
            "cniVersion": "1.0.0",
            "name": "bench",
            "type": "bridge",
            "ipam": { "type": "whereabouts", "datastore": "local", "data_dir": DATA_DIR, "range": "10.0.0.0/8" },
        });
        Self { name: "whereabouts".into(), program, kind: Kind::Ours(config) }
    }

    /// A plugin given on the command line, with a state of its own on this host. Its kind is read from `ipam.type` of
    /// its configuration.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be read, or names no IPAM, or no place for [`DATA_DIR`].
    pub fn from_argument(argument: &PluginArgument) -> Result<Self> {
        let config = argument.config(&[DATA_DIR])?;
        let kind = match ipam_type(&config) {
            "whereabouts" => Kind::Ours(config),
            "host-local" => Kind::HostLocal(config),
            _ => Kind::Other(config),
        };
        Ok(Self { name: argument.name.clone(), program: argument.program.clone(), kind })
    }

    /// A plugin given on the command line, with its state in a cluster. It is another one, whatever its type: the Go
    /// plugin and ours have the same.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be read, or names no IPAM, or no place for [`KUBECONFIG`] or [`RANGE`].
    pub fn from_argument_in_cluster(argument: &PluginArgument) -> Result<Self> {
        let kind = Kind::Other(argument.config(&[KUBECONFIG, RANGE])?);
        Ok(Self { name: argument.name.clone(), program: argument.program.clone(), kind })
    }

    /// The configuration with the folder of the state filled in; `None` for the floors.
    ///
    /// # Errors
    ///
    /// When the folder's path is not UTF-8.
    pub fn config(&self, data_dir: &Path) -> Result<Option<Value>> {
        Ok(self.config_with(&[(DATA_DIR, data_dir.to_str().context("the folder's path is not UTF-8")?)]))
    }

    /// The configuration with each of these words replaced by what it stands for; `None` for the floors.
    pub fn config_with(&self, meanings: &[(&str, &str)]) -> Option<Value> {
        match &self.kind {
            Kind::FloorEmpty | Kind::FloorCommit | Kind::FloorRequests => None,
            Kind::Ours(config) | Kind::HostLocal(config) | Kind::Other(config) => {
                let mut config = config.clone();
                fill_in(&mut config, meanings);
                Some(config)
            }
        }
    }

    /// Whether it is known how to make it hold so many addresses beforehand. The floors hold nothing and run along.
    pub fn can_hold(&self, held: u64) -> bool {
        held == 0 || !matches!(self.kind, Kind::Other(_))
    }

    /// Whether this is one of the floors.
    pub fn is_floor(&self) -> bool {
        matches!(self.kind, Kind::FloorEmpty | Kind::FloorCommit | Kind::FloorRequests)
    }
}

/// Puts in place of each word what it stands for, in every string below `value`.
fn fill_in(value: &mut Value, meanings: &[(&str, &str)]) {
    match value {
        Value::String(text) => {
            for (word, meaning) in meanings {
                *text = text.replace(word, meaning);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill_in(item, meanings)),
        Value::Object(fields) => fields.values_mut().for_each(|field| fill_in(field, meanings)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The name of the IPAM plugin that a configuration is for; empty where there is none.
fn ipam_type(config: &Value) -> &str {
    config.pointer("/ipam/type").and_then(Value::as_str).unwrap_or_default()
}

// === impl PluginArgument ===

impl PluginArgument {
    /// Reads the configuration, which must say all of these words.
    fn config(&self, words: &[&str]) -> Result<Value> {
        let path = self.config.display();
        let text = fs::read_to_string(&self.config).with_context(|| format!("reading {path}"))?;
        for word in words {
            if !text.contains(word) {
                bail!("{path} says {word} nowhere: the plugin would use what it uses at home");
            }
        }
        let config: Value = serde_json::from_str(&text).with_context(|| format!("{path} is not JSON"))?;
        if ipam_type(&config).is_empty() {
            bail!("{path} has no ipam.type");
        }
        Ok(config)
    }
}

impl FromStr for PluginArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(name, rest)| Some((name, rest.split_once(',')?)));
        match parts {
            Some((name, (program, config))) if !name.is_empty() && !program.is_empty() && !config.is_empty() => {
                Ok(Self { name: name.into(), program: program.into(), config: config.into() })
            }
            _ => Err("a plugin is NAME=PROGRAM,CONFIG".into()),
        }
    }
}

// === impl AtMostArgument ===

impl FromStr for AtMostArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, held) = text.split_once('=').ok_or("a limit is NAME=NUMBER")?;
        let held = held.replace('_', "").parse().map_err(|error| format!("{held}: {error}"))?;
        Ok(Self { name: name.into(), held })
    }
}

// === impl Kind ===

impl Kind {
    /// Whether it is a floor that stays on its host.
    pub fn asks_no_cluster(&self) -> bool {
        matches!(self, Self::FloorEmpty | Self::FloorCommit)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FloorEmpty => "a process that does nothing",
            Self::FloorCommit => "a process that makes one durable commit",
            Self::FloorRequests => "a process that makes a GET, a PUT and two durable commits",
            Self::Ours(_) => "this project's plugin",
            Self::HostLocal(_) => "host-local",
            Self::Other(_) => "another plugin",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(config: &str) -> Result<Contender> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, config).unwrap();
        let argument: PluginArgument = format!("other=/bin/other,{}", path.display()).parse().unwrap();
        Contender::from_argument(&argument)
    }

    #[test]
    fn the_configuration_says_which_plugin_it_is_and_where_its_state_goes() {
        let contender =
            plugin(r#"{"ipam": {"type": "host-local", "dataDir": "{data_dir}/x", "ranges": [[{}]]}}"#).unwrap();
        assert!(matches!(contender.kind, Kind::HostLocal(_)));
        let config = contender.config(Path::new("/somewhere")).unwrap().unwrap();
        assert_eq!(config["ipam"]["dataDir"], "/somewhere/x");
    }

    #[test]
    fn a_configuration_without_a_place_for_state_or_without_ipam_is_refused() {
        let error = plugin(r#"{"ipam": {"type": "host-local"}}"#).unwrap_err();
        assert!(error.to_string().contains("{data_dir}"), "{error}");
        let error = plugin(r#"{"dataDir": "{data_dir}"}"#).unwrap_err();
        assert!(error.to_string().contains("ipam.type"), "{error}");
    }

    #[test]
    fn in_a_cluster_a_kubeconfig_and_a_range_are_filled_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let argument: PluginArgument = format!("go=/bin/go,{}", path.display()).parse().unwrap();
        fs::write(&path, r#"{"ipam": {"type": "whereabouts", "range": "{range}"}}"#).unwrap();
        let error = Contender::from_argument_in_cluster(&argument).unwrap_err().to_string();
        assert!(error.contains(KUBECONFIG), "{error}");
        let text = r#"{"ipam": {"type": "whereabouts", "range": "{range}", "kubernetes": ["{kubeconfig}"]}}"#;
        fs::write(&path, text).unwrap();
        let contender = Contender::from_argument_in_cluster(&argument).unwrap();
        assert!(matches!(contender.kind, Kind::Other(_)), "its name is that of ours");
        let config = contender.config_with(&[(KUBECONFIG, "/k"), (RANGE, "10.0.0.0/24")]).unwrap();
        assert_eq!(config["ipam"], json!({ "type": "whereabouts", "range": "10.0.0.0/24", "kubernetes": ["/k"] }));
        assert_eq!(Contender::floor_requests(Path::new("/")).config_with(&[]), None);
    }

    #[test]
    fn what_is_typed_has_a_form() {
        for wrong in ["", "name", "name=program", "=program,config", "name=,config", "name=program,"] {
            assert!(wrong.parse::<PluginArgument>().is_err(), "{wrong}");
        }
        assert_eq!("host-local=60_000".parse::<AtMostArgument>().unwrap().held, 60_000);
        assert!("host-local".parse::<AtMostArgument>().is_err());
        assert!("host-local=many".parse::<AtMostArgument>().is_err());
    }
}
