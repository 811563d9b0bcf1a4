//! What this node has, and so what will work here. Read from files and the environment alone: nothing is
//! run, nothing is changed, and a file that is missing is a finding, not an error.

use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that a node may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked for.
    pub name: &'static str,
    /// Whether it is there.
    pub present: bool,
    /// What was found, or where it was looked for.
    pub detail: String,
    /// What that means for a user.
    pub effect: String,
}

/// One thing that a user may want to do here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What.
    pub what: &'static str,
    /// Whether it will work.
    pub works: bool,
    /// Why, or why not.
    pub why: String,
}

/// What a node has and what will work on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Doctor {
    /// What it has.
    pub findings: Vec<Finding>,
    /// What will work.
    pub verdicts: Vec<Verdict>,
}

/// Looks at this node.
pub fn report() -> Doctor {
    let env = |name: &str| std::env::var(name).ok();
    let cores = std::thread::available_parallelism().ok().map(usize::from);
    report_of(Path::new("/"), &env, cores)
}

/// Looks at a node whose file system begins at `root`; `env` reads its environment, and `cores` is how many
/// this process may use, else all that the node lists.
pub fn report_of(root: &Path, env: &dyn Fn(&str) -> Option<String>, cores: Option<usize>) -> Doctor {
    let node = Node { root, env };
    let findings = vec![
        node.cores(cores),
        node.numa(),
        node.isolated(),
        node.huge_pages(),
        node.transparent_huge_pages(),
        node.limit("memlock", "Max locked memory", "pinned host memory up to that", 64 << 20),
        node.limit("rtprio", "Max realtime priority", "the controller's thread may run in real time", 1),
        node.gpu(),
        node.driver(),
        node.library(
            "libcuda",
            "libcuda.so.1",
            ("the CUDA executor can load the driver", "no CUDA execution"),
        ),
        node.library("libcublasLt", "libcublasLt.so.13", ("matrix products can run", "no CUDA execution")),
        node.library(
            "nvml",
            "libnvidia-ml.so.1",
            ("live power readings and caps", "no live power: energy is modelled from the profile"),
        ),
        node.nvcc(),
    ];
    let verdicts = verdicts(&findings);
    Doctor { findings, verdicts }
}

fn verdicts(findings: &[Finding]) -> Vec<Verdict> {
    let verdict = |what, needs: &[&str], why: &str| {
        let has = |name: &&&str| findings.iter().any(|f| f.name == **name && f.present);
        let lacks: Vec<&str> = needs.iter().filter(|n| !has(n)).copied().collect();
        let works = lacks.is_empty();
        Verdict { what, works, why: if works { why.into() } else { format!("no {}", lacks.join(", no ")) } }
    };
    vec![
        verdict("simulation and replay", &[], "need nothing but a core"),
        verdict(
            "CUDA execution",
            &["GPU", "libcuda", "libcublasLt"],
            "all it loads is there; the kernels are in this build if it found nvcc",
        ),
        verdict("live power and caps", &["GPU", "nvml"], "NVML is there; this version does not read it yet"),
        verdict("building the kernels", &["nvcc"], "nvcc is there; it is needed to build, not to run"),
        verdict("a quiet controller thread", &["isolated cores"], "pin it to an isolated core"),
    ]
}

struct Node<'a> {
    root: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl Node<'_> {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text, trimmed; empty if it cannot be read.
    fn text(&self, path: &str) -> String {
        std::fs::read(self.path(path))
            .map_or_else(|_| String::new(), |b| String::from_utf8_lossy(&b).trim().into())
    }

    /// Names in a folder, sorted; none if it cannot be read.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// The value of the first line `key : value` or `key=value`.
fn field<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (k, v) = line.split_once([':', '='])?;
        (k.trim() == key).then(|| v.trim())
    })
}

fn finding(name: &'static str, present: bool, detail: String, effect: (&str, &str)) -> Finding {
    let effect = if present { effect.0 } else { effect.1 };
    Finding { name, present, detail, effect: effect.into() }
}

/// `text`, or `none` where there is none.
fn or<'t>(text: &'t str, none: &'t str) -> &'t str {
    if text.is_empty() { none } else { text }
}

impl Node<'_> {
    fn cores(&self, cores: Option<usize>) -> Finding {
        let info = self.text("/proc/cpuinfo");
        let listed =
            info.lines().filter(|l| l.split(':').next().is_some_and(|k| k.trim() == "processor")).count();
        let cores = cores.unwrap_or(listed);
        let model = field(&info, "model name").unwrap_or("model unknown");
        let detail = format!("{cores} usable of {listed}, {model}");
        let few = "the controller's thread shares its core with others";
        finding("cores", cores > 1, detail, ("one for the controller, the others for the rest", few))
    }

    fn numa(&self) -> Finding {
        let is_node = |n: &String| n.strip_prefix("node").is_some_and(|d| d.parse::<u32>().is_ok());
        let mut nodes = self.names("/sys/devices/system/node");
        nodes.retain(is_node);
        nodes.sort_by_key(|n| n[4..].parse::<u32>().unwrap_or(u32::MAX));
        let cpus = |n: &String| {
            format!("{n}: cpus {}", or(&self.text(&format!("/sys/devices/system/node/{n}/cpulist")), "none"))
        };
        let detail: Vec<String> = nodes.iter().map(cpus).collect();
        let many = "pin the controller to the node of its GPU";
        let one = "one node: no placement to choose";
        finding("NUMA", nodes.len() > 1, or(&detail.join("; "), "not listed").into(), (many, one))
    }

    fn isolated(&self) -> Finding {
        let isolated = self.text("/sys/devices/system/cpu/isolated");
        let line = self.text("/proc/cmdline");
        let option = |key: &str| line.split_whitespace().find_map(|w| Some(w.strip_prefix(key)?.to_string()));
        let nohz = option("nohz_full=").unwrap_or_default();
        let isolcpus = option("isolcpus=").unwrap_or_default();
        let isolated = if isolated.is_empty() { isolcpus } else { isolated };
        let detail = format!("isolated {}, nohz_full {}", or(&isolated, "none"), or(&nohz, "none"));
        let none = "works, but other work may delay a step; boot with isolcpus= and nohz_full= to avoid it";
        finding(
            "isolated cores",
            !isolated.is_empty(),
            detail,
            ("a controller's thread there is left alone", none),
        )
    }

    fn huge_pages(&self) -> Finding {
        let info = self.text("/proc/meminfo");
        let count = |key| field(&info, key).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        let (total, free) = (count("HugePages_Total"), count("HugePages_Free"));
        let size = field(&info, "Hugepagesize").unwrap_or("size unknown");
        let detail = format!("{total} reserved, {free} free, {size} each");
        finding(
            "huge pages",
            total > 0,
            detail,
            ("for host KV", "host KV uses plain or transparent huge pages"),
        )
    }

    fn transparent_huge_pages(&self) -> Finding {
        let text = self.text("/sys/kernel/mm/transparent_hugepage/enabled");
        let mode = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |m| m.0);
        let present = matches!(mode, "always" | "madvise");
        let effect = ("large host buffers can use them", "large host buffers use plain pages");
        finding("transparent huge pages", present, or(mode, "not listed").into(), effect)
    }

    /// A soft limit of this process, at least `enough` to count as there.
    fn limit(&self, name: &'static str, key: &str, effect: &str, enough: u64) -> Finding {
        let text = self.text("/proc/self/limits");
        let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default();
        let soft = line.split_whitespace().next().unwrap_or_default();
        let present = soft == "unlimited" || soft.parse::<u64>().is_ok_and(|v| v >= enough);
        let detail = if soft.is_empty() { "not listed".into() } else { format!("soft limit {soft}") };
        let not = if name == "rtprio" {
            "the controller's thread runs at normal priority"
        } else {
            "little memory can be locked; raise it with ulimit -l for large host KV"
        };
        finding(name, present, detail, (effect, not))
    }

    fn gpu(&self) -> Finding {
        let folder = "/proc/driver/nvidia/gpus";
        let boards = self.names(folder);
        let model = |bus: &String| {
            let text = self.text(&format!("{folder}/{bus}/information"));
            format!("{} at {bus}", field(&text, "Model").unwrap_or("model unknown"))
        };
        let mut devices = self.names("/dev");
        devices.retain(|n| n.strip_prefix("nvidia").is_some_and(|d| d.parse::<u32>().is_ok()));
        let listed: Vec<String> = boards.iter().map(model).collect();
        let nodes = match devices.is_empty() {
            true => "no /dev/nvidia*".into(),
            false => format!("/dev/{}", devices.join(", /dev/")),
        };
        let detail = format!("{}; {nodes}", or(&listed.join(", "), "none listed by a driver"));
        // A container may see devices without the driver's folder; a folder without devices is no use.
        let effect = match (boards.is_empty(), devices.is_empty()) {
            (false, true) => "the driver lists a board, but this process has no device file for it",
            _ => "simulation and replay work; CUDA execution and live power do not",
        };
        finding("GPU", !devices.is_empty(), detail, ("CUDA execution and live power can work", effect))
    }

    fn driver(&self) -> Finding {
        let text = self.text("/proc/driver/nvidia/version");
        let detail = text.lines().next().and_then(|l| l.split_once(':')).map_or("", |(_, v)| v.trim());
        let words: Vec<&str> = detail.split_whitespace().collect();
        let effect = (
            "the kernel side is loaded",
            "not visible; some containers hide it and still pass a GPU through",
        );
        finding(
            "driver",
            !text.is_empty(),
            or(&words.join(" "), "/proc/driver/nvidia/version is missing").into(),
            effect,
        )
    }
}

/// Where the dynamic linker commonly looks.
const LIBRARY_FOLDERS: [&str; 10] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/cuda/compat",
    "/usr/local/cuda/lib64",
    "/run/opengl-driver/lib",
];

impl Node<'_> {
    fn library(&self, name: &'static str, file: &str, effect: (&str, &str)) -> Finding {
        let own = (self.env)("LD_LIBRARY_PATH").unwrap_or_default();
        let folders = own.split(':').filter(|f| !f.is_empty()).chain(LIBRARY_FOLDERS);
        let found =
            folders.map(|f| format!("{}/{file}", f.trim_end_matches('/'))).find(|f| self.path(f).is_file());
        let present = found.is_some();
        let detail =
            found.unwrap_or_else(|| format!("{file} is in no usual folder and not in LD_LIBRARY_PATH"));
        finding(name, present, detail, effect)
    }

    fn nvcc(&self) -> Finding {
        let env = |name| (self.env)(name).filter(|v| !v.is_empty());
        let path = env("PATH").unwrap_or_default();
        let named = env("FLYBALL_NVCC").map(|p| (p, "FLYBALL_NVCC"));
        let home = env("CUDA_HOME").map(|h| (format!("{h}/bin/nvcc"), "CUDA_HOME"));
        let on_path = path.split(':').filter(|f| !f.is_empty()).map(|f| (format!("{f}/nvcc"), "PATH"));
        let places = named.into_iter().chain(home).chain(on_path);
        let found = places.map(|(p, by)| (self.path(&p), p, by)).find(|(at, ..)| at.is_file());
        let found = found.map(|(_, p, by)| format!("{p} (by {by})")).or_else(|| self.nvcc_here());
        let missing = "no kernels can be built here; what needs none works";
        let present = found.is_some();
        let detail = found.unwrap_or_else(|| "not by FLYBALL_NVCC, CUDA_HOME, PATH or ./.cuda".into());
        finding("nvcc", present, detail, ("kernels can be built", missing))
    }

    /// In `.cuda` of the current folder, or in a folder in it.
    fn nvcc_here(&self) -> Option<String> {
        // Relative to the working folder, which a fake root stands in for.
        let base = if self.root == Path::new("/") { PathBuf::from(".cuda") } else { self.root.join(".cuda") };
        let inner = std::fs::read_dir(&base).into_iter().flatten().flatten().map(|e| e.path());
        let inner: BTreeSet<PathBuf> = inner.collect();
        let places = [base].into_iter().chain(inner).map(|f| f.join("bin/nvcc"));
        places.into_iter().find(|p| p.is_file()).map(|p| p.display().to_string())
    }
}

impl fmt::Display for Doctor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            |names: &mut dyn Iterator<Item = &str>| names.map(|n| n.chars().count()).max().unwrap_or(0);
        let wide = width(&mut self.findings.iter().map(|f| f.name));
        writeln!(f, "This node has:")?;
        for found in &self.findings {
            let mark = if found.present { "yes" } else { "no " };
            writeln!(f, "  {:wide$}  {mark}  {}", found.name, found.detail)?;
            writeln!(f, "  {:wide$}       {}", "", found.effect)?;
        }
        let wide = width(&mut self.verdicts.iter().map(|v| v.what));
        writeln!(f, "\nSo here:")?;
        for verdict in &self.verdicts {
            let mark = if verdict.works { "works" } else { "does not" };
            writeln!(f, "  {:wide$}  {mark:8}  {}", verdict.what, verdict.why)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn of<'d>(doctor: &'d Doctor, name: &str) -> &'d Finding {
        doctor.findings.iter().find(|f| f.name == name).unwrap()
    }

    #[test]
    fn an_empty_node_can_simulate_and_nothing_breaks() {
        let root = tempfile::tempdir().unwrap();
        let doctor = report_of(root.path(), &|_| None, None);
        assert!(doctor.findings.iter().all(|f| !f.present && !f.detail.is_empty()));
        assert!(of(&doctor, "GPU").effect.contains("simulation and replay work"));
        let works: Vec<_> = doctor.verdicts.iter().filter(|v| v.works).map(|v| v.what).collect();
        assert_eq!(works, ["simulation and replay"]);
        assert!(doctor.to_string().contains("no GPU, no libcuda"));
        assert!(serde_json::to_string(&doctor).unwrap().contains("\"verdicts\""));
    }

    #[test]
    fn a_large_node_is_read_in_full() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let cpus: String = (0..4).map(|i| format!("processor\t: {i}\nmodel name\t: Xeon 8480\n\n")).collect();
        put(root, "proc/cpuinfo", &cpus);
        put(root, "sys/devices/system/node/node0/cpulist", "0-1\n");
        put(root, "sys/devices/system/node/node1/cpulist", "2-3\n");
        put(root, "sys/devices/system/cpu/isolated", "3\n");
        put(root, "proc/cmdline", "quiet isolcpus=3 nohz_full=3\n");
        put(root, "proc/meminfo", "HugePages_Total:  8\nHugePages_Free:  5\nHugepagesize:  2048 kB\n");
        put(root, "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
        put(
            root,
            "proc/self/limits",
            "Max locked memory  unlimited  unlimited  bytes\nMax realtime priority  99  99\n",
        );
        put(root, "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX  Kernel Module  550.54\n");
        put(root, "proc/driver/nvidia/gpus/0000:19:00.0/information", "Model: \t\t NVIDIA H200\n");
        put(root, "dev/nvidia0", "");
        put(root, "dev/nvidiactl", "");
        put(root, "opt/lib/libnvidia-ml.so.1", "");
        put(root, "usr/lib64/libcuda.so.1", "");
        put(root, "usr/local/cuda/lib64/libcublasLt.so.13", "");
        put(root, "opt/cuda/bin/nvcc", "");
        let env = |name: &str| match name {
            "LD_LIBRARY_PATH" => Some("/opt/lib/".to_string()),
            "CUDA_HOME" => Some("/opt/cuda".to_string()),
            _ => None,
        };
        let doctor = report_of(root, &env, Some(3));
        assert!(doctor.findings.iter().all(|f| f.present), "{doctor}");
        assert!(doctor.verdicts.iter().all(|v| v.works), "{doctor}");
        assert_eq!(of(&doctor, "cores").detail, "3 usable of 4, Xeon 8480");
        assert_eq!(of(&doctor, "NUMA").detail, "node0: cpus 0-1; node1: cpus 2-3");
        assert_eq!(of(&doctor, "isolated cores").detail, "isolated 3, nohz_full 3");
        assert_eq!(of(&doctor, "GPU").detail, "NVIDIA H200 at 0000:19:00.0; /dev/nvidia0");
        assert_eq!(of(&doctor, "nvml").detail, "/opt/lib/libnvidia-ml.so.1");
        assert_eq!(of(&doctor, "nvcc").detail, "/opt/cuda/bin/nvcc (by CUDA_HOME)");
    }

    /// The driver brings no cuBLASLt, which the executor loads first of all.
    #[test]
    fn a_driver_alone_does_not_execute() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "dev/nvidia0", "");
        put(root.path(), "usr/lib64/libcuda.so.1", "");
        let doctor = report_of(root.path(), &|_| None, None);
        let cuda = doctor.verdicts.iter().find(|v| v.what == "CUDA execution").unwrap();
        assert_eq!((cuda.works, cuda.why.as_str()), (false, "no libcublasLt"));
    }

    #[test]
    fn a_board_without_a_device_file_is_told_apart() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: NVIDIA A100\n");
        let doctor = report_of(root.path(), &|_| None, None);
        let gpu = of(&doctor, "GPU");
        assert!(!gpu.present && gpu.effect.contains("no device file"), "{gpu:?}");
    }

    #[test]
    fn this_node_is_read_without_a_panic() {
        let text = report().to_string();
        assert!(text.contains("simulation and replay"), "{text}");
        say!("{text}");
    }
}
