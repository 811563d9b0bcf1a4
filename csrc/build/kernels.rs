//! Compiles the table, checks what its kernels take, and writes the list that `exec::cuda::kernels` includes.

use crate::cubin::{Resources, Shape, resources, shapes};
use crate::nvcc::{self, Nvcc, Unit};
use crate::table;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const VARIABLES: &[&str] =
    &["FLYBALL_NVCC", "FLYBALL_KERNELS", "FLYBALL_CUDA_ARCHS", "FLYBALL_KERNELS_TABLE", "CUDA_HOME"];

/// Registers of a multiprocessor.
const REGISTERS: u32 = 65536;

/// A kernel for one architecture.
struct Entry {
    name: String,
    arch: String,
    shape: Shape,
    resources: Resources,
    cubin: PathBuf,
}

/// All of it.
pub fn build() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    VARIABLES.iter().chain(&nvcc::FLAGS).for_each(|name| println!("cargo::rerun-if-env-changed={name}"));
    let (entries, absent) = match compiled(&root, &out) {
        Ok(entries) => (entries, String::new()),
        Err(why) => (Vec::new(), why),
    };
    let table = report(&entries);
    if let Some(path) = env::var_os("FLYBALL_KERNELS_TABLE") {
        fs::write(&path, &table).unwrap_or_else(|e| panic!("{}: {e}", Path::new(&path).display()));
    }
    let bad = over_budget(&entries);
    assert!(bad.is_empty(), "kernels take more than they may:\n{bad}\n{table}");
    fs::write(out.join("kernels.rs"), list(&entries, &absent)).expect("OUT_DIR is writable");
}

fn compiled(root: &Path, out: &Path) -> Result<Vec<Entry>, String> {
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let wanted = env::var("FLYBALL_KERNELS").unwrap_or_else(|_| if release { "all" } else { "daily" }.into());
    let daily = match wanted.as_str() {
        "all" => false,
        "daily" => true,
        "none" => return Err("this build was made without CUDA kernels: FLYBALL_KERNELS was none".into()),
        other => panic!("FLYBALL_KERNELS is {other:?}; it may be all, daily or none"),
    };
    let nvcc = Nvcc::find(root)?;
    let csrc = root.join("csrc");
    watch(&csrc);
    let archs = env::var("FLYBALL_CUDA_ARCHS").unwrap_or_else(|_| "sm_80,sm_90a".into());
    let archs: Vec<String> = archs.split(',').map(str::to_owned).collect();
    // OUT_DIR is target/PROFILE/build/NAME/out.
    let target = out.ancestors().nth(4).expect("OUT_DIR lies in the target folder");
    let units = nvcc.compile(&csrc, &nvcc.cache(target), &archs, &table::read(&csrc, daily));
    let units = units.unwrap_or_else(|said| {
        eprintln!("{said}");
        std::process::exit(1)
    });
    Ok(units.into_iter().flat_map(entries).collect())
}

/// What the kernels are made of; not the emulator, whose changes concern tests alone.
fn watch(csrc: &Path) {
    for entry in fs::read_dir(csrc).expect("csrc is readable") {
        let path = entry.expect("csrc is readable").path();
        if !path.ends_with("simt") && !path.ends_with("params.rs") {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}

fn entries(unit: Unit) -> Vec<Entry> {
    let cubin = fs::read(&unit.cubin).expect("the cache is readable");
    let (shapes, resources) = (shapes(&cubin), resources(&unit.log));
    let entry = |line: &table::Line| Entry {
        name: line.name.clone(),
        arch: unit.arch.clone(),
        shape: *shapes.get(&line.name).unwrap_or_else(|| panic!("{} was not compiled", line.name)),
        resources: resources[&line.name],
        cubin: unit.cubin.clone(),
    };
    unit.lines.iter().map(entry).collect()
}

/// Those that spill, have a stack, or take too many registers for their ctas to fit.
fn over_budget(entries: &[Entry]) -> String {
    let mut bad = String::new();
    for Entry { name, arch, shape, resources, .. } in entries {
        let budget = REGISTERS / (shape.threads.next_multiple_of(32) * shape.ctas_per_sm);
        if resources.spilled > 0 || resources.stack > 0 || resources.registers.next_multiple_of(8) > budget {
            writeln!(bad, "{name} for {arch}: {resources:?}, of {budget} registers").unwrap();
        }
    }
    bad
}

/// What each takes, as a table; the last column is the file that it is in.
fn report(entries: &[Entry]) -> String {
    let mut text = format!(
        "{:<32} {:<7} {:>8} {:>10} {:>9} {:>7} {:>7} {:>7} {}\n",
        "kernel", "arch", "threads", "ctas/sm", "registers", "shared", "stack", "spilled", "file"
    );
    for Entry { name, arch, shape, resources, cubin } in entries {
        let (Shape { threads, shared, ctas_per_sm, .. }, file) = (shape, cubin.display());
        let Resources { registers, stack, spilled } = resources;
        writeln!(
            text,
            "{name:<32} {arch:<7} {threads:>8} {ctas_per_sm:>10} {registers:>9} {shared:>7} {stack:>7} {spilled:>7} {file}"
        )
        .unwrap();
    }
    text
}

/// The list, in Rust.
fn list(entries: &[Entry], absent: &str) -> String {
    let mut files: Vec<&PathBuf> = entries.iter().map(|entry| &entry.cubin).collect();
    files.sort();
    files.dedup();
    let mut text = format!("/// Why there are none.\npub(super) const ABSENT: &str = {absent:?};\n");
    for (at, file) in files.iter().enumerate() {
        writeln!(
            text,
            "static IMAGE_{at}: &Image<[u8]> = &Image(*include_bytes!({:?}));",
            file.display().to_string()
        )
        .unwrap();
    }
    text += "pub(super) static ENTRIES: &[Entry] = &[\n";
    for Entry { name, arch, shape, resources, cubin } in entries {
        let image = files.binary_search(&cubin).expect("every file is listed");
        let Shape { threads, shared, params, ctas_per_sm } = shape;
        let registers = resources.registers;
        writeln!(
            text,
            "    Entry {{ name: {name:?}, arch: {arch:?}, threads: {threads}, shared_bytes: {shared}, \
             params_bytes: {params}, ctas_per_sm: {ctas_per_sm}, registers: {registers}, image: {image}, \
             bytes: &IMAGE_{image}.0 }},"
        )
        .unwrap();
    }
    text + "];\n"
}
