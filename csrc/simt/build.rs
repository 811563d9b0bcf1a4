//! Compiles the kernels for the CPU: each family as it is, and once more for each bug that is seeded in it.

use std::env;

/// The families of `csrc/families.h` without their prefix, in lower case, and the bugs of `csrc/core/mutant.h` in
/// each; `src/lib.rs` lists both too.
const FAMILIES: &[(&str, &[&str])] = &[
    ("norm", &["sum_unsynced"]),
    ("append", &["wrong_pair", "unsaturated", "padding_written", "head_skipped"]),
    ("copy", &["tail_uncopied"]),
    (
        "decode",
        &["page_off_by_one", "mask_edge", "copy_not_awaited", "warp_unsynced", "merge_unsynced", "stale_max"],
    ),
    ("prefill", &["page_off_by_one", "mask_edge", "copy_not_awaited", "stage_unsynced", "tail_unzeroed"]),
    ("hopper", &["query_unfenced", "key_freed_early", "tail_uncleared", "causal_edge", "turn_forgotten"]),
    ("sample", &["histogram_unsynced", "keyed_by_row", "list_unsynced", "short_list", "prompt_counted"]),
    ("activation", &["gate_from_next"]),
    ("gather", &["id_unchecked"]),
];

fn main() {
    println!("cargo::rerun-if-changed=..");
    println!("cargo::rerun-if-env-changed=FLYBALL_SANITIZE");
    let mut emulator = compiler();
    emulator.files(["simt.cpp", "fiber.cpp", "shadow.cpp", "async.cpp", "abi.cpp", "core.cpp", "probes.cpp"]);
    emulator.compile("flyball_simt");
    for (family, mutants) in FAMILIES {
        kernels(family).compile(&format!("flyball_simt_{family}"));
        for mutant in *mutants {
            // Another name of the namespace: else the linker would take one variant's templates for all.
            let mut variant = kernels(family);
            variant.define("FB_MUTANT", *mutant).define("flyball", format!("flyball_{mutant}").as_str());
            variant.opt_level(1).compile(&format!("flyball_simt_{family}_{mutant}"));
        }
    }
    if sanitized() {
        // rustc links without the libraries that the C++ compiler would add.
        println!("cargo::rustc-link-lib=asan");
        println!("cargo::rustc-link-lib=ubsan");
    }
}

/// Whether AddressSanitizer and UBSan are wanted.
fn sanitized() -> bool {
    env::var_os("FLYBALL_SANITIZE").is_some()
}

/// The kernels of one family, an object of its own.
fn kernels(family: &str) -> cc::Build {
    let mut build = compiler();
    build.file("kernels.cpp").define("FB_FAMILY_NAME", family);
    build.define("FB_FAMILY", format!("FB_{}", family.to_uppercase()).as_str());
    build
}

fn compiler() -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").extra_warnings(true).warnings_into_errors(true);
    // A device contracts a product and a sum into one rounding, or not, as it says in PTX; here nobody does.
    build.flag("-ffp-contract=off");
    if sanitized() {
        build
            .flag("-fsanitize=address,undefined")
            .flag("-fno-sanitize-recover=all")
            .flag("-fno-omit-frame-pointer");
    }
    build
}
