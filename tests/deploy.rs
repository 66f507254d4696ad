//! What `deploy/` has for those who run the daemon: systemd, Kubernetes and Compose read it, the daemon takes its
//! settings, and nothing in it has been forgotten.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::daemon::Daemon;
use rig::http::http_address;
use rig::judges::{run, said};
use sidetape::config::VARIABLES;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sidetape");

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The exposure that systemd counts, out of ten, and the version that counted it.
fn exposure() -> Option<(String, String)> {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager"]).arg(root().join("deploy/sidetape.service"));
    let output = run(&mut command)?;
    assert!(output.status.success(), "{}", said(&output));
    let text = said(&output);
    let line = text.lines().find(|line| line.contains("Overall exposure level")).expect("a sum");
    let score = line.split_whitespace().find(|word| word.parse::<f32>().is_ok()).unwrap().to_owned();
    let version = said(&run(Command::new("systemd-analyze").arg("--version"))?);
    Some((score, version.split_whitespace().nth(1).unwrap().to_owned()))
}

#[test]
fn the_unit_is_as_hard_as_the_readme_says() {
    let Some((score, version)) = exposure() else { return };
    let readme = read("README.md");
    let (_, after) =
        readme.split_once("systemd-analyze security --offline=true").expect("the README says it");
    let (_, stated) = after.split_once("exposure ").expect("and how much");
    let stated: f32 = stated.split_whitespace().next().unwrap().parse().unwrap();
    let found: f32 = score.parse().unwrap();
    // Each version of systemd looks at more than the one before.
    let is_measured_by_it = version.starts_with("252");
    assert!(
        found <= 2.0 && (!is_measured_by_it || (found - stated).abs() < 0.05),
        "{found} by {version}, {stated} stated"
    );
}

#[test]
fn systemd_finds_no_fault_with_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("sidetape.service");
    let text = read("deploy/sidetape.service");
    let command = format!("ExecStart={PROGRAM} serve");
    assert_eq!(text.matches("ExecStart=sidetape serve").count(), 1);
    fs::write(&unit, text.replace("ExecStart=sidetape serve", &command)).unwrap();
    // It looks for the pages that the unit names, too.
    let pages = folder.path().join("man/man1");
    fs::create_dir_all(&pages).unwrap();
    for page in fs::read_dir(root().join("deploy/man")).unwrap() {
        let page = page.unwrap();
        fs::copy(page.path(), pages.join(page.file_name())).unwrap();
    }
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").arg(&unit).env("MANPATH", folder.path().join("man"));
    if let Some(output) = run(&mut command) {
        assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
    }
}

#[test]
fn kubernetes_knows_each_field_of_the_manifests() {
    for version in ["1.30.0", "1.37.0"] {
        let mut command = Command::new("kubernetes-validate");
        command.args(["--strict", "-k", version]).arg(root().join("deploy/kubernetes/sidecar.yaml"));
        let Some(output) = run(&mut command) else { return };
        let said = said(&output);
        assert!(output.status.success() && said.matches(" passed ").count() == 2, "{said}");
    }
}

#[test]
fn compose_understands_its_file() {
    let mut command = Command::new("docker-compose");
    command.arg("--file").arg(root().join("deploy/compose.yaml")).args([
        "--profile",
        "gateway",
        "config",
        "--services",
    ]);
    if let Some(output) = run(&mut command) {
        assert!(output.status.success(), "{}", said(&output));
        let mut services: Vec<String> =
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        services.sort();
        assert_eq!(services, ["gateway", "sidetape"]);
    }
}

/// The settings in a file of `deploy/`, as it gives them to the daemon.
fn settings_in(path: &str) -> Vec<(String, String)> {
    let text = read(path);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let pair = match line.strip_prefix("- name: ").or(line.strip_prefix("Environment=")) {
            Some(name) if !name.contains('=') => {
                let value = lines[number + 1].strip_prefix("value: ").unwrap_or("a token for the test");
                Some((name, value))
            }
            Some(pair) => pair.split_once('='),
            None => line.split_once(": "),
        };
        if let Some((name, value)) = pair.filter(|(name, _)| name.starts_with("AUDIO_")) {
            found.push((
                name.to_owned(),
                value.trim_matches('"').replace("a token for the test", "0123456789abcdef"),
            ));
        }
    }
    found
}

#[test]
fn the_daemon_takes_the_settings_of_each_and_is_ready_by_them() {
    let files = ["deploy/sidetape.service", "deploy/compose.yaml", "deploy/kubernetes/sidecar.yaml"];
    for path in files {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("run/sidetape")).unwrap();
        let settings = settings_in(path);
        assert!(settings.len() >= 3, "{path}: {settings:?}");
        let mut command = Command::new(PROGRAM);
        command
            .arg("serve")
            .env_clear()
            .env("AUDIO_MIN_FREE_BYTES", "0")
            .env("AUDIO_SPOOL_DIR", folder.path().join("spool"));
        command
            .env("AUDIO_STORAGE_PATH", folder.path().join("recordings"))
            .env("AUDIO_UDP_LISTEN", "127.0.0.1:0");
        for (name, value) in &settings {
            let value = if value.starts_with('/') {
                format!("{}{value}", folder.path().display())
            } else {
                value.clone()
            };
            command.env(name, value.replace(":8080", ":0"));
        }
        fs::create_dir_all(folder.path().join("var/lib/sidetape")).unwrap();
        // The rig reads text.
        command.env("AUDIO_LOG_FORMAT", "text");
        let daemon = Daemon::start_by(command);
        if settings.iter().any(|(name, _)| name == "AUDIO_HTTP_LISTEN") {
            let asked = Command::new(PROGRAM)
                .args(["ready", "--http-listen", &http_address(&daemon)])
                .output()
                .unwrap();
            assert!(asked.status.success(), "{path}: {}", said(&asked));
        }
        let log = daemon.stop();
        assert!(!log.contains("ERROR") && !log.contains("AUDIO_HTTP_TOKEN prevents"), "{path}: {log}");
    }
}

#[test]
fn the_environment_file_shows_each_setting_with_its_default() {
    let text = read("deploy/sidetape.env");
    for variable in VARIABLES {
        let default = if variable.default == "unset" { "" } else { variable.default };
        let line = format!("#{}={default}", variable.name);
        assert!(text.lines().any(|found| found == line), "deploy/sidetape.env lacks {line}");
    }
    for line in text.lines().filter(|line| line.contains("AUDIO_") && line.contains('=')) {
        let name = line.trim_start_matches(['#', ' ']).split('=').next().unwrap();
        let is_prose = name.contains(' ');
        assert!(
            is_prose || VARIABLES.iter().any(|variable| variable.name == name),
            "{line}: no such setting"
        );
    }
}

/// Every file below a folder.
fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

#[test]
fn no_file_speaks_of_a_setting_that_there_is_not() {
    let mut files = vec![root().join("Dockerfile"), root().join("README.md")];
    files_below(&root().join("deploy"), &mut files);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("AUDIO_") {
            let rest = &text[at..];
            let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(rest.len());
            let name = rest[..end].trim_end_matches('_');
            let is_known = VARIABLES
                .iter()
                .any(|variable| variable.name == name || variable.name.starts_with(&rest[..end]));
            assert!(is_known || name == "AUDIO", "{}: there is no {name}", path.display());
        }
    }
}
