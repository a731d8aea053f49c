//! The environment of a call. All environment variables that the plugin reads are listed here, and read nowhere else.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::config::{FlatFileSearch, Surroundings};

/// An environment variable that the plugin reads.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// Every environment variable that the plugin reads.
pub const VARIABLES: &[Variable] = &[
    Variable { name: COMMAND, meaning: "ADD, DEL, CHECK, GC, STATUS or VERSION" },
    Variable { name: CONTAINER_ID, meaning: "id of the container; needed by ADD, CHECK and DEL" },
    Variable { name: NETNS, meaning: "path of the container's network namespace; needed by ADD and CHECK" },
    Variable { name: IFNAME, meaning: "name of the interface in the container; needed by ADD, CHECK and DEL" },
    Variable { name: ARGS, meaning: "more arguments, KEY=VALUE with semicolons between them" },
    Variable { name: PATH, meaning: "folders of the plugins; needed by ADD, CHECK, GC and STATUS, though not used" },
    Variable { name: NETNS_OVERRIDE, meaning: "1 or true: the container may live in the plugin's own namespace" },
    Variable {
        name: NODE,
        meaning: "name of this node in its cluster; goes before the file nodename beside the flat file",
    },
    Variable { name: DATA_DIR, meaning: "folder of the ledger; goes before data_dir of the configuration" },
    Variable { name: FLAT_FILE, meaning: "path of the flat file, which must be there, instead of the usual places" },
    Variable {
        name: STATE_HOME,
        meaning: "folder of a user's state; the ledger of commands is in `whereabouts` below",
    },
    Variable {
        name: KUBECONFIG,
        meaning: "kubeconfig of `repair` and `migrate` without --kubeconfig, and, where this host has no ledger of its own, \
                  of the commands that look at addresses or release them",
    },
    Variable { name: HOME, meaning: "folder of a user; without XDG_STATE_HOME the state is in .local/state below" },
];

const COMMAND: &str = "CNI_COMMAND";
const CONTAINER_ID: &str = "CNI_CONTAINERID";
const NETNS: &str = "CNI_NETNS";
const IFNAME: &str = "CNI_IFNAME";
const ARGS: &str = "CNI_ARGS";
const PATH: &str = "CNI_PATH";
const NETNS_OVERRIDE: &str = "CNI_NETNS_OVERRIDE";
const DATA_DIR: &str = "WHEREABOUTS_DATA_DIR";
const NODE: &str = "NODENAME";
const FLAT_FILE: &str = "WHEREABOUTS_CONFIGURATION";
const STATE_HOME: &str = "XDG_STATE_HOME";
const HOME: &str = "HOME";
const KUBECONFIG: &str = "KUBECONFIG";

/// The longest name of a network interface in Linux, in bytes.
const INTERFACE_LIMIT: usize = 15;

/// The longest container id, in bytes. Runtimes use 64; every lease carries it.
const CONTAINER_ID_LIMIT: usize = 253;

/// A verb of CNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Assign addresses.
    Add,
    /// Free what an attachment holds.
    Del,
    /// See whether an attachment still holds its addresses.
    Check,
    /// Free what no valid attachment holds.
    Gc,
    /// Say whether an ADD would be served.
    Status,
    /// Say which versions are known.
    Version,
}

/// The environment of a call: the variables of [`VARIABLES`] that are set and not empty.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    values: BTreeMap<&'static str, OsString>,
}

/// What is wrong with the environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// Variables that this verb needs are not set, or empty.
    #[error("required env variables [{}] missing: the runtime must set them", names.join(","))]
    Missing {
        /// All of them.
        names: Vec<&'static str>,
    },
    /// No verb of CNI.
    #[error("unknown CNI_COMMAND: {value}: known are ADD, DEL, CHECK, GC, STATUS and VERSION")]
    UnknownCommand {
        /// What was given.
        value: String,
    },
    /// A value that cannot be used.
    #[error("{name} = {value}: {problem}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it, and what would be right.
        problem: &'static str,
    },
}

// === impl Command ===

impl Command {
    /// All verbs.
    pub const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    /// The verb as the runtime writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The variables without which the verb cannot be carried out. CNI_PATH is asked for as other plugins do, so that
    /// the same call works or fails with all of them; DEL does without, because it must not fail for want of something
    /// that it does not use.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &[CONTAINER_ID, NETNS, IFNAME, PATH],
            Self::Del => &[CONTAINER_ID, IFNAME],
            Self::Gc | Self::Status => &[PATH],
            Self::Version => &[],
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

// === impl Environment ===

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let values = VARIABLES.iter().filter_map(|variable| {
            let value = std::env::var_os(variable.name).filter(|value| !value.is_empty())?;
            Some((variable.name, value))
        });
        Self { values: values.collect() }
    }

    /// An environment of these variables; those that the plugin does not read are left out.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let values = pairs.into_iter().filter_map(|(name, value)| {
            let variable = VARIABLES.iter().find(|variable| variable.name == name && !value.is_empty())?;
            Some((variable.name, OsString::from(value)))
        });
        Self { values: values.collect() }
    }

    /// Whether a runtime calls. Otherwise a person does.
    #[must_use]
    pub fn has_command(&self) -> bool {
        self.values.contains_key(COMMAND)
    }

    /// The verb.
    ///
    /// # Errors
    /// [`EnvironmentError::Missing`] or [`EnvironmentError::UnknownCommand`].
    pub fn command(&self) -> Result<Command, EnvironmentError> {
        let value = self.values.get(COMMAND).ok_or(EnvironmentError::Missing { names: vec![COMMAND] })?;
        let known = Command::ALL.into_iter().find(|command| value == command.as_str());
        known.ok_or_else(|| EnvironmentError::UnknownCommand { value: shown(value) })
    }

    /// Checks what the verb needs: first that nothing is missing, then that what is there is well-formed.
    ///
    /// # Errors
    /// [`EnvironmentError::Missing`] with all names at once, or [`EnvironmentError::Invalid`] for the first bad value.
    pub fn check(&self, command: Command) -> Result<(), EnvironmentError> {
        let needs = command.needs();
        let missing: Vec<_> = needs.iter().copied().filter(|name| !self.values.contains_key(name)).collect();
        if !missing.is_empty() {
            return Err(EnvironmentError::Missing { names: missing });
        }
        if needs.contains(&CONTAINER_ID) {
            self.container_id()?;
        }
        if needs.contains(&IFNAME) {
            self.interface()?;
        }
        Ok(())
    }

    /// The container id: letters, digits, `_`, `.` and `-`, a letter or a digit first.
    ///
    /// # Errors
    /// It is missing or not well-formed.
    pub fn container_id(&self) -> Result<&str, EnvironmentError> {
        let id = self.text(CONTAINER_ID)?;
        if id.len() > CONTAINER_ID_LIMIT {
            return Err(invalid(CONTAINER_ID, id, "longer than 253 bytes: use a shorter id"));
        }
        if !is_cni_name(id) {
            let problem = "invalid characters in containerID: use letters, digits, '_', '.' and '-', and begin with a \
                           letter or a digit";
            return Err(invalid(CONTAINER_ID, id, problem));
        }
        Ok(id)
    }

    /// The interface name, by the rules of Linux.
    ///
    /// # Errors
    /// It is missing or not well-formed.
    pub fn interface(&self) -> Result<&str, EnvironmentError> {
        let name = self.text(IFNAME)?;
        let strange = |letter: char| matches!(letter, '/' | ':') || letter.is_whitespace() || letter.is_control();
        if name.len() > INTERFACE_LIMIT {
            Err(invalid(IFNAME, name, "interface name is too long: use at most 15 bytes"))
        } else if matches!(name, "." | "..") {
            Err(invalid(IFNAME, name, "interface name is . or ..: use another name"))
        } else if name.chars().any(strange) {
            Err(invalid(IFNAME, name, "interface name contains / or : or whitespace characters: leave them out"))
        } else {
            Ok(name)
        }
    }

    /// The path of the container's network namespace.
    #[must_use]
    pub fn netns(&self) -> Option<PathBuf> {
        self.values.get(NETNS).map(PathBuf::from)
    }

    /// Whether the container may live in the plugin's own network namespace.
    #[must_use]
    pub fn overrides_netns(&self) -> bool {
        self.values.get(NETNS_OVERRIDE).is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
    }

    /// CNI_ARGS as it was given.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn arguments(&self) -> Result<&str, EnvironmentError> {
        if self.values.contains_key(ARGS) { self.text(ARGS) } else { Ok("") }
    }

    /// What the host says about folders and files.
    #[must_use]
    pub fn surroundings(&self) -> Surroundings {
        Surroundings {
            flat_files: match self.values.get(FLAT_FILE) {
                Some(path) => FlatFileSearch::named(FLAT_FILE, path),
                None => FlatFileSearch::standard(),
            },
            data_dir: self.values.get(DATA_DIR).map(PathBuf::from),
            node: self
                .values
                .get(NODE)
                .and_then(|name| name.to_str())
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
        }
    }

    /// `KUBECONFIG`, where it names one file.
    #[must_use]
    pub fn kubeconfig(&self) -> Option<PathBuf> {
        self.values.get(KUBECONFIG).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty())
    }

    /// The folder of this user's state, by the rules of freedesktop.org: a relative one does not count.
    #[must_use]
    pub fn state_folder(&self) -> Option<PathBuf> {
        let absolute = |name| self.values.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute(STATE_HOME).or_else(|| Some(absolute(HOME)?.join(".local/state")))
    }

    fn text(&self, name: &'static str) -> Result<&str, EnvironmentError> {
        let value = self.values.get(name).ok_or(EnvironmentError::Missing { names: vec![name] })?;
        value.to_str().ok_or_else(|| invalid(name, &value.to_string_lossy(), "not UTF-8: set it to text in UTF-8"))
    }
}

/// What CNI allows for container ids and network names.
pub(super) fn is_cni_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn invalid(name: &'static str, value: &str, problem: &'static str) -> EnvironmentError {
    EnvironmentError::Invalid { name, value: shown(value.as_ref()), problem }
}

fn shown(value: &std::ffi::OsStr) -> String {
    crate::config::shorten(&value.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    fn environment(text: &str) -> Environment {
        Environment::from_pairs(text.split_whitespace().filter_map(|pair| pair.split_once('=')))
    }

    const COMPLETE: &str = "CNI_CONTAINERID=c-1 CNI_NETNS=/n CNI_IFNAME=eth0 CNI_PATH=/bin";

    #[test]
    fn all_missing_names_come_in_one_error() {
        for (command, expected) in [
            (Command::Add, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"),
            (Command::Check, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"),
            (Command::Del, "required env variables [CNI_CONTAINERID,CNI_IFNAME] missing"),
            (Command::Gc, "required env variables [CNI_PATH] missing"),
            (Command::Status, "required env variables [CNI_PATH] missing"),
        ] {
            let error = Environment::default().check(command).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{command}: {error}");
            assert_eq!(environment(COMPLETE).check(command), Ok(()), "{command}");
        }
        assert_eq!(Environment::default().check(Command::Version), Ok(()));
        assert!(environment("CNI_CONTAINERID=c CNI_IFNAME=eth0").check(Command::Del).is_ok());
        assert!(environment("CNI_PATH=/bin").check(Command::Gc).is_ok());
    }

    #[test]
    fn an_empty_variable_is_a_missing_one() {
        let pairs = [("CNI_COMMAND", ""), ("CNI_PATH", ""), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")];
        let environment = Environment::from_pairs(pairs);
        assert!(!environment.has_command());
        let error = environment.check(Command::Add).unwrap_err().to_string();
        assert!(error.contains("[CNI_NETNS,CNI_PATH]"), "{error}");
    }

    #[test]
    fn the_command_is_known_or_named() {
        for command in Command::ALL {
            let environment = Environment::from_pairs([("CNI_COMMAND", command.as_str())]);
            assert_eq!(environment.command(), Ok(command));
        }
        let error = environment("CNI_COMMAND=add").command().unwrap_err().to_string();
        assert!(error.contains("unknown CNI_COMMAND: add"), "{error}");
        assert!(Environment::default().command().is_err());
    }

    #[test]
    fn container_ids_and_interfaces_have_rules() {
        #[track_caller]
        fn check(name: &str, value: &str, expected: Option<&str>) {
            let pairs = [("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0"), (name, value)];
            let result = Environment::from_pairs(pairs).check(Command::Del);
            match expected {
                None => assert_eq!(result, Ok(())),
                Some(problem) => {
                    let error = result.unwrap_err().to_string();
                    assert!(error.contains(problem) && error.contains(name), "{error}");
                }
            }
        }
        check("CNI_CONTAINERID", "0a_Z.-", None);
        for id in ["-a", ".a", "_a", "a/b", "a b", "ä", "a;b", "a\n"] {
            check("CNI_CONTAINERID", id, Some("invalid characters"));
        }
        check("CNI_CONTAINERID", &"a".repeat(253), None);
        check("CNI_CONTAINERID", &"a".repeat(254), Some("longer than 253 bytes: use a shorter"));
        check("CNI_IFNAME", "eth0.100@x", None);
        check("CNI_IFNAME", &"e".repeat(15), None);
        check("CNI_IFNAME", &"e".repeat(16), Some("too long"));
        for name in [".", ".."] {
            check("CNI_IFNAME", name, Some(". or .."));
        }
        for name in ["a/b", "a:b", "a b", "a\tb", "a\u{a0}b"] {
            check("CNI_IFNAME", name, Some("contains / or :"));
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_an_error_and_stop_no_del() {
        let mut environment = environment(COMPLETE);
        environment.values.insert(ARGS, OsString::from_vec(vec![0xff]));
        environment.values.insert(PATH, OsString::from_vec(vec![0xff]));
        assert!(environment.arguments().unwrap_err().to_string().contains("CNI_ARGS"));
        assert_eq!(environment.check(Command::Del), Ok(()));
        environment.values.insert(CONTAINER_ID, OsString::from_vec(vec![0xff]));
        assert!(environment.check(Command::Del).unwrap_err().to_string().contains("not UTF-8: set it to text"));
    }

    #[test]
    fn the_override_is_1_or_true() {
        for (value, expected) in [("1", true), ("true", true), ("TRUE", true), ("0", false), ("yes", false)] {
            assert_eq!(Environment::from_pairs([(NETNS_OVERRIDE, value)]).overrides_netns(), expected, "{value}");
        }
        assert!(!Environment::default().overrides_netns());
    }

    proptest! {
        #[test]
        fn no_value_panics(id in any::<String>(), interface in any::<String>(), command in any::<String>()) {
            let pairs = [(COMMAND, command.as_str()), (CONTAINER_ID, &id), (IFNAME, &interface)];
            let environment = Environment::from_pairs(pairs);
            let _ = environment.command().map(|command| environment.check(command));
        }
    }
}
