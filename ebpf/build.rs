//! Compiles each C object in `lsm/` for the BPF target.
//!
//! Only the objects are taken from libbpf-cargo, not its skeletons: every object has its settings in one section of known
//! layout and is attached by section names, so the generated code (and the unsafe code in it) would have no use.

use std::path::{Path, PathBuf};
use std::{env, fs};

use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let sources = root.join("lsm");
    let contract = root.join("../crates/abi/include");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed={}", contract.display());
    println!("cargo::rerun-if-env-changed=BPF_CLANG");

    let clang = env::var("BPF_CLANG").unwrap_or_else(|_| "clang".into());
    let arch = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "aarch64" => "-D__TARGET_ARCH_arm64",
        _ => "-D__TARGET_ARCH_x86",
    };
    let mut found: Vec<PathBuf> = fs::read_dir(&sources)?.flatten().map(|entry| entry.path()).collect();
    found.sort();
    for source in found {
        let Some(name) = source.file_name().and_then(|name| name.to_str()?.strip_suffix(".bpf.c")) else { continue };
        SkeletonBuilder::new()
            .source(&source)
            .obj(out.join(format!("{name}.bpf.o")))
            .clang(Path::new(&clang))
            .clang_args([
                "-mcpu=v3",
                arch,
                "-Wall",
                "-Wextra",
                "-Werror",
                "-Wno-unused-parameter",
                "-Wno-missing-declarations",
                "-I",
                contract.to_str().ok_or("the path of the checkout is not UTF-8")?,
            ])
            .build()?;
    }
    net_object(&root, &out)
}

/// Takes the object of `ebpf/net`, which only `cargo xtask build` can make: it needs bpf-linker and core's source.
fn net_object(root: &Path, out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=AGENTD_NET_OBJECT");
    let object =
        env::var_os("AGENTD_NET_OBJECT").map_or_else(|| root.join("../target/bpf/agentd-net.o"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    fs::copy(&object, out.join("agentd-net.o"))
        .map_err(|error| format!("cannot copy {}: {error}; run cargo xtask build", object.display()))?;
    Ok(())
}
