//! Copies: a world goes out as a bundle, and comes back as another world.

use std::collections::HashMap;
use std::fs::File;
use std::io::Seek as _;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use agentd_engine::State;
use agentd_model::Seq;
use agentd_protocol::{CopyParams, ErrorCode, ErrorObject, UploadReply};
use serde_json::json;

use super::{asked, failed, find, on_thread, usage, world_view, wrong_world};
use crate::server::Service;
use crate::server::connection::Answer;
use crate::server::methods::{show, to_value};
use crate::worlds::{WorldError, bundle};

/// Bundles that are being uploaded at a time.
const MOST_UPLOADS: usize = 8;

/// Bundles that are being uploaded.
#[derive(Default)]
pub(in crate::server) struct Uploads {
    next: AtomicU64,
    files: Mutex<HashMap<u64, File>>,
}

/// A file without a name, for a bundle on its way.
fn nameless(service: &Service) -> Result<File, ErrorObject> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let directory = &service.places.state;
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let opened = options.clone().custom_flags(libc::O_TMPFILE).open(directory).or_else(|error| {
        // Not every file system has files without a name; there it loses the one it had.
        if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
            return Err(error);
        }
        let path = directory.join(format!("bundle-{}", service.uploads.next.fetch_add(1, Ordering::Relaxed)));
        let file = options.create(true).truncate(true).open(&path)?;
        std::fs::remove_file(&path).map(|()| file)
    });
    opened.map_err(|error| {
        let mut object = ErrorObject::new(ErrorCode::Failed, format!("cannot make a file in {}", directory.display()));
        object.data.causes.push(error.to_string());
        object
    })
}

pub(super) async fn export(name: &str, service: &Service) -> Result<Answer, ErrorObject> {
    let handle = find(service, name)?;
    let file = nameless(service)?;
    let seq = handle.look(State::height).await.map_err(asked)?;
    let (head, file) = on_thread(move || {
        let written = bundle::write(&handle.path, &handle.name, seq, &file).map_err(|error| failed(&error))?;
        let mut file = file;
        file.rewind().map_err(|error| failed(&error))?;
        Ok((written, file))
    })
    .await?;
    let value = json!({ "world": name, "seq": head.seq.0, "head": head.hash.to_string() });
    Ok(Answer::File(value, OwnedFd::from(file)))
}

pub(super) fn upload(service: &Service) -> Result<Answer, ErrorObject> {
    let file = nameless(service)?;
    let given = file.try_clone().map_err(|error| failed(&error))?;
    let upload = service.uploads.next.fetch_add(1, Ordering::Relaxed);
    let mut files = service.uploads.files.lock().unwrap_or_else(PoisonError::into_inner);
    // Whoever began and never came back makes room.
    while files.len() >= MOST_UPLOADS {
        let oldest = files.keys().min().copied();
        oldest.map(|oldest| files.remove(&oldest));
    }
    files.insert(upload, file);
    Ok(Answer::File(to_value(&UploadReply { upload })?, given.into()))
}

pub(super) async fn import(params: CopyParams, service: &Service) -> Result<Answer, ErrorObject> {
    let file = {
        let mut files = service.uploads.files.lock().unwrap_or_else(PoisonError::into_inner);
        params.upload.and_then(|upload| files.remove(&upload))
    };
    let file = file.ok_or_else(|| usage("there is no such upload"))?;
    adopt(service, params.name, file).await
}

pub(super) async fn fork(params: CopyParams, service: &Service) -> Result<Answer, ErrorObject> {
    let from = find(service, &params.world.unwrap_or_default())?;
    let height = from.look(State::height).await.map_err(asked)?;
    let at = params.at.map_or(height, Seq);
    if at > height {
        return Err(usage(format!("the world {} has {height} records", from.name)));
    }
    let file = nameless(service)?;
    let file = on_thread(move || {
        bundle::write(&from.path, &from.name, at, &file).map_err(|error| failed(&error))?;
        Ok(file)
    });
    adopt(service, params.name, file.await?).await
}

/// A new world out of a bundle.
async fn adopt(service: &Service, name: String, mut file: File) -> Result<Answer, ErrorObject> {
    let (worlds, outside) = (service.worlds.clone(), service.outside.clone());
    let handle = on_thread(move || {
        file.rewind().map_err(|error| failed(&error))?;
        let filled =
            worlds.adopt(&name, &outside, |path| bundle::read_into(path, &file).map(drop).map_err(WorldError::from));
        filled.map_err(wrong_world)
    })
    .await?;
    show(&world_view(&handle, true).await?)
}
