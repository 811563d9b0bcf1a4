//! Writes a trace in our own format: to a file beside the wanted one, which it then replaces.

use super::Trace;
use super::error::TraceError;
use super::formats::flyball::{Header, Line};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

impl Trace {
    /// Writes JSON lines; gzip if the name ends in `.gz`. The same trace gives the same bytes.
    ///
    /// # Errors
    /// What the operating system says. An old file of this name is then as it was.
    pub fn write(&self, path: &Path) -> Result<(), TraceError> {
        replace(path, |file| match path.extension().is_some_and(|end| end == "gz") {
            true => {
                let mut gzip = GzEncoder::new(file, Compression::default());
                self.lines(&mut gzip)?;
                gzip.finish().map(|_| ())
            }
            false => self.lines(file),
        })
    }

    fn lines(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        serde_json::to_writer(&mut out, &Header::of(self))?;
        out.write_all(b"\n")?;
        for row in &self.rows {
            serde_json::to_writer(&mut out, &Line::of(row))?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }
}

/// Writes a file whole or not at all: beside it first, then renamed over it.
///
/// # Errors
/// What the operating system says; the file is then as it was.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), TraceError> {
    let beside = beside(path);
    let written = File::create(&beside).and_then(|file| {
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.into_inner()?.sync_all()
    });
    let moved = written.and_then(|()| fs::rename(&beside, path));
    moved.map_err(|source| {
        // The file beside may not have been made; the error that counts is the first.
        let _ = fs::remove_file(&beside);
        TraceError::io(path, source)
    })
}

/// A name in the same folder that two processes do not share.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or(path.as_os_str()));
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests::trace_of;
    use crate::trace::{Arrivals, Mix, ReadOptions, synth};

    #[test]
    fn what_is_written_reads_back_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let made = trace_of(&[0, 5, 5, 900]);
        let mut rows = made.rows;
        (rows[1].client, rows[1].priority) = (7, 2);
        rows[2].content = None;
        let trace = Trace::new(made.name, rows, made.granularity, made.skipped);
        for trace in [trace, synth(Mix::Mix1, 300, Arrivals::on_off(2.0), 1).unwrap()] {
            for name in ["t.jsonl", "t.jsonl.gz"] {
                let path = folder.path().join(name);
                trace.write(&path).unwrap();
                let read = Trace::open(&path, &ReadOptions::default()).unwrap();
                assert_eq!((&read.rows, read.granularity), (&trace.rows, trace.granularity));
                assert_eq!(read.digest, trace.digest);
                let bytes = fs::read(&path).unwrap();
                Trace { name: trace.name.clone(), ..read }.write(&path).unwrap();
                assert!(fs::read(&path).unwrap() == bytes, "{name}: other bytes for the same trace");
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside the files");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        fs::write(&path, "old").unwrap();
        let error = replace(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert!(error.unwrap_err().to_string().ends_with("t: disk full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(Path::new("no/such/folder/t"), |_| Ok(())).is_err());
    }
}
