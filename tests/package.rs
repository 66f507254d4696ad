//! The Debian package: what is in it and with which rights, what lintian says of it, and a service's life in a fresh
//! Debian that it is installed into. Needs `cargo-deb`; the last part needs root, mmdebstrap and systemd-nspawn.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rig::judges::{run, said};
use tempfile::TempDir;

/// The package of the program that is under test, built once; nothing where cargo-deb is not installed.
fn package() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<(TempDir, PathBuf)>> = OnceLock::new();
    BUILT.get_or_init(build).as_ref().map(|(_, path)| path.as_path())
}

fn build() -> Option<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidetape.deb");
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let mut command = Command::new("cargo-deb");
    command
        .args(["--quiet", "--no-build", "--fast", "--strip", "--no-dbgsym", "--profile", profile, "--output"])
        .arg(&path);
    let output = run(command.current_dir(env!("CARGO_MANIFEST_DIR")))?;
    assert!(output.status.success() && path.exists(), "cargo-deb: {}", said(&output));
    Some((folder, path))
}

/// What a program of the system prints about the package.
fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let output = run(Command::new(program).args(arguments).arg(package()?))?;
    assert!(output.status.success(), "{program} {arguments:?}: {}", said(&output));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_package_brings_each_file_with_its_rights_and_nothing_else() {
    let Some(listed) = ask("dpkg-deb", &["--contents"]) else { return };
    let mut found: Vec<(&str, &str)> = listed
        .lines()
        .map(|line| (line.split_whitespace().next().unwrap(), line.split(" ./").nth(1).unwrap()))
        .filter(|(_, path)| !path.ends_with('/') && !path.starts_with("usr/share/man/"))
        .collect();
    found.sort_by_key(|(_, path)| *path);
    assert_eq!(
        found,
        [
            ("-rw-r-----", "etc/sidetape/sidetape.env"),
            ("-rwxr-xr-x", "usr/bin/sidetape"),
            ("-rw-r--r--", "usr/lib/systemd/system/sidetape.service"),
            ("-rw-r--r--", "usr/lib/sysusers.d/sidetape.conf"),
            ("-rw-r--r--", "usr/lib/tmpfiles.d/sidetape.conf"),
            ("-rw-r--r--", "usr/share/bash-completion/completions/sidetape"),
            ("-rw-r--r--", "usr/share/doc/sidetape/OPERATING.md"),
            ("-rw-r--r--", "usr/share/doc/sidetape/README.fixtures.md"),
            ("-rw-r--r--", "usr/share/doc/sidetape/README.md"),
            ("-rw-r--r--", "usr/share/doc/sidetape/changelog.Debian.gz"),
            ("-rw-r--r--", "usr/share/doc/sidetape/copyright"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/alerts.yaml"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/compose.yaml"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/grafana-dashboard.json"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/kubernetes/sidecar.yaml"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/README.md"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/go/cmd/dropin/main.go"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/go/cmd/gateway/main.go"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/go/go.mod"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/go/sidetape/backlog.go"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/go/sidetape/backlog_test.go"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/go/sidetape/sender.go"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/go/storage/audio.go"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/node/gateway.js"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/node/sidetape-sender.js"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/python/gateway.py"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/python/sidetape_sender.py"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/python/test_sidetape_sender.py"),
            ("-rw-r--r--", "usr/share/doc/sidetape/examples/senders/rust/gateway.rs"),
            ("-rw-r--r--", "usr/share/doc/sidetape/openapi.yaml"),
            ("-rw-r--r--", "usr/share/doc/sidetape/storage/README.md"),
            ("-rw-r--r--", "usr/share/doc/sidetape/storage/azure-lifecycle.json"),
            ("-rw-r--r--", "usr/share/doc/sidetape/storage/azure-role.json"),
            ("-rw-r--r--", "usr/share/doc/sidetape/storage/gcs-lifecycle.json"),
            ("-rw-r--r--", "usr/share/doc/sidetape/storage/gcs-role.yaml"),
            ("-rw-r--r--", "usr/share/doc/sidetape/storage/s3-lifecycle.json"),
            ("-rw-r--r--", "usr/share/doc/sidetape/storage/s3-policy.json"),
            ("-rw-r--r--", "usr/share/fish/vendor_completions.d/sidetape.fish"),
            ("-rw-r--r--", "usr/share/lintian/overrides/sidetape"),
            ("-rw-r--r--", "usr/share/zsh/vendor-completions/_sidetape"),
        ]
    );
    let pages = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/man")).unwrap().count();
    assert_eq!(listed.matches(".1.gz").count(), pages, "{listed}");
    assert!(listed.lines().all(|line| line.contains(" 0/0 ")), "all belongs to root: {listed}");
}

#[test]
fn settings_are_kept_by_an_upgrade_and_no_script_starts_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let Some(package) = package() else { return };
    let output = run(Command::new("dpkg-deb").arg("--control").arg(package).arg(folder.path())).unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("conffiles").trim(), "/etc/sidetape/sidetape.env");
    let control = read("control");
    for line in ["Package: sidetape", "Depends: ", "systemd-sysusers", "systemd-tmpfiles"] {
        assert!(control.contains(line), "{control}");
    }
    for name in ["postinst", "prerm", "postrm"] {
        let script = read(name);
        assert!(script.starts_with("#!/bin/sh\n") && !script.contains("#DEBHELPER#"), "{script}");
        for action in ["start sidetape", "restart", "enable --now"] {
            assert!(
                !script.lines().any(|line| !line.starts_with('#') && line.contains(action)),
                "{name}: {script}"
            );
        }
    }
    assert!(read("prerm").contains("deb-systemd-invoke stop sidetape.service"));
    assert!(!read("postrm").contains("rm -r"), "recordings are the owner's");
}

#[test]
fn lintian_has_nothing_to_say() {
    let Some(package) = package() else { return };
    // Its root account is the tests' own; that there are no symbols is what `--strip` is for.
    let mut command = Command::new("lintian");
    command.args(["--allow-root", "--fail-on", "error,warning"]).arg(package);
    if let Some(output) = run(&mut command) {
        assert!(output.status.success() && output.stdout.is_empty(), "{}", said(&output));
    }
}

#[test]
fn a_fresh_debian_takes_it_runs_it_and_gives_it_back() {
    let Some(package) = package() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/debian/try");
    for program in ["mmdebstrap", "systemd-nspawn"] {
        if run(Command::new(program).arg("--version")).is_none() {
            return;
        }
    }
    if !rustix::process::geteuid().is_root() {
        println!("not tried, only root can boot a machine");
        return;
    }
    let output = run(Command::new(script).arg(package)).unwrap();
    if output.status.code() == Some(77) {
        println!("{}", said(&output));
        return;
    }
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("try: all is as it should be"));
}
