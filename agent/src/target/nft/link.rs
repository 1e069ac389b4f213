//! The thread that owns the netlink socket.
//!
//! Netlink calls block (a dump of 100,000 entries takes most of a second), so they run here and
//! not on the tasks of the agent. The thread lives as long as the target: a table with the owner
//! flag belongs to its socket.

use std::io;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::socket::{Buffers, Connection};

/// Jobs that wait for the thread. A target has one call at a time; a second may be one whose
/// caller went away.
const JOBS_MAX: usize = 4;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The near end of the thread.
#[derive(Debug)]
pub(super) struct Link {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    port: u32,
    send_bytes_max: usize,
}

impl Link {
    /// Opens the socket and starts its thread.
    pub(super) fn open(buffers: Buffers) -> io::Result<Link> {
        let mut connection = Connection::open(buffers)?;
        let (port, send_bytes_max) = (connection.port(), connection.send_bytes_max());
        let (jobs, mut queue) = mpsc::channel::<Job>(JOBS_MAX);
        let thread = std::thread::Builder::new().name("netlink".to_owned()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut connection);
            }
        })?;
        Ok(Link { jobs: Some(jobs), thread: Some(thread), port, send_bytes_max })
    }

    /// The number that the kernel knows the socket by.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Bytes that one transaction may have.
    pub(super) fn send_bytes_max(&self) -> usize {
        self.send_bytes_max
    }

    /// Runs `job` on the thread. The job runs to its end even when the caller goes away.
    pub(super) async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> R + Send + 'static,
    ) -> io::Result<R> {
        let gone = || io::Error::other("the thread of the netlink socket ended");
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| drop(answer.send(job(connection))));
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

impl Drop for Link {
    /// Waits until the socket is closed: who makes a new target afterwards finds the table
    /// released.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
