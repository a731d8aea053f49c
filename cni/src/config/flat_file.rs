//! The flat file: one JSON object on the host with the keys of an `ipam` section, which fills what a network leaves out.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use super::{ConfigurationError, INPUT_LIMIT, Json, Object, Warning};

/// Where the flat file is looked for when the network does not say, first one first.
const STANDARD_PATHS: [&str; 3] = [
    "/etc/kubernetes/cni/net.d/whereabouts.d/whereabouts.conf",
    "/etc/cni/net.d/whereabouts.d/whereabouts.conf",
    "/host/etc/cni/net.d/whereabouts.d/whereabouts.conf",
];

/// Where to look for the flat file.
///
/// ```
/// use whereabouts::config::FlatFileSearch;
///
/// // Nowhere: the network's own configuration is all there is.
/// assert!(FlatFileSearch::none().find(None, &mut Vec::new())?.is_none());
/// # Ok::<(), whereabouts::config::ConfigurationError>(())
/// ```
#[derive(Clone, Debug)]
pub struct FlatFileSearch {
    paths: Vec<PathBuf>,
    /// The variable that names the only path, whose file must then be there.
    named_by: Option<&'static str>,
}

/// A flat file that was found.
#[derive(Clone, Debug)]
pub struct FlatFile {
    /// Where it was found.
    pub path: PathBuf,
    /// What it says.
    pub object: Object,
}

// === impl FlatFileSearch ===

impl FlatFileSearch {
    /// The places of the Go plugin.
    #[must_use]
    pub fn standard() -> Self {
        Self { paths: STANDARD_PATHS.iter().map(PathBuf::from).collect(), named_by: None }
    }

    /// This one path, at which a file may be.
    #[must_use]
    pub fn only(path: impl Into<PathBuf>) -> Self {
        Self { paths: vec![path.into()], named_by: None }
    }

    /// This one path, at which a file must be, because somebody says so in this environment variable: what stands in it
    /// may be where the ledger is, and without it another one would give the same addresses again.
    #[must_use]
    pub fn named(variable: &'static str, path: impl Into<PathBuf>) -> Self {
        Self { paths: vec![path.into()], named_by: Some(variable) }
    }

    /// Whether somebody says which file it is.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.named_by.is_some()
    }

    /// Nowhere.
    #[must_use]
    pub fn none() -> Self {
        Self { paths: Vec::new(), named_by: None }
    }

    /// Reads the first file that exists, `configuration_path` before all others. None at all is no error, unless a
    /// variable names one: the flat file is optional.
    ///
    /// # Errors
    /// The first file that exists cannot be used, or the one that a variable names is not there. What stands in a file is
    /// never repeated, because `configuration_path` may name any file of the host.
    pub fn find(
        &self,
        configuration_path: Option<&str>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<FlatFile>, ConfigurationError> {
        if let Some(path) = configuration_path.filter(|path| !path.is_empty()) {
            if let Some(file) = read(check_path(path)?)? {
                return Ok(Some(file));
            }
            warnings.push(Warning::new("configuration_path", path, "there is no such file; looking elsewhere"));
        }
        for path in &self.paths {
            if let Some(file) = read(path)? {
                return Ok(Some(file));
            }
        }
        match (self.named_by, self.paths.first()) {
            (Some(variable), Some(path)) => Err(ConfigurationError::NoFlatFile { variable, path: path.clone() }),
            _ => Ok(None),
        }
    }
}

/// A path from a NetworkAttachmentDefinition is resolved by a plugin that runs as root in an unknown folder.
fn check_path(path: &str) -> Result<&Path, ConfigurationError> {
    let wrong = |problem: &str| {
        let cure = "write the absolute path of a file, without ..";
        Err(ConfigurationError::value("configuration_path", path, problem, cure))
    };
    let as_path = Path::new(path);
    if path.contains('\0') {
        wrong("contains a NUL character")
    } else if !as_path.is_absolute() {
        wrong("is not absolute")
    } else if as_path.components().any(|component| component == Component::ParentDir) {
        wrong("leads through ..")
    } else {
        Ok(as_path)
    }
}

fn read(path: &Path) -> Result<Option<FlatFile>, ConfigurationError> {
    let input = || format!("the flat file {}", path.display());
    let failed = |source| ConfigurationError::Read { input: input(), source };
    let file = match open(path) {
        Ok(file) => file,
        // A component that is a file and not a folder: nothing exists below it either.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(ConfigurationError::value(
            "configuration_path",
            path.display().to_string(),
            "is a folder",
            format!("name the file in it: {}", path.join("whereabouts.conf").display()),
        ));
    }
    if !metadata.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(INPUT_LIMIT as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > INPUT_LIMIT {
        return Err(ConfigurationError::TooLarge { input: input() });
    }
    let json = Json::parse(&bytes).map_err(|source| {
        // Only where it went wrong: the error's own text may repeat what stands there.
        let source = serde::de::Error::custom(format_args!("line {} column {}", source.line(), source.column()));
        ConfigurationError::FlatFileJson { path: path.to_owned(), source }
    })?;
    match json {
        Json::Object(object) => Ok(Some(FlatFile { path: path.to_owned(), object })),
        other => Err(ConfigurationError::value(
            path.display().to_string(),
            other.kind(),
            "the flat file is not one JSON object",
            "write the keys of an ipam section in braces, {…}",
        )),
    }
}

/// Opens a file without waiting for the writer of a named pipe.
fn open(path: &Path) -> io::Result<File> {
    let without_waiting = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(without_waiting).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_path_goes_first_and_a_missing_one_falls_through() {
        let folder = tempfile::tempdir().unwrap();
        let standard = folder.path().join("standard.conf");
        let configured = folder.path().join("configured.conf");
        std::fs::write(&standard, r#"{"gateway": "10.0.0.1"}"#).unwrap();
        let search = FlatFileSearch::only(&standard);
        let mut warnings = Vec::new();

        let found = search.find(configured.to_str(), &mut warnings).unwrap().unwrap();
        assert_eq!(found.path, standard);
        assert_eq!(warnings.len(), 1, "{warnings:?}");

        std::fs::write(&configured, "{}").unwrap();
        assert_eq!(search.find(configured.to_str(), &mut warnings).unwrap().unwrap().path, configured);
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn k2_no_file_anywhere_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let search = FlatFileSearch::only(folder.path().join("absent.conf"));
        assert!(search.find(None, &mut Vec::new()).unwrap().is_none());
    }

    /// The variable is asked only where the network names no file that is there.
    #[test]
    fn a_file_that_a_variable_names_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let (named, configured) = (folder.path().join("named.conf"), folder.path().join("configured.conf"));
        let search = FlatFileSearch::named("A_VARIABLE", &named);
        for path in [None, configured.to_str()] {
            let error = search.find(path, &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains("A_VARIABLE") && error.contains(named.to_str().unwrap()), "{error}");
        }
        std::fs::write(&configured, "{}").unwrap();
        assert_eq!(search.find(configured.to_str(), &mut Vec::new()).unwrap().unwrap().path, configured);
        std::fs::write(&named, "{}").unwrap();
        assert_eq!(search.find(None, &mut Vec::new()).unwrap().unwrap().path, named);
    }

    #[track_caller]
    fn refused(search: &FlatFileSearch, path: &Path, words: &[&str]) {
        let error = search.find(path.to_str(), &mut Vec::new()).unwrap_err().to_string();
        for word in words.iter().chain(&[path.to_str().unwrap()]) {
            assert!(error.contains(word), "{word} is not in: {error}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_and_never_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let search = FlatFileSearch::none();
        refused(&search, folder.path(), &["is a folder", "whereabouts.conf"]);

        let shadow = folder.path().join("shadow");
        std::fs::write(&shadow, "root:hunter2:").unwrap();
        refused(&search, &shadow, &["JSON Parsing Error", "line 1 column 1"]);
        std::fs::write(&shadow, "{\"gateway\": hunter2}").unwrap();
        let error = search.find(shadow.to_str(), &mut Vec::new()).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        std::fs::write(&shadow, "[1]").unwrap();
        refused(&search, &shadow, &["not one JSON object", "a list"]);
        std::fs::write(&shadow, vec![b' '; INPUT_LIMIT + 1]).unwrap();
        refused(&search, &shadow, &["larger than 1048576 bytes"]);

        refused(&search, Path::new("relative.conf"), &["configuration_path", "absolute"]);
        refused(&search, &folder.path().join("../x.conf"), &["configuration_path", "without .."]);
    }

    #[test]
    fn a_named_pipe_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        refused(&FlatFileSearch::none(), &pipe, &["not a regular file"]);
    }
}
