//! Who is measured: a plugin by path and configuration, or a floor.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Stands for the folder of a plugin's state wherever a configuration names one.
pub const DATA_DIR: &str = "{data_dir}";

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

    /// A plugin given on the command line. Its kind is read from `ipam.type` of its configuration.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be read, or names no IPAM, or no place for [`DATA_DIR`].
    pub fn from_argument(argument: &PluginArgument) -> Result<Self> {
        let path = argument.config.display();
        let text = fs::read_to_string(&argument.config).with_context(|| format!("reading {path}"))?;
        if !text.contains(DATA_DIR) {
            bail!("{path} says {DATA_DIR} nowhere: the plugin would keep its state where it is at home");
        }
        let config: Value = serde_json::from_str(&text).with_context(|| format!("{path} is not JSON"))?;
        let kind = match config.pointer("/ipam/type").and_then(Value::as_str) {
            Some("whereabouts") => Kind::Ours(config),
            Some("host-local") => Kind::HostLocal(config),
            Some(_) => Kind::Other(config),
            None => bail!("{path} has no ipam.type"),
        };
        Ok(Self { name: argument.name.clone(), program: argument.program.clone(), kind })
    }

    /// The configuration with the folder of the state filled in; `None` for the floors.
    ///
    /// # Errors
    ///
    /// When the folder's path is not UTF-8.
    pub fn config(&self, data_dir: &Path) -> Result<Option<Value>> {
        let data_dir = data_dir.to_str().context("the folder's path is not UTF-8")?;
        Ok(match &self.kind {
            Kind::FloorEmpty | Kind::FloorCommit => None,
            Kind::Ours(config) | Kind::HostLocal(config) | Kind::Other(config) => {
                let mut config = config.clone();
                fill_in(&mut config, data_dir);
                Some(config)
            }
        })
    }

    /// Whether it is known how to make it hold so many addresses beforehand. The floors hold nothing and run along.
    pub fn can_hold(&self, held: u64) -> bool {
        held == 0 || !matches!(self.kind, Kind::Other(_))
    }

    /// Whether this is one of the floors.
    pub fn is_floor(&self) -> bool {
        matches!(self.kind, Kind::FloorEmpty | Kind::FloorCommit)
    }
}

/// Puts the folder in place of [`DATA_DIR`] in every string below `value`.
fn fill_in(value: &mut Value, data_dir: &str) {
    match value {
        Value::String(text) => *text = text.replace(DATA_DIR, data_dir),
        Value::Array(items) => items.iter_mut().for_each(|item| fill_in(item, data_dir)),
        Value::Object(fields) => fields.values_mut().for_each(|field| fill_in(field, data_dir)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

// === impl PluginArgument ===

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

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FloorEmpty => "a process that does nothing",
            Self::FloorCommit => "a process that makes one durable commit",
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
    fn what_is_typed_has_a_form() {
        for wrong in ["", "name", "name=program", "=program,config", "name=,config", "name=program,"] {
            assert!(wrong.parse::<PluginArgument>().is_err(), "{wrong}");
        }
        assert_eq!("host-local=60_000".parse::<AtMostArgument>().unwrap().held, 60_000);
        assert!("host-local".parse::<AtMostArgument>().is_err());
        assert!("host-local=many".parse::<AtMostArgument>().is_err());
    }
}
