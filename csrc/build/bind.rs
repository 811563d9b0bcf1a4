//! Binds `csrc/params.h` by bindgen, for `tools/bind-params`: `FLYBALL_BIND=write` writes `csrc/params.rs`, and
//! `FLYBALL_BIND=check` fails if it is not what would be written. Otherwise does nothing, so that nobody else
//! needs libclang.

use bindgen::callbacks::{ItemInfo, ParseCallbacks};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// `fb_norm` is `Norm`, and `FB_FROM_STEP` is `FROM_STEP`.
#[derive(Debug)]
struct Names;

impl ParseCallbacks for Names {
    fn item_name(&self, item: ItemInfo<'_>) -> Option<String> {
        if let Some(constant) = item.name.strip_prefix("FB_") {
            return Some(constant.into());
        }
        let words = item.name.strip_prefix("fb_")?.split('_');
        Some(words.map(|word| word[..1].to_uppercase() + &word[1..]).collect())
    }
}

/// Writes or checks the copy, as told.
pub fn params() {
    println!("cargo::rerun-if-env-changed=FLYBALL_BIND");
    let Ok(wish) = env::var("FLYBALL_BIND") else { return };
    let csrc = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("csrc");
    println!("cargo::rerun-if-changed={}", csrc.join("params.h").display());
    let (target, text) = (csrc.join("params.rs"), bound(&csrc.join("params.h").to_string_lossy()));
    match wish.as_str() {
        "write" => fs::write(&target, text).expect("csrc is writable"),
        "check" => assert!(
            fs::read_to_string(&target).is_ok_and(|copy| copy == text),
            "csrc/params.rs is not what bindgen makes of csrc/params.h: run tools/bind-params"
        ),
        other => panic!("FLYBALL_BIND is {other:?}; it may be write or check"),
    }
}

fn bound(header: &str) -> String {
    let bindings = bindgen::Builder::default()
        .header(header)
        .clang_args(["-x", "c++", "-std=c++17"])
        .allowlist_type("fb_.*")
        .allowlist_var("FB_.*")
        .parse_callbacks(Box::new(Names))
        .generate_comments(false)
        .derive_default(true)
        // Else bindgen writes an unsafe one, for it does not derive it for aligned types.
        .no_default(".*_tensor")
        .layout_tests(true)
        .disable_header_comment()
        .raw_line("// What bindgen makes of csrc/params.h, which says what each field means: written by")
        .raw_line("// tools/bind-params, never by hand. The includer defines params!, which gets each block's fields' types.")
        .generate()
        .unwrap_or_else(|e| panic!("csrc/params.h: {e}"));
    let mut text = bindings.to_string();
    let blocks = blocks(&text);
    text += &blocks;
    text
}

/// `params!` of every struct.
fn blocks(bindings: &str) -> String {
    let mut text = String::new();
    let mut lines = bindings.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) else {
            continue;
        };
        let fields = lines.by_ref().take_while(|line| *line != "}");
        let types: Vec<&str> = fields
            .map(|field| field.split_once(": ").expect("a field has a type").1.trim_end_matches(','))
            .collect();
        writeln!(text, "params!({name}: {});", types.join(", ")).expect("strings take text");
    }
    text
}
