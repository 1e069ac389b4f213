//! The agent's end of the socket of the unit that runs commands.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::serve::{ANSWER_BYTES_MAX, Answer, Question};
use super::{CommandError, Deed};

/// Longer than any program may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Has the unit do it; answers what it says.
pub(super) async fn ask(socket: &Path, target: &str, deed: &Deed) -> Result<String, CommandError> {
    let question = Question { target: target.to_owned(), deed: deed.clone() };
    let answer = timeout(PATIENCE, exchange(socket, &question)).await;
    let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match answer.map_err(|source| CommandError::Unit { socket: socket.to_owned(), source })? {
        Answer::Done(text) => Ok(text),
        Answer::Unfinished => Err(CommandError::Unfinished),
        Answer::Refused(why) => Err(CommandError::Refused(why)),
    }
}

async fn exchange(socket: &Path, question: &Question) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket).await?;
    let mut text = serde_json::to_vec(question)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(serde_json::from_slice(&answer)?)
}
