//! The README shows the program that is in `examples/`, and the output that it has.

use std::fs;

#[path = "../examples/drive.rs"]
#[allow(dead_code)] // its `main`
mod drive;

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap().replace("\r\n", "\n")
}

/// The fenced block that follows the line `marker`.
fn block<'t>(text: &'t str, marker: &str) -> &'t str {
    let after = text.split_once(marker).unwrap_or_else(|| panic!("the README has {marker}")).1;
    let inside = after.split_once("\n```").expect("a block follows the marker").1;
    let code = inside.split_once('\n').expect("the fence is a line").1;
    code.split_once("```\n").expect("the block ends").0
}

#[test]
fn readme_shows_the_example() {
    let example = read("examples/drive.rs");
    let code = example.split_once("\n\n").expect("the example has a header").1;
    assert_eq!(block(&read("README.md"), "<!-- examples/drive.rs -->"), code);
}

#[test]
fn readme_shows_what_the_example_prints() {
    let mut printed = Vec::new();
    drive::drive(&mut printed).unwrap();
    assert_eq!(block(&read("README.md"), "<!-- output:drive -->"), String::from_utf8(printed).unwrap());
}

#[test]
fn readme_names_every_policy_and_profile() {
    let readme = read("README.md");
    for name in flyball::sched::order::NAMES.iter().chain(flyball::cost::Profile::NAMES) {
        assert!(readme.contains(&format!("| `{name}` |")), "{name} has a row in the README");
    }
}
