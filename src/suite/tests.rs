use super::arms::Headroom;
use super::cache::Cache;
use super::cells::{A100, Cell, Work};
use super::document::Document;
use super::figures::tests::made;
use super::figures::{Curve, Figures};
use super::page::html;
use super::public::Public;
use super::rows::rows;
use super::run::{Bench, Results};
use super::*;
use crate::trace::Mix;
use std::path::Path;

fn tiny(load: f64) -> Cell {
    Cell { requests: 60, ..Cell::new(A100, Work::Mix(Mix::Mix05), "poisson", load) }
}

/// Three arms on one cell: the second twice as slow as the first, the third half as slow but in seed 2.
fn made_up() -> (Public, Results) {
    let suite = Public::new(vec![tiny(0.9)], &["fcfs", "las", "srpt"], &[Headroom::AsPublished], 2).unwrap();
    let seconds = |job: &Job| match (job.policy.as_str(), job.seed) {
        ("fcfs", _) => 1.0,
        ("las", _) => 2.0,
        (_, 1) => 0.5,
        _ => 1.0,
    };
    let results = Results::made(suite.jobs().into_iter().map(|job| (job.clone(), made(seconds(&job)))));
    (suite, results)
}

#[test]
fn a_table_is_as_it_was() {
    let (suite, results) = made_up();
    let text = suite.document(&results).text();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let find = |start: &str| *lines.iter().rfind(|line| line.starts_with(start)).unwrap();
    let golden = [
        "fcfs               50.5 s             95.0 s             99.0 s             9.50 s             9.90 s             99.0 ms  1,000",
        "las      101 s  2.00     3.17 min  2.00     3.30 min  2.00       19.0 s  2.00       19.8 s  2.00       198 ms  2.00  1,000  1.00",
        "srpt  37.9 s  0.71 (0.50-1.00)  71.2 s  0.71 (0.50-1.00)  74.2 s  0.71 (0.50-1.00)  7.12 s  0.71 (0.50-1.00)  7.42 s  0.71 (0.50-1.00)  74.2 ms  0.71 (0.50-1.00)  1,000  1.00",
    ];
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    for (start, golden) in ["fcfs", "las ", "srpt "].into_iter().zip(golden) {
        assert_eq!(words(find(start)), words(golden));
    }
    let bar = lines.iter().find(|line| line.starts_with("srpt TTLT P99 ≤ 1.01 × fcfs")).unwrap();
    assert_eq!(
        words(bar),
        "srpt TTLT P99 ≤ 1.01 × fcfs 1 1 0 0.707 0.707 a100-llama-3-8b mix-05 poisson 0.9"
    );
    assert!(text.contains("0 of 7 pairs of cell and measure"), "{text}");
}

#[test]
fn a_loss_is_told_with_its_seconds() {
    let cell = tiny(0.9);
    let suite = Public::new(vec![cell], &["fcfs", "las"], &[Headroom::AsPublished], 1).unwrap();
    let seconds = |policy: &str| if policy == "las" { 3.0 } else { 1.0 };
    let results = Results::made(suite.jobs().into_iter().map(|j| (j.clone(), made(seconds(&j.policy)))));
    let text = suite.document(&results).text();
    let words: Vec<String> =
        text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let want = "a100-llama-3-8b mix-05 poisson 0.9 TTLT P99 fcfs 3.00 4.95 min 99.0 s";
    assert!(words.iter().any(|line| line == want), "{text}");
    assert!(text.contains("6 of 7 pairs"));
}

/// Two arms on one cell, where the requests at these places are never served by each.
fn with_lost(las: usize, fcfs: usize) -> Document {
    let suite = Public::new(vec![tiny(0.9)], &["fcfs", "las"], &[Headroom::AsPublished], 2).unwrap();
    let figures = |job: &Job| {
        let lost = if job.policy == "las" { las } else { fcfs };
        let ttlt = |i| if i < lost { f64::INFINITY } else { 1.0 };
        Figures { ttlt: Curve::of(&mut (0..100).map(ttlt).collect::<Vec<_>>()), ..made(1.0) }
    };
    let results = Results::made(suite.jobs().into_iter().map(|job| (job.clone(), figures(&job))));
    suite.document(&results)
}

fn words(document: &Document) -> Vec<String> {
    document.text().lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[track_caller]
fn has_lines(words: &[String], starts: &[&str]) {
    for start in starts {
        assert!(words.iter().any(|line| line.starts_with(start)), "{start}: {words:#?}");
    }
}

/// A request that only the subject did not serve once took the cell out of the bar, the losses and the drawings.
#[test]
fn who_alone_serves_a_request_not_is_behind_without_bound() {
    let document = with_lost(1, 0);
    let words = words(&document);
    let lines = [
        "las TTLT mean ≤ 1 × fcfs 0 1 0 ∞ ∞ a100-llama-3-8b mix-05 poisson 0.9",
        "a100-llama-3-8b mix-05 poisson 0.9 TTLT mean fcfs ∞ ∞ 1.00 s",
        "a100-llama-3-8b mix-05 poisson 0.9 1.000 1.000 ∞ !",
        "1 of 7 pairs",
    ];
    has_lines(&words, &lines);
    assert!(!html(&document).contains("NaN"));
}

/// One refused request made every arm's mean infinite, and the cell left the bar without a word.
#[test]
fn what_nobody_serves_is_not_judged_and_counted() {
    let document = with_lost(1, 1);
    let words = words(&document);
    let lines = [
        "las TTLT mean ≤ 1 × fcfs 0 0 1",
        "las TTLT P95 ≤ 1.01 × fcfs 1 1 0 1.000 1.000",
        "a100-llama-3-8b mix-05 poisson 0.9 1.000 1.000 not judged",
        "0 of 6 pairs",
    ];
    has_lines(&words, &lines);
    assert!(words.join(" ").contains("by more than 1 %; 1 more are not judged"));
    assert!(!html(&document).contains("NaN"));
}

/// A slowdown that does not exist was drawn as none.
#[test]
fn a_percentile_that_cannot_be_compared_is_not_drawn() {
    let suite = Public::new(vec![tiny(0.9)], &["fcfs", "las"], &[Headroom::AsPublished], 1).unwrap();
    let none = |job: &Job| (job.clone(), Figures { ttlt: Curve::of(&mut []), ..made(1.0) });
    let results = Results::made(suite.jobs().iter().map(none));
    let page = html(&suite.document(&results));
    let chart = page.split("TTLT, slower than fcfs, %").nth(2).expect("it has a caption and a label");
    let line = chart.split("<path class=\"line").nth(1).expect("each arm has a line");
    assert!(line.starts_with(" s0\" d=\"\"/>"), "{}", &line[..40]);
    assert!(!page.contains("NaN"));
}

#[test]
fn cells_of_the_lab_and_others_have_their_own_bars() {
    let other = Cell { work: Work::Public(super::cells::ARXIV), ..tiny(0.99) };
    let suite =
        Public::new(vec![tiny(0.9), other], &["fcfs", "las", "srpt"], &[Headroom::AsPublished], 1).unwrap();
    let seconds = |job: &Job| if job.policy == "srpt" { 1.015 } else { 1.0 };
    let results = Results::made(suite.jobs().into_iter().map(|job| (job.clone(), made(seconds(&job)))));
    let text = suite.document(&results).text();
    let words: Vec<String> =
        text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let row = |start: &str| words.iter().find(|line| line.starts_with(start)).expect(start).as_str();
    let of_the_lab = "a100-llama-3-8b mix-05 poisson 0.9 1.015 ! 1.015 ! 1.015 ! 1.015 – 1.000";
    assert_eq!(row("a100-llama-3-8b mix-05 poisson 0.9 1.015"), of_the_lab);
    let beyond = "a100-llama-3-8b arxiv poisson 0.99 1.015 1.015 –";
    assert_eq!(
        row("a100-llama-3-8b arxiv poisson 0.99 1.015"),
        beyond,
        "the limits are wider, and no load above 0.9"
    );
}

#[test]
fn a_page_draws_it_without_network() {
    let (suite, results) = made_up();
    let page = html(&suite.document(&results));
    for word in ["http://", "https://", "<script", "url(", "@import", "NaN", "inf\""] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("class=\"win\"") && page.matches("<svg").count() > 5);
}

#[test]
fn a_suite_that_goes_on_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let suite = Public::new(vec![tiny(0.9), tiny(1.1)], &["fcfs", "las"], &[Headroom::Equal], 2).unwrap();
    let run = |folder: &Path| {
        let cache = Cache::open(folder, "a".into(), false).unwrap();
        let bench = Bench { cache, traces: "none".into(), threads: 2 };
        let results = bench.run(&suite.jobs(), &|| ()).unwrap();
        let document = suite.document(&results);
        let rows = serde_json::to_string(&rows(&suite.jobs(), &results)).unwrap();
        (results.fresh, document.text() + &html(&document) + &rows)
    };
    let (fresh, first) = run(folder.path());
    assert_eq!(fresh, 8);
    let one = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(one).unwrap();
    let (again, second) = run(folder.path());
    assert!(again <= 1 && first == second);
    let (kept, third) = run(folder.path());
    assert!(kept == 0 && first == third);
    let (alone, fourth) = run(tempfile::tempdir().unwrap().path());
    assert!(alone == 8 && first == fourth);
}
