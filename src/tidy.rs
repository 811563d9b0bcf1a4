//! Holds the layers and the walls of the crate: reads its source and names file, line and rule.
//!
//! A module may use its own layer and the layers before it; some may use less, or one thing more, as
//! [`Rule`]s and [`LAYERS`] say. A module that stands in no layer fails too, so that the table in the crate's
//! documentation and this one grow with the tree.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The layers, in order, and what a module may use: its own layer's modules and all before, unless
/// [`ONLY`] or [`ALSO`] say otherwise.
const LAYERS: &[&[&str]] = &[
    &["units", "ids", "error", "clock", "prng", "number", "request", "config", "budget"],
    &["cost", "kv", "queue", "sequence"],
    &["sched"],
    &["batch"],
    &["model", "exec"],
    &["engine"],
    &["metrics", "record"],
    &["trace"],
    &["sim", "report"],
    &["suite"],
    &["cli"],
];

/// Modules that may use less than their layer.
const ONLY: &[(&str, &[&str])] = &[
    // Each stands alone on words.
    ("cost", &[]),
    ("kv", &[]),
    ("queue", &[]),
    // A policy sees plain numbers: no pool, no queue, no sequence, and no clock.
    ("sched", &["cost"]),
    // The plan names blocks and shapes, not whole states.
    ("batch", &["cost", "kv"]),
    // An executor sees neither queue, nor policy, nor pool.
    ("exec", &["cost", "batch", "model"]),
    // A model is data: it knows nobody who runs it.
    ("model", &[]),
    // Traces are read and made without an engine.
    ("trace", &[]),
    // A report draws the accounts, and knows nothing else.
    ("report", &["metrics"]),
];

/// Words that a module may not use although they are words.
const NEVER: &[(&str, &[&str])] = &[
    ("cost", &["clock", "prng"]),
    ("kv", &["clock", "prng"]),
    ("queue", &["clock"]),
    ("sequence", &["clock", "prng"]),
    ("sched", &["clock"]),
    ("batch", &["clock", "prng"]),
    ("model", &["clock"]),
];

/// One wall: none of `patterns` outside `home`, or only outside `within` if that is not empty.
struct Rule {
    name: &'static str,
    patterns: &'static [&'static str],
    /// Files, or folders with a slash at the end, where it may be.
    home: &'static [&'static str],
    /// Where the rule holds; everywhere if empty.
    within: &'static [&'static str],
    /// Whether it holds in tests too.
    tests: bool,
}

/// The files that may hold `unsafe`, each with the reason.
const UNSAFE_HOME: &[&str] = &[
    // Device memory is a number to the driver.
    "exec/cuda/arena.rs",
    // cuBLASLt takes raw handles and addresses.
    "exec/cuda/gemm.rs",
    // A kernel is code that the compiler cannot see.
    "exec/cuda/kernels.rs",
    // Code for vectors that the compiler may not assume, after asking whether the machine has them.
    "exec/cpu/simd.rs",
];

const RULES: &[Rule] = &[
    Rule { name: "unsafe is fenced", patterns: &["unsafe"], home: UNSAFE_HOME, within: &[], tests: true },
    Rule {
        name: "time only in clock.rs",
        patterns: &["std::time", "core::time", "Instant", "SystemTime", "chrono"],
        home: &["clock.rs"],
        within: &[],
        tests: false,
    },
    Rule {
        name: "randomness only in prng.rs",
        patterns: &["rand", "thread_rng", "getrandom", "fastrand", "RandomState"],
        home: &["prng.rs"],
        within: &[],
        tests: true,
    },
    Rule {
        name: "no hash order where decisions are made",
        patterns: &["HashMap", "HashSet"],
        home: &[],
        within: &["sched/", "engine/", "kv/", "queue/", "sim/", "exec/"],
        tests: false,
    },
    Rule {
        name: "no threads, files or sockets inside a step",
        patterns: &["std::thread", "std::fs", "std::net", "std::env", "std::process"],
        home: &[],
        within: &["sched/", "engine/", "kv/", "queue/", "batch.rs", "sequence.rs"],
        tests: false,
    },
    Rule {
        name: "tokio only under serve/",
        patterns: &["tokio"],
        home: &["serve/"],
        within: &[],
        tests: true,
    },
    Rule {
        name: "cudarc only under exec/cuda/",
        patterns: &["cudarc"],
        home: &["exec/cuda/"],
        within: &[],
        tests: true,
    },
    Rule {
        name: "printing only in cli/ and main.rs",
        patterns: &["println!", "print!", "eprintln!", "eprint!"],
        home: &["cli/", "main.rs"],
        within: &[],
        tests: false,
    },
    Rule {
        name: "nothing unfinished",
        patterns: &["todo!", "unimplemented!", "dbg!"],
        home: &[],
        within: &[],
        tests: true,
    },
];

/// A broken rule: where, and which.
#[derive(Debug, PartialEq, Eq)]
struct Broken {
    file: String,
    line: usize,
    rule: String,
}

#[test]
fn the_layers_and_walls_stand() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(files.len() > 20, "the source is found under {}", root.display());
    let mut broken = Vec::new();
    for path in &files {
        let file = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        broken.extend(check(&file, &fs::read_to_string(path).unwrap()));
    }
    let mut text = String::new();
    for Broken { file, line, rule } in &broken {
        writeln!(text, "src/{file}:{line}: {rule}").unwrap();
    }
    assert!(broken.is_empty(), "{} broken rules\n{text}", broken.len());
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// All that is broken in one file, by its path under `src`.
fn check(file: &str, source: &str) -> Vec<Broken> {
    // This file holds the patterns themselves; `lib.rs` names the modules and has no logic.
    if file == "tidy.rs" {
        return Vec::new();
    }
    let text = blank(source);
    let tests_from = tests_from(file, &text);
    let mut broken = Vec::new();
    let mut report = |offset: usize, rule: String| {
        broken.push(Broken { file: file.into(), line: line(&text, offset), rule })
    };
    for rule in RULES {
        if rule.home.iter().any(|at| stands_in(file, at))
            || !(rule.within.is_empty() || rule.within.iter().any(|at| stands_in(file, at)))
        {
            continue;
        }
        for pattern in rule.patterns {
            for offset in words(&text, pattern) {
                if rule.tests || offset < tests_from {
                    report(offset, format!("{}: {pattern}", rule.name));
                }
            }
        }
    }
    let module = file.split(['/', '.']).next().unwrap();
    if matches!(module, "lib" | "main") {
        return broken;
    }
    if layer(module).is_none() {
        report(0, format!("{module} stands in no layer of tidy.rs"));
        return broken;
    }
    for (offset, used) in uses(file, &text) {
        if offset < tests_from && !allowed(module, &used) {
            report(offset, format!("layers: {module} may not use {used}"));
        }
    }
    broken.sort_by_key(|b| b.line);
    broken
}

fn stands_in(file: &str, place: &str) -> bool {
    if place.ends_with('/') { file.starts_with(place) } else { file == place }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn allowed(module: &str, used: &str) -> bool {
    let (Some(own), Some(other)) = (layer(module), layer(used)) else { return false };
    let listed = |table: &[(&str, &[&str])]| {
        table.iter().find(|(name, _)| *name == module).map(|(_, names)| names.contains(&used))
    };
    match (module == used, other, listed(ONLY)) {
        (true, _, _) => true,
        (_, 0, _) => listed(NEVER) != Some(true),
        (_, _, Some(named)) => named,
        _ => other <= own,
    }
}

/// The modules that paths from the crate's root name, groups such as `use crate::{...}` included, and where. A chain of
/// `super::` from this file leads there too.
fn uses(file: &str, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let depth = file.trim_end_matches("/mod.rs").split('/').count();
    for root in ["crate::".to_string(), "super::".repeat(depth)] {
        for path in words(text, &root).map(|at| at + root.len()) {
            match text[path..].strip_prefix('{') {
                None => found.push((path, word(&text[path..]))),
                Some(group) => group_heads(group, path + 1, &mut found),
            }
        }
    }
    // A path may also be an item of the crate's root, which has none but modules.
    found.retain(|(_, name)| !name.is_empty());
    found
}

/// The first words of the items of a group, whose inside starts at `base`.
fn group_heads(group: &str, base: usize, found: &mut Vec<(usize, String)>) {
    let (mut depth, mut fresh) = (0_u32, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                found.push((base + at, word(&group[at..])));
                fresh = false;
            }
            _ => {}
        }
    }
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Where `pattern` stands as a word of its own.
fn words<'t>(text: &'t str, pattern: &'t str) -> impl Iterator<Item = usize> + 't {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(pattern).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + pattern.len()..].chars().next();
        let open_end = !pattern.ends_with(part_of_word);
        !before.is_some_and(part_of_word) && (open_end || !after.is_some_and(part_of_word))
    })
}

fn line(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Where the tests at the foot of a file begin: tests may print, and use what they test against.
fn tests_from(file: &str, text: &str) -> usize {
    if file.ends_with("tests.rs") || file.contains("/tests/") {
        return 0;
    }
    let at = text.match_indices("\n#[cfg(test)]").map(|(at, mark)| (at, at + mark.len()));
    let inline = at.filter(|(_, end)| {
        let rest = text[*end..].trim_start().trim_start_matches("pub(crate) ");
        rest.starts_with("mod ") && rest.find(['{', ';']).is_some_and(|end| rest[end..].starts_with('{'))
    });
    inline.map(|(at, _)| at).next().unwrap_or(usize::MAX)
}

/// The source with comments and literals as spaces; lines and offsets stay as they are.
fn blank(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut wipe = |from: usize, to: usize| {
        for byte in &mut out[from..to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    let mut at = 0;
    while at < bytes.len() {
        let end = match literal(&source.as_bytes()[at..], at > 0 && bytes[at - 1].is_ascii_alphanumeric()) {
            Some(length) => at + length,
            None => {
                at += 1;
                continue;
            }
        };
        wipe(at, end);
        at = end;
    }
    String::from_utf8(out).expect("literals and comments are wiped whole")
}

/// The length of the comment or literal that begins here, if one does.
fn literal(text: &[u8], in_word: bool) -> Option<usize> {
    let until = |from: usize, end: &[u8]| {
        text[from..].windows(end.len()).position(|w| w == end).map_or(text.len(), |p| from + p + end.len())
    };
    match text {
        [b'/', b'/', ..] => Some(text.iter().position(|b| *b == b'\n').unwrap_or(text.len())),
        [b'/', b'*', ..] => Some(until(2, b"*/")),
        [b'r', b'"' | b'#', ..] if !in_word => {
            let hashes = text[1..].iter().take_while(|b| **b == b'#').count();
            let quoted = text.get(1 + hashes) == Some(&b'"');
            quoted.then(|| until(2 + hashes, &[b"\"".as_slice(), &b"########"[..hashes]].concat()))
        }
        [b'"', ..] => Some(escaped(text, b'"')),
        [b'\'', b'\\', ..] => Some(escaped(text, b'\'')),
        [b'\'', _, b'\'', ..] => Some(3),
        _ => None,
    }
}

/// The length of a literal with escapes, from its opening quote to its closing one.
fn escaped(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != quote {
        at += 1 + usize::from(text[at] == b'\\');
    }
    text.len().min(at + 1)
}

/// The rules broken by `source` if it stood in `file`.
fn broken(file: &str, source: &str) -> Vec<String> {
    check(file, source).into_iter().map(|b| format!("{}:{} {}", b.file, b.line, b.rule)).collect()
}

#[test]
fn every_wall_fires_on_a_bad_example() {
    let bad = [
        ("kv/pool.rs", "unsafe { x() }"),
        ("engine/mod.rs", "use std::time::Duration;"),
        ("sched/walk.rs", "let now = Instant::now();"),
        ("sim/mod.rs", "let s = SystemTime::now();"),
        ("sim/router.rs", "let r = rand::random();"),
        ("trace/synth.rs", "let r = thread_rng();"),
        ("queue/mod.rs", "RandomState::new()"),
        ("sched/order/las.rs", "use std::collections::HashMap;"),
        ("engine/apply.rs", "use std::collections::{HashSet, VecDeque};"),
        ("engine/mod.rs", "std::thread::spawn(f)"),
        ("cli/mod.rs", "use tokio::net;"),
        ("exec/mod.rs", "use cudarc::driver;"),
        ("metrics.rs", "println!(\"x\");"),
        ("report/mod.rs", "eprintln!(\"x\");"),
        ("cost/mod.rs", "todo!()"),
        ("cli/mod.rs", "dbg!(x)"),
    ];
    for (file, source) in bad {
        let source = format!("//! Fine.\n{source}\n");
        let found = broken(file, &source);
        assert_eq!(found.len(), 1, "{file}: {source}: {found:?}");
        assert!(found[0].starts_with(&format!("{file}:2 ")), "{found:?}");
    }
    for rule in RULES {
        let fires =
            |(file, source): &(&str, &str)| broken(file, source).iter().any(|b| b.contains(rule.name));
        assert!(bad.iter().any(fires), "an example breaks {:?}", rule.name);
    }
}

#[test]
fn every_layer_fires_on_a_use_from_below() {
    let bad = [
        ("units.rs", "use crate::cost::CostModel;", "units may not use cost"),
        ("kv/mod.rs", "use crate::queue::Groups;", "kv may not use queue"),
        ("queue/groups.rs", "use crate::clock::Clock;", "queue may not use clock"),
        ("sched/walk.rs", "use crate::{ids::Slot, kv::{Kv, BlockId}};", "sched may not use kv"),
        ("sched/mod.rs", "fn f(e: crate::engine::Engine) {}", "sched may not use engine"),
        ("batch.rs", "use crate::exec::Executor;", "batch may not use exec"),
        ("exec/sim.rs", "use crate::sched::Policy;", "exec may not use sched"),
        ("exec/sim.rs", "use crate::queue::Groups;", "exec may not use queue"),
        ("model/mod.rs", "use crate::exec::Executor;", "model may not use exec"),
        ("engine/mod.rs", "use crate::metrics::Metrics;", "engine may not use metrics"),
        ("metrics.rs", "use crate::sim::Setup;", "metrics may not use sim"),
        ("trace/mod.rs", "use crate::engine::Engine;", "trace may not use engine"),
        ("report/page.rs", "use crate::sim::Setup;", "report may not use sim"),
        ("sim/mod.rs", "pub(crate) use crate::cli::main;", "sim may not use cli"),
        ("sim/mod.rs", "use crate::nowhere::X;", "sim may not use nowhere"),
        ("units.rs", "use super::cost::CostModel;", "units may not use cost"),
        ("kv/mod.rs", "use super::{ids::Slot, queue::Groups};", "kv may not use queue"),
        ("sched/order/las.rs", "fn f(kv: super::super::super::kv::Kv) {}", "sched may not use kv"),
        ("nowhere.rs", "", "nowhere stands in no layer"),
    ];
    for (file, source, rule) in bad {
        let found = broken(file, source);
        assert!(found.len() == 1 && found[0].contains(rule), "{file}: {source}: {found:?}");
    }
}

#[test]
fn what_is_allowed_stays_quiet() {
    let fine = [
        ("clock.rs", "use std::time::Instant;"),
        ("cli/mod.rs", "println!(\"unsafe\");"),
        ("kv/mod.rs", "// Not unsafe, and no HashMap: see crate::engine.\n/* todo!() */\n"),
        ("kv/mod.rs", "let s = \"unsafe \\\" rand\"; let c = '\"'; let r = r#\"dbg!() \"x\" \"#;"),
        ("kv/mod.rs", "fn f<'a>(operand: &'a str) -> &'a str { operand }"),
        ("metrics.rs", "\n#[cfg(test)]\nmod tests {\n    fn f() { println!(); }\n}\n"),
        ("metrics.rs", "\n#[cfg(test)]\npub(crate) mod tests {\n    fn f() { println!(); }\n}\n"),
        ("sim/mod.rs", "#[cfg(test)]\nmod tests;\nuse crate::engine::Engine;"),
        ("queue/ordered.rs", "use crate::prng::Prng;"),
        ("sched/order/las.rs", "use super::super::walk;\nuse super::fcfs;"),
        ("metrics.rs", "use crate::{engine::StepReport, sched::TokenEvent};"),
    ];
    for (file, source) in fine {
        assert_eq!(broken(file, source), Vec::<String>::new(), "{file}: {source}");
    }
    let hidden = "\n#[cfg(test)]\nmod tests;\nuse crate::cli::X;";
    assert_eq!(broken("sim/mod.rs", hidden).len(), 1, "a declaration of tests hides nothing after it");
}
