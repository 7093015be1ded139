//! Answers the plugin, which may ask for a pod's annotations: from the API server itself, as the pod is younger than any cache.

use super::{Status, said};
use crate::annotation::REDIRECT;
use crate::question::{Answer, MOST_BYTES, Question};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

/// For one question, less than the plugin waits.
const ANSWER_WAIT: Duration = Duration::from_secs(4);
/// Wait before the next accept when one has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens, for root only. A socket that an earlier agent has left is replaced.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until it is dropped.
pub(super) async fn serve(listener: UnixListener, client: Client, status: Arc<Status>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (client, status) = (client.clone(), status.clone());
                tokio::spawn(async move {
                    match timeout(ANSWER_WAIT, answer(stream, client)).await {
                        Ok(Ok(())) => status.metrics.asked("answered"),
                        Ok(Err(error)) => {
                            status.metrics.asked("failed");
                            tracing::warn!("a question of the plugin could not be answered: {error}");
                        }
                        Err(_) => {
                            status.metrics.asked("failed");
                            tracing::warn!(
                                "a question of the plugin was not answered within {ANSWER_WAIT:?}"
                            );
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!("a question of the plugin could not be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, client: Client) -> io::Result<()> {
    let mut question = Vec::new();
    (&mut stream).take(MOST_BYTES).read_to_end(&mut question).await?;
    let question: Question = serde_json::from_slice(&question)?;
    let answer = look_up(&question, client).await;
    tracing::debug!("{}/{}: {answer:?}", question.namespace, question.name);
    stream.write_all(&serde_json::to_vec(&answer)?).await
}

pub(super) async fn look_up(question: &Question, client: Client) -> Answer {
    let pods = Api::<Pod>::namespaced(client, &question.namespace);
    match pods.get_metadata_opt(&question.name).await {
        // A static pod, whose mirror is not there yet or is another object, is never injected.
        Ok(None) => Answer::Redirect(None),
        Ok(Some(pod)) if question.uid.is_some() && pod.uid() != question.uid => Answer::Redirect(None),
        Ok(Some(pod)) => Answer::Redirect(pod.annotations().get(REDIRECT).cloned()),
        Err(error) => Answer::Unknown(format!("the agent was told by the API server: {}", said(&error))),
    }
}
