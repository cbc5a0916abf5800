//! `agentd replay FILE`: a bundle verified and replayed where no daemon runs, by whoever was given it.
//!
//! Needs no rights and changes nothing: the bundle is read into a journal in a directory of its own, which is gone
//! afterwards. What is printed is one line of JSON; what is wrong is named on standard error.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use agentd_protocol::{ReplayView, VerifyView};

use super::bundle::{self, BundleError, Nowhere};
use super::reducers::{Blobs, Modules, WorldReducers};
use super::rehearse::{RehearseError, replay};
use crate::run::{complain, say};

/// Why a bundle was not replayed.
#[derive(Debug, thiserror::Error)]
enum OfflineError {
    #[error("cannot read {path}")]
    Open {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Engine(#[from] agentd_wasm::EngineError),
    #[error(transparent)]
    Replay(#[from] RehearseError),
    #[error("the state is {found}, and was claimed to be {claimed}")]
    Claim { found: String, claimed: String },
}

/// Runs the command; the arguments are those after `replay`.
pub fn main(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let (mut file, mut claimed, mut only_verify) = (None, None, false);
    let mut arguments = arguments.map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = arguments.next() {
        match word.as_str() {
            "--verify" => only_verify = true,
            "--state" => claimed = arguments.next(),
            _ if file.is_none() && !word.starts_with('-') => file = Some(word),
            _ => {
                complain("error", &format!("agentd replay takes no {word}"));
                complain("hint ", "agentd replay FILE [--verify] [--state HASH]");
                return ExitCode::from(2);
            }
        }
    }
    let Some(file) = file else {
        complain("error", "agentd replay needs a bundle");
        complain("hint ", "agentctl world export NAME > NAME.world");
        return ExitCode::from(2);
    };
    let done = if only_verify { verify(&file) } else { run(&file, claimed.as_deref()) };
    match done {
        Ok(json) => {
            say(&format!("{json}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain("error", &error.to_string());
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                complain("cause", &cause.to_string());
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn open(file: &str) -> Result<fs::File, OfflineError> {
    fs::File::open(file).map_err(|source| OfflineError::Open { path: file.to_owned(), source })
}

fn verify(file: &str) -> Result<serde_json::Value, OfflineError> {
    let contents = bundle::read(open(file)?, &mut Nowhere)?;
    let view = VerifyView {
        first: contents.first.0,
        seq: contents.chain.seq.0,
        head: contents.chain.head.to_string(),
        signatures: contents.signatures,
        key: contents.chain.signed_with.map(|key| key.to_string()).unwrap_or_default(),
    };
    Ok(json(&view))
}

fn run(file: &str, claimed: Option<&str>) -> Result<serde_json::Value, OfflineError> {
    let input = open(file)?;
    let place = Place::new()?;
    let journal = place.0.join("journal.sqlite");
    let contents = bundle::read_into(&journal, input)?;
    let reducers = WorldReducers::new(Arc::new(Modules::new()?), Blobs::Journal(journal.clone()));
    // Compiled code needs more stack than the first thread may have.
    let work = move || replay(&journal, &reducers, |_| ());
    let thread = std::thread::Builder::new().stack_size(4 << 20).spawn(work);
    let thread = thread.map_err(|source| OfflineError::Open { path: "a thread".into(), source })?;
    let replayed = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let view = ReplayView {
        world: contents.name,
        records: replayed.records,
        seq: replayed.state.height().0,
        state: replayed.state.hash().to_string(),
    };
    match claimed {
        Some(claimed) if claimed != view.state => {
            Err(OfflineError::Claim { found: view.state, claimed: claimed.to_owned() })
        }
        _ => Ok(json(&view)),
    }
}

fn json<T: serde::Serialize>(view: &T) -> serde_json::Value {
    serde_json::to_value(view).unwrap_or_default()
}

/// A directory of this process alone, gone when it ends.
struct Place(std::path::PathBuf);

impl Place {
    fn new() -> Result<Place, OfflineError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut random = [0; 8];
        // Without random numbers the name may be taken, and then it is an error.
        let _ = getrandom::fill(&mut random);
        let name = format!("agentd-replay-{}-{:016x}", std::process::id(), u64::from_ne_bytes(random));
        let path = std::env::temp_dir().join(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| OfflineError::Open { path: shown(&path), source })?;
        Ok(Place(path))
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left lies in the directory for what may be lost.
        let _ = fs::remove_dir_all(&self.0);
    }
}
