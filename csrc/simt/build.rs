//! Compiles the kernels for the CPU: each family as it is, and once more for each bug that is seeded in it; and of the
//! former a driver, which the library loads as it loads CUDA's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, thread};

/// The families of `csrc/families.h` without their prefix, in lower case, and the bugs of `csrc/core/mutant.h` in
/// each; `src/lib.rs` lists both too.
const FAMILIES: &[(&str, &[&str])] = &[
    ("norm", &["sum_unsynced"]),
    ("append", &["wrong_pair", "unsaturated", "padding_written", "head_skipped", "copy_not_awaited"]),
    ("copy", &["tail_uncopied"]),
    (
        "decode",
        &["page_off_by_one", "mask_edge", "copy_not_awaited", "warp_unsynced", "merge_unsynced", "stale_max"],
    ),
    ("prefill", &["page_off_by_one", "mask_edge", "copy_not_awaited", "stage_unsynced", "tail_unzeroed"]),
    ("hopper", &["query_unfenced", "key_freed_early", "tail_uncleared", "causal_edge", "turn_forgotten"]),
    (
        "sample",
        &[
            "histogram_unsynced",
            "keyed_by_row",
            "list_unsynced",
            "short_list",
            "queue_unsynced",
            "edge_unchecked",
            "prompt_counted",
        ],
    ),
    ("activation", &["gate_from_next"]),
    ("gather", &["id_unchecked"]),
];

fn main() {
    println!("cargo::rerun-if-changed=..");
    println!("cargo::rerun-if-env-changed=FLYBALL_SANITIZE");
    let mut emulator = compiler();
    emulator.files(["simt.cpp", "fiber.cpp", "shadow.cpp", "async.cpp", "abi.cpp", "core.cpp", "probes.cpp"]);
    emulator.compile("flyball_simt");
    let units: Vec<_> = FAMILIES
        .iter()
        .flat_map(|(family, mutants)| {
            std::iter::once(None).chain(mutants.iter().map(Some)).map(move |m| (family, m))
        })
        .collect();
    // As many at a time as there are cores; each is one file.
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((family, mutant)) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                    compile(family, mutant.copied());
                }
            });
        }
    });
    println!("cargo::rustc-env=FLYBALL_SIMT_DRIVER={}", driver().display());
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

/// Links `libcuda.so` and `libcublasLt.so` of emulated devices, and says in which folder they are; nothing is there
/// where libraries are not loaded as on Linux, and under a sanitizer, which runs the kernels' tests alone.
fn driver() -> PathBuf {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets it"));
    let folder = out.join("driver");
    std::fs::create_dir_all(&folder).expect("OUT_DIR is writable");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") && !sanitized() {
        let lists: String = FAMILIES.iter().map(|(family, _)| format!("SIMT_LIST({family}) ")).collect();
        let mut build = compiler();
        build.define("SIMT_FAMILIES", lists.trim_end()).cargo_metadata(false).out_dir(&folder).opt_level(3);
        let files =
            ["cuda.cpp", "device.cpp", "queue.cpp", "blas.cpp"].map(|file| Path::new("driver").join(file));
        let objects = build.files(&files).compile_intermediates();
        let archive = |folder: &Path, name: &str| folder.join(format!("libflyball_simt{name}.a"));
        let mut parts: Vec<PathBuf> = objects[..3].to_vec();
        let families = FAMILIES.iter();
        parts.extend(
            families.map(|(family, _)| archive(&out.join(family).join("none"), &format!("_{family}"))),
        );
        parts.push(archive(&out, ""));
        link(&build, &folder, "libcuda.so", &parts);
        link(&build, &folder, "libcublasLt.so", &[objects[3].clone(), folder.join("libcuda.so")]);
    }
    folder
}

/// Links a library that goes by its own name alone, wherever it lies.
fn link(build: &cc::Build, folder: &Path, name: &str, parts: &[PathBuf]) {
    let mut linker: Command = build.get_compiler().to_command();
    linker.args(["-shared", "-Wl,-Bsymbolic,--no-undefined", &format!("-Wl,-soname,{name}"), "-o"]);
    let linked = linker.arg(folder.join(name)).args(parts).status().expect("the compiler was just run");
    assert!(linked.success(), "linking {name}: {linked}");
}

/// Compiles the kernels of one family, perhaps with a bug, to a library of its own.
fn compile(family: &str, mutant: Option<&str>) {
    let mut build = compiler();
    // A folder each: the object file is called the same in all.
    let folder =
        Path::new(&env::var("OUT_DIR").expect("Cargo sets it")).join(family).join(mutant.unwrap_or("none"));
    build.out_dir(folder);
    build.file("kernels.cpp").define("FB_FAMILY_NAME", family);
    build.define("FB_FAMILY", format!("FB_{}", family.to_uppercase()).as_str());
    let Some(mutant) = mutant else { return build.compile(&format!("flyball_simt_{family}")) };
    // Another name of the namespace: else the linker would take one variant's templates for all.
    build.define("FB_MUTANT", mutant).define("flyball", format!("flyball_{mutant}").as_str());
    build.opt_level(1).compile(&format!("flyball_simt_{family}_{mutant}"));
}

fn compiler() -> cc::Build {
    let mut build = cc::Build::new();
    // The same code in every profile: these are tests, whoever links them.
    build.cpp(true).std("c++17").extra_warnings(true).warnings_into_errors(true).opt_level(2);
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
