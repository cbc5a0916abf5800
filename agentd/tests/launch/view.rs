//! What the agent sees, and how the rules find what they name in it.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agentd::launch::{Anchor, AnchorKind, LaunchError, launch};

use crate::lab::{GID, Lab, SHIM, UID, chain, code};

#[test]
fn tmp_is_private_and_the_workspace_below_it_is_not_lost() {
    fs::write("/tmp/agentd-test-outside", "secret").unwrap();
    let lab = Lab::sh(
        "ls -A /tmp; echo --; ls -A /var/tmp /dev/shm; echo --; stat -c %a /tmp; touch /tmp/mine /dev/shm/mine; \
         echo made > result; pwd; cat extra/file",
    );
    let extra = lab.root.join("extra");
    fs::create_dir(&extra).unwrap();
    fs::write(extra.join("file"), "from outside").unwrap();
    std::os::unix::fs::symlink(&extra, lab.work().join("extra")).unwrap();
    // Named through the link; kept where it really is.
    let path = lab.work().join("extra");
    let lab = lab.rule(path.to_str().unwrap(), "read", "");
    let outcome = lab.run();
    let tag = lab.root.file_name().unwrap().to_str().unwrap();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(&lines[..2], [tag, "--"], "only the way to the workspace: {outcome:?}");
    assert!(outcome.stdout.contains("1777\n"));
    assert!(outcome.stdout.ends_with(&format!("{}\nfrom outside", lab.work().display())), "{outcome:?}");
    assert_eq!(fs::read_to_string(lab.work().join("result")).unwrap(), "made\n");
    assert!(!Path::new("/tmp/mine").exists());
    assert!(!Path::new("/dev/shm/mine").exists());
    fs::remove_file("/tmp/agentd-test-outside").unwrap();
}

#[test]
fn directories_in_the_private_tmp_are_made_for_the_agent() {
    let mut lab = Lab::sh("stat -c '%a %u %g' /tmp/claude /tmp/claude/deep; touch /tmp/claude/deep/x && echo ok");
    lab.request.spec.tmp_directories = vec!["/tmp/claude".into(), "/tmp/claude/deep".into()];
    assert_eq!(lab.run().stdout, format!("700 {UID} {GID}\n700 {UID} {GID}\nok\n"));
    for astray in ["/etc/agentd-test", "/tmp/../etc/agentd-test"] {
        lab.request.spec.tmp_directories = vec![astray.into()];
        assert!(lab.refused().contains("it is in no private place"), "{}", lab.refused());
    }
}

#[test]
fn hidden_directories_are_empty() {
    let mut lab = Lab::sh("ls -A \"$SECRETS\" | wc -l; touch \"$SECRETS/x\"");
    let secrets = PathBuf::from(format!("/var/lib/{}", lab.root.file_name().unwrap().to_str().unwrap()));
    fs::create_dir(&secrets).unwrap();
    fs::write(secrets.join("key"), "secret").unwrap();
    lab.request.spec.env.push(("SECRETS".into(), secrets.to_str().unwrap().into()));
    lab.request.hide = vec![secrets.clone(), "/does/not/exist".into()];
    let outcome = lab.run();
    assert_eq!(outcome.stdout, "0\n");
    assert!(outcome.stderr.contains("Permission denied"));
    // No rule brings it back, and neither does a workspace around it.
    let key = secrets.join("key");
    let mut lab = lab.rule(key.to_str().unwrap(), "read", "");
    assert!(lab.refused().contains("key does not exist"), "{}", lab.refused());
    lab.request.spec.paths.clear();
    let inner = lab.work().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("key"), "secret").unwrap();
    lab.request.hide = vec![inner.clone()];
    lab.request.spec.env.push(("SECRETS".into(), inner.to_str().unwrap().into()));
    lab.request.spec.env.retain(|(_, value)| value != secrets.to_str().unwrap());
    assert_eq!(lab.run().stdout, "0\n");
    fs::remove_dir_all(secrets).unwrap();
}

/// (device, inode)
fn identity(file: &impl AsFd) -> (u64, u64) {
    let file = fs::File::from(file.as_fd().try_clone_to_owned().unwrap());
    let metadata = file.metadata().unwrap();
    (metadata.dev(), metadata.ino())
}

fn identity_at(path: &Path) -> (u64, u64) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.dev(), metadata.ino())
}

#[test]
fn anchors_are_what_the_agent_will_see() {
    let lab = Lab::sh("true");
    let work = lab.work();
    fs::create_dir(work.join("real")).unwrap();
    fs::write(work.join("real/file"), "").unwrap();
    std::os::unix::fs::symlink("real/file", work.join("link")).unwrap();
    std::os::unix::fs::symlink("gone/target", work.join("dangling")).unwrap();
    let at = |path: &str| format!("{}/{path}", work.display());
    let lab = lab
        .rule(&at(""), "all", "")
        .rule(&at("link"), "", "write")
        .rule(&at("missing"), "", "all")
        .rule(&at("no/such/dir"), "", "all")
        .rule(&at("dangling"), "", "all")
        .rule("**/.git/hooks", "", "write")
        .rule("/tmp", "all", "")
        .rule("/tmp/agentd-unseen", "", "read")
        .rule("/etc/passwd", "read", "");
    let mut lab = lab.rule("/does/not/exist", "read", "");
    lab.request.spec.paths.last_mut().unwrap().optional = true;
    fs::write("/tmp/agentd-unseen", "on the host, not in the agent's view").unwrap();
    let gate = lab.launch();
    let uses = || gate.anchors().iter().flat_map(|a| a.uses.iter().map(|of_rule| (of_rule, identity(&a.file))));
    let of = |rule: usize| -> Vec<_> {
        let of_rule = uses().filter(|(a, _)| a.rule == rule && a.kind != AnchorKind::Way);
        of_rule.map(|(a, file)| (a.kind.clone(), file)).collect()
    };
    let ways: Vec<_> = uses().filter(|(a, _)| a.kind == AnchorKind::Way).map(|(_, file)| file).collect();
    let name = |names: &[&str]| AnchorKind::Name { names: names.iter().map(ToString::to_string).collect() };
    let (directory, file) = (AnchorKind::Object { directory: true }, AnchorKind::Object { directory: false });
    let here = identity_at(&work);
    assert_eq!(of(0), [(directory.clone(), here)]);
    assert_eq!(
        of(1),
        [
            (name(&["link"]), here),
            (file.clone(), identity_at(&work.join("real/file"))),
            (name(&["file"]), identity_at(&work.join("real"))),
        ]
    );
    assert_eq!(of(2), [(name(&["missing"]), here)]);
    assert_eq!(of(3), [(name(&["no", "such", "dir"]), here)]);
    assert_eq!(of(4), [(name(&["dangling"]), here), (name(&["gone", "target"]), here)]);
    assert_eq!(of(5), []);
    let tmp = of(6);
    assert_eq!(tmp.len(), 1);
    assert_ne!(tmp[0].1, identity_at(Path::new("/tmp")), "its own /tmp, not the host's");
    assert_eq!(of(7), [(name(&["agentd-unseen"]), tmp[0].1)]);
    assert_eq!(of(8), [(file, identity_at(Path::new("/etc/passwd")))]);
    let names_or_way = |a: &&Anchor| a.uses.iter().any(|of_rule| !matches!(of_rule.kind, AnchorKind::Object { .. }));
    let shared: Vec<_> = gate.anchors().iter().filter(names_or_way).map(|anchor| identity(&anchor.file)).collect();
    assert_eq!(shared.len(), shared.iter().collect::<BTreeSet<_>>().len(), "no directory is opened twice");
    assert_eq!(of(9), []);
    for above in [here, identity_at(&work.join("real")), tmp[0].1] {
        assert_eq!(ways.iter().filter(|way| **way == above).count(), 1, "each directory above a denial, once");
    }
    fs::remove_file("/tmp/agentd-unseen").unwrap();
}

#[test]
fn a_rule_on_a_missing_path_is_refused_by_name() {
    let lab = Lab::sh("true").rule("/no/such/place", "read", "");
    let Err(LaunchError::Missing { path, origin }) = launch(Path::new(SHIM), &lab.place, &lab.request) else {
        panic!("must be refused")
    };
    assert_eq!((path.as_str(), origin.to_string().as_str()), ("/no/such/place", "--allow read:/no/such/place"));
    assert!(lab.cgroup_is_empty());
}

#[test]
fn what_does_not_work_is_named() {
    let mut lab = Lab::sh("true");
    lab.request.spec.cwd = "/no/such/directory".into();
    let outcome = lab.run();
    assert_eq!(outcome.status, code(125));
    assert_eq!(outcome.notices, ["cannot enter \"/no/such/directory\": No such file or directory (os error 2)"]);
    let mut lab = Lab::sh("true");
    let real = std::mem::replace(&mut lab.place.cgroup, "/no/such/cgroup".into());
    assert!(lab.refused().starts_with("cannot open cgroup /no/such/cgroup: No such file"), "{}", lab.refused());
    lab.place.cgroup = real;
    let error = launch(Path::new("/no/such/agentd"), &lab.place, &lab.request).unwrap_err();
    assert!(chain(&error).starts_with("cannot start the shim /no/such/agentd: No such file"));
    // A program that is no shim.
    let error = launch(Path::new("/bin/true"), &lab.place, &lab.request).unwrap_err();
    assert!(chain(&error).contains("broke off"), "{}", chain(&error));
    let empty = Lab::new(&[""]);
    assert!(empty.refused().contains("no program is given"));
}

#[test]
fn many_anchors_pass_and_stay_open() {
    let mut lab = Lab::sh("true");
    for number in 0..1000 {
        let path = lab.work().join(format!("f{number}"));
        fs::write(&path, "").unwrap();
        lab = lab.rule(path.to_str().unwrap(), "read", "");
    }
    let gate = lab.launch();
    assert_eq!(gate.anchors().len(), 1000);
    let held = fs::read_dir(format!("/proc/{}/fd", gate.shim_pid())).unwrap().count();
    assert!(held >= 1000, "the shim holds {held}");
}
