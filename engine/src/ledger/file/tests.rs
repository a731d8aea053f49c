//! A ledger on a network file system is refused, wherever on the way to it that turns out, and nothing is left there.

use std::os::unix::fs::symlink;

use super::*;
use crate::ledger::filesystem::pretence;

/// How a folder or a file comes to be on NFS. The kernel of the tests need not know any.
fn mount_nfs(path: &Path) {
    pretence::say(path, FileSystem::from_magic(0x6969));
}

/// The ledger cannot be opened in any way, and the error names it, the file system and the cure.
#[track_caller]
fn refuses(path: &Path) {
    for (access, create) in [
        (Access::Write, Create::IfMissing),
        (Access::Write, Create::EvenIfLost),
        (Access::Write, Create::Never),
        (Access::Read, Create::Never),
    ] {
        let options = OpenOptions { access, create, wait: Duration::ZERO, ..OpenOptions::new(path) };
        let error = LedgerFile::open(&options).unwrap_err();
        let is_missing = create == Create::Never && matches!(error, LedgerFileError::Missing { .. });
        if is_missing && !path.exists() {
            continue;
        }
        assert!(matches!(error, LedgerFileError::NetworkFileSystem { .. }), "{access:?}, {create:?}: {error}");
        let text = error.to_string();
        for word in [path.to_str().unwrap(), "NFS", "network file system", "put the ledger on a disk of this host"] {
            assert!(text.contains(word), "{word} is not in: {text}");
        }
    }
}

#[track_caller]
fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_folder_on_a_network_file_system_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    mount_nfs(folder.path());
    refuses(&folder.path().join("ledger.redb"));
    assert!(names_in(folder.path()).is_empty(), "not even a queue was made");
}

#[test]
fn nothing_is_created_below_a_network_file_system() {
    let folder = tempfile::tempdir().unwrap();
    mount_nfs(folder.path());
    refuses(&folder.path().join("some/state/ledger.redb"));
    assert!(names_in(folder.path()).is_empty(), "no folder was made");
}

/// It was opened before its folder was mounted over.
#[test]
fn a_ledger_that_is_there_is_refused_in_such_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    LedgerFile::open(&OpenOptions::new(&path)).unwrap();
    let (names, bytes) = (names_in(folder.path()), fs::read(&path).unwrap());
    mount_nfs(folder.path());
    refuses(&path);
    assert_eq!((names_in(folder.path()), fs::read(&path).unwrap()), (names, bytes), "all is as it was");
}

/// The folder is on a disk of this host, and the name of the ledger in it leads elsewhere.
#[test]
fn a_ledger_that_is_a_link_to_a_network_file_system_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (away, path) = (folder.path().join("away.redb"), folder.path().join("ledger.redb"));
    LedgerFile::open(&OpenOptions::new(&away)).unwrap();
    symlink(&away, &path).unwrap();
    LedgerFile::open(&OpenOptions::new(&path)).unwrap();
    let bytes = fs::read(&away).unwrap();
    mount_nfs(&away);
    refuses(&path);
    assert_eq!(fs::read(&away).unwrap(), bytes, "it is as it was");
}
