//! A disk of a test's own: small, and full, read-only or dying when the test wants it so; and memory that has a limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::place::Place;

/// A file system in memory, mounted at a folder until this is dropped.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Mounts one of so many KiB; or nothing, after saying so, where that is not allowed.
    pub(crate) fn mount(folder: &Path, kib: u32) -> Option<Self> {
        Self::mount_with(folder, &format!("size={kib}k"))
    }

    /// Mounts one with these options of tmpfs.
    pub(crate) fn mount_with(folder: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(folder).expect("a folder");
        let options = format!("{options},mode=0777");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).status();
        if status.is_ok_and(|status| status.success()) {
            return Some(Self(folder.to_owned()));
        }
        let is_root = rustix::process::geteuid().is_root();
        assert!(!(is_root && super::is_strict()), "root may not mount a file system here");
        println!("no file system may be mounted here: only root may, and not in every container");
        None
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) {
        let mut piece = 1 << 20;
        let mut filler = fs::File::create(self.0.join("filler")).expect("room for a name");
        while piece > 0 {
            match std::io::Write::write(&mut filler, &vec![0; piece]) {
                Ok(written) if written > 0 => {}
                _ => piece /= 2,
            }
        }
    }

    /// Makes files without content until no more can be made.
    pub(crate) fn fill_names(&self) {
        for number in 0.. {
            if fs::File::create(self.0.join(format!("filler-{number}"))).is_err() {
                return;
            }
        }
    }

    /// How many bytes and how many files there is room for.
    pub(crate) fn free(&self) -> (u64, u64) {
        let disk = rustix::fs::statvfs(&self.0).expect("it is mounted");
        (disk.f_bavail * disk.f_frsize, disk.f_favail)
    }

    /// Takes away what filled it.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.0.join("filler")).expect("it was filled");
    }

    /// Makes it read-only, or writable again.
    pub(crate) fn set_read_only(&self, is_read_only: bool) {
        let option = if is_read_only { "remount,ro" } else { "remount,rw" };
        let status = Command::new("mount").args(["-o", option]).arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()), "{option}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a daemon that is being killed may still hold a file.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// What lets system calls on the spool of a place fail.
pub(crate) struct IoErrors(PathBuf);

impl IoErrors {
    /// Prepares it for daemons that are started there from now on; or nothing, after saying so, without a C compiler.
    pub(crate) fn prepare(place: &mut Place) -> Option<Self> {
        let library = place.root().join("io_errors.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rig/io_errors.c");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .args([source, "-ldl"])
            .status();
        if !status.is_ok_and(|status| status.success()) {
            assert!(!super::is_strict(), "the C compiler does not work");
            println!("there is no C compiler");
            return None;
        }
        let switches = place.root().join("failing");
        place.set("LD_PRELOAD", library.to_str().expect("paths of tests are text"));
        place.set("FAIL_FILE", switches.to_str().expect("paths of tests are text"));
        place.set("FAIL_ON", ".spool");
        Some(Self(switches))
    }

    /// Lets calls of these kinds fail from now on: `write`, `sync`, `read`. With `quota`, writing says that a quota is used up;
    /// with `slow`, it takes its time; with `folders`, no directory can be synced; with `unlink`, no file removed.
    pub(crate) fn set(&self, kinds: &str) {
        fs::write(&self.0, kinds).expect("a writable folder");
    }
}

/// A group of processes that have so much memory together.
pub(crate) struct Memory(PathBuf);

impl Memory {
    /// Makes one; or nothing, after saying so, where that is not allowed.
    pub(crate) fn limit(mib: u64) -> Option<Self> {
        let name = format!("sidetape-{}", std::process::id());
        let (first, second) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let (root, file) =
            if first.is_dir() { (first, "memory.limit_in_bytes") } else { (second, "memory.max") };
        let group = Self(root.join(name));
        let limited =
            fs::create_dir(&group.0).and_then(|()| fs::write(group.0.join(file), (mib << 20).to_string()));
        match limited {
            Ok(()) => Some(group),
            Err(error) => {
                let is_root = rustix::process::geteuid().is_root();
                assert!(!(is_root && super::is_strict()), "root may not limit memory here: {error}");
                println!("memory cannot be limited here, {}: {error}", root.display());
                None
            }
        }
    }

    /// What a shell does to belong to it.
    pub(crate) fn enter(&self) -> String {
        format!("echo $$ > '{}/cgroup.procs' || exit 1", self.0.display())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Empty as soon as its processes are gone.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}
