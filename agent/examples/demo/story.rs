//! The story, step by step; a step that does not hold ends it.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use postern_shared::time::Timestamp;

use crate::beacon;
use crate::hosts::{Host, Plane, TTL};
use crate::network::{self, HOST, LAPTOP, PLANE};
use crate::witness::{PORT, Witness};

/// How long a packet may take to see a change, on however busy a machine.
const CHANGE_WAIT: Duration = Duration::from_secs(5);
/// How late a door may close (G1).
const LATE_MAX: Duration = Duration::from_secs(1);
/// How early: deadlines count from when the agent asked, not from when it was answered.
const EARLY_MAX: Duration = Duration::from_secs(1);
/// For how long nothing may change where nothing should.
const CALM: Duration = Duration::from_millis(500);

/// Tells it from the beginning to the end.
pub(crate) fn tell(programs: &Path) -> Result<()> {
    introduce();
    let started = Instant::now();
    let stage = step("open to all", Stage::build)?;
    let mut plane = step("control plane", || set_up_plane(programs))?;
    let bookmark = step("pair and group", || add_pair(&plane))?;
    let mut host = step("agent", || set_up_host(programs, &plane))?;
    step("closed", || stage.is_closed())?;

    let report = |witness| stage.report(witness, &bookmark);
    step("beacon, open", || report(&stage.home))?;
    let deadline = step("roved", || stage.rove(&bookmark))?;
    step("both killed", || stage.kill(&mut plane, &mut host))?;
    step("closed on time", || stage.closes_at(deadline))?;

    step("restarted", || stage.restart(&mut plane, &mut host))?;
    step("beacon, open", || report(&stage.home))?;
    step("killed, restarted", || stage.restart_while_open(&mut plane, &mut host))?;
    println!("\n All of it held, in {:.1} s.", started.elapsed().as_secs_f64());
    Ok(())
}

fn introduce() {
    println!("\n Postern's main job on this kernel, in network namespaces of its own\n");
    println!("   control plane        {}", PLANE.address());
    println!("   host with service    {} port {PORT}", HOST.address());
    println!("   laptop, at home      {}", LAPTOP.address());
    println!("   laptop, in the café  {}\n", LAPTOP.other_address());
}

/// What a step is worth: a value for the next ones, and a sentence for the reader.
type Told<T> = Result<(T, String)>;

/// Takes a step and shows how long it took.
fn step<T>(name: &'static str, take: impl FnOnce() -> Told<T>) -> Result<T> {
    let started = Instant::now();
    let (value, sentence) = take().context(name)?;
    println!("{:>7} ms  {name:<18} {sentence}", started.elapsed().as_millis());
    Ok(value)
}

fn set_up_plane(programs: &Path) -> Told<Plane> {
    let mut plane = Plane::install(programs)?;
    plane.start()?;
    Ok((plane, "made its certificate and its store, and serves".to_owned()))
}

/// Makes a laptop that is in a group; answers its bookmark.
fn add_pair(plane: &Plane) -> Told<String> {
    let bookmark = plane.add_pair("laptop")?;
    plane.add_group("developers", "laptop")?;
    Ok((bookmark, format!("a reported address lives {} s", TTL.as_secs())))
}

fn set_up_host(programs: &Path, plane: &Plane) -> Told<Host> {
    let mut host = Host::install(programs, &plane.invite("host", "developers")?)?;
    host.start()?;
    Ok((host, "enrolled, follows, and its gate is in the kernel".to_owned()))
}

/// The service, and somebody at each of the laptop's addresses who never stops knocking.
struct Stage {
    own_program: String,
    home: Witness,
    cafe: Witness,
    _service: Child,
}

impl Stage {
    fn build() -> Told<Stage> {
        network::build()?;
        let own_program = std::env::current_exe()?.to_string_lossy().into_owned();
        let mut service = HOST.command(&own_program);
        service.args(["service", &HOST.address().to_string()]).stdin(Stdio::null());
        let stage = Stage {
            _service: service.spawn().context("start the service")?,
            home: Witness::start(LAPTOP.address(), &own_program)?,
            cafe: Witness::start(LAPTOP.other_address(), &own_program)?,
            own_program,
        };
        stage.home.until_open(CHANGE_WAIT)?;
        stage.cafe.until_open(CHANGE_WAIT)?;
        Ok((stage, "there is no gate yet: the service greets both addresses".to_owned()))
    }

    fn is_closed(&self) -> Told<()> {
        self.home.until_closed(CHANGE_WAIT)?;
        self.cafe.until_closed(CHANGE_WAIT)?;
        Ok(((), "the list is empty: neither address gets an answer".to_owned()))
    }

    /// Reports the address of a witness and waits until packets from there get through.
    fn report(&self, witness: &Witness, bookmark: &str) -> Told<Timestamp> {
        let address = witness.address();
        let (sent, answer) = beacon::send(&self.own_program, address, bookmark)?;
        let open = witness.until_open(CHANGE_WAIT)?;
        ensure!(answer.ipv4 == Some(address), "the plane saw {:?}, not {address}", answer.ipv4);
        let confirmed = answer.confirmation;
        ensure!(
            (confirmed.open, confirmed.of) == (1, 1),
            "the beacon was answered \"open on {} of {}\"",
            confirmed.open,
            confirmed.of
        );
        let took = open.duration_since(sent).unwrap_or_default().as_millis();
        let sentence = format!("{address} gets in {took} ms after its beacon; \"open on 1 of 1\"");
        Ok((answer.expires_at, sentence))
    }

    /// Reports from the café; the address at home must close though its time has not come.
    fn rove(&self, bookmark: &str) -> Told<Timestamp> {
        let (deadline, sentence) = self.report(&self.cafe, bookmark)?;
        let last_answer = self.home.until_closed(CHANGE_WAIT).context("the old address")?;
        ensure!(last_answer < at(deadline), "the old address was open as long as the new one");
        Ok((deadline, format!("{sentence}; {} is shut out", self.home.address())))
    }

    fn kill(&self, plane: &mut Plane, host: &mut Host) -> Told<()> {
        plane.kill()?;
        host.kill()?;
        self.cafe.sees_no_change(CALM)?;
        Ok(((), format!("with SIGKILL; {} still gets in", self.cafe.address())))
    }

    /// Waits until the café's address is shut out, which nobody is left to do but the kernel.
    fn closes_at(&self, deadline: Timestamp) -> Told<()> {
        let deadline = at(deadline);
        let left = deadline.duration_since(SystemTime::now()).context("the deadline has passed")?;
        let last_answer = self.cafe.until_closed(left + CHANGE_WAIT)?;
        let (word, difference, most) = match last_answer.duration_since(deadline) {
            Ok(late) => ("after", late, LATE_MAX),
            Err(early) => ("before", early.duration(), EARLY_MAX),
        };
        let ms = difference.as_millis();
        ensure!(difference <= most, "the last answer came {ms} ms {word} the deadline");
        Ok(((), format!("the last answer came {ms} ms {word} the deadline; nobody ran")))
    }

    fn restart(&self, plane: &mut Plane, host: &mut Host) -> Told<()> {
        self.home.sees_no_change(Duration::ZERO)?;
        plane.start()?;
        host.start()?;
        self.cafe.sees_no_change(CALM)?;
        self.home.sees_no_change(Duration::ZERO)?;
        Ok(((), "both follow again, and both addresses are shut out as before".to_owned()))
    }

    fn restart_while_open(&self, plane: &mut Plane, host: &mut Host) -> Told<()> {
        plane.kill()?;
        host.kill()?;
        plane.start()?;
        host.start()?;
        self.home.sees_no_change(CALM)?;
        self.cafe.sees_no_change(Duration::ZERO)?;
        Ok(((), format!("{} never lost its way in", self.home.address())))
    }
}

fn at(deadline: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(deadline.unix_ms())
}
