//! Each right on files, allowed and denied; the nearest rule wins; what nobody mentions is denied; names are denied
//! before they exist and after they were replaced. On each kind of file system.

use std::fs;

use anyhow::Result;

use crate::harness::{Bench, Case, Expect, FileSystem, Options, Test, Tree, case};

pub(super) fn run(test: &mut Test) -> Result<()> {
    // The machine has none of those secrets, and one that can be read by everybody shows that it is not the mode that refuses.
    fs::write("/etc/sudoers", "secret\n")?;
    let done = everywhere(test);
    fs::remove_file("/etc/sudoers")?;
    done
}

fn everywhere(test: &mut Test) -> Result<()> {
    for on in FileSystem::ALL {
        let mut bench = bench(on)?;
        bench.run(test, CASES)?;
        bench.run(test, NAMES)?;
        replaced(test, &mut bench)?;
        nothing_reached_the_daemon_late(test, &bench)?;
    }
    Ok(())
}

fn bench(on: FileSystem) -> Result<Bench> {
    let tree = Tree::new("files_basic", on)?;
    for directory in
        ["all", "none", "read", "write", "exec", "create", "delete", "all/no", "all/no/yes", "all/sub", "ro", "names"]
    {
        tree.directory(directory)?;
        tree.file(&format!("{directory}/f"), "content\n")?;
    }
    for file in ["single-read", "single-write", "all/denied-file", "none/allowed-file"] {
        tree.file(file, "content\n")?;
    }
    for program in ["exec/true", "all/true", "read/true", "none/true"] {
        tree.program(program, "/usr/bin/true")?;
    }
    let options = Options::base()
        .allow("all", tree.path("all"))
        .deny("all", tree.path("all/no"))
        .allow("read,write,create", tree.path("all/no/yes"))
        .deny("all", tree.path("all/denied-file"))
        .allow("read", tree.path("read"))
        .allow("write", tree.path("write"))
        .allow("exec", tree.path("exec"))
        .allow("create,write", tree.path("create"))
        .allow("delete", tree.path("delete"))
        .allow("all", tree.path("ro"))
        .deny("change", tree.path("ro"))
        .allow("read", tree.path("single-read"))
        .allow("read,write", tree.path("single-write"))
        .allow("read", tree.path("none/allowed-file"))
        .allow("all", tree.path("names"))
        .deny("change", "**/.git/hooks")
        .deny("all", "**/secret-name")
        .deny("change", tree.path("names/missing"))
        .deny("all", tree.path("names/deep/er/est"));
    let name = format!("files-{on:?}").to_lowercase();
    Bench::new(&name, tree, &options)
}

/// Each right alone, and rules within rules.
const CASES: &[Case] = &[
    case("reading").refused("read @none/f").allowed("read @read/f").by("open"),
    case("reading where only writing is allowed").refused("read @write/f").allowed("write @write/f"),
    case("writing where only reading is allowed").refused("write @read/f").allowed("read @read/f"),
    case("cutting to nothing")
        .refused("overwrite @read/f")
        .allowed("overwrite @write/f")
        .prepare("file @read/f; file @write/f"),
    case("truncate()")
        .refused("truncate @read/f")
        .allowed("truncate @write/f")
        .prepare("file @write/f; file @read/f")
        .by("truncate"),
    case("opening for both").refused("update @read/f").allowed("update @all/f"),
    case("opening for neither").refused("ioctl-only @write/f").allowed("ioctl-only @all/f"),
    case("listing").refused("list @none").allowed("list @read"),
    case("executing").refused("exec @read/true").allowed("exec @exec/true").by("exec"),
    case("executing what nothing is said about").refused("exec @none/true").allowed("exec @all/true"),
    case("reading what may only be executed").refused("read @exec/true").allowed("read @read/true"),
    case("creating")
        .prepare("gone @none/new; gone @create/new")
        .refused("create @none/new")
        .allowed("create @create/new")
        .by("mknod"),
    case("creating where only writing is allowed")
        .prepare("gone @write/new")
        .refused("create @write/new")
        .allowed("write @write/f"),
    case("making a directory")
        .prepare("gone @write/d; gone @create/d")
        .refused("mkdir @write/d")
        .allowed("mkdir @create/d")
        .by("mkdir"),
    case("making a symbolic link")
        .prepare("gone @write/l; gone @create/l")
        .refused("symlink x @write/l")
        .allowed("symlink x @create/l")
        .by("symlink"),
    case("making a pipe")
        .prepare("gone @write/p; gone @create/p")
        .refused("mkfifo @write/p")
        .allowed("mkfifo @create/p"),
    case("removing")
        .prepare("file @create/f; file @delete/f")
        .refused("unlink @create/f")
        .allowed("unlink @delete/f")
        .by("unlink"),
    case("removing a directory")
        .prepare("directory @create/d; directory @delete/d")
        .refused("rmdir @create/d")
        .allowed("rmdir @delete/d")
        .by("rmdir"),
    case("a denial within a permission").refused("read @all/no/f").allowed("read @all/sub/f"),
    case("writing there").refused("write @all/no/f").allowed("write @all/sub/f"),
    case("creating there")
        .prepare("gone @all/no/new; gone @all/sub/new")
        .refused("create @all/no/new")
        .allowed("create @all/sub/new"),
    case("a permission within that denial").refused("read @all/no/f").allowed("read @all/no/yes/f"),
    case("what that permission does not mention")
        .prepare("file @all/no/yes/f")
        .refused("unlink @all/no/yes/f")
        .allowed("write @all/no/yes/f"),
    case("a denial on a file in a permission").refused("read @all/denied-file").allowed("read @all/f"),
    case("a permission for one file").refused("read @none/f").allowed("read @none/allowed-file"),
    case("its neighbour in the same directory").refused("write @none/allowed-file").allowed("write @single-write"),
    case("one file, and a right that it does not have").refused("write @single-read").allowed("read @single-read"),
    case("a denial on the same directory wins").refused("write @ro/f").allowed("read @ro/f"),
    case("creating where the denial wins").prepare("gone @ro/new").refused("create @ro/new").allowed("read @ro/f"),
    case("changing the mode").refused("chmod @read/f").allowed("chmod @write/f").by("chmod"),
    case("changing the owner").refused("chown @read/f").allowed("chown @write/f").by("chown"),
    case("changing the times").refused("utimes @read/f").allowed("utimes @write/f").by("attributes"),
    case("moving out of where nothing may be removed")
        .prepare("file @create/f; gone @all/moved; file @all/f2")
        .refused("rename @create/f @all/moved")
        .allowed("rename @all/f2 @all/moved")
        .by("rename"),
    case("moving to where nothing may be created")
        .prepare("file @all/f2; gone @delete/moved; gone @all/moved")
        .refused("rename @all/f2 @delete/moved")
        .allowed("rename @all/f2 @all/moved"),
    case("what is not in any rule: another home").refused("read /home/dev/.profile").allowed("read /etc/passwd"),
    case("what the profile denies within what it allows").refused("read /etc/sudoers").allowed("read /etc/group"),
    case("the root directory").refused("list /").allowed("list /usr"),
    case("only a look at what is denied").allowed("stat @none/f"),
];

/// Names that are denied whether or not there is anything.
const NAMES: &[Case] = &[
    case("a pattern of two names, not there yet")
        .prepare("gone @names/repo; directory @names/repo/.git")
        .refused("mkdir @names/repo/.git/hooks")
        .allowed("mkdir @names/repo/.git/other"),
    case("a pattern of two names, there")
        .prepare("directory @names/repo/.git/hooks; gone @names/repo/.git/hooks/pre-commit; gone @names/repo/.git/pre-commit")
        .refused("create @names/repo/.git/hooks/pre-commit")
        .allowed("create @names/repo/.git/pre-commit"),
    case("moving a directory to that name")
        .prepare("gone @names/repo; directory @names/repo/.git; directory @names/repo/other")
        .refused("rename @names/repo/other @names/repo/.git/hooks")
        .allowed("rename @names/repo/other @names/repo/.git/other"),
    case("moving the directory around it under the name that the pattern needs")
        .prepare("gone @names/repo; directory @names/repo/git/hooks")
        .refused("rename @names/repo/git @names/repo/.git")
        .allowed("rename @names/repo/git @names/repo/gat"),
    case("a link of that name")
        .prepare("gone @names/repo; directory @names/repo/.git")
        .refused("symlink /tmp @names/repo/.git/hooks")
        .allowed("symlink /tmp @names/repo/.git/hook"),
    case("a link of the name of the directory around it")
        .prepare("gone @names/repo; directory @names/repo/x")
        .refused("symlink x @names/repo/.git")
        .allowed("symlink x @names/repo/.gut"),
    case("the other half of the pattern elsewhere")
        .prepare("gone @names/hooks")
        .refused("")
        .allowed("mkdir @names/hooks"),
    case("a pattern of one name").prepare("file @names/secret-name").refused("read @names/secret-name").allowed("read @names/f"),
    case("creating that name").prepare("gone @names/sub; directory @names/sub").refused("create @names/sub/secret-name").allowed("create @names/sub/secret-nam"),
    case("what lies below that name")
        .prepare("gone @names/sub; directory @names/sub/secret-name; file @names/sub/secret-name/f")
        .refused("read @names/sub/secret-name/f")
        .allowed("read @names/f"),
    case("renaming it to be rid of the name")
        .prepare("gone @names/sub; gone @names/renamed; file @names/secret-name; file @names/f3")
        .refused("rename @names/secret-name @names/renamed")
        .allowed("rename @names/f3 @names/renamed"),
    case("a hard link to be rid of the name")
        .prepare("file @names/secret-name; gone @names/linked; file @names/f3")
        .refused("link @names/secret-name @names/linked")
        .allowed("link @names/f3 @names/linked")
        .by("link"),
    case("one place that does not exist").prepare("gone @names/missing; gone @names/other").refused("create @names/missing").allowed("create @names/other"),
    case("a directory at that place").prepare("gone @names/missing").refused("mkdir @names/missing").allowed("mkdir @names/missing2").prepare("gone @names/missing; gone @names/missing2"),
    case("two names missing on the way").prepare("gone @names/deep; directory @names/deep/er").refused("create @names/deep/er/est").allowed("create @names/deep/er/es"),
];

/// Somebody outside replaces what is denied; the new one is denied as well.
fn replaced(test: &mut Test, bench: &mut Bench) -> Result<()> {
    let (refused, ok) = (Expect::Refused("EACCES"), Expect::Ok);
    bench.expect(test, "before", "read @all/denied-file", refused)?;
    for step in ["gone @all/next", "file @all/next fresh", "rename @all/next @all/denied-file"] {
        bench.try_outside(step)?;
    }
    bench.expect(test, "a denied file, replaced from outside", "read @all/denied-file", refused)?;
    bench.expect(test, "a denied file, replaced from outside", "write @all/denied-file", refused)?;
    for step in ["gone @all/denied-file", "file @all/denied-file again"] {
        bench.try_outside(step)?;
    }
    bench.expect(test, "a denied file, made again outside", "read @all/denied-file", refused)?;
    bench.try_outside("rename @all/no @all/no-more")?;
    bench.expect(test, "a denied directory, renamed outside", "read @all/no-more/f", refused)?;
    bench.try_outside("directory @all/no")?;
    bench.try_outside("file @all/no/f")?;
    bench.expect(test, "a directory made in its place", "read @all/no/f", refused)?;
    bench.expect(test, "what is allowed beside it", "read @all/f", ok)?;
    Ok(())
}

/// Every refusal is in the journal or counted as unsaid.
fn nothing_reached_the_daemon_late(test: &mut Test, bench: &Bench) -> Result<()> {
    let refusals = bench.agent.refusals()?.len() as u64;
    let counted = bench.agent.view()?["denials"].as_u64().unwrap_or(0);
    test.check(refusals > 0 && counted >= refusals, || {
        format!("{counted} refusals are counted, {refusals} are in the journal")
    });
    Ok(())
}
