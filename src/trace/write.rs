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
    /// If [`Trace::check`] fails, or what the operating system says. An old file of this name is then as it was.
    pub fn write(&self, path: &Path) -> Result<(), TraceError> {
        self.check()?;
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

/// Writes a file whole or not at all: beside it first, then renamed over it. A link stays, and leads to the new
/// file. What is no file, such as a pipe or a device, is written into, and what is open already is appended to.
///
/// # Errors
/// What the operating system says; the file is then as it was.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), TraceError> {
    let written = match fs::metadata(path) {
        Ok(there) if !there.is_file() || is_open(path) => write_into(path, write),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => target(path).and_then(|path| write_over(&path, write)),
    };
    written.map_err(|source| TraceError::io(path, source))
}

/// Whether a path names what this process has open, which may be a file that others write into as well.
fn is_open(path: &Path) -> bool {
    ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"].iter().any(|open| path.starts_with(open))
}

fn write_into(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufWriter::new(File::options().append(true).open(path)?);
    write(&mut file)?;
    file.flush()
}

fn write_over(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let beside = beside(path);
    let written = File::create(&beside).and_then(|file| {
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.into_inner()?.sync_all()
    });
    written.and_then(|()| fs::rename(&beside, path)).inspect_err(|_| {
        // The file beside may not have been made; the error that counts is the first.
        let _ = fs::remove_file(&beside);
    })
}

/// Where a path leads, through links: to a file, or to where one would be.
fn target(path: &Path) -> io::Result<PathBuf> {
    const LINKS_MAX: usize = 40; // as Linux follows
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(to) => path = path.with_file_name(to),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many links"))
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
    fn what_could_not_be_read_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let trace = synth(Mix::Mix1, 5, Arrivals::Poisson { rate: 1e-300 }, 1).unwrap();
        let error = trace.write(&folder.path().join("t.jsonl")).unwrap_err().to_string();
        assert_eq!(error, "mix-1: spans more than 100 years; take a higher rate");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
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
        assert!(replace(folder.path(), |_| Ok(())).is_err());
    }

    /// A result that was sent to `/dev/null` took the place of the device.
    #[test]
    #[cfg(unix)]
    fn a_link_stays_and_a_device_is_written_into() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let text = |file: &mut BufWriter<File>| file.write_all(b"new");
        for there in [true, false] {
            fs::create_dir_all(path("far")).unwrap();
            if there {
                fs::write(path("far/t"), "old").unwrap();
            }
            symlink("far/t", path("link")).unwrap();
            replace(&path("link"), text).unwrap();
            assert_eq!(fs::read_link(path("link")).unwrap(), Path::new("far/t"));
            assert_eq!(fs::read(path("far/t")).unwrap(), b"new");
            assert_eq!(fs::read_dir(path("far")).unwrap().count(), 1);
            fs::remove_file(path("link")).unwrap();
            fs::remove_dir_all(path("far")).unwrap();
        }
        symlink("/dev/null", path("null")).unwrap();
        replace(&path("null"), text).unwrap();
        assert!(fs::metadata(path("null")).unwrap().file_type().is_char_device());
        symlink("loop", path("loop")).unwrap();
        assert!(replace(&path("loop"), text).is_err());
    }
}
