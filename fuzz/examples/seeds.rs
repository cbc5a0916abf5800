//! Writes the seeds that are made rather than written by hand. Run it after a format has changed, and commit what it writes.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus-seeds");
    for (target, name, bytes) in agentd_fuzz::seeds() {
        let directory = root.join(target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(name), bytes)?;
    }
    Ok(())
}
