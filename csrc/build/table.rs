//! `csrc/table.h`, and which header each of its types comes from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Line {
    /// The kernel.
    pub name: String,
    /// The line itself, as FB_KERNEL.
    pub text: String,
    /// Whether it needs sm_90a.
    pub hopper: bool,
    /// Whether only whole builds need it.
    rare: bool,
    /// What declares its type.
    pub header: PathBuf,
}

/// All kernels, or those of the daily subset.
pub fn read(csrc: &Path, daily: bool) -> Vec<Line> {
    let headers = headers_by_type(csrc);
    let text = fs::read_to_string(csrc.join("table.h")).expect("csrc/table.h is readable");
    let mut lines = Vec::new();
    for text in text.lines().map(|line| line.split("//").next().unwrap().trim()) {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let line = parse(text, &headers).unwrap_or_else(|| panic!("csrc/table.h: cannot read {text:?}"));
        if !(daily && line.rare) {
            lines.push(line);
        }
    }
    lines
}

fn parse(text: &str, headers: &BTreeMap<String, PathBuf>) -> Option<Line> {
    let (macro_name, rest) = text.split_once('(')?;
    let (hopper, rare) = match macro_name {
        "FB_KERNEL" => (false, false),
        "FB_MORE" => (false, true),
        "FB_KERNEL_SM90A" => (true, false),
        "FB_MORE_SM90A" => (true, true),
        _ => return None,
    };
    let (name, kind) = rest.strip_suffix(')')?.split_once(',')?;
    let kind: String = kind.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let header = headers.get(&kind).unwrap_or_else(|| panic!("csrc/table.h: no header declares {kind}"));
    Some(Line {
        name: name.trim().into(),
        text: format!("FB_KERNEL({rest}"),
        hopper,
        rare,
        header: header.clone(),
    })
}

/// Where each `struct` of the kernel families is declared.
fn headers_by_type(csrc: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for folder in sorted(csrc).into_iter().filter(|path| path.is_dir()) {
        for path in sorted(&folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "cuh")) {
            let text = fs::read_to_string(&path).expect("sources are readable");
            for line in text.lines().filter_map(|line| line.strip_prefix("struct ")) {
                let name = line.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                // The first is the primary template; a specialisation has the same name.
                found.entry(name).or_insert_with(|| path.clone());
            }
        }
    }
    found
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("csrc is readable").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// `path` and everything that it includes by a quoted name, with their text.
pub fn closure(path: &Path, seen: &mut BTreeMap<PathBuf, String>) {
    let path = path.canonicalize().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if seen.contains_key(&path) {
        return;
    }
    let text = fs::read_to_string(&path).expect("sources are readable");
    let folder = path.parent().expect("a file has a folder").to_path_buf();
    let included: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("#include \""))
        .map(|rest| folder.join(rest.split('"').next().unwrap()))
        .collect();
    seen.insert(path, text);
    for path in included {
        // What only the CPU build includes may lie elsewhere.
        if path.exists() {
            closure(&path, seen);
        }
    }
}
