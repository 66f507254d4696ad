//! Which spool files are sealed, as their last bytes tell.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::spool_dir::{ReadError, header_of, own_name, parse_name, read};
use crate::spool::scan::Located;
use crate::spool::{Header, Record, RecordKind, SEAL_BYTES};

/// The oldest sealed spool files of a directory, `count` of them at most, that `is_wanted`. Memory does not grow with what
/// the directory holds.
///
/// # Errors
/// Where the directory cannot be listed. A file that cannot be read is passed over.
pub fn oldest_sealed(
    directory: &Path,
    count: usize,
    is_wanted: impl Fn(&Path) -> bool,
) -> io::Result<Vec<PathBuf>> {
    let mut oldest = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_spool = parse_name(&path).is_some_and(|name| name.is_pending());
        let is_late = oldest.len() >= count && oldest.last().is_none_or(|last| *last < path);
        if !is_spool || is_late || !is_wanted(&path) || !is_sealed(&path).is_ok_and(|is_sealed| is_sealed) {
            continue;
        }
        oldest.insert(path);
        if oldest.len() > count {
            oldest.pop_last();
        }
    }
    Ok(oldest.into_iter().collect())
}

/// Whether a spool file ends in its seal: its connection is over, and nothing will be added to it. A payload may end in what
/// looks like one, so the last bytes count only with the recording id in them, which version 1 has not: that is read.
///
/// # Errors
/// Where the file cannot be read, or is shorter than a seal.
pub fn is_sealed(path: &Path) -> io::Result<bool> {
    let header = match header_of(path) {
        Ok(header) => Some(header),
        Err(ReadError::Io(error)) => return Err(error),
        Err(ReadError::Header(_)) => None,
    };
    if header.as_ref().is_some_and(Header::is_of_before) {
        return Ok(read_to_seal(path).unwrap_or(false));
    }
    let named = || own_name(path).and_then(|name| name.recording());
    let Some(recording) = header.map(|header| header.recording).or_else(named) else { return Ok(false) };
    let mut seal = [0; SEAL_BYTES];
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-i64::try_from(seal.len()).map_err(io::Error::other)?))?;
    file.read_exact(&mut seal)?;
    Ok(Record::is_seal_of(&seal, recording))
}

/// Whether the last record of a file is a seal.
fn read_to_seal(path: &Path) -> Result<bool, ReadError> {
    let is_last =
        |is_last: &mut bool, located: &Located<'_>| *is_last = located.record.kind == RecordKind::Seal;
    Ok(read(path, |_| false, is_last)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ConnectionId, RecordingId};
    use crate::spool::{SealCause, block};
    use crate::time::{Mono, Wall};

    #[test]
    fn the_oldest_files_with_a_seal_are_found_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, is_sealed: bool| {
            let mut bytes = Vec::new();
            let connection = ConnectionId::new(name).unwrap();
            let header = Header::derived(connection, Wall(1), Mono(0), 1);
            header.append_to(&mut bytes);
            if is_sealed {
                Record::append_seal(Mono(7), SealCause::Stale, header.recording, &mut bytes);
            }
            fs::write(dir.path().join(name), bytes).unwrap();
        };
        for (name, is_sealed) in [
            ("4.spool", true),
            ("1.spool", false),
            ("3.spool", true),
            ("2.spool", true),
            ("0.spool.kept", true),
        ] {
            write(name, is_sealed);
        }
        fs::write(dir.path().join("0.spool"), b"short").unwrap();
        let find = |count| {
            let found = oldest_sealed(dir.path(), count, |path| !path.ends_with("3.spool")).unwrap();
            found.iter().map(|path| path.file_name().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(find(1), ["2.spool"]);
        assert_eq!(find(9), ["2.spool", "4.spool"]);
        assert!(find(0).is_empty());
    }

    #[test]
    fn a_payload_that_ends_in_a_seal_does_not_seal_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.spool");
        let connection = ConnectionId::new("x").unwrap();
        let header = Header::derived(connection, Wall(1), Mono(0), 1);
        // Of another recording, as version 1 had it, and in a block as a daemon would write it.
        let (mut other, mut old) = (Vec::new(), Vec::new());
        Record::append_seal(Mono(7), SealCause::Stale, RecordingId::derived(b"a guess"), &mut other);
        let scope = crate::id::Scope::Whole;
        let record = Record { kind: RecordKind::Seal, scope, at: Mono(7), gateway: None, body: &[1] };
        record.append_to(&mut old);
        let mut whole = Vec::new();
        block::append_room(&mut whole);
        whole.extend_from_slice(&other);
        block::complete(&mut whole, 1);
        for forged in [&other, &old, &whole] {
            for version in [1, 2] {
                let mut bytes = Vec::new();
                Header { version, ..header.clone() }.append_to(&mut bytes);
                Record { kind: RecordKind::Tap(1), body: forged, ..record }.append_to(&mut bytes);
                fs::write(&file, &bytes).unwrap();
                assert!(
                    !is_sealed(&file).unwrap() && oldest_sealed(dir.path(), 9, |_| true).unwrap().is_empty()
                );
                let mut seal = old.clone();
                if version == 2 {
                    seal.clear();
                    Record::append_seal(Mono(7), SealCause::Stale, header.recording, &mut seal);
                }
                bytes.extend_from_slice(&seal);
                fs::write(&file, bytes).unwrap();
                assert!(is_sealed(&file).unwrap(), "version {version}");
            }
        }
    }
}
