//! Servers in the background that outlive nobody.
//!
//! A test may end by a panic, by SIGKILL, or in a static that is never dropped. So what it started is not left to its
//! destructors alone: a [`Janitor`] is a shell that waits for the end of a pipe, which every way to die brings about.

use std::fmt::Debug;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// Reads the ids of all processes that run, a line whenever they change. At the end of its input it kills those of the
/// last line and removes the folder, and the control groups that the file `cgroups` in it names; a second time where a
/// process that was about to die is still in a group, or has made another file.
const JANITOR: &str = r#"
    trap '' HUP INT TERM
    clean() {
        failed=0
        if [ -e "$1/cgroups" ]; then
            while read -r group; do
                [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + || failed=1
            done < "$1/cgroups"
        fi
        [ $failed = 0 ] && rm -rf -- "$1"
    }
    while read -r line; do pids=$line; done
    for pid in $pids; do kill -KILL "$pid"; done
    clean "$1" || { sleep 1; clean "$1"; } || rm -rf -- "$1"
"#;

/// How long a server may take until it is ready. On two busy cores an API server takes 5 s, and no other as long.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long people wait for a server before they are told what for.
const SILENCE: Duration = Duration::from_secs(5);

/// There is no event by which a server says that it is ready, so it is asked.
pub(crate) const BETWEEN_QUESTIONS: Duration = Duration::from_millis(50);

/// How many of the last bytes of a log are shown when a server does not run.
const END_OF_LOG: usize = 2000;

/// Sees to it that a folder and the processes that work in it are gone when this process is.
#[derive(Debug)]
pub(crate) struct Janitor {
    folder: PathBuf,
    shell: Child,
    knows: Mutex<Knows>,
}

#[derive(Debug)]
struct Knows {
    /// `None` once the janitor was told to do its work.
    pipe: Option<ChildStdin>,
    pids: Vec<u32>,
}

/// A process in the background. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    child: Child,
    log: PathBuf,
    paused: bool,
    janitor: Arc<Janitor>,
}

// === impl Janitor ===

impl Janitor {
    /// A janitor of a new folder.
    pub(crate) fn new() -> Result<Arc<Self>, String> {
        let folder = tempfile::Builder::new()
            .prefix("whereabouts-testbed-")
            .tempdir()
            .map_err(|error| format!("no folder for temporary files: {error}"))?
            .keep();
        let mut shell = Command::new("sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(&folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            // A pipe that this process was started with must end with this process.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What a terminal or a time limit sends to the tests is not meant for those who clean up.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("sh does not run: {error}"))?;
        let pipe = shell.stdin.take();
        Ok(Arc::new(Self { folder, shell, knows: Mutex::new(Knows { pipe, pids: Vec::new() }) }))
    }

    /// What will be removed.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file that names control groups, one a line, which will be removed too.
    pub(crate) fn control_groups(&self) -> PathBuf {
        self.folder.join("cgroups")
    }

    fn started(&self, pid: u32) {
        self.change(|pids| pids.push(pid));
    }

    fn ended(&self, pid: u32) {
        self.change(|pids| pids.retain(|known| *known != pid));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u32>)) {
        let mut knows = self.knows.lock();
        change(&mut knows.pids);
        let line = knows.pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        // A janitor that somebody killed must not end a test.
        let _ = knows.pipe.as_mut().map(|pipe| writeln!(pipe, "{line}"));
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.knows.get_mut().pipe = None;
        let _ = self.shell.wait();
    }
}

// === impl Server ===

impl Server {
    /// Starts it. What it says goes into `NAME.log` of the janitor's folder, behind what an earlier one has said.
    pub(crate) fn start(janitor: &Arc<Janitor>, name: &str, command: &mut Command) -> Result<Self, String> {
        let log = janitor.folder().join(format!("{name}.log"));
        let into = File::options().create(true).append(true).open(&log);
        let into = into.map_err(|error| format!("{}: {error}", log.display()))?;
        let child = command
            .current_dir(janitor.folder())
            .stdin(Stdio::null())
            .stderr(into.try_clone().map_err(|error| format!("{}: {error}", log.display()))?)
            .stdout(into)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{name} does not start: {error}"))?;
        janitor.started(child.id());
        Ok(Self { name: name.to_owned(), child, log, paused: false, janitor: Arc::clone(janitor) })
    }

    pub(crate) fn janitor(&self) -> &Arc<Janitor> {
        &self.janitor
    }

    /// Asks until there is an answer. Why there is none yet is told to people who wait for long.
    pub(crate) fn wait_until_ready<T, E: Debug>(&mut self, mut ask: impl FnMut() -> Result<T, E>) -> Result<T, String> {
        let started = Instant::now();
        let mut silence = SILENCE;
        loop {
            let not_yet = match ask() {
                Ok(answer) => return Ok(answer),
                Err(not_yet) => not_yet,
            };
            if let Some(status) = self.ended() {
                return Err(format!("a server ended with {status}: {}", self.last_words()));
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(format!("not ready within {START_TIMEOUT:?} ({not_yet:?}): {}", self.last_words()));
            }
            if started.elapsed() > silence {
                silence += SILENCE;
                // Written past libtest, which would keep the words to itself while people wait.
                let _ = writeln!(std::io::stderr(), "waiting for {} to be ready: {not_yet:?}", self.name);
            }
            std::thread::sleep(BETWEEN_QUESTIONS);
        }
    }

    /// How it ended, if it has.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it (SIGKILL), and waits for its end.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.wait();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) {
        let _ = self.child.wait();
    }

    /// The name, and the last that it said.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let end = log.get(log.len().saturating_sub(END_OF_LOG)..).unwrap_or_default();
        format!("{}, which said at last:\n{}", self.name, String::from_utf8_lossy(end))
    }

    /// Stops all of its threads where they are (SIGSTOP): it keeps its connections and answers nothing.
    pub(crate) fn pause(&mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).expect("a child that was not waited for can be signalled");
        // The signal is under way until the last thread has stopped.
        let stopped = waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED);
        stopped
            .unwrap_or_else(|error| panic!("a server has ended instead of pausing ({error}): {}", self.last_words()));
        self.paused = true;
    }

    /// Lets it go on.
    pub(crate) fn resume(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT)
            .expect("a child that was not waited for can be signalled");
        self.paused = false;
    }

    /// Whether it was paused and not resumed.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        self.janitor.ended(self.child.id());
    }
}
