//! What the plugin asks the agent where the runtime tells no annotations: a line of JSON each way, over a unix socket.

use crate::call::Pod;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest wait for the agent, which asks the API server. A runtime starts a pod's network in minutes.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a question or an answer.
pub const MOST_BYTES: u64 = 64 * 1024;

/// Whose annotation is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    pub namespace: String,
    pub name: String,
    pub uid: Option<String>,
}

/// The value of the pod's annotation, or none; or why it is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    Redirect(Option<String>),
    Unknown(String),
}

/// Asks the agent.
pub fn ask(socket: &Path, pod: &Pod) -> Result<Option<String>, String> {
    let Pod { namespace, name, uid } = pod.clone();
    match exchange(socket, &Question { namespace, name, uid }) {
        Ok(Answer::Redirect(value)) => Ok(value),
        Ok(Answer::Unknown(why)) => Err(why),
        Err(error) => Err(format!("the agent does not answer at {}: {error}", socket.display())),
    }
}

fn exchange(socket: &Path, question: &Question) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream.set_write_timeout(Some(ANSWER_WAIT))?;
    stream.write_all(&serde_json::to_vec(question)?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}
