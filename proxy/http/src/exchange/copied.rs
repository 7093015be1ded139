//! A copy of a request to its next hop: its answer is read and dropped.

use super::{Answers, Begun, BodyError, Failed, Failure, NextHop, Reason, Source, both, incomplete, pump};
use crate::{body::Meter, copy::Copy, head::RequestRef};
use std::{future::poll_fn, pin::pin, task::Poll};

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub status: u16,
    /// Body bytes of the copy and of its answer.
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// The next hop's connection can carry another request (a plain one).
    pub hop_reusable: bool,
}

/// Sends the copy and reads the answer.
pub async fn copied(copy: &mut Copy, hop: NextHop<'_>) -> Result<Copied, Failed> {
    let (sent, received) = (Meter::of(hop.lease()), Meter::of(hop.lease()));
    let head = RequestRef::Http2(&copy.request);
    let Begun { mut sink, mut answers } = hop.begin(head, copy.body.is_none())?;
    let whole = matches!(answers, Answers::Stream(_));
    let mut uploaded = false;
    let ended = {
        let upload = pin!(async {
            match &mut copy.body {
                Some(tail) => _ = pump(&mut Source::queue(tail), &mut sink, &sent).await?,
                None => sink.flush().await?,
            }
            uploaded = true;
            Ok::<(), BodyError>(())
        });
        let download = pin!(answered(&mut answers, &received));
        both(upload, download, |_| whole).await
    };
    match ended {
        Ok((status, stays)) => Ok(Copied {
            status,
            request_bytes: sent.bytes(),
            response_bytes: received.bytes(),
            hop_reusable: stays && uploaded,
        }),
        Err(failed) => {
            // What has come of the original is not to look whole.
            sink.abort(h2::Reason::CANCEL);
            Err(failed)
        }
    }
}

/// The status of the final answer, and whether its connection stays, once all of it has come.
async fn answered(answers: &mut Answers<'_>, received: &Meter<'_>) -> Result<(u16, bool), Failed> {
    let status = loop {
        let status = poll_fn(|cx| answers.poll_next(cx)).await?;
        match status {
            101 => return Err(Failed::new(Reason::HttpProtocolError, "a copy was answered by an upgrade")),
            100..200 => {}
            status => break status,
        }
    };
    let (_, bodiless) = answers.body()?;
    let stays = answers.stays();
    if !bodiless {
        let mut source = answers.source();
        let dropped = poll_fn(|cx| -> Poll<Result<(), Failure>> { source.poll_dropped(cx, received) });
        dropped.await.map_err(|failure| incomplete(&BodyError::Source(failure)))?;
    }
    Ok((status, stays))
}
