//! A program, run as an agent: under the profile, the directories and the CPU time that the capability names.
//!
//! The same way as `agentctl spawn` goes, asked for by a world instead of a person, so the agent is in the journal, in
//! `agentctl ps`, and under the same rules as any other. What it wrote comes back, the last [`OUTPUT`] bytes of it.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::net::UnixStream;

use agentd_air::{Scope, Value};
use agentd_model::ExitStatus;
use agentd_protocol::attach::Frame;
use agentd_protocol::{ProfileChoice, SpawnParams};
use agentd_world::End;

use super::{Job, Outcome};
use crate::launch::OUTPUT_LOG;
use crate::server::{Service, start};

/// Bytes of output that a receipt holds.
const OUTPUT: u64 = 64 << 10;

/// Does it. `block` waits for what is asynchronous.
pub fn perform(job: &Job, service: &Service, runtime: &tokio::runtime::Handle) -> Outcome {
    let Scope::Exec(scope) = &job.scope else { return Outcome::Failed("the capability is not for programs".into()) };
    let Value::Record(fields) = &job.params else { return Outcome::Failed("the parameters are no record".into()) };
    let [Value::List(argv), Value::Text(directory), Value::Bytes(input)] = fields.as_slice() else {
        return Outcome::Failed("the parameters are not those of a program".into());
    };
    // What a link leads to counts, not what it is called.
    let real = match std::fs::canonicalize(directory) {
        Ok(real) => real,
        Err(error) => return Outcome::Failed(format!("{directory}: {error}")),
    };
    if !scope.directories.iter().any(|root| real.starts_with(root)) {
        return Outcome::Failed(format!("the capability does not cover {}", real.display()));
    }
    let argv = argv.iter().filter_map(|word| match word {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    });
    let params = SpawnParams {
        argv: argv.collect(),
        name: Some(format!("{}-{}", job.name, job.wanted)),
        cwd: real.to_string_lossy().into_owned(),
        profile: ProfileChoice::Name(scope.profile.clone()),
        budget: Some(format!("cpu:{}ms", scope.max_cpu_ms)),
        attach: !input.is_empty(),
        ..SpawnParams::default()
    };
    let started = runtime.block_on(start(params, 0, job.principal(), service));
    let agent = match started {
        Ok((reply, stream)) => {
            if let Err(error) = stream.map_or(Ok(()), |stream| feed(stream.into(), input)) {
                tracing::warn!(agent = %reply.agent, %error, "the program may not get its input");
            }
            reply.agent
        }
        Err(error) => {
            let causes: String = error.data.causes.iter().map(|cause| format!(": {cause}")).collect();
            return Outcome::Failed(format!("{}{causes}", error.message));
        }
    };
    let mut watch = service.world.watch();
    let end = loop {
        let found = watch.borrow_and_update().agent(agent).cloned();
        match found.map(|agent| agent.end.clone()) {
            Some(Some(end)) => break end,
            Some(None) => {}
            None => return Outcome::Failed("nobody saw how it ended".into()),
        }
        if runtime.block_on(watch.changed()).is_err() {
            return Outcome::Failed("agentd is stopping".into());
        }
    };
    match end {
        End::Exited { status, spent, .. } => {
            let code = match status {
                ExitStatus::Code { code } => i64::from(code),
                ExitStatus::Signal { signal } => -i64::from(signal),
            };
            let output = tail(&service.places.agent_state(agent).join(OUTPUT_LOG)).unwrap_or_default();
            let agent = Value::Nat(u64::from(agent.0));
            Outcome::Done(Value::Record(vec![Value::Int(code), Value::Bytes(output), agent, Value::Duration(spent.0)]))
        }
        End::Failed { reason } | End::Lost { reason } => Outcome::Failed(reason),
    }
}

/// Gives a program its input, and lets go of what it prints: that is in its log.
fn feed(mut stream: UnixStream, input: &[u8]) -> std::io::Result<()> {
    let mut frames = Vec::new();
    Frame::Stdin(input.to_vec()).encode(&mut frames);
    Frame::StdinEof.encode(&mut frames);
    stream.set_nonblocking(false)?;
    let mut printed = stream.try_clone()?;
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    // Both end with the program: then the shim hangs up.
    thread("exec output").spawn(move || std::io::copy(&mut printed, &mut std::io::sink()))?;
    thread("exec input").spawn(move || stream.write_all(&frames))?;
    Ok(())
}

fn tail(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(OUTPUT)))?;
    let mut bytes = Vec::new();
    file.take(OUTPUT).read_to_end(&mut bytes)?;
    Ok(bytes)
}
