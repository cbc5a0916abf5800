//! From bytes that claim to be a reducer to a module that can be stepped.
//!
//! What is refused is refused by name and before any of it is compiled, where that is possible: too long, not WASM, something
//! that it wants from outside, code that would run before it is called, more memory or a longer table than a step can have, an
//! export that is not there or is of another type. What a module exports beside the three is nobody's business here.

use std::error::Error;
use std::fmt;

use wasmtime::wasmparser::{Parser, Payload};
use wasmtime::{ExternType, FuncType, InstancePre, Linker, ModuleExport, ValType};

use crate::engine::Engine;
use crate::limits::Limits;
use crate::settings::TABLE_ELEMENTS;
use crate::step::Watch;

/// The longest module.
pub const MODULE_BYTES: usize = 4 << 20;

const PAGE_BYTES: u64 = 64 << 10;

/// How every core module of version 1 begins; a component, and WASM as text, begin otherwise.
const HEADER: &[u8] = b"\0asm\x01\0\0\0";

/// A reducer, compiled and checked. A clone is the same module.
#[derive(Clone)]
pub struct Module {
    pub(crate) engine: Engine,
    pub(crate) instance: InstancePre<Watch>,
    pub(crate) exports: Exports,
    /// What its memory begins with.
    pub(crate) minimum_bytes: u64,
    hash: [u8; 32],
}

/// Where a module has what every reducer has.
#[derive(Clone, Copy)]
pub(crate) struct Exports {
    pub(crate) memory: ModuleExport,
    pub(crate) alloc: ModuleExport,
    pub(crate) step: ModuleExport,
}

/// Why some bytes are no reducer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// Longer than [`MODULE_BYTES`].
    #[error("a reducer cannot be {bytes} bytes long, at most {MODULE_BYTES}")]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Not a core module in binary form.
    #[error("this is no WASM core module")]
    NotWasm,
    /// Not valid, or with instructions that reducers do not have (threads, relaxed SIMD, 64-bit memories, …).
    #[error("this is no valid WASM module for a reducer")]
    Invalid {
        /// What the validator says, with the offset.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It wants something from outside.
    #[error("a reducer cannot import anything, this one imports {module}::{name}")]
    Imports {
        /// From where.
        module: String,
        /// What.
        name: String,
    },
    /// It has a start function.
    #[error("a reducer cannot have a start function")]
    Starts,
    /// Its memory begins with more than any step may have.
    #[error("a reducer cannot begin with {bytes} bytes of memory, at most {}", Limits::MAX.memory_bytes())]
    TooMuchMemory {
        /// How much.
        bytes: u64,
    },
    /// More tables than one.
    #[error("a reducer cannot have {count} tables, at most 1")]
    TooManyTables {
        /// How many.
        count: u32,
    },
    /// Its table begins with more than [`TABLE_ELEMENTS`].
    #[error("a reducer cannot have a table of {elements} elements, at most {TABLE_ELEMENTS}")]
    TableTooLong {
        /// How many.
        elements: u64,
    },
    /// An export that every reducer has is not there.
    #[error("a reducer must export {name}: {wanted}")]
    Missing {
        /// Which.
        name: &'static str,
        /// Its type.
        wanted: &'static str,
    },
    /// An export that every reducer has is something else.
    #[error("a reducer must export {name} as {wanted}, this one has another type")]
    WrongType {
        /// Which.
        name: &'static str,
        /// The type that it should have.
        wanted: &'static str,
    },
    /// Valid, but beyond what the compiler takes, or the host has no memory for the code.
    #[error("cannot compile this reducer")]
    Compile {
        /// What wasmtime says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Engine {
    /// Checks and compiles a reducer: about 40 ms for each 100 KiB, and far longer for one that is made to be slow.
    pub fn compile(&self, wasm: &[u8]) -> Result<Module, ModuleError> {
        inspect(wasm)?;
        wasmtime::Module::validate(&self.wasmtime, wasm)
            .map_err(|source| ModuleError::Invalid { source: source.into() })?;
        let module = wasmtime::Module::new(&self.wasmtime, wasm).map_err(compile)?;
        self.admit(&module, *blake3::hash(wasm).as_bytes())
    }

    /// Takes compiled code as a reducer if it exports what a reducer must.
    pub(crate) fn admit(&self, module: &wasmtime::Module, hash: [u8; 32]) -> Result<Module, ModuleError> {
        let (exports, minimum_bytes) = exports(module)?;
        let instance = Linker::new(&self.wasmtime).instantiate_pre(module).map_err(compile)?;
        Ok(Module { engine: self.clone(), instance, exports, minimum_bytes, hash })
    }
}

impl Module {
    /// Names the module: BLAKE3 of the bytes that it was compiled from.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module({})", blake3::Hash::from_bytes(self.hash))
    }
}

fn compile(source: wasmtime::Error) -> ModuleError {
    ModuleError::Compile { source: source.into() }
}

/// Refuses what can be refused without a compiler.
fn inspect(wasm: &[u8]) -> Result<(), ModuleError> {
    if wasm.len() > MODULE_BYTES {
        return Err(ModuleError::TooLong { bytes: wasm.len() });
    }
    if !wasm.starts_with(HEADER) {
        return Err(ModuleError::NotWasm);
    }
    for payload in Parser::new(0).parse_all(wasm) {
        inspect_section(payload.map_err(invalid)?)?;
    }
    Ok(())
}

fn inspect_section(section: Payload<'_>) -> Result<(), ModuleError> {
    match section {
        Payload::ImportSection(imports) => match imports.into_imports().next() {
            None => Ok(()),
            Some(import) => {
                let import = import.map_err(invalid)?;
                Err(ModuleError::Imports { module: import.module.to_owned(), name: import.name.to_owned() })
            }
        },
        Payload::StartSection { .. } => Err(ModuleError::Starts),
        Payload::MemorySection(memories) => {
            for memory in memories {
                let bytes = memory.map_err(invalid)?.initial.saturating_mul(PAGE_BYTES);
                if bytes > Limits::MAX.memory_bytes() {
                    return Err(ModuleError::TooMuchMemory { bytes });
                }
            }
            Ok(())
        }
        Payload::TableSection(tables) => {
            if tables.count() > 1 {
                return Err(ModuleError::TooManyTables { count: tables.count() });
            }
            for table in tables {
                let elements = table.map_err(invalid)?.ty.initial;
                if elements > TABLE_ELEMENTS as u64 {
                    return Err(ModuleError::TableTooLong { elements });
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn invalid(source: wasmtime::wasmparser::BinaryReaderError) -> ModuleError {
    ModuleError::Invalid { source: source.into() }
}

/// Finds the three exports, and what the memory begins with.
fn exports(module: &wasmtime::Module) -> Result<(Exports, u64), ModuleError> {
    const MEMORY: &str = "a memory";
    const ALLOC: &str = "func (i32) -> i32";
    const STEP: &str = "func (i32, i32) -> i64";

    let (memory, ty) = find(module, "memory", MEMORY)?;
    let ExternType::Memory(ty) = ty else { return Err(ModuleError::WrongType { name: "memory", wanted: MEMORY }) };
    let minimum_bytes = ty.minimum().saturating_mul(ty.page_size());
    if minimum_bytes > Limits::MAX.memory_bytes() {
        return Err(ModuleError::TooMuchMemory { bytes: minimum_bytes });
    }
    let alloc = function(module, "alloc", ALLOC, &[ValType::I32], &ValType::I32)?;
    let step = function(module, "step", STEP, &[ValType::I32, ValType::I32], &ValType::I64)?;
    Ok((Exports { memory, alloc, step }, minimum_bytes))
}

fn function(
    module: &wasmtime::Module,
    name: &'static str,
    wanted: &'static str,
    takes: &[ValType],
    gives: &ValType,
) -> Result<ModuleExport, ModuleError> {
    let (export, ty) = find(module, name, wanted)?;
    match ty {
        ExternType::Func(ty) if same(&ty, takes, gives) => Ok(export),
        _ => Err(ModuleError::WrongType { name, wanted }),
    }
}

fn same(ty: &FuncType, takes: &[ValType], gives: &ValType) -> bool {
    ty.params().len() == takes.len()
        && ty.params().zip(takes).all(|(has, wanted)| ValType::eq(&has, wanted))
        && ty.results().len() == 1
        && ty.results().all(|has| ValType::eq(&has, gives))
}

fn find(
    module: &wasmtime::Module,
    name: &'static str,
    wanted: &'static str,
) -> Result<(ModuleExport, ExternType), ModuleError> {
    module.get_export_index(name).zip(module.get_export(name)).ok_or(ModuleError::Missing { name, wanted })
}
