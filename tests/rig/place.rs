//! A place for a daemon: a folder of its own with storage, spool and sockets, and the settings that name them.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::judges::check_form;
use super::recording::Recording;
use super::wait_for;

/// A folder and the settings of the daemons that are started in it, one after the other or at once.
pub(crate) struct Place {
    root: TempDir,
    settings: BTreeMap<String, String>,
    uid: Option<u32>,
}

impl Place {
    /// A place with all three sockets, and a linger short enough for tests. Storage and spool lie deep enough that
    /// a file name that climbed out of them would still be found.
    pub(crate) fn new() -> Self {
        let root = TempDir::new().expect("a temporary folder");
        let mut place = Self { root, settings: BTreeMap::new(), uid: None };
        std::fs::create_dir_all(place.storage()).expect("a storage folder");
        std::fs::create_dir_all(place.root().join("run")).expect("a folder for sockets");
        for (variable, value) in [
            ("AUDIO_STORAGE_PATH", path_text(&place.storage())),
            ("AUDIO_SPOOL_DIR", path_text(&place.spool())),
            ("AUDIO_UNIX_DGRAM", path_text(&place.dgram())),
            ("AUDIO_UNIX_STREAM", path_text(&place.stream())),
            ("AUDIO_UDP_LISTEN", "127.0.0.1:0".to_owned()),
            ("AUDIO_LINGER_MS", "50".to_owned()),
            ("AUDIO_MIN_FREE_BYTES", "0".to_owned()),
        ] {
            place.settings.insert(variable.to_owned(), value);
        }
        place
    }

    /// The same place with one more setting.
    pub(crate) fn with(mut self, variable: &str, value: &str) -> Self {
        self.set(variable, value);
        self
    }

    /// Changes a setting for daemons started from now on.
    pub(crate) fn set(&mut self, variable: &str, value: &str) {
        self.settings.insert(variable.to_owned(), value.to_owned());
    }

    /// Lets the program run as nobody, to whom all here belongs then: root may write where permissions say no.
    pub(crate) fn for_nobody(mut self) -> Self {
        const NOBODY: u32 = 65_534;
        let mut folder = self.storage();
        while folder != self.root() {
            std::os::unix::fs::chown(&folder, Some(NOBODY), None).expect("only root may do this");
            folder.pop();
        }
        std::os::unix::fs::chown(self.root().join("run"), Some(NOBODY), None).expect("only root may do this");
        std::os::unix::fs::chown(self.root(), Some(NOBODY), None).expect("only root may do this");
        self.uid = Some(NOBODY);
        self
    }

    /// The folder that everything is in.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where recordings are published.
    pub(crate) fn storage(&self) -> PathBuf {
        self.root().join("some/where/deep/recordings")
    }

    /// Where the spool is.
    pub(crate) fn spool(&self) -> PathBuf {
        self.root().join("some/where/deep/spool")
    }

    /// The path of the datagram socket.
    pub(crate) fn dgram(&self) -> PathBuf {
        self.root().join("run/dgram")
    }

    /// The path of the stream socket.
    pub(crate) fn stream(&self) -> PathBuf {
        self.root().join("run/stream")
    }

    /// The program with a subcommand and the settings, and with nothing else from the environment.
    pub(crate) fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidetape"));
        command.arg(subcommand).env_clear().envs(&self.settings).current_dir(self.root());
        if let Some(uid) = self.uid {
            command.uid(uid);
        }
        command
    }

    /// The same by a shell that first does what `before` says, such as to limit itself.
    pub(crate) fn command_after(&self, before: &str, subcommand: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        let script = format!("{before}\nexec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_sidetape"), subcommand]);
        command.env_clear().envs(&self.settings).current_dir(self.root());
        command
    }

    /// Every regular file under the root, as paths relative to it, in order.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(self.root(), &mut found);
        found.sort();
        found.iter().map(|path| path.strip_prefix(self.root()).expect("found under it").to_owned()).collect()
    }

    /// The names of the recordings in the storage, of any depth, in order.
    pub(crate) fn recordings(&self) -> Vec<String> {
        self.stored("opus")
    }

    /// Whether any file under the root holds these bytes in a row.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        self.files().iter().any(|file| match std::fs::read(self.root().join(file)) {
            Ok(content) => contains(&content, bytes),
            Err(_) => false, // removed in between: a temporary file
        })
    }

    /// Whether the spool holds these bytes in a row.
    pub(crate) fn spool_holds(&self, bytes: &[u8]) -> bool {
        let mut found = Vec::new();
        walk(&self.spool(), &mut found);
        found.iter().any(|file| std::fs::read(file).is_ok_and(|content| contains(&content, bytes)))
    }

    /// The names of what is in the spool for a recording: its spool file, whatever has become of that.
    pub(crate) fn spool_files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.spool()).expect("a spool");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.expect("an entry").file_name().into_string().expect("names are text")
        };
        entries.map(name).filter(|name| name.contains(".spool")).collect()
    }

    /// The manifests that are in the storage now, in the order of their names.
    pub(crate) fn manifests(&self) -> Vec<Value> {
        let read = |name: &String| {
            let text = std::fs::read(self.storage().join(name)).expect("a manifest is never taken away");
            without_absent(serde_json::from_slice(&text).expect("a manifest that is there is whole"))
        };
        self.stored("json").iter().map(read).collect()
    }

    /// The manifests of one connection that are in the storage now.
    pub(crate) fn manifests_of(&self, id: &str) -> Vec<Value> {
        self.manifests().into_iter().filter(|manifest| manifest["connection_id"] == id).collect()
    }

    /// Waits until there is a manifest of the connection.
    pub(crate) fn manifest(&self, id: &str) -> Value {
        self.nth_manifest(id, 1)
    }

    /// Waits until there are `count` manifests of the connection and returns the last of them.
    pub(crate) fn nth_manifest(&self, id: &str, count: usize) -> Value {
        wait_for(&format!("manifest {count} of {id:?}"), || self.manifests_of(id).into_iter().nth(count - 1))
    }

    /// Waits for the manifest of the connection and reads the recording that it names, checking both.
    pub(crate) fn recording(&self, id: &str) -> (Value, Recording) {
        let manifest = self.manifest(id);
        let recording = self.recording_of(&manifest);
        (manifest, recording)
    }

    /// Reads the recording that a manifest names, checking both.
    pub(crate) fn recording_of(&self, manifest: &Value) -> Recording {
        let path = self.path_of(manifest);
        let recording = Recording::read(&path);
        recording.check(&path, manifest);
        check_form(&path);
        recording
    }

    /// Where the recording is that a manifest names.
    pub(crate) fn path_of(&self, manifest: &Value) -> PathBuf {
        let key = manifest["file"]["key"].as_str();
        self.storage().join(key.unwrap_or_else(|| panic!("no file in {manifest}")))
    }

    fn stored(&self, extension: &str) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.storage(), &mut found);
        let mut names: Vec<String> = found
            .iter()
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .map(|path| path_text(path.strip_prefix(self.storage()).expect("found under it")))
            .collect();
        names.sort();
        names
    }
}

/// A manifest without what it says of a side that never sent audio: most calls here have one side alone, and are about other
/// things. `outcome_told` is the outcome as it stands there, and `absent` what was taken out.
pub(crate) fn without_absent(mut manifest: Value) -> Value {
    let reasons = manifest["reasons"].as_array().cloned().unwrap_or_default();
    let is_absent = |reason: &Value| reason == "caller_absent" || reason == "ai_absent";
    let (absent, others): (Vec<Value>, Vec<Value>) = reasons.into_iter().partition(is_absent);
    manifest["outcome_told"] = manifest["outcome"].clone();
    for side in ["caller", "ai"].iter().filter(|side| absent.contains(&format!("{side}_absent").into())) {
        let channel = &manifest["channels"][side];
        let has_audio = !channel["codec"].is_null() && channel["bytes"] != 0;
        assert!(!has_audio, "the {side} is absent and heard: {manifest}");
    }
    if !absent.is_empty() {
        // What is no loss leaves a recording whole.
        let is_loss = |reason: &Value| {
            let reason = reason.as_str().unwrap_or_default();
            reason != "frames_refused"
                && !["part_full", "marks_full", "encoded_anew", "clock_stepped", "clock_corrected"]
                    .iter()
                    .any(|end| reason.ends_with(end))
        };
        if manifest["outcome"] == "degraded" && !others.iter().any(is_loss) {
            manifest["outcome"] = "ok".into();
        }
        manifest["reasons"] = others.into();
    }
    manifest["absent"] = absent.into();
    manifest
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn path_text(path: &Path) -> String {
    path.to_str().expect("paths of tests are text").to_owned()
}

/// Whether `needle` stands somewhere in `haystack`.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
