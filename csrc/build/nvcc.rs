//! Finds nvcc, and compiles units of a few kernels each, several at a time; what was compiled once is kept.

use crate::table::{self, Line};
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Mutex;
use std::thread;

/// A unit compiles some kernels of one header: few enough that a change costs little and all cores have work.
const UNIT_KERNELS: usize = 4;

/// Variables whose flags nvcc takes by itself.
pub const FLAGS: [&str; 2] = ["NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"];

/// The compiler.
pub struct Nvcc {
    path: PathBuf,
    version: String,
}

/// A compiled unit.
pub struct Unit {
    /// Its architecture, as nvcc names it.
    pub arch: String,
    /// Its kernels.
    pub lines: Vec<Line>,
    /// The file.
    pub cubin: PathBuf,
    /// What ptxas said.
    pub log: String,
}

impl Nvcc {
    /// `FLYBALL_NVCC`, that of `CUDA_HOME`, of `PATH`, or what `tools/get-nvcc` installed; else what to do.
    pub fn find(root: &Path) -> Result<Self, String> {
        let named = env::var_os("FLYBALL_NVCC").map(PathBuf::from);
        let home = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
        let path = env::var_os("PATH").unwrap_or_default();
        let on_path = env::split_paths(&path).map(|folder| folder.join("nvcc"));
        let own = root.join(".cuda/nvidia/cu13/bin/nvcc");
        if let Some(named) = named.as_ref().filter(|path| !path.is_file()) {
            panic!("FLYBALL_NVCC is {}, which is no file", named.display());
        }
        let mut places = named.into_iter().chain(home).chain(on_path).chain([own]);
        let path = places.find(|path| path.is_file()).ok_or(
            "this build has no CUDA kernels, for nvcc was not found: run tools/get-nvcc, or set FLYBALL_NVCC to an \
             nvcc, or install CUDA 13.0 and touch build.rs, which cargo does not run again by itself; then build again",
        )?;
        let output = Command::new(&path).arg("--version").output();
        let output = output.unwrap_or_else(|e| panic!("{} cannot be run: {e}", path.display()));
        Ok(Self { path, version: String::from_utf8_lossy(&output.stdout).into_owned() })
    }

    /// Where compiled units are kept: beside a compiler of our own, so that all builds share them.
    pub fn cache(&self, otherwise: &Path) -> PathBuf {
        let own = self.path.ancestors().find(|path| path.file_name().is_some_and(|name| name == ".cuda"));
        own.unwrap_or(otherwise).join("kernels-cache")
    }

    /// Compiles all lines for all architectures.
    ///
    /// # Errors
    /// What nvcc said of the first unit that it could not compile.
    pub fn compile(
        &self,
        csrc: &Path,
        cache: &Path,
        archs: &[String],
        lines: &[Line],
    ) -> Result<Vec<Unit>, String> {
        fs::create_dir_all(cache).unwrap_or_else(|e| panic!("{}: {e}", cache.display()));
        let mut by_header: BTreeMap<&Path, Vec<Line>> = BTreeMap::new();
        for line in lines {
            by_header.entry(&line.header).or_default().push(line.clone());
        }
        let mut work: Vec<(String, Vec<Line>)> = Vec::new();
        for arch in archs {
            for lines in by_header.values() {
                let able: Vec<Line> =
                    lines.iter().filter(|line| !line.hopper || arch == "sm_90a").cloned().collect();
                work.extend(able.chunks(UNIT_KERNELS).map(|lines| (arch.clone(), lines.to_vec())));
            }
        }
        let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1_usize);
        let queue = Mutex::new(work.into_iter().enumerate());
        let done = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap().next();
                        let Some((at, (arch, lines))) = next else { break };
                        let unit = self.compile_unit(csrc, cache, arch, lines);
                        done.lock().unwrap().insert(at, unit);
                    }
                });
            }
        });
        done.into_inner().unwrap().into_values().collect()
    }

    fn compile_unit(
        &self,
        csrc: &Path,
        cache: &Path,
        arch: String,
        lines: Vec<Line>,
    ) -> Result<Unit, String> {
        let header = lines[0].header.strip_prefix(csrc).expect("headers lie in csrc").display();
        let body: String = lines.iter().map(|line| line.text.clone() + "\n").collect();
        let source =
            format!("#include \"kernel.h\"\n#include \"{header}\"\nnamespace flyball {{\n{body}}}\n");
        let flags = ["-std=c++17", "-cubin", "-Werror", "all-warnings", "-Xptxas", "-v,-warn-spills"];
        let key = self.key(csrc, &arch, &lines[0].header, &source, &flags);
        let (cubin, log) = (cache.join(format!("{key}.cubin")), cache.join(format!("{key}.log")));
        if !(cubin.is_file() && log.is_file()) {
            // Under a name of its own until it is whole: builds may run side by side.
            let mine = cache.join(format!("{key}.{}", process::id()));
            let [unit, image, text] = ["cu", "cubin", "log"].map(|kind| mine.with_extension(kind));
            fs::write(&unit, &source).expect("the cache is writable");
            let mut command = Command::new(&self.path);
            command
                .arg(format!("-arch={arch}"))
                .args(flags)
                .arg("-I")
                .arg(csrc)
                .arg("-o")
                .arg(&image)
                .arg(&unit);
            let output = command.output().unwrap_or_else(|e| panic!("{}: {e}", self.path.display()));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if !output.status.success() {
                fs::remove_file(&unit).ok();
                return Err(format!("nvcc failed on {header} for {arch}:\n{command:?}\n{said}"));
            }
            fs::write(&text, &said).expect("the cache is writable");
            fs::rename(&text, &log).expect("the cache is writable");
            fs::rename(&image, &cubin).expect("the cache is writable");
            fs::remove_file(&unit).expect("the cache is writable");
        }
        let log = fs::read_to_string(&log).expect("the cache is readable");
        Ok(Unit { arch, lines, cubin, log })
    }

    /// A name for what these inputs compile to.
    fn key(&self, csrc: &Path, arch: &str, header: &Path, source: &str, flags: &[&str]) -> String {
        let mut files = BTreeMap::new();
        table::closure(&csrc.join("kernel.h"), &mut files);
        table::closure(header, &mut files);
        let mut hash = Hash::new();
        hash.add(&self.version);
        hash.add(arch);
        hash.add(source);
        flags.iter().for_each(|flag| hash.add(flag));
        let more = FLAGS.iter().filter_map(|name| Some(format!("{name}={}", env::var(name).ok()?)));
        more.for_each(|flag| hash.add(&flag));
        let csrc = csrc.canonicalize().expect("csrc exists");
        for (path, text) in files {
            hash.add(&path.strip_prefix(&csrc).unwrap_or(&path).to_string_lossy());
            hash.add(&text);
        }
        format!("{:032x}", hash.0)
    }
}

/// FNV-1a, 128 bits.
struct Hash(u128);

impl Hash {
    fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    fn add(&mut self, text: &str) {
        // A byte that no text holds ends each one.
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        }
    }
}
