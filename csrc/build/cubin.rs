//! What a compiled file says of its kernels: their launch shapes, and what ptxas reported.

use std::collections::BTreeMap;

/// How a kernel is launched, as `csrc/kernel.h` has it written into the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Threads of a cta.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// Bytes of its parameter block.
    pub params: u32,
    /// Ctas that must fit on a multiprocessor.
    pub ctas_per_sm: u32,
}

/// What a kernel takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Per thread.
    pub registers: u32,
    /// Bytes per thread of local memory.
    pub stack: u32,
    /// Bytes per thread of registers that went to local memory and back.
    pub spilled: u32,
}

fn number(bytes: &[u8], at: usize, width: usize) -> usize {
    bytes[at..at + width].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// The shapes by kernel: the symbols `shape_*` of a little-endian ELF64 file.
pub fn shapes(cubin: &[u8]) -> BTreeMap<String, Shape> {
    assert!(cubin.starts_with(b"\x7fELF\x02\x01"), "nvcc wrote a cubin");
    let (headers, count) = (number(cubin, 0x28, 8), number(cubin, 0x3c, 2));
    // A section header: its type at 4, offset at 24, size at 32, link at 40.
    let section = |index: usize| headers + index * 64;
    let offset = |index: usize| number(cubin, section(index) + 24, 8);
    let mut found = BTreeMap::new();
    for table in (0..count).filter(|index| number(cubin, section(*index) + 4, 4) == 2) {
        let names = offset(number(cubin, section(table) + 40, 4));
        let symbols = &cubin[offset(table)..][..number(cubin, section(table) + 32, 8)];
        // A symbol: its name at 0, section at 6, value at 8.
        for symbol in symbols.chunks_exact(24) {
            let name = cubin[names + number(symbol, 0, 4)..].split(|byte| *byte == 0).next().unwrap();
            let Some(name) = name.strip_prefix(b"shape_") else { continue };
            let at = offset(number(symbol, 6, 2)) + number(symbol, 8, 8);
            let word = |index: usize| number(cubin, at + 4 * index, 4) as u32;
            let shape = Shape { threads: word(0), shared: word(1), params: word(2), ctas_per_sm: word(3) };
            found.insert(String::from_utf8(name.to_vec()).expect("names are ASCII"), shape);
        }
    }
    found
}

/// What `ptxas -v` said of each kernel.
pub fn resources(log: &str) -> BTreeMap<String, Resources> {
    let mut found: BTreeMap<String, Resources> = BTreeMap::new();
    let mut name = String::new();
    for line in log.lines() {
        let before =
            |mark: &str| -> Option<u32> { line.split(mark).next()?.split_whitespace().last()?.parse().ok() };
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            name = rest.split('\'').next().unwrap().into();
            found.insert(name.clone(), Resources::default());
        } else if let Some(kernel) = found.get_mut(&name) {
            if line.contains(" bytes stack frame") {
                kernel.stack = before(" bytes stack frame").unwrap();
                kernel.spilled =
                    before(" bytes spill stores").unwrap() + before(" bytes spill loads").unwrap();
            } else if line.contains("Used ") {
                kernel.registers = before(" registers").unwrap();
            }
        }
    }
    found
}
