//! Compiles the kernels for the CPU: once as they are, and once for each seeded bug.

use std::env;

/// `enum class Mutant` of `csrc/core/mutant.h`, which `src/variant.rs` lists too.
const MUTANTS: &[&str] = &[
    "page_off_by_one",
    "mask_edge",
    "copy_not_awaited",
    "warp_unsynced",
    "merge_unsynced",
    "stale_max",
    "sum_unsynced",
    "wrong_pair",
    "unsaturated",
    "padding_written",
    "tail_uncopied",
    "histogram_unsynced",
    "keyed_by_row",
];

fn main() {
    println!("cargo::rerun-if-changed=..");
    println!("cargo::rerun-if-env-changed=FLYBALL_SANITIZE");
    let mut emulator = compiler();
    emulator.files([
        "simt.cpp",
        "fiber.cpp",
        "shadow.cpp",
        "abi.cpp",
        "core.cpp",
        "probes.cpp",
        "kernels.cpp",
    ]);
    emulator.define("FB_MUTANT", "none").compile("flyball_simt");
    for mutant in MUTANTS {
        // Another name of the namespace: else the linker would take one variant's templates for all.
        let mut variant = compiler();
        variant.file("kernels.cpp").define("FB_MUTANT", *mutant);
        variant.define("flyball", format!("flyball_{mutant}").as_str()).opt_level(1);
        variant.compile(&format!("flyball_simt_{mutant}"));
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
