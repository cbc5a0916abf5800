//! Ways round the rules on files, each closed, each with a way beside it that is open.
//!
//! The list is that of the trial before this project (the bypass matrix) and what was left out there. `ok` may be used in
//! every way, `data` in every way but executed, `ro` is read, `no` is denied, and `nothing` is not mentioned at all.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::{Agent, Bench, Case, Expect, FileSystem, Options, Test, Tree, case, kernel, program};

const NO: Expect = Expect::Refused("EACCES");

pub(super) fn run(test: &mut Test) -> Result<()> {
    for on in FileSystem::ALL {
        let mut bench = bench(on)?;
        bench.run(test, CASES)?;
        if on == FileSystem::Overlay && kernel() == "6.1" {
            bench.expect(test, "a file without a name on this kernel", "tmpfile @ok", Expect::Refused("EOPNOTSUPP"))?;
        } else {
            bench.run(test, NAMELESS)?;
        }
        bench.run(test, CODE)?;
        if on == FileSystem::Btrfs {
            bench.run(test, ATTRIBUTES)?;
        }
        descriptors(test, &mut bench)?;
        moved_directories(test, &mut bench)?;
        mounts_outside(test, &mut bench)?;
    }
    mounted_before(test)?;
    mounted_in_its_view(test)?;
    subvolumes(test)?;
    numbers_of_an_overlay(test)?;
    too_deep(test)
}

fn bench(on: FileSystem) -> Result<Bench> {
    let tree = Tree::new("ways", on)?;
    for directory in ["ok", "ok/sub", "ok/m", "data", "ro", "no", "nothing"] {
        tree.file(&format!("{directory}/secret"), "secret\n")?;
        tree.file(&format!("{directory}/a"), "content\n")?;
        tree.program(&format!("{directory}/true"), "/usr/bin/true")?;
    }
    tree.file("ok/denied-file", "secret\n")?;
    let options = Options::base()
        .allow("all", tree.path("ok"))
        .allow("read,change", tree.path("data"))
        .allow("read", tree.path("ro"))
        .deny("all", tree.path("no"))
        .deny("all", tree.path("ok/denied-file"));
    let name = format!("ways-{on:?}").to_lowercase();
    Bench::new(&name, tree, &options)
}

/// By another name, another descriptor, another call.
const CASES: &[Case] = &[
    case("a symbolic link")
        .prepare("gone @ok/l; symlink @no/secret @ok/l; gone @ok/k; symlink @ok/a @ok/k")
        .refused("read @ok/l")
        .allowed("read @ok/k"),
    case("a link to a directory")
        .prepare("gone @ok/l; symlink @no @ok/l; gone @ok/k; symlink @ok @ok/k")
        .refused("read @ok/l/secret")
        .allowed("read @ok/k/a"),
    case("dots").refused("read @ok/../no/secret").allowed("read @no/../ok/a"),
    case("dots from what nobody mentions").refused("read @ok/../nothing/secret").allowed("read @nothing/../ok/a"),
    case("the working directory").refused("chdir-read @no secret").allowed("chdir-read @ok a"),
    case("a directory's descriptor").refused("openat @no secret").allowed("openat @ok a"),
    case("the bit of the kernel's own opens").refused("open-as-exec @no/secret").allowed("open-as-exec @ok/a"),
    case("a hard link in")
        .prepare("gone @ok/h")
        .refused("link @no/secret @ok/h")
        .allowed("link @ok/a @ok/h")
        .by("link"),
    case("a hard link in, of what nobody mentions")
        .prepare("gone @ok/h")
        .refused("link @nothing/secret @ok/h")
        .allowed("link @ok/a @ok/h"),
    case("a hard link in, of what may only be read")
        .prepare("gone @ok/h")
        .refused("link @ro/a @ok/h")
        .allowed("link @data/a @data/h")
        .prepare("gone @ok/h; gone @data/h"),
    case("a hard link in, by a descriptor")
        .prepare("gone @ok/h")
        .refused("path-link @no/secret @ok/h")
        .allowed("path-link @ok/a @ok/h"),
    case("a hard link out").prepare("gone @no/h; gone @ok/h").refused("link @ok/a @no/h").allowed("link @ok/a @ok/h"),
    case("a hard link of a denied file, made outside")
        .prepare("gone @ok/h; link @ok/denied-file @ok/h")
        .refused("read @ok/h")
        .allowed("read @ok/a"),
    case("a rename in")
        .prepare("file @no/b; gone @ok/b; file @ok/c; gone @ok/d")
        .refused("rename @no/b @ok/b")
        .allowed("rename @ok/c @ok/d")
        .by("rename"),
    case("a rename out")
        .prepare("file @ok/b; gone @no/b; gone @data/b")
        .refused("rename @ok/b @no/b")
        .allowed("rename @ok/b @data/b"),
    case("a rename over something denied")
        .prepare("file @ok/b; file @no/b; file @ok/c")
        .refused("rename @ok/b @no/b")
        .allowed("rename @ok/b @ok/c"),
    case("an exchange")
        .prepare("file @ok/b; file @no/b; file @ok/c")
        .refused("exchange @ok/b @no/b")
        .allowed("exchange @ok/b @ok/c"),
    case("an exchange of directories")
        .prepare("directory @ok/e; directory @no/e; directory @ok/f")
        .refused("exchange @ok/e @no/e")
        .allowed("exchange @ok/e @ok/f"),
    case("a rename to where it may be executed")
        .prepare("gone @ok/p; gone @data/p; copy @ok/true @data/p")
        .refused("rename @data/p @ok/p")
        .allowed("rename @data/p @data/q"),
    case("a hard link to where it may be executed")
        .prepare("gone @ok/p; gone @data/p; copy @ok/true @data/p")
        .refused("link @data/p @ok/p")
        .allowed("rename @data/p @data/q"),
    case("an exchange to where it may be executed")
        .prepare("copy @ok/true @data/p; file @ok/b")
        .refused("exchange @ok/b @data/p")
        .allowed("rename @data/p @data/q"),
    case("a directory to where its files may be executed")
        .prepare("gone @data/dir; gone @ok/dir; gone @data/dir2; directory @data/dir")
        .refused("rename @data/dir @ok/dir")
        .allowed("rename @data/dir @data/dir2"),
    case("a descriptor without access, opened again").refused("reopen @no/secret").allowed("reopen @ok/a"),
    case("a descriptor for reading, opened for writing")
        .refused("reopen-written @ro/a")
        .allowed("reopen-written @ok/a"),
    // These need Linux capabilities, so the user outside cannot do them either.
    case("a handle")
        .refused("handle @no/secret @ok")
        .with("EPERM|EOPNOTSUPP")
        .outside(Expect::Refused("EPERM|EOPNOTSUPP"))
        .allowed("read @ok/a"),
    case("a copy of a mount")
        .refused("open-tree @no secret")
        .with("EPERM")
        .outside(Expect::Refused("EPERM"))
        .allowed("read @ok/a"),
    case("a bind mount")
        .refused("bind-mount @no @ok/m")
        .with("EPERM")
        .outside(Expect::Refused("EPERM"))
        .allowed("read @ok/m/a"),
    case("an overlay")
        .refused("mount-overlay @no @ok @data @ok/m")
        .with("EPERM")
        .outside(Expect::Refused("EPERM"))
        .allowed("read @ok/m/a"),
    case("the root of its init")
        .refused("read /proc/1/root/etc/passwd")
        .with("EACCES|EPERM")
        .outside(Expect::Skip)
        .allowed("read /proc/self/root/etc/passwd"),
    case("its own root").refused("list /proc/self/root/").outside(Expect::Ok).allowed("list /proc/self/root/usr"),
    case("its own working directory").refused("list /proc/self/cwd/../../home/dev").allowed("list /proc/self/fd"),
];

/// Files without a name; overlayfs has them from 6.3 on.
const NAMELESS: &[Case] = &[
    case("a file without a name").refused("tmpfile @no").allowed("tmpfile @ok"),
    case("a file without a name where nothing may be created").refused("tmpfile @ro").allowed("tmpfile @data"),
    case("a file without a name that gets one")
        .prepare("gone @no/t; gone @ok/t")
        .refused("tmpfile-link @ok @no/t")
        .allowed("tmpfile-link @ok @ok/t"),
    case("a file without a name that becomes executable")
        .prepare("gone @ok/t; gone @data/t")
        .refused("tmpfile-link @data @ok/t")
        .allowed("tmpfile-link @data @data/t"),
];

/// Code by other doors than exec.
const CODE: &[Case] = &[
    case("exec without the right").refused("exec @data/true").allowed("exec @ok/true").by("exec"),
    case("exec by a descriptor").refused("exec-fd @data/true").allowed("exec-fd @ok/true"),
    case("exec by /proc").refused("exec-fd @no/true").allowed("exec-fd @ok/true"),
    case("exec of memory").refused("exec-memory /usr/bin/true").allowed("exec /usr/bin/true"),
    case("a script without the right")
        .prepare("script @data/s /bin/sh; script @ok/s /bin/sh")
        .refused("exec @data/s")
        .allowed("exec @ok/s"),
    case("a script whose interpreter has not the right")
        .prepare("script @ok/s @data/true; script @ok/t @ok/true")
        .refused("exec @ok/s")
        .allowed("exec @ok/t"),
    case("the loader as a program")
        .refused("exec /lib64/ld-linux-x86-64.so.2 @data/true")
        .inside(Expect::Says("exit 127"))
        .outside(Expect::Says("exit 0"))
        .allowed("exec /lib64/ld-linux-x86-64.so.2 @ok/true")
        .twin(Expect::Says("exit 0"))
        .by("mmap_exec"),
    case("an interpreter of what may not be read")
        .prepare("script @no/s /bin/sh; script @data/s /bin/sh")
        .refused("exec /bin/sh @no/s")
        .inside(Expect::Says("exit 2"))
        .outside(Expect::Says("exit 0"))
        // What may be read may be interpreted: exec is about what the kernel runs.
        .allowed("exec /bin/sh @data/s")
        .twin(Expect::Says("exit 0")),
    case("a mapping").refused("map-exec @data/true").allowed("map-exec @ok/true").by("mmap_exec"),
    case("a mapping that becomes code")
        .refused("map-then-exec @data/true")
        .allowed("map-then-exec @ok/true")
        .by("mprotect_exec"),
    case("a written mapping that becomes code")
        .refused("map-write-then-exec @data/true")
        .allowed("map-write-then-exec @ok/true"),
    case("a moved mapping that becomes code").refused("remap-exec @data/true").allowed("remap-exec @ok/true"),
    case("a mapping that is code because everything is")
        .refused("map-implied @data/true")
        .allowed("map-implied @ok/true"),
    // A compiler in memory works; a file in memory that nobody can name does not.
    case("a mapping of memory with a descriptor").refused("map-memfd").allowed("map-memory"),
];

/// What is known about a file. On btrfs, because tmpfs has no attributes of users before 6.6.
const ATTRIBUTES: &[Case] = &[
    case("setting an attribute").refused("setxattr @ro/a").allowed("setxattr @ok/a").by("attributes"),
    case("removing an attribute")
        .prepare("setxattr @ro/a; setxattr @ok/a")
        .refused("removexattr @ro/a")
        .allowed("removexattr @ok/a"),
    case("flags").refused("set-flags @ro/a").allowed("set-flags @ok/a"),
    case("times").refused("utimes @ro/a").allowed("utimes @ok/a"),
    case("mode").refused("chmod @ro/a").allowed("chmod @ok/a"),
    case("owner").refused("chown @ro/a").allowed("chown @ok/a"),
];

/// Descriptors from outside, and those that it was born with.
fn descriptors(test: &mut Test, bench: &mut Bench) -> Result<()> {
    let found = bench.try_inside("descriptors")?.detail;
    let numbers: Vec<&str> =
        found.split(' ').filter_map(|word| word.split_once('=')).map(|(number, _)| number).collect();
    // The attempt's own two: the pipe for its answer and the listing.
    test.check(numbers.len() == 5 && numbers[..3] == ["0", "1", "2"], || {
        format!("it was born with descriptors {found}")
    });

    bench.try_inside("hold-listen door @ok/door")?;
    for (path, came, read) in [("@no/secret", "ENOMSG", "EBADF"), ("@ok/a", "ok", "ok")] {
        let socket = bench.tree.path("ok/door");
        let sent = bench.tree.path(path.trim_start_matches('@'));
        bench.outside.ask(&["send-descriptor", &socket, &sent])?;
        let outcome = bench.try_inside("hold-receive door received")?;
        test.same(&format!("receiving a descriptor of {path}"), outcome.outcome.as_str(), came);
        let sent = bench.outside.answer("send-descriptor")?;
        test.check(sent.is_ok(), || format!("sending a descriptor came to {}", sent.outcome));
        let outcome = bench.try_inside("read-held received")?;
        test.same(&format!("reading the received descriptor of {path}"), outcome.outcome.as_str(), read);
        bench.try_inside("hold-drop received")?;
    }
    // What has no name belongs to whoever was given it.
    for kind in ["pipe", "socket", "memory"] {
        let socket = bench.tree.path("ok/door");
        bench.outside.ask(&["send-descriptor", &socket, kind])?;
        bench.expect(test, &format!("receiving a descriptor of a {kind}"), "hold-receive door received", Expect::Ok)?;
        bench.outside.answer("send-descriptor")?;
        bench.try_inside("hold-drop received")?;
    }
    bench.try_inside("hold-drop door")?;
    bench.try_inside("unlink @ok/door")?;
    Ok(())
}

/// A directory that has been asked about is moved by somebody outside: the answer goes with its place.
fn moved_directories(test: &mut Test, bench: &mut Bench) -> Result<()> {
    bench.try_outside("directory @ok/way/deep")?;
    bench.try_outside("file @ok/way/deep/f")?;
    bench.expect(test, "before it is moved", "read @ok/way/deep/f", Expect::Ok)?;
    bench.expect(test, "before it is moved", "hold way @ok/way/deep", Expect::Ok)?;
    bench.expect(test, "before it is moved", "openat-held way f", Expect::Ok)?;
    bench.try_outside("rename @ok/way @no/way")?;
    bench.expect(test, "a directory moved away, by its descriptor", "openat-held way f", NO)?;
    bench.expect(test, "a directory moved away, by its name", "read @no/way/deep/f", NO)?;
    bench.try_outside("rename @no/way @ok/way2")?;
    bench.expect(test, "a directory moved back", "openat-held way f", Expect::Ok)?;
    bench.try_outside("rename @ok/way2 @nothing/way")?;
    bench.expect(test, "a directory moved to where nothing is said", "openat-held way f", NO)?;
    bench.try_outside("exchange @ok/sub @nothing/way")?;
    bench.expect(test, "a directory exchanged in", "read @ok/sub/deep/f", Expect::Ok)?;
    bench.expect(test, "a directory exchanged out", "read @nothing/way/a", NO)?;
    bench.try_outside("exchange @ok/sub @nothing/way")?;
    bench.try_inside("hold-drop way")?;
    bench.try_outside("gone @nothing/way")?;
    Ok(())
}

/// What is mounted outside after its start does not reach its view.
fn mounts_outside(test: &mut Test, bench: &mut Bench) -> Result<()> {
    bench.expect(test, "before", "read @ok/m/a", Expect::Says("content"))?;
    let (from, to) = (bench.tree.path("no"), bench.tree.path("ok/m"));
    mount(Some(from.as_str()), to.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    fs::write(format!("{from}/only-here"), "secret")?;
    let outside = bench.try_outside("read @ok/m/only-here")?;
    test.check(outside.is_ok(), || format!("outside sees its own mount: {}", outside.outcome));
    bench.expect(test, "a mount made outside", "read @ok/m/only-here", Expect::Refused("ENOENT"))?;
    bench.expect(test, "what is below that mount", "read @ok/m/a", Expect::Says("content"))?;
    umount2(to.as_str(), MntFlags::MNT_DETACH)?;
    fs::remove_file(format!("{from}/only-here"))?;
    Ok(())
}

/// Mounts that were there at its start: a denial holds on the object by whatever way one comes to it, and what nobody
/// mentions is decided by where it is mounted.
fn mounted_before(test: &mut Test) -> Result<()> {
    let tree = Tree::new("mounted", FileSystem::Overlay)?;
    for file in ["no/secret", "other/f", "ok/denied/x", "ok/bound/x", "ok/over/x", "away/x"] {
        tree.file(file, "content\n")?;
    }
    let bind = |from: &str, to: &str| {
        mount(Some(tree.path(from).as_str()), tree.path(to).as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
    };
    bind("no", "ok/denied")?;
    bind("other", "ok/bound")?;
    bind("ok", "away")?;
    // An overlay cannot have another one below it as its upper layer, so it lies on tmpfs.
    let disk = Tree::new("layers", FileSystem::Tmpfs)?;
    for file in ["lower/f", "upper/g"] {
        disk.file(file, "content\n")?;
    }
    disk.directory("work")?;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", disk.path("lower"), disk.path("upper"), disk.path("work"));
    mount(Some("o"), tree.path("ok/over").as_str(), Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    let mounts = [tree.path("ok/denied"), tree.path("ok/bound"), tree.path("ok/over"), tree.path("away")];

    let options =
        Options::base().allow("all", tree.path("ok")).deny("all", tree.path("no")).deny("all", disk.path("lower"));
    let mut bench = Bench::new("mounted", tree, &options)?;
    bench.expect(test, "a denied directory through a bind mount", "read @ok/denied/secret", NO)?;
    bench.expect(test, "a directory that nobody mentions through a bind mount", "read @ok/bound/f", Expect::Ok)?;
    bench.expect(test, "the same where it is", "read @other/f", NO)?;
    bench.expect(test, "an allowed directory through a bind mount", "read @away/denied/x", Expect::Ok)?;
    // The objects of an overlay are its own: a denial on a layer says nothing about them.
    bench.expect(test, "a denied lower layer through an overlay", "read @ok/over/f", Expect::Ok)?;
    bench.expect(test, "an overlay that is written", "create @ok/over/new", Expect::Ok)?;
    bench.expect(test, "copying up", "append @ok/over/f", Expect::Ok)?;
    drop(bench.agent);
    for place in mounts {
        umount2(place.as_str(), MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// Root changes mounts in the agent's own view. The number of a mount that is gone may be given again (before 6.8), and an
/// answer that was kept for the old one must not be given for the new.
fn mounted_in_its_view(test: &mut Test) -> Result<()> {
    let tree = Tree::new("view", FileSystem::Overlay)?;
    for file in ["ok/m/x", "ok/sub/f", "no/m/x"] {
        tree.file(file, "content\n")?;
    }
    let options = Options::base().allow("all", tree.path("ok"));
    let mut bench = Bench::new("view", tree, &options)?;
    let init = bench.agent.init()?.to_string();
    let (sub, there, elsewhere) = (bench.tree.path("ok/sub"), bench.tree.path("ok/m"), bench.tree.path("no/m"));
    let inside = |words: &[&str]| -> Result<()> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &init, "-m", "-p", "--"]).args(words);
        program(&mut command)?.ok("nsenter").map(drop)
    };
    for _ in 0..20 {
        inside(&["mount", "--bind", &sub, &there])?;
        bench.expect(test, "a bind mount in its view", "read @ok/m/f", Expect::Ok)?;
        inside(&["umount", &there])?;
        inside(&["mount", "--bind", &sub, &elsewhere])?;
        bench.expect(test, "the same directory mounted where nothing is allowed", "read @no/m/f", NO)?;
        inside(&["umount", &elsewhere])?;
    }
    Ok(())
}

/// Inode numbers repeat between subvolumes of btrfs.
fn subvolumes(test: &mut Test) -> Result<()> {
    let tree = Tree::new("subvolumes", FileSystem::Btrfs)?;
    for name in ["one", "two"] {
        let path = tree.path(name);
        program(Command::new("btrfs").args(["subvolume", "create", &path]))?.ok("btrfs subvolume create")?;
        tree.directory(&format!("{name}/d"))?;
        tree.file(&format!("{name}/d/f"), name)?;
        tree.file(&format!("{name}/single"), name)?;
    }
    let number = |path: &str| fs::metadata(tree.path(path)).map(|meta| meta.ino()).context("no such file");
    for path in ["d", "single"] {
        let (one, two) = (number(&format!("one/{path}"))?, number(&format!("two/{path}"))?);
        ensure!(one == two, "the two subvolumes number {path} differently: {one}, {two}");
    }
    let options = Options::base().allow("read", tree.path("one/d")).allow("read", tree.path("one/single"));
    let mut bench = Bench::new("subvolumes", tree, &options)?;
    bench.expect(test, "the allowed directory", "read @one/d/f", Expect::Says("one"))?;
    bench.expect(test, "the directory of the same number", "read @two/d/f", NO)?;
    bench.expect(test, "the allowed file", "read @one/single", Expect::Says("one"))?;
    bench.expect(test, "the file of the same number", "read @two/single", NO)?;
    // Made after its start.
    let (from, to) = (bench.tree.path("one"), bench.tree.path("copy"));
    program(Command::new("btrfs").args(["subvolume", "snapshot", &from, &to]))?.ok("btrfs subvolume snapshot")?;
    bench.expect(test, "a snapshot of the allowed directory", "read @copy/d/f", NO)?;
    let Bench { agent, tree, .. } = bench;
    drop::<Agent>(agent);
    for name in ["one", "two", "copy"] {
        program(Command::new("btrfs").args(["subvolume", "delete", &tree.path(name)]))?.ok("btrfs subvolume delete")?;
    }
    Ok(())
}

/// An overlay of two file systems numbers directories by itself and takes the numbers of files from the layers, so a file
/// and a directory can have the same. The rule on the one must not speak for the other.
fn numbers_of_an_overlay(test: &mut Test) -> Result<()> {
    let tree = Tree::new("numbers", FileSystem::Overlay)?;
    let number = |path: &str| fs::metadata(tree.path(path)).map(|meta| meta.ino()).context("no such file");
    tree.directory("ok/0")?;
    // Files are numbered by the upper layer: up to a number that no directory has yet.
    let mut files = Vec::new();
    loop {
        let name = format!("no/{}", files.len());
        tree.file(&name, "secret\n")?;
        files.push((number(&name)?, name));
        if files.len() > 20 && number("ok/0")? + 10 < number(&files[files.len() - 1].1)? {
            break;
        }
        ensure!(files.len() < 5000, "no file gets a number above that of a directory");
    }
    // Directories are numbered one after the other: up to one that a file has.
    let mut count = 0;
    let (file, directory) = loop {
        count += 1;
        ensure!(count < 5000, "no directory gets the number of a file");
        let name = format!("ok/{count}");
        tree.directory(&name)?;
        let wanted = number(&name)?;
        if let Some((_, file)) = files.iter().find(|(number, _)| *number == wanted) {
            break (file.clone(), name);
        }
    };
    let options = Options::base().allow("all", tree.path(&directory)).allow("read", tree.path("ok/0"));
    // Rules on single files are only looked for where there are any.
    tree.file("one", "content\n")?;
    let options = options.allow("read", tree.path("one"));
    let mut bench = Bench::new("numbers", tree, &options)?;
    bench.expect(test, "a file with the number of an allowed directory", &format!("read @{file}"), NO)?;
    bench.expect(test, "the allowed file", "read @one", Expect::Ok)?;
    Ok(())
}

/// More directories than are walked: refused, however much is allowed above.
fn too_deep(test: &mut Test) -> Result<()> {
    let tree = Tree::new("deep", FileSystem::Overlay)?;
    let options = Options::base().allow("all", tree.path(""));
    let mut bench = Bench::new("deep", tree, &options)?;
    bench.expect(test, "50 levels down", "deep @ 50", Expect::Ok)?;
    let outside = bench.try_outside("deep @ 90")?;
    test.check(outside.is_ok(), || format!("90 levels down outside: {}", outside.outcome));
    bench.expect(test, "90 levels down", "deep @ 90", NO)?;
    Ok(())
}
