//! Packets as the witness: connects to the service from one address, again and again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

use crate::network::{HOST, LAPTOP};

/// What the protected service says to whom it lets in.
const GREETING: &[u8] = b"hello from the service\n";
/// The port that it listens on, which the agent protects.
pub(crate) const PORT: u16 = 5432;

/// A packet takes microseconds here; one that got no answer for this long was dropped.
const ANSWER_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
/// Once connected, the service only has to be given the processor.
const GREETING_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
const PAUSE: Duration = Duration::from_millis(2);
/// An address without an answer for this long, and to so many knocks, is shut out: a witness that
/// was not given the processor for a while has seen nothing.
const SILENCE: Duration = Duration::from_millis(300);
const UNANSWERED: u32 = 20;

/// Someone at one of the laptop's addresses who never stops knocking.
#[derive(Debug)]
pub(crate) struct Witness {
    address: Ipv4Addr,
    process: Child,
    reports: Receiver<Report>,
}

/// A change that a witness saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// The service's greeting arrived at this time, for the first time.
    Open(SystemTime),
    /// The greeting arrived at this time for the last time; since the Unix epoch where never.
    Closed(SystemTime),
}

impl Witness {
    /// Begins to knock from `address`.
    pub(crate) fn start(address: Ipv4Addr, program: &str) -> Result<Witness> {
        let mut command = LAPTOP.command(program);
        command.args(["witness", &address.to_string(), &HOST.address().to_string()]);
        let mut process = command.stdout(Stdio::piped()).spawn().context("start a witness")?;
        let lines = BufReader::new(process.stdout.take().context("take the witness's output")?);
        let (sender, reports) = channel();
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let Some(report) = Report::parse(&line) else { return };
                if sender.send(report).is_err() {
                    return;
                }
            }
        });
        Ok(Witness { address, process, reports })
    }

    /// Where the knocks come from.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Waits for the next change, which must be to open, and answers when that was.
    pub(crate) fn until_open(&self, within: Duration) -> Result<SystemTime> {
        match self.next(within)? {
            Some(Report::Open(at)) => Ok(at),
            Some(Report::Closed(_)) => bail!("{} is shut out", self.address),
            None => bail!("{} got no answer within {within:?}", self.address),
        }
    }

    /// Waits for the next change, which must be to closed, and answers when the last answer was.
    pub(crate) fn until_closed(&self, within: Duration) -> Result<SystemTime> {
        match self.next(within)? {
            Some(Report::Closed(at)) => Ok(at),
            Some(Report::Open(_)) => bail!("{} is let in", self.address),
            None => bail!("{} is still let in after {within:?}", self.address),
        }
    }

    /// Makes sure that nothing changes for a while.
    pub(crate) fn sees_no_change(&self, during: Duration) -> Result<()> {
        match self.next(during)? {
            None => Ok(()),
            Some(Report::Open(_)) => bail!("{} was let in", self.address),
            Some(Report::Closed(_)) => bail!("{} was shut out", self.address),
        }
    }

    fn next(&self, within: Duration) -> Result<Option<Report>> {
        match self.reports.recv_timeout(within) {
            Ok(report) => Ok(Some(report)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the witness at {} died", self.address),
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // It may have died before; either way it is gone.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Report {
    fn parse(line: &str) -> Option<Report> {
        let (word, micros) = line.split_once(' ')?;
        let at = UNIX_EPOCH + Duration::from_micros(micros.parse().ok()?);
        match word {
            "open" => Some(Report::Open(at)),
            "closed" => Some(Report::Closed(at)),
            _ => None,
        }
    }

    fn line(self) -> String {
        let (word, at) = match self {
            Report::Open(at) => ("open", at),
            Report::Closed(at) => ("closed", at),
        };
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{word} {}\n", since.as_micros())
    }
}

/// The witness's own process: knocks from `source` for ever and prints every change.
pub(crate) fn knock(source: Ipv4Addr, host: Ipv4Addr) -> Result<()> {
    let target = SocketAddrV4::new(host, PORT);
    let mut output = std::io::stdout();
    let mut is_open = None;
    let (mut last_answer, mut silent_since, mut unanswered) = (UNIX_EPOCH, Instant::now(), 0);
    loop {
        let answered = answers(source, target)?;
        if answered {
            (last_answer, silent_since, unanswered) = (SystemTime::now(), Instant::now(), 0);
        } else {
            unanswered += 1;
        }
        let report = match is_open {
            None | Some(false) if answered => Some(Report::Open(last_answer)),
            None | Some(true) if unanswered > UNANSWERED && silent_since.elapsed() > SILENCE => {
                Some(Report::Closed(last_answer))
            }
            _ => None,
        };
        if let Some(report) = report {
            is_open = Some(matches!(report, Report::Open(_)));
            output.write_all(report.line().as_bytes())?;
        }
        thread::sleep(PAUSE);
    }
}

/// Says whether a new connection from `source` gets the greeting.
fn answers(source: Ipv4Addr, target: SocketAddrV4) -> Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrV4::new(source, 0)).context("take the laptop's address")?;
    // Closes with a reset: a port in TIME_WAIT for each knock would use them all up.
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    match connect(&socket, &target) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error).context("connect to the service"),
    }
    if !is_ready(&socket, PollFlags::OUT, ANSWER_WAIT)? || sockopt::socket_error(&socket)?.is_err()
    {
        return Ok(false);
    }
    let mut greeting = [0; GREETING.len()];
    let mut stream = TcpStream::from(socket);
    let arrived = is_ready(&stream, PollFlags::IN, GREETING_WAIT)?
        && stream.read_exact(&mut greeting).is_ok();
    Ok(arrived && greeting == GREETING)
}

fn is_ready(socket: &impl AsFd, wanted: PollFlags, timeout: Timespec) -> Result<bool> {
    let mut sockets = [PollFd::new(socket, wanted)];
    Ok(poll(&mut sockets, Some(&timeout))? > 0)
}

/// The protected service's own process: greets whoever gets through.
pub(crate) fn serve(address: Ipv4Addr) -> Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((address, PORT)))?;
    for connection in listener.incoming() {
        // Who has left again needs no greeting.
        drop(connection.and_then(|mut stream| stream.write_all(GREETING)));
    }
    ensure!(false, "a listener never ends");
    Ok(())
}
