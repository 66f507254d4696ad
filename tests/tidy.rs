//! Keeps the house in order: the layering of the core, its purity, and what each file and document must have.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The core, in the order of the flow: a module imports only from those before it.
const CORE: [&str; 23] = [
    "time",
    "id",
    "frame",
    "tap_key",
    "packet",
    "red",
    "rtpmap",
    "plain",
    "opus",
    "connection",
    "spool",
    "replay",
    "timeline",
    "codec",
    "sound",
    "ledger",
    "mux",
    "recording",
    "manifest",
    "picture",
    "publish",
    "config",
    "metrics",
];
/// The shell: it may do anything, and nothing of the core may import it.
const SHELL: [&str; 4] = ["io", "daemon", "commands", "client"];
/// What the core must not touch.
const IMPURE: [&str; 13] = [
    "std::fs",
    "UdpSocket",
    "TcpListener",
    "TcpStream",
    "std::thread",
    "std::env",
    "std::process",
    "std::os",
    "tokio::",
    "tracing::",
    "Instant::now",
    "SystemTime",
    "println!",
];
const VAGUE: [&str; 6] = ["util", "common", "helpers", "types", "misc", "manager"];
const LINES_MAX: usize = 600;

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The module of the first level that the file belongs to; `main` and `lib` for the two roots.
    fn module(&self) -> String {
        let relative = self.path.strip_prefix(root().join("src")).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        first.trim_end_matches(".rs").to_owned()
    }

    /// The code without comments and without the tests at the end of the file.
    fn code(&self) -> String {
        let code = self.text.split("#[cfg(test)]\nmod tests").next().unwrap();
        code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }

    fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap().display().to_string()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(Source { text: fs::read_to_string(&path).unwrap(), path });
        }
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    rust_files(&root().join("src"), &mut found);
    assert!(found.len() > 20, "the source was not found");
    found
}

/// The modules of the first level that code names by `crate::`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        found.insert(name);
    }
    found
}

#[test]
fn a_core_module_imports_only_from_above_it() {
    for source in sources() {
        let module = source.module();
        let Some(place) = CORE.iter().position(|name| *name == module) else { continue };
        for import in imports(&source.code()) {
            let from = CORE.iter().position(|name| *name == import);
            assert!(
                from.is_some_and(|from| from <= place),
                "{} imports crate::{import}, which is not above it",
                source.name()
            );
            let pair = [module.as_str(), import.as_str()];
            assert!(pair != ["spool", "connection"], "the spool must not know connections");
        }
    }
}

#[test]
fn every_module_is_in_the_core_or_in_the_shell() {
    for source in sources() {
        let module = source.module();
        let known = CORE.contains(&module.as_str())
            || SHELL.contains(&module.as_str())
            || ["lib", "main"].contains(&module.as_str());
        assert!(known, "{} is in no layer: add it to this test and to lib.rs", source.name());
    }
}

#[test]
fn the_core_has_no_clock_and_does_no_io() {
    for source in sources() {
        if CORE.contains(&source.module().as_str()) {
            let code = source.code();
            for word in IMPURE {
                assert!(!code.contains(word), "{} uses {word}", source.name());
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_stays_readable() {
    for source in sources() {
        assert!(source.text.starts_with("//! "), "{} has no header", source.name());
        let lines = source.text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", source.name());
        let stem = source.path.file_stem().unwrap().to_str().unwrap();
        assert!(!VAGUE.contains(&stem), "{} says nothing by its name", source.name());
    }
}

#[test]
fn the_readme_names_every_variable_and_every_reason() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for variable in sidetape::config::VARIABLES {
        assert!(readme.contains(&format!("`{}`", variable.name)), "README.md lacks {}", variable.name);
    }
    for reason in sidetape::metrics::DropReason::ALL {
        assert!(readme.contains(&format!("`{}`", reason.name())), "README.md lacks {}", reason.name());
    }
    for cause in sidetape::metrics::RetryCause::ALL {
        assert!(readme.contains(&format!("`{}`", cause.name())), "README.md lacks {}", cause.name());
    }
}

#[test]
fn the_readme_names_every_metric_and_no_other() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let section = readme.split("\n## Metrics\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let words =
        section.split('`').filter(|word| word.starts_with("sidetape_") || word.starts_with("process_"));
    let named: BTreeSet<&str> = words.filter_map(|word| word.split('{').next()).collect();
    let names = sidetape::metrics::exposition::names();
    assert_eq!(named, names.iter().map(String::as_str).collect(), "README.md and the page differ");
}

#[test]
fn ci_ends_with_the_test_command_of_the_readme() {
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let last = ci.trim_end().lines().last().unwrap();
    assert!(last.ends_with("cargo test --locked"));
    assert!(readme.lines().any(|line| line == last), "README.md lacks the line: {last}");
}

#[test]
fn a_log_line_has_the_connection_as_it_is() {
    // By its debug form it would stand within quotation marks of its own in JSON.
    for source in sources() {
        for form in ["connection = ?", "(?connection", ", ?connection"] {
            assert!(!source.code().contains(form), "{}: {form}", source.name());
        }
    }
}

#[test]
fn every_path_in_a_comment_exists() {
    for source in sources() {
        for line in source.text.lines().filter(|line| line.trim_start().starts_with("//")) {
            for word in line.split(['`', ' ', '(', ')', ',', ';']) {
                let is_path = ["src/", "tests/", "fixtures/", "deploy/", "benches/"]
                    .iter()
                    .any(|top| word.starts_with(top) && word.len() > top.len());
                let path = word.trim_end_matches(['.', ':']);
                assert!(!is_path || root().join(path).exists(), "{}: {path} does not exist", source.name());
            }
        }
    }
}

#[test]
fn every_module_of_the_library_is_on_its_map() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for module in CORE.iter().chain(&SHELL) {
        assert!(lib.contains(&format!("[`{module}`]")), "lib.rs does not show {module}");
    }
}

/// The cells of the tables in a document, row by row.
fn rows(document: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")).map(cells).collect()
}

/// The words in a text that stand between quotation marks and have only small letters and underscores.
fn quoted_words(code: &str) -> Vec<&str> {
    let is_word = |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    code.split('"').skip(1).step_by(2).filter(is_word).collect()
}

#[test]
fn the_readme_says_what_to_do_about_each_reason_of_a_manifest() {
    let manifest = fs::read_to_string(root().join("src/manifest.rs")).unwrap();
    let (_, rest) = manifest.split_once("pub fn judge(").unwrap();
    let (judge, _) = rest.split_once("\n}\n").unwrap();
    let (whole, of_channels) = judge.split_once("let facts = [").unwrap();
    let reasons: Vec<String> = quoted_words(whole).into_iter().map(|reason| format!("`{reason}`")).collect();
    let of_channels =
        quoted_words(of_channels).into_iter().map(|fact| format!("`caller_{fact}`, `ai_{fact}`"));
    let rows = rows("README.md");
    let reasons: Vec<String> = reasons.into_iter().chain(of_channels).collect();
    assert!(reasons.len() >= 16, "they were not found: {reasons:?}");
    for reason in reasons {
        let row = rows.iter().find(|row| row[0] == reason);
        assert!(row.is_some_and(|row| row.len() == 3), "README.md has no row for {reason}");
    }
}

/// The messages of the lines that `warn!` and `error!` write: their last text that is not a field's value.
fn warnings(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for call in ["warn!(", "error!("] {
        for (at, _) in code.match_indices(call) {
            let (mut depth, mut before, mut last, mut text) = (1, '(', String::new(), None);
            let mut rest = code[at + call.len()..].chars();
            while depth > 0 {
                let c = rest.next().expect("a call ends");
                match (&mut text, c) {
                    (None, '"') => text = Some(String::new()),
                    (Some(said), '"') => {
                        if depth == 1 && matches!(before, '(' | ',') {
                            last.clone_from(said);
                        }
                        (text, before) = (None, '"');
                    }
                    (Some(said), c) => said.push(c),
                    (None, c) => {
                        depth +=
                            i32::from(matches!(c, '(' | '[' | '{')) - i32::from(matches!(c, ')' | ']' | '}'));
                        before = if c.is_whitespace() { before } else { c };
                    }
                }
            }
            assert!(!last.is_empty(), "a line without words: {}", &code[at..code.len().min(at + 120)]);
            found.push(last);
        }
    }
    found
}

#[test]
fn every_warning_and_every_reason_for_a_drop_is_explained_to_those_who_run_it() {
    let rows = rows("deploy/OPERATING.md");
    let mut seen = BTreeSet::new();
    for source in sources() {
        for message in warnings(&source.code()) {
            let row = rows.iter().find(|row| row.len() == 4 && row[1] == format!("`{message}`"));
            assert!(row.is_some(), "deploy/OPERATING.md does not explain {message:?} of {}", source.name());
            seen.insert(format!("`{message}`"));
        }
    }
    assert!(seen.len() > 30, "the warnings were not found");
    let is_level = |row: &&Vec<String>| ["warn", "error"].contains(&row[0].as_str());
    for row in rows.iter().filter(is_level) {
        assert!(seen.contains(&row[1]), "deploy/OPERATING.md explains {}, which nothing says", row[1]);
    }
    for reason in sidetape::metrics::DropReason::ALL {
        let word = format!("`{}`", reason.name());
        assert!(
            rows.iter().any(|row| row.len() == 3 && row[0].split(", ").any(|found| found == word)),
            "deploy/OPERATING.md does not explain {word}"
        );
    }
}
