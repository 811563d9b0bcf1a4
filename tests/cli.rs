//! What the command line does with wrong usage, with odd outputs, and with work that is not as it was asked for.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Two policies on a built-in mix, and no report.
const COMPARE: &str = "compare --policies fcfs,las --requests 20 --seeds 2 --no-report";
const REPLAY: &str = "replay --requests 20 --no-report";

fn flyball(folder: &Path, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flyball"));
    command.current_dir(folder).args(args.split_whitespace());
    command
}

/// Exit code and standard error.
fn told(Output { status, stderr, .. }: Output) -> (i32, String) {
    (status.code().expect("nothing kills it"), String::from_utf8(stderr).unwrap())
}

fn run(folder: &Path, args: &str) -> (i32, String) {
    told(flyball(folder, args).output().unwrap())
}

#[track_caller]
fn refused(args: &str, why: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (code, stderr) = run(folder.path(), args);
    assert_eq!(code, 2, "{args}: {stderr}");
    assert!(stderr.contains(why), "{args}: {stderr}");
}

/// Mooncake's format: one request per second.
fn mooncake(folder: &Path, requests: u64) {
    let line = |second: u64| {
        format!(
            r#"{{"timestamp": {}, "input_length": 600, "output_length": 5, "hash_ids": [0, {second}]}}"#,
            second * 1000
        ) + "\n"
    };
    fs::write(folder.join("t.jsonl"), (1..=requests).map(line).collect::<String>()).unwrap();
}

/// A new file took the place of the one that the table had gone into.
#[test]
#[cfg(target_os = "linux")]
fn json_for_standard_output_follows_the_table_also_into_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = fs::File::create(folder.path().join("out")).unwrap();
    let mut command = flyball(folder.path(), &format!("{REPLAY} --json /dev/stdout"));
    assert!(command.stdout(file).status().unwrap().success());
    let text = fs::read_to_string(folder.path().join("out")).unwrap();
    let (table, json) = text.split_at(text.find("\n{").unwrap());
    assert!(table.contains("20 requests of mix-1") && json.contains("flyball.summary/1"), "{text}");
}

/// Whoever printed into `true` lost the files, with exit code 0.
#[test]
#[cfg(target_os = "linux")]
fn files_are_written_when_nothing_can_be_printed() {
    let args = "replay --requests 20 --json p.json --report p.html --per-request p.csv";
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for (gone, code) in [(true, 0), (false, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = flyball(folder.path(), args);
        command.stdout(if gone { Stdio::piped() } else { full().into() }).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let (ended, stderr) = told(child.wait_with_output().unwrap());
        assert_eq!(ended, code, "{stderr}");
        assert_eq!(stderr.contains("flyball: standard output: No space left"), !gone, "{stderr}");
        for file in ["p.json", "p.html", "p.csv"] {
            assert!(fs::metadata(folder.path().join(file)).unwrap().len() > 0, "{file}");
        }
    }
}

#[test]
fn values_that_cannot_be_are_wrong_usage() {
    for (flag, why) in [
        ("--requests 0", "from 1 to"),
        ("--max-tokens 0", "0 is not in 1.."),
        ("--block-size 0", "0 is not in 1.."),
        ("--host-step-us 18446744073709552", "is not in 0..=1000000000"),
        ("--constant-step-ms 1e300", "at most 1000000"),
        ("--arrivals foo", "known are poisson, gamma:CV, onoff, all-at-once"),
        ("--arrivals gamma:1e200", "0.001..=100"),
        ("--arrivals gamma:1e-200", "0.001..=100"),
        ("--trace mix-3", "no such file, and no mix \"mix-3\": known are mix-05, mix-1"),
        ("--max-num-seqs 65536", "max_num_batched_tokens is 1024"),
        ("--load 1e-300", "more than 100 years"),
        ("--load 0.5 --arrivals all-at-once", "all requests of mix-1 arrive at once"),
    ] {
        for command in ["replay", "compare"] {
            refused(&format!("{command} --no-report {flag}"), why);
        }
    }
    refused("compare --seeds 18446744073709551615", "is not in 1..=10000");
    refused("compare --suite public --first-seed 18446744073709551615", "is not in 0..=");
    refused("compare --loads 0.5,0.9 --arrivals all-at-once", "arrive at once");
    refused("trace synth --rate 1e-300 t.jsonl", "more than 100 years");
}

/// Flags that would be ignored look as if they had been obeyed.
#[test]
fn flags_that_would_be_ignored_are_wrong_usage() {
    for flag in [
        "--trace x",
        "--format azure",
        "--skip-bad",
        "--rate-scale 2",
        "--load 1",
        "--loads 1",
        "--requests 9",
        "--arrivals onoff",
        "--max-tokens 9",
        "--profile x",
        "--gpus 2",
        "--router random",
        "--max-num-seqs 9",
        "--max-num-batched-tokens 9",
        "--block-size 16",
        "--kv-tokens 9",
        "--preempt swap",
        "--swap serial",
        "--prefix-cache on",
        "--pipeline-depth 2",
        "--host-step-us 9",
        "--constant-step-ms 9",
        "--believed-time 2",
        "--per-request x",
    ] {
        let name = flag.split(' ').next().unwrap();
        refused(&format!("compare --suite public {flag}"), &format!("cannot be used with '{name}"));
    }
    refused("compare --traces x", "--suite <SUITE>");
    for flag in ["--json a", "--report a", "--per-request a"] {
        refused(&format!("replay --records r {flag}"), "cannot be used with '--");
    }
}

#[test]
fn what_is_not_as_it_was_asked_for_is_told() {
    let folder = tempfile::tempdir().unwrap();
    mooncake(folder.path(), 5);
    let (code, stderr) = run(folder.path(), &format!("{REPLAY} --trace t.jsonl --block-size 1024"));
    assert_eq!(code, 0);
    assert!(stderr.contains("t.jsonl has 5 requests, not 20: all of them are replayed"), "{stderr}");
    assert!(stderr.contains("5 requests were refused; the first: 2 content ids of 512"), "{stderr}");

    let bad = fs::read_to_string(folder.path().join("t.jsonl")).unwrap() + "bad\n";
    fs::write(folder.path().join("t.jsonl"), bad).unwrap();
    for command in [REPLAY, COMPARE] {
        let (code, stderr) = run(folder.path(), &format!("{command} --trace t.jsonl --skip-bad"));
        assert_eq!(code, 0);
        assert_eq!(stderr.matches("1 rows of t.jsonl were skipped:\n  line 6: ").count(), 1, "{stderr}");
    }
}

#[test]
fn what_arrives_at_once_has_no_load_unless_one_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    for command in [REPLAY, COMPARE] {
        let Output { status, stdout, .. } =
            flyball(folder.path(), &format!("{command} --arrivals all-at-once")).output().unwrap();
        assert!(status.success());
        let printed = String::from_utf8(stdout).unwrap();
        assert!(!printed.contains("load") && !printed.contains("inf "), "{printed}");
    }
}

#[test]
fn the_way_out_of_disorder_that_is_told_works() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                2023-11-16 18:17:04.0,3180,8\n2023-11-16 18:17:03.0,4808,10\n";
    fs::write(folder.path().join("t.csv"), rows).unwrap();
    let (code, stderr) = run(folder.path(), &format!("{REPLAY} --trace t.csv"));
    assert_eq!(code, 1);
    assert!(
        stderr.contains("line 3: arrives before the row above it; `flyball trace convert --sort`"),
        "{stderr}"
    );
    assert_eq!(run(folder.path(), "trace convert --sort t.csv t.jsonl").0, 0);
    assert_eq!(run(folder.path(), &format!("{REPLAY} --trace t.jsonl")).0, 0);
}

#[test]
fn rows_per_request_are_of_every_run() {
    let folder = tempfile::tempdir().unwrap();
    let args = format!("{COMPARE} --loads 0.5,0.9 --per-request rows.csv");
    assert_eq!(run(folder.path(), &args).0, 0);
    let rows = fs::read_to_string(folder.path().join("rows.csv")).unwrap();
    assert!(rows.starts_with("policy,load,seed,request,"), "{rows}");
    for policy in ["fcfs", "las"] {
        for run in ["0.5,1", "0.5,2", "0.9,1", "0.9,2"] {
            assert_eq!(rows.matches(&format!("\n{policy},{run},")).count(), 20, "{policy} {run}");
        }
    }
}
