//! What compiling Rust to BPF and to WASM needs beyond a stable toolchain.
//!
//! For BPF two things: the source of `core`, because no prebuilt one exists for the BPF target, and bpf-linker, which must
//! use the very LLVM that the compiler was built with. `core` comes from the toolchain if it has it, else from rustup, else
//! from Debian's `rust-src` package of exactly the toolchain's version. bpf-linker is built against the `libLLVM` that
//! the toolchain ships; its run path names the toolchain, so both tools are keyed by the compiler's version and commit.
//!
//! For WASM one: `core` and `alloc`. They come ready-made with the toolchain, or from rustup; where neither has them they are
//! compiled from the same source as for BPF. That makes sound modules, but other bytes than everywhere else: a module is
//! known by its hash, so what is published is built with the ready-made ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{apt, hash::Parts, sh, store, ui};

/// The version of bpf-linker that is built; a newer one needs a newer LLVM than the pinned toolchain ships.
const BPF_LINKER: &str = "0.13.0";

/// Where the pieces are.
pub(crate) struct BpfRust {
    /// Root of the standard library's source; `None` if the toolchain holds it where Cargo looks by itself.
    pub(crate) src_root: Option<PathBuf>,
    /// The folder that holds `bpf-linker`.
    pub(crate) linker_dir: PathBuf,
}

/// The target that reducers are compiled for.
pub(crate) const WASM: &str = "wasm32-unknown-unknown";

/// Where `core` and `alloc` for WASM come from.
pub(crate) struct WasmRust {
    compiler: Compiler,
    library: Library,
}

enum Library {
    ReadyMade,
    /// As [`BpfRust::src_root`].
    Source(Option<PathBuf>),
}

/// The compiler in use.
struct Compiler {
    sysroot: PathBuf,
    release: String,
    commit: String,
    llvm_major: String,
}

/// Finds the pieces, making what is missing.
pub(crate) fn bpf_rust() -> Result<BpfRust> {
    let compiler = Compiler::current()?;
    Ok(BpfRust { src_root: core_source(&compiler)?, linker_dir: linker(&compiler)? })
}

/// True if the toolchain compiles for WASM as it is.
pub(crate) fn has_wasm() -> Result<bool> {
    Ok(Compiler::current()?.has_wasm())
}

/// Finds `core` and `alloc` for WASM, adding them to the toolchain if they are not there.
pub(crate) fn wasm_rust() -> Result<WasmRust> {
    let compiler = Compiler::current()?;
    let library = if compiler.has_wasm() || add_wasm(&compiler) {
        Library::ReadyMade
    } else {
        ui::note(format!("     rustup has no {WASM} for this toolchain; compiling core and alloc from source"));
        Library::Source(core_source(&compiler)?)
    };
    Ok(WasmRust { compiler, library })
}

fn add_wasm(compiler: &Compiler) -> bool {
    ui::note(format!("     adding the target {WASM} to the toolchain, with rustup"));
    sh::succeeds(sh::command("rustup").args(["target", "add", WASM])) && compiler.has_wasm()
}

impl WasmRust {
    /// Makes a Cargo command one that compiles for WASM.
    pub(crate) fn aim(&self, cargo: &mut Command) {
        cargo.args(["--target", WASM]);
        if let Library::Source(root) = &self.library {
            cargo.args(["-Z", "build-std=core,alloc"]).env("RUSTC_BOOTSTRAP", "1");
            from_source(cargo, root.as_deref());
        }
    }

    /// Where the standard library's source lies here, and what compilers everywhere call that place.
    pub(crate) fn source(&self) -> (PathBuf, String) {
        let here = match &self.library {
            Library::Source(Some(library)) => library.parent().unwrap_or(library).to_path_buf(),
            Library::Source(None) | Library::ReadyMade => self.compiler.sysroot.join("lib/rustlib/src/rust"),
        };
        (here, format!("/rustc/{}", self.compiler.commit))
    }

    /// A line for `setup`.
    pub(crate) fn describe(&self) -> String {
        match &self.library {
            Library::ReadyMade => "core and alloc for WASM: in the toolchain".into(),
            Library::Source(Some(root)) => format!("core and alloc for WASM: from {}", root.display()),
            Library::Source(None) => "core and alloc for WASM: from the toolchain's source".into(),
        }
    }
}

/// Tells Cargo of another source of the standard library than the toolchain's; `None` is the toolchain's.
pub(crate) fn from_source(cargo: &mut Command, root: Option<&Path>) {
    if let Some(root) = root {
        // Cargo's own tests use this; nothing documented does the same.
        cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", root);
    }
}

/// The platform that the compiler runs on, and compiles for if nothing else is said.
pub(crate) fn host() -> Result<String> {
    let text = sh::output(sh::command("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|row| row.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

/// A word on each piece for `setup --dry-run`.
pub(crate) fn describe() -> Result<String> {
    let compiler = Compiler::current()?;
    Ok(format!(
        "core's source for rustc {} (toolchain, rustup or Debian's rust-src), bpf-linker {BPF_LINKER} (LLVM {}) and \
         {WASM} (toolchain, rustup or that source)",
        compiler.release, compiler.llvm_major
    ))
}

impl Compiler {
    fn current() -> Result<Self> {
        let text = sh::output(sh::command("rustc").arg("-vV"))?;
        let field = |name: &str| {
            let found = text.lines().find_map(|row| row.strip_prefix(name)?.strip_prefix(": "));
            found.map(str::to_owned).with_context(|| format!("rustc -vV names no {name}"))
        };
        let llvm = field("LLVM version")?;
        Ok(Self {
            sysroot: sh::output(sh::command("rustc").args(["--print", "sysroot"]))?.trim().into(),
            release: field("release")?,
            commit: field("commit-hash")?,
            llvm_major: llvm.split('.').next().unwrap_or(&llvm).to_owned(),
        })
    }

    fn has_wasm(&self) -> bool {
        // An uninstalled target leaves its folder behind, empty.
        self.sysroot.join("lib/rustlib").join(WASM).join("lib").exists()
    }

    fn has_source(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").exists()
    }
}

fn core_source(compiler: &Compiler) -> Result<Option<PathBuf>> {
    let key = Parts::of("rust-src").with("release", &compiler.release).with("commit", &compiler.commit).key();
    let inside = format!("usr/src/rustc-{}/library", compiler.release);
    if compiler.has_source() {
        return Ok(None);
    }
    if !store::exists("rust-src", &key)?
        && sh::succeeds(sh::command("rustup").args(["component", "add", "rust-src"]))
        && compiler.has_source()
    {
        ui::note("     added the component rust-src to the toolchain");
        return Ok(None);
    }
    let entry = store::ensure("rust-src", &key, |dir| {
        ui::step(&format!("core's source of rustc {} from Debian", compiler.release), || {
            let wanted = format!("{}+dfsg", compiler.release);
            // A toolchain is packaged for unstable first and for backports later; the same archive signs both.
            for suites in [&["trixie", "trixie-backports"][..], &["sid"]] {
                let line = apt::Line::open(suites)?;
                let Ok(package) = line.find("rust-src", |version| version.starts_with(&wanted)) else { continue };
                line.unpack(std::slice::from_ref(&package), dir)?;
                if !dir.join(&inside).join("Cargo.lock").exists() {
                    bail!("rust-src {} does not hold {inside}", package.version);
                }
                return write_record(dir, &package.record());
            }
            bail!(
                "no source of core for rustc {0}: rustup has no rust-src component for this toolchain and Debian \
                 carries no rust-src {0}",
                compiler.release
            )
        })
    })?;
    Ok(Some(entry.join(inside)))
}

fn linker(compiler: &Compiler) -> Result<PathBuf> {
    let lib = compiler.sysroot.join("lib");
    let llvm = toolchain_llvm(&lib)?;
    let key = Parts::of("bpf-linker")
        .with("version", BPF_LINKER)
        .with("commit", &compiler.commit)
        .with("llvm", llvm.as_os_str().as_encoded_bytes())
        .key();
    let entry = store::ensure("bpf-linker", &key, |dir| {
        ui::step(&format!("bpf-linker {BPF_LINKER} against the toolchain's LLVM {}", compiler.llvm_major), || {
            // Its build script looks for `lib/libLLVM.so` and nothing else.
            let prefix = dir.join("llvm");
            fs::create_dir_all(prefix.join("lib")).context("cannot create a folder for LLVM")?;
            std::os::unix::fs::symlink(&llvm, prefix.join("lib/libLLVM.so")).context("cannot link libLLVM.so")?;
            let mut cargo = sh::command("cargo");
            cargo.args(["install", "--quiet", "--locked", "--no-default-features", "--features"]);
            cargo.arg(format!("llvm-{}", compiler.llvm_major)).arg(format!("bpf-linker@{BPF_LINKER}"));
            cargo.arg("--root").arg(dir).arg("--target-dir").arg(dir.join("target"));
            cargo.env("LLVM_PREFIX", &prefix);
            cargo.env("RUSTFLAGS", format!("-C link-arg=-Wl,-rpath,{}", lib.display()));
            cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
            sh::run(&mut cargo)?;
            sh::quiet(sh::command(&dir.join("bin/bpf-linker").to_string_lossy()).arg("--version"))?;
            fs::remove_dir_all(dir.join("target")).context("cannot remove bpf-linker's build")
        })
    })?;
    Ok(entry.join("bin"))
}

/// The toolchain's own shared LLVM; Rust's Linux toolchains ship it under its full version.
fn toolchain_llvm(lib: &Path) -> Result<PathBuf> {
    let items = fs::read_dir(lib).with_context(|| format!("cannot list {}", lib.display()))?;
    let found = items.flatten().map(|item| item.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libLLVM.so.") && name.contains("-rust-")
    });
    found.with_context(|| format!("{} holds no libLLVM.so.*-rust-*; use a toolchain from rustup", lib.display()))
}

/// Writes what an entry was really made of beside it.
pub(crate) fn write_record(dir: &Path, record: &serde_json::Value) -> Result<()> {
    fs::write(dir.join("record.json"), format!("{record:#}\n")).context("cannot write record.json")
}
