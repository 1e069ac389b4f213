//! What the kernel's errors mean to an agent.

use std::io;

use rustix::io::Errno;

use super::socket::{CommitError, Connection, Failure};
use crate::target::TargetError;

/// Turns an error of a request into what the caller can do about it.
pub(super) fn of_request(step: &str, error: io::Error) -> TargetError {
    let advice = match error.raw_os_error() {
        Some(libc::EPERM) => "; this needs CAP_NET_ADMIN in the host's network namespace",
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => {
            "; this kernel has no nf_tables: load the module, or build it in"
        }
        Some(_) | None => "",
    };
    TargetError::Unreachable { step: format!("{step}{advice}"), source: error }
}

/// Turns the refusal of a transaction into what the caller can do about it.
pub(super) fn of_commit(error: CommitError) -> TargetError {
    const STEP: &str = "changing the table";
    match error {
        CommitError::Unknown(source) => TargetError::Unreachable {
            step: format!("{STEP}; the kernel's answer is lost"),
            source,
        },
        CommitError::TooLong => TargetError::Rejected {
            reason: "the change does not fit into the socket's send buffer; raise \
                     net.core.wmem_max, or give the agent CAP_NET_ADMIN"
                .to_owned(),
        },
        CommitError::Refused(failures) => of_failures(&failures),
    }
}

fn of_failures(failures: &[Failure]) -> TargetError {
    const STEP: &str = "changing the table";
    let Some(first) = failures.first() else { return TargetError::Changed };
    match first.errno {
        Errno::PERM if !first.whole => TargetError::Busy { holder: "another process".to_owned() },
        // Something that was there is gone, or something is there that was not.
        Errno::NOENT | Errno::EXIST | Errno::BUSY | Errno::INTR | Errno::AGAIN => {
            TargetError::Changed
        }
        errno if first.whole => of_request(STEP, errno.into()),
        errno @ (Errno::NOMEM | Errno::NOBUFS) => of_request(STEP, errno.into()),
        errno => TargetError::Rejected { reason: words(first, errno) },
    }
}

fn words(failure: &Failure, errno: Errno) -> String {
    let set = failure.set.as_ref().map(|set| format!(" at set {set}")).unwrap_or_default();
    let text = failure.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    format!("the kernel says {}{set}{text}", io::Error::from(errno))
}

/// Names the process that owns a table by the port number of its socket. A process's first
/// socket has the process's number.
pub(super) fn holder(port: u32) -> String {
    match std::fs::read_to_string(format!("/proc/{port}/comm")) {
        Ok(name) => format!("{} (process {port})", name.trim()),
        Err(_) => format!("the process with netlink port {port}"),
    }
}

/// Tells whether a transaction of these messages would be refused, without ever carrying it out:
/// its last message always fails. Answers the failures of the others.
pub(super) fn rehearse(
    connection: &mut Connection,
    batch: super::sys::Batch,
) -> Result<Vec<Failure>, CommitError> {
    let mut batch = batch;
    batch.delete_chain("there-is-no-such-chain");
    let sealed = batch.seal();
    match connection.commit(&sealed) {
        Err(CommitError::Refused(failures)) if failures.iter().any(|failure| failure.whole) => {
            Err(CommitError::Refused(failures))
        }
        Err(CommitError::Refused(mut failures)) => {
            failures.retain(|failure| failure.message != sealed.last);
            Ok(failures)
        }
        Err(error) => Err(error),
        Ok(()) => Ok(Vec::new()),
    }
}
