//! Runs one program to its end, or to the end of its time.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, waitpid,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::time::timeout;

use super::Program;
use crate::target::nft::watch;

/// Most that is read of a program's output: a set of the kernel with the most entries of a list.
const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// As much of what a program said last as is told.
const LAST_WORDS_BYTES_MAX: usize = 400;
const CHUNK_BYTES: usize = 16 * 1024;
/// Where a program has ended and something that it left behind keeps its output open.
const LINGER: Duration = Duration::from_millis(100);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// There is no such program, or it may not be run.
    #[error("`{program}` cannot be run")]
    Start {
        /// Its path.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ended, and not well.
    #[error("`{program}` failed ({how}): {said}")]
    Failed {
        /// Its path.
        program: String,
        /// How it ended.
        how: String,
        /// Its last words.
        said: String,
    },
    /// It was killed when its time was over.
    #[error("`{program}` did not end within {} s and was killed: {said}", limit.as_secs())]
    TimedOut {
        /// Its path.
        program: String,
        /// Its time.
        limit: Duration,
        /// Its last words.
        said: String,
    },
}

/// A process that does not outlive this value, nor does what it has started.
struct Running {
    child: Child,
    has_ended: bool,
}

/// What a program has printed so far.
#[derive(Default)]
struct Printed {
    output: Vec<u8>,
    errors: Vec<u8>,
}

pub(super) async fn run(program: &Program, input: &[u8]) -> Result<String, ProgramError> {
    let name = program.argv.first().cloned().unwrap_or_default();
    let failed = |source| ProgramError::Start { program: name.clone(), source };
    let mut running = Running::start(program).map_err(failed)?;
    let mut printed = Printed::default();
    let ended = timeout(program.limit, running.talk(input, &mut printed)).await;
    match ended {
        Err(_) => Err(ProgramError::TimedOut {
            program: name,
            limit: program.limit,
            said: printed.last_words(),
        }),
        Ok(Err(source)) => Err(failed(source)),
        Ok(Ok(status)) if status.success() => {
            Ok(String::from_utf8_lossy(&printed.output).into_owned())
        }
        Ok(Ok(status)) => Err(ProgramError::Failed {
            program: name,
            how: status.to_string(),
            said: printed.last_words(),
        }),
    }
}

impl Running {
    fn start(program: &Program) -> io::Result<Running> {
        let [path, arguments @ ..] = &program.argv[..] else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let child = Command::new(path)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Running { child, has_ended: false })
    }

    /// Feeds and reads the program until it has ended. What it left running is not waited for.
    async fn talk(&mut self, input: &[u8], printed: &mut Printed) -> io::Result<ExitStatus> {
        let pid = Pid::from_child(&self.child);
        let ended = watch(pidfd_open(pid, PidfdFlags::NONBLOCK)?)?;
        let pipe = |end: Option<OwnedFd>| end.ok_or(io::ErrorKind::BrokenPipe);
        let stdin = Sender::from_owned_fd(pipe(self.child.stdin.take().map(OwnedFd::from))?)?;
        let stdout = Receiver::from_owned_fd(pipe(self.child.stdout.take().map(OwnedFd::from))?)?;
        let stderr = Receiver::from_owned_fd(pipe(self.child.stderr.take().map(OwnedFd::from))?)?;
        {
            let talk = async {
                tokio::join!(
                    feed(stdin, input),
                    keep(stdout, &mut printed.output, OUTPUT_BYTES_MAX),
                    keep(stderr, &mut printed.errors, LAST_WORDS_BYTES_MAX),
                )
            };
            let mut talk = std::pin::pin!(talk);
            tokio::select! {
                _ = &mut talk => drop(ended.readable().await?),
                ready = ended.readable() => {
                    drop(ready?);
                    let _: Result<_, _> = timeout(LINGER, &mut talk).await;
                }
            }
        }
        let status = self.child.wait()?;
        self.has_ended = true;
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        // It may have ended just now, and its group with it.
        let pid = Pid::from_child(&self.child);
        let _: Result<_, _> = kill_process_group(pid, Signal::KILL);
        // Killed, it ends as soon as the kernel lets it; nobody waits for that but its parent.
        if let Ok(None) = self.child.try_wait() {
            std::thread::spawn(move || waitpid(Some(pid), WaitOptions::empty()));
        }
    }
}

impl Printed {
    /// What it said last, of its errors where it said any, in one line.
    fn last_words(&self) -> String {
        let said = [&self.errors, &self.output].into_iter().find(|said| !said.is_empty());
        let Some(said) = said else { return "it said nothing".to_owned() };
        let from = said.len().saturating_sub(LAST_WORDS_BYTES_MAX);
        let text = String::from_utf8_lossy(&said[from..]).into_owned();
        let words: Vec<&str> =
            text.split(|char: char| char.is_control() || char.is_whitespace()).collect();
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// A program need not read what it is given.
async fn feed(mut stdin: Sender, input: &[u8]) {
    drop(stdin.write_all(input).await);
}

/// Reads to the end, and keeps the last part of it.
async fn keep(mut from: impl AsyncRead + Unpin, kept: &mut Vec<u8>, bytes_max: usize) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..read]);
        if 2 * bytes_max < kept.len() {
            kept.drain(..kept.len() - bytes_max);
        }
    }
    let over = kept.len().saturating_sub(bytes_max);
    kept.drain(..over);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(script: &str, limit: Duration) -> Program {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Program { argv, limit }
    }

    async fn told(script: &str) -> String {
        program(script, Program::LIMIT).run("").await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_program_gets_its_input_whole_and_its_output_is_read_whole() {
        let input = "a line of some length\n".repeat(20_000);

        let output = program("cat; pwd; env", Program::LIMIT).run(&input).await.unwrap();

        let rest = output.strip_prefix(&input).unwrap();
        assert!(rest.starts_with("/\n") && rest.contains("LC_ALL=C"), "{rest}");
        assert!(!rest.contains("CARGO"), "the environment is not handed on: {rest}");
    }

    #[tokio::test]
    async fn a_failure_is_told_with_the_last_words() {
        assert_eq!(
            told("echo fine; echo no such; echo thing >&2; exit 3").await,
            "`/bin/sh` failed (exit status: 3): thing"
        );
        assert_eq!(
            told("echo only this; exit 1").await,
            "`/bin/sh` failed (exit status: 1): only this"
        );
        assert!(told("kill -9 $$").await.contains("signal: 9"));
        let many = told("yes word | head -n 10000 >&2; echo the end >&2; exit 1").await;
        assert!(many.ends_with("word the end") && many.len() < 500, "{many}");
        let none = Program { argv: vec!["/no/such".to_owned()], limit: Program::LIMIT };
        assert!(none.run("").await.unwrap_err().to_string().contains("cannot be run"));
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let (alive, pids) = (folder.path().join("alive"), folder.path().join("pids"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &alive, rustix::fs::Mode::from_raw_mode(0o600))
            .unwrap();
        let script = format!(
            "echo busy >&2; sleep 1000 >{alive} & echo $! >{pids}; exec 2>&-; sleep 1000",
            alive = alive.display(),
            pids = pids.display(),
        );

        let reader = std::thread::spawn(move || std::fs::read(alive).unwrap());
        let hung = program(&script, Duration::from_secs(2)).run("").await.unwrap_err();

        assert!(hung.to_string().contains("within 2 s and was killed: busy"), "{hung}");
        // The pipe ends when nobody holds it any more.
        assert_eq!(reader.join().unwrap(), b"");
    }

    #[tokio::test]
    async fn what_a_program_leaves_running_is_not_waited_for() {
        let limit = Duration::from_secs(25);

        let output = program("sleep 30 & echo started", limit).run("").await.unwrap();

        assert_eq!(output, "started\n");
    }
}
