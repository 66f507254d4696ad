//! The store on local disk. A file appears under its final name whole and synced, or not at all, and never in place
//! of another: it is written beside, synced, read back, renamed without overwriting, and the directory synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Body, Object, Put, StoreError, Trouble};
use crate::io::finish::UPLOADS_MAX;
use crate::io::spool_dir::{rename_if_free, sync_dir};
use crate::io::threads::Threads;

/// Read and compared at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Recordings are for their owner and group.
const RECORDING_MODE: u32 = 0o640;
/// And so are the directories that are made for them.
const DIRECTORY_MODE: u32 = 0o750;

/// A directory that recordings are published to.
#[derive(Clone, Debug)]
pub struct LocalStore {
    root: PathBuf,
    /// As many as put at once.
    threads: Arc<Threads>,
}

impl LocalStore {
    /// A store in `root`, which need not be there yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let threads = Arc::new(Threads::new("local-store", UPLOADS_MAX + 1, 0));
        Self { root: root.to_owned(), threads }
    }

    /// The directory itself, which is made if it is not there.
    ///
    /// # Errors
    /// Where the disk says no.
    pub fn directory(&self) -> io::Result<&Path> {
        create_dirs(&self.root)?;
        Ok(&self.root)
    }

    /// The path of an object.
    #[must_use]
    pub fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Does work of this store on its own threads: nothing waits for it there.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let done = self.threads.run(move || work(&store)).await;
        let failed = |error| StoreError::new("working on", self.path(key).display(), Trouble::Passing, error);
        done.map_err(failed)?
    }

    /// Starts a first thread.
    pub(super) fn start_thread(&self) -> io::Result<()> {
        self.threads.start(1)
    }

    /// Whether a name is free.
    ///
    /// # Errors
    /// Where the disk does not tell.
    pub fn is_free(&self, key: &str) -> Result<bool, StoreError> {
        let path = self.path(key);
        match fs::symlink_metadata(&path) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(at("looking for", &path)(error)),
        }
    }

    /// Reads an object.
    ///
    /// # Errors
    /// Where the disk says no.
    pub fn read(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.path(key);
        fs::read(&path).map_err(at("reading", &path))
    }

    /// Whether what has the name of an object is that object.
    ///
    /// # Errors
    /// Where nothing has the name, or the disk says no.
    pub fn whose(&self, object: &Object) -> Result<Put, StoreError> {
        whose(&self.path(&object.key), object)
    }

    /// Puts an object. A crash leaves one temporary file at most, until the next attempt.
    ///
    /// # Errors
    /// [`StoreError`] says what could not be done to which file.
    pub fn put(&self, object: &Object) -> Result<Put, StoreError> {
        let target = self.path(&object.key);
        let directory = target.parent().unwrap_or(&self.root);
        create_dirs(directory).map_err(at("creating the directory", directory))?;
        match fs::symlink_metadata(&target) {
            Ok(_) => return whose(&target, object),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at("looking for", &target)(error)),
        }
        let beside = directory.join(format!(".{}.part", object.temporary));
        match &object.body {
            Body::File(path) => {
                let mut file = File::open(path).map_err(at("opening", path))?;
                // The kernel copies, and shares the bytes where the file system can.
                write_synced(&beside, |out| io::copy(&mut file, out))
            }
            Body::Text(text) => write_synced(&beside, |out| out.write_all(text)),
        }
        .map_err(at("writing", &beside))?;
        let written = checksum(&beside).map_err(at("reading back", &beside))?;
        if written != (object.bytes, object.crc32c) {
            let source = io::Error::other("what was written reads back differently");
            return Err(at("writing", &beside)(source));
        }
        let put = match rename_if_free(&beside, &target) {
            Ok(()) => Put::Created,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&beside).map_err(at("removing", &beside))?;
                whose(&target, object)?
            }
            Err(error) => return Err(at("renaming to", &target)(error)),
        };
        sync_dir(directory).map_err(at("syncing the directory", directory))?;
        Ok(put)
    }

    /// Removes an object that [`LocalStore::put`] has just created and whose companion could not be put.
    ///
    /// # Errors
    /// Where the disk says no.
    pub fn remove(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key);
        let removed = fs::remove_file(&path).and_then(|()| sync_dir(path.parent().unwrap_or(&self.root)));
        removed.map_err(at("removing", &path))
    }
}

/// What a disk says no to may work the next time: it can be mended, emptied, or allowed.
fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let place = path.display().to_string();
    move |source| StoreError::new(doing, place, Trouble::Passing, source)
}

/// Whether what has the name is ours, to the byte.
fn whose(target: &Path, object: &Object) -> Result<Put, StoreError> {
    // Of another length it need not be read: it may be hours.
    if fs::metadata(target).map_err(at("looking for", target))?.len() != object.bytes {
        return Ok(Put::Taken);
    }
    let found = checksum(target).map_err(at("reading", target))?;
    Ok(if found == (object.bytes, object.crc32c) { Put::AlreadyThere } else { Put::Taken })
}

/// Makes a directory and those above it, each of them durable in the one above.
fn create_dirs(directory: &Path) -> io::Result<()> {
    if directory.is_dir() || directory.as_os_str().is_empty() {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dirs(parent)?;
    }
    match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_dir(parent.unwrap_or(Path::new("."))),
    }
}

fn write_synced<T>(path: &Path, write: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<()> {
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(RECORDING_MODE).open(path)?;
    write(&mut file)?;
    file.sync_all()
}

/// The length and the CRC-32C of a file.
fn checksum(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; PIECE_BYTES];
    let (mut bytes, mut sum) = (0, 0);
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok((bytes, sum));
        }
        sum = crc32c::crc32c_append(sum, &piece[..length]);
        bytes += u64::try_from(length).map_err(io::Error::other)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, bytes: &'static [u8]) -> Object {
        Object {
            key: key.to_owned(),
            body: Body::Text(bytes.into()),
            bytes: bytes.len().try_into().unwrap(),
            crc32c: crc32c::crc32c(bytes),
            content_type: super::super::AUDIO,
            labels: Vec::new(),
            temporary: "one".to_owned(),
        }
    }

    fn put(store: &LocalStore, key: &str, bytes: &'static [u8]) -> Put {
        store.put(&object(key, bytes)).unwrap()
    }

    #[test]
    fn an_object_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(&dir.path().join("new/deep"));
        assert!(store.is_free("a/b.opus").unwrap());
        assert_eq!(put(&store, "a/b.opus", b"first"), Put::Created);
        assert_eq!(put(&store, "a/b.opus", b"first"), Put::AlreadyThere);
        assert_eq!(put(&store, "a/b.opus", b"other"), Put::Taken);
        assert!(store.read("a/b.opus").unwrap() == b"first" && !store.is_free("a/b.opus").unwrap());
        let names: Vec<_> = fs::read_dir(dir.path().join("new/deep/a")).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file is left");
    }

    #[test]
    fn what_a_crash_left_beside_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path());
        fs::write(dir.path().join(".one.part"), b"half of an earlier attempt that was longer").unwrap();
        assert_eq!(put(&store, "x.opus", b"whole"), Put::Created);
        assert_eq!(store.read("x.opus").unwrap(), b"whole");
    }

    #[test]
    fn an_error_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        let store = LocalStore::new(&dir.path().join("file"));
        let error = store.put(&object("x.opus", b"x")).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
        let error = store.is_free("x.opus").unwrap_err();
        assert!(error.to_string().contains("file/x.opus"), "it is not taken: {error}");
    }
}
