//! A host that is restarted, loses its disk, or has more agents than one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use postern_shared::time::Expiry;

use crate::netns::run;
use crate::rig::host::FAILSAFE;
use crate::rig::{STRANGER, World, eventually, kernel, now};

/// One address for a minute and one for an hour, let in and on the disk. Then the machine goes
/// down, and the plane with it: nothing is left of the agent but its files.
fn down() -> World {
    let mut world = World::new();
    let agent = world.start();
    for (source, secs) in [("10.0.0.1", 60), ("10.0.0.2", 3_600)] {
        let ends = world.plane.now().saturating_add(Duration::from_secs(secs));
        world.plane.add_network(world.org, world.group, source, Expiry::At(ends));
        world.opens(source);
        world.host.saves(world.group, &format!("{source}/32"));
    }
    agent.kill();
    world.plane.kill();
    run("nft", &["delete", "table", "inet", "postern"]);
    assert!(world.clients.is_open(STRANGER), "nothing guards the door");
    world
}

/// What the kernel is to hold of the two: only what the second has left after ten minutes.
fn is_ten_minutes_older(world: &World) {
    world.closes(STRANGER);
    assert!(!world.clients.is_open("10.0.0.1"));
    assert!(world.clients.is_open("10.0.0.2"));
    let left = kernel::entries(world.group)["10.0.0.2/32"].as_secs();
    assert!((2_900..=3_000).contains(&left), "{left} s left");
}

#[test]
fn a_start_without_the_plane_takes_the_time_since_off() {
    let world = down();

    // The same run of the machine, ten minutes on.
    let later = ["unshare", "--time", "--boottime", "600", "--fork", "--kill-child"];
    let _agent = world.host.start_through(&later);

    is_ten_minutes_older(&world);
    assert!(world.clients.is_open(FAILSAFE));
    assert_eq!(world.host.status()["groups"][0]["list"], "cached");
}

/// Starts the agent in another run of the machine, whose wall clock is to be trusted or not.
fn reboot(world: &World, is_wall_trusted: bool) -> crate::rig::host::Agent {
    let id = world.host.file("boot_id");
    fs::write(&id, "00000000-1111-4222-8333-444444444444\n").unwrap();
    let synchronized = if is_wall_trusted {
        "mkdir -p /run/systemd/timesync; touch /run/systemd/timesync/synchronized;"
    } else {
        ""
    };
    let script = format!(
        "mount --bind {} /proc/sys/kernel/random/boot_id; mount -t tmpfs none /run; {synchronized} \
         if [ -d /sys/class/rtc ]; then mount -t tmpfs none /sys/class/rtc; fi; exec \"$@\"",
        id.display()
    );
    world.host.start_through(&["unshare", "--mount", "sh", "-ec", &script, "sh"])
}

#[test]
fn after_a_reboot_a_clock_that_is_right_says_how_old_the_lists_are() {
    let world = down();

    let _agent = reboot(&world, true);

    world.closes(STRANGER);
    assert!(world.clients.is_open("10.0.0.2"));
    let left = kernel::entries(world.group)["10.0.0.2/32"].as_secs();
    assert!((3_400..3_600).contains(&left), "{left} s left");
}

#[test]
fn after_a_reboot_nobody_gets_in_on_the_word_of_a_clock_that_may_be_wrong() {
    let mut world = down();

    let _agent = reboot(&world, false);

    world.closes(STRANGER);
    assert!(!world.clients.is_open("10.0.0.2"));
    assert!(world.clients.is_open(FAILSAFE));
    world.plane.revive();
    world.opens("10.0.0.2");
}

#[test]
fn a_list_that_was_damaged_is_set_aside_and_asked_for_again() {
    let mut world = down();
    let path = world.host.list_file(world.group);
    let mut content = fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&path, &content).unwrap();

    let _agent = world.host.start_and_wait();

    assert_eq!(world.host.status()["groups"][0]["list"], "missing");
    let aside = path.with_extension("list.unreadable");
    assert_eq!(fs::read(aside).unwrap(), content);
    world.plane.revive();
    world.closes(STRANGER);
    world.opens("10.0.0.2");
}

#[test]
fn a_wall_clock_that_is_moved_under_a_running_agent_moves_no_deadline() {
    let world = World::new();
    // A file moves it, for whoever asks the C library for it: Debian's package libfaketime does that,
    // and touches no other clock.
    let path = world.host.file("wall_clock");
    let moves = |offset: &str| {
        let new = path.with_extension("new");
        fs::write(&new, offset).unwrap();
        fs::rename(new, &path).unwrap();
    };
    moves("+0");
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", path.display());
    // It keeps something in shared memory by the number of a process, and stumbles over what one
    // that was killed has left there.
    let faked = [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        "mount -t tmpfs none /dev/shm; exec \"$@\"",
        "sh",
        "env",
        "LD_PRELOAD=/usr/$LIB/faketime/libfaketimeMT.so.1",
        &file,
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    ];
    let agent = world.host.start_through(&faked);
    world.closes(STRANGER);
    let ends = world.plane.now().saturating_add(Duration::from_secs(8));
    world.plane.add_network(world.org, world.group, "10.0.0.1", Expiry::At(ends));
    world.opens("10.0.0.1");

    for (source, offset, days) in [("10.0.0.2", "+2d", 2), ("10.0.0.3", "-1d", -1)] {
        moves(offset);
        let hour = world.plane.now().saturating_add(Duration::from_secs(3_600));
        world.plane.add_network(world.org, world.group, source, Expiry::At(hour));
        world.opens(source);

        let left = kernel::entries(world.group)[&format!("{source}/32")].as_secs();
        assert!((3_590..=3_600).contains(&left), "{offset}: {source} is open for {left} s");
        eventually("the agent's log has the wrong date", || {
            let date = postern_shared::time::Timestamp::from_unix_ms(
                now().unix_ms().checked_add_signed(days * 86_400_000).unwrap(),
            );
            world.host.log().contains(&date.unwrap().to_string()[..10])
        });
    }

    world.closes("10.0.0.1");
    let late = now().since(ends);
    assert!(ends <= now() && late < Duration::from_secs(1), "closed {late:?} late");
    agent.kill();
    let _agent = world.host.start_through(&faked);
    world
        .host
        .reports("the list is followed again", |status| status["groups"][0]["list"] == "followed");
    let left = kernel::entries(world.group)["10.0.0.2/32"].as_secs();
    assert!((3_500..=3_600).contains(&left), "after a restart 10.0.0.2 is open for {left} s");
}

/// Starts the agent with a state directory that `mounted` makes of a copy of it.
fn on_a_bad_disk(world: &World, mounted: &str) -> crate::rig::host::Agent {
    let (state, copy) = (world.host.state_dir(), world.host.file("copy"));
    run("cp", &["-a", path(&state), path(&copy)]);
    let script = format!("S={}; C={}; {mounted}; exec \"$@\"", state.display(), copy.display());
    world.host.start_through(&["unshare", "--mount", "sh", "-ec", &script, "sh"])
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn goes_on_from_memory(world: &World) {
    world.closes(STRANGER);
    world.plane.add_network(world.org, world.group, "10.0.0.1", Expiry::Never);
    world.opens("10.0.0.1");
    let status = world.host.reports("the disk is a trouble", |status| {
        status["troubles"].to_string().contains("lists are kept in memory only")
    });
    assert_eq!(status["plane"]["link"], "stream");
    assert_eq!(world.host.ask(&["status"]).0, Some(3));
}

#[test]
fn on_a_full_disk_the_agent_goes_on_from_memory_and_says_so() {
    let world = World::new();

    let fill = "mount -t tmpfs -o size=64k none $S; cp -a $C/. $S; \
                dd if=/dev/zero of=$S/filler 2>/dev/null || true";
    let _agent = on_a_bad_disk(&world, fill);

    goes_on_from_memory(&world);
}

#[test]
fn on_a_disk_that_takes_nothing_the_agent_goes_on_from_memory_and_says_so() {
    let world = World::new();

    let _agent = on_a_bad_disk(&world, "mount --bind $S $S; mount -o remount,bind,ro $S");

    goes_on_from_memory(&world);
}

#[test]
fn a_second_agent_leaves_at_once_and_names_the_first() {
    let world = World::new();
    let agent = world.start();

    let code = world.host.start().wait();

    assert_eq!(code, Some(75));
    let first =
        format!("another agent is running with this state directory: process {}", agent.pid());
    assert!(world.host.log().contains(&first), "{}", world.host.log());
    assert!(!world.clients.is_open(STRANGER));
}
