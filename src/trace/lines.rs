//! The lines of a text file, plain or gzip, one at a time. Memory is one line, and a line is bounded.

use super::error::TraceError;
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// The longest line, without its end.
pub const LINE_BYTES_MAX: usize = 16 << 20;
const BUFFER_BYTES: usize = 256 << 10;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Called with the bytes of the file that were read since the last call.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// One line of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number, from 1.
    pub number: u64,
    /// Its text, without its end; not empty, but maybe not UTF-8.
    pub text: &'a [u8],
    /// Whether it has an end; the last line of a file may lack one, or may have lost it.
    pub whole: bool,
}

impl<'a> Line<'a> {
    /// The text, or why there is none.
    pub fn utf8(self) -> Result<&'a str, String> {
        std::str::from_utf8(self.text)
            .map_err(|error| format!("is not UTF-8 (byte {} of the line)", error.valid_up_to() + 1))
    }
}

/// Reads a file line by line; empty lines are passed over.
pub struct Lines<'a> {
    path: PathBuf,
    input: Box<dyn BufRead + 'a>,
    gzip: bool,
    buffer: Vec<u8>,
    number: u64,
    whole: bool,
    again: bool,
}

impl<'a> Lines<'a> {
    /// Opens a file; gzip is known by its first two bytes.
    pub fn open(path: &Path, progress: Progress<'a>) -> Result<Self, TraceError> {
        let (input, gzip) = open(path, progress)?;
        Ok(Self { path: path.into(), input, gzip, buffer: Vec::new(), number: 0, whole: true, again: false })
    }

    /// The next line that is not empty.
    pub fn next(&mut self) -> Result<Option<Line<'_>>, TraceError> {
        if std::mem::take(&mut self.again) {
            return Ok(Some(self.line()));
        }
        while self.fill()? {
            if !self.buffer.is_empty() {
                return Ok(Some(self.line()));
            }
        }
        Ok(None)
    }

    /// Gives the last line once more at the next call of [`Lines::next`].
    pub fn unread(&mut self) {
        self.again = self.number > 0;
    }

    fn line(&self) -> Line<'_> {
        Line { number: self.number, text: &self.buffer, whole: self.whole }
    }

    /// Reads one line, without its end, into the buffer; false at the end of the file.
    fn fill(&mut self) -> Result<bool, TraceError> {
        self.buffer.clear();
        let limit = LINE_BYTES_MAX as u64 + 2; // room for CR LF
        let mut bounded = (&mut self.input).take(limit);
        match bounded.read_until(b'\n', &mut self.buffer) {
            Ok(0) => return Ok(false),
            Ok(_) => self.number += 1,
            Err(source) => return Err(read_error(&self.path, self.gzip, source)),
        }
        self.whole = self.buffer.pop_if(|byte| *byte == b'\n').is_some();
        self.buffer.pop_if(|byte| *byte == b'\r');
        if self.buffer.len() > LINE_BYTES_MAX {
            let reason = format!("is longer than {} MiB", LINE_BYTES_MAX >> 20);
            return Err(TraceError::line(&self.path, self.number, reason));
        }
        if self.number == 1 && self.buffer.starts_with(BOM) {
            self.buffer.drain(..BOM.len());
        }
        Ok(true)
    }
}

/// Opens a file for reading, plain or gzip; says which.
pub fn open<'a>(path: &Path, progress: Progress<'a>) -> Result<(Box<dyn BufRead + 'a>, bool), TraceError> {
    let file = File::open(path).map_err(|source| TraceError::io(path, source))?;
    let mut plain = BufReader::with_capacity(BUFFER_BYTES, Counted { file, progress });
    let head = plain.fill_buf().map_err(|source| TraceError::io(path, source))?;
    if !head.starts_with(&GZIP_MAGIC) {
        return Ok((Box::new(plain), false));
    }
    Ok((Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(plain))), true))
}

/// What a failed read means.
pub fn read_error(path: &Path, gzip: bool, source: io::Error) -> TraceError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof if gzip => TraceError::GzipCut { path: path.into() },
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData if gzip => {
            TraceError::GzipDamaged { path: path.into(), source }
        }
        _ => TraceError::io(path, source),
    }
}

struct Counted<'a> {
    file: File,
    progress: Progress<'a>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        (self.progress)(bytes as u64);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn read(bytes: &[u8]) -> Result<Vec<(u64, String, bool)>, TraceError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let mut progress = |_| ();
        let mut lines = Lines::open(&path, &mut progress)?;
        let mut all = Vec::new();
        while let Some(line) = lines.next()? {
            all.push((line.number, String::from_utf8_lossy(line.text).into_owned(), line.whole));
        }
        Ok(all)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn ends_marks_and_empty_lines_are_not_text() {
        let got = read(b"\xef\xbb\xbfone\r\n\r\n\ntwo\nthree").unwrap();
        let want = [(1, "one", true), (4, "two", true), (5, "three", false)];
        assert_eq!(got, want.map(|(n, text, whole)| (n, text.to_string(), whole)));
        assert_eq!(read(b"").unwrap(), []);
        assert_eq!(read(b"\n\r\n").unwrap(), []);
    }

    #[test]
    fn gzip_reads_as_its_content_even_in_several_members() {
        let mut bytes = gzip(b"one\ntw");
        bytes.extend(gzip(b"o\n"));
        assert_eq!(read(&bytes).unwrap(), read(b"one\ntwo\n").unwrap());
    }

    #[test]
    fn cut_or_damaged_gzip_is_named() {
        let text: Vec<u8> = (0..20_000u32).flat_map(|i| format!("{}\n", i * 7919).into_bytes()).collect();
        let bytes = gzip(&text);
        let error = read(&bytes[..bytes.len() / 2]).unwrap_err();
        assert!(error.to_string().ends_with("the gzip data ends early; the file is truncated"), "{error}");
        let mut bytes = bytes;
        let last = bytes.len() - 6;
        bytes[last] ^= 0xff; // in the checksum
        let error = read(&bytes).unwrap_err();
        assert!(error.to_string().contains("the gzip data is damaged"), "{error}");
    }

    #[test]
    fn a_line_is_bounded() {
        let mut bytes = vec![b'x'; LINE_BYTES_MAX];
        bytes.extend(b"\r\n");
        assert_eq!(read(&bytes).unwrap()[0].1.len(), LINE_BYTES_MAX);
        bytes.insert(0, b'x');
        let error = read(&bytes).unwrap_err();
        assert!(error.to_string().ends_with("line 1: is longer than 16 MiB"), "{error}");
    }

    #[test]
    fn a_line_can_be_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let mut bytes = 0;
        let mut progress = |n| bytes += n;
        let mut lines = Lines::open(&path, &mut progress).unwrap();
        assert_eq!(lines.next().unwrap().unwrap().text, b"one");
        lines.unread();
        assert_eq!(lines.next().unwrap().unwrap().number, 1);
        assert_eq!(lines.next().unwrap().unwrap().text, b"two");
        assert!(lines.next().unwrap().is_none());
        drop(lines);
        assert_eq!(bytes, 8);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Lines::open(Path::new("no/such/file"), &mut |_| ()).err().unwrap();
        assert!(error.to_string().starts_with("no/such/file: "), "{error}");
    }
}
