//! What makes a launch on the CPU safe, and its checks complete: a kernel touches memory, and waits, only through
//! `csrc/warp`.

use std::fs;
use std::path::{Path, PathBuf};

/// Words that no kernel family may contain: memory and threads behind the primitives' back.
const FORBIDDEN: &[&str] = &[
    "asm",
    "reinterpret_cast",
    "memcpy",
    "threadIdx",
    "blockIdx",
    "gridDim",
    "__shared__",
    "__sync",
    "__shfl",
    "__ldg",
    "atomicAdd",
    "simt::",
    "__CUDACC__",
    "__CUDA_ARCH__",
    " new ",
    "malloc",
];

/// The folders of `csrc` that are not kernel families.
const OTHERS: &[&str] = &["build", "core", "warp", "simt", "hopper"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn kernels_touch_memory_through_the_primitives_alone() {
    let csrc = Path::new(env!("CARGO_MANIFEST_DIR")).join("csrc");
    let families = sources(&csrc)
        .into_iter()
        .filter(|path| path.is_dir() && !OTHERS.contains(&path.file_name().unwrap().to_str().unwrap()));
    let files: Vec<PathBuf> = families.flat_map(|family| sources(&family)).collect();
    assert!(files.len() > 4, "kernels are found under {}", csrc.display());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        // Where the instructions of one architecture are written, and their stand-ins for the CPU.
        if file.ends_with("hopper/ptx.h") {
            continue;
        }
        for (at, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            let found = FORBIDDEN.iter().find(|word| code.contains(**word));
            assert!(found.is_none(), "{}:{}: {}", file.display(), at + 1, found.unwrap());
        }
    }
}

/// A test that named the emulator's kernels would run in it wherever it was asked to run.
#[test]
fn tests_launch_through_the_device_alone() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels");
    for file in sources(&folder) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if matches!(name, "device.rs" | "emulator.rs" | "walls.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let direct = text.lines().find(|line| line.contains("flyball_simt::") && !line.contains("::core::"));
        assert!(direct.is_none(), "{name} must use crate::device instead of {}", direct.unwrap());
    }
}
