//! A look into a WASM module: does it want anything of whoever runs it?
//!
//! A reducer that imports something does not start, so this is seen when it is built and not when a world first needs it. A
//! module is its header and sections, each `id, length, content`; section 2 begins with the number of imports. More of the
//! format is not read here: the daemon checks the rest with a real parser.

use anyhow::{Context, Result, bail};

/// Magic and version of a core module.
const HEADER: &[u8] = b"\0asm\x01\0\0\0";
const IMPORTS: u8 = 2;

/// Refuses what is no core module, and one that imports.
pub(crate) fn imports_nothing(module: &[u8]) -> Result<()> {
    let mut rest = module.strip_prefix(HEADER).context("the file is not a WASM core module")?;
    while let [id, tail @ ..] = rest {
        let (length, tail) = number(tail)?;
        let (content, next) = tail.split_at_checked(length).context("a section of the module is cut off")?;
        if *id == IMPORTS && number(content)?.0 > 0 {
            bail!("the module has imports; a reducer can have none");
        }
        rest = next;
    }
    Ok(())
}

/// An unsigned LEB128 of at most 32 bits, and what follows it.
fn number(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    bail!("a number in the module does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(sections: &[u8]) -> Vec<u8> {
        [HEADER, sections].concat()
    }

    #[test]
    fn imports_are_found_behind_other_sections() {
        assert!(imports_nothing(&module(&[])).is_ok());
        assert!(imports_nothing(&module(&[1, 1, 0, 2, 1, 0, 3, 1, 0])).is_ok());
        assert!(imports_nothing(&module(&[1, 1, 0, 2, 1, 1])).is_err());
        // A section of 129 bytes, then an import.
        let long = [&[0, 0x81, 1][..], &[2; 129], &[2, 1, 1]].concat();
        assert!(imports_nothing(&module(&long[..132])).is_ok());
        assert!(imports_nothing(&module(&long)).is_err());
    }

    #[test]
    fn what_is_no_module_is_refused() {
        assert!(imports_nothing(b"").is_err());
        assert!(imports_nothing(b"\x7fELF\x01\0\0\0").is_err());
        assert!(imports_nothing(&module(&[1])).is_err());
        assert!(imports_nothing(&module(&[1, 4, 0])).is_err());
        assert!(imports_nothing(&module(&[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0])).is_err());
    }
}
