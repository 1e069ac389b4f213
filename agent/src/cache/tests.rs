use std::os::unix::fs::PermissionsExt;

use postern_shared::network::Network;
use postern_shared::policy::LocalPolicy;
use postern_shared::time::{Expiry, Timestamp};
use postern_shared::wire::v1::{StreamEvent, Withdrawn};

use super::*;
use crate::status::ListState;
use crate::testing::{FakeList, clock, group, host, hour, until};

fn lists(now: Timestamp) -> Lists {
    let policy = LocalPolicy { failsafe: vec![host(500)], ..LocalPolicy::default() };
    Lists::new(&BTreeSet::from([group(1)]), policy, now)
}

/// Saves what there is to save, as if a second had passed since by the only clock there is.
fn save_all(cache: &Cache, lists: &Lists, witness: &Witness, now: Timestamp) {
    let mut after = None;
    while let Some((group, saved)) = lists.take_unsaved(after, true, now) {
        cache.save(group, saved, witness.now()).unwrap();
        after = Some(group);
    }
}

fn state(lists: &Lists, now: Timestamp) -> (ListState, usize) {
    let standing = &lists.standings(&[group(1)], now)[&group(1)];
    (standing.list, standing.entries)
}

fn is_holding(lists: &Lists, now: Timestamp) -> bool {
    0 < lists.standings(&[group(1)], now)[&group(1)].held_count
}

#[tokio::test(start_paused = true)]
async fn a_restart_restores_what_was_in_force_and_asks_to_go_on_from_there() {
    let (clock, witness) = (clock(), Witness::of_this_boot());
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let before = lists(clock.now());
    let list = FakeList::new(group(1)).with_hosts(0..10);
    before.receive(list.snapshot(clock.now()), Some(clock.now()), clock.now()).unwrap();
    save_all(&cache, &before, &witness, clock.now());

    let after = lists(clock.now());
    cache.restore(&after, &witness, &*clock);

    assert_eq!(state(&after, clock.now()), (ListState::Cached, 11));
    let follow = after.follow(clock.now());
    assert_eq!(follow[0].have.map(|have| have.revision), Some(list.revision));
    let mode = fs::metadata(cache.path(group(1))).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(start_paused = true)]
async fn a_file_with_any_byte_changed_is_set_aside() {
    let (clock, witness) = (clock(), Witness::of_this_boot());
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let before = lists(clock.now());
    let list = FakeList::new(group(1)).with_hosts(0..2);
    before.receive(list.snapshot(clock.now()), Some(clock.now()), clock.now()).unwrap();
    save_all(&cache, &before, &witness, clock.now());
    let path = cache.path(group(1));
    let good = fs::read(&path).unwrap();

    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1;
        fs::write(&path, &bad).unwrap();
        let after = lists(clock.now());
        cache.restore(&after, &witness, &*clock);

        assert_eq!(state(&after, clock.now()).0, ListState::Missing, "byte {place}");
        assert!(!path.exists(), "byte {place}");
    }
    for length in [0, 1, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        let after = lists(clock.now());
        cache.restore(&after, &witness, &*clock);

        assert_eq!(state(&after, clock.now()).0, ListState::Missing, "{length} bytes");
    }
    assert!(directory.path().join("lists").join(format!("{}.list.unreadable", group(1))).exists());
}

#[tokio::test(start_paused = true)]
async fn of_a_list_of_unknown_age_only_what_has_no_deadline_is_restored() {
    let clock = clock();
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let before = lists(clock.now());
    let mut list = FakeList::new(group(1)).with_hosts(0..10);
    list.list.set(host(99), Expiry::Never);
    before.receive(list.snapshot(clock.now()), Some(clock.now()), clock.now()).unwrap();
    save_all(&cache, &before, &Witness::of_this_boot(), clock.now());

    let after = lists(clock.now());
    cache.restore(&after, &Witness::of_another_boot(), &*clock);

    assert_eq!(state(&after, clock.now()), (ListState::Cached, 2), "and the fail-safe network");
    assert_eq!(after.follow(clock.now())[0].have, None, "it asks for a snapshot");
}

#[tokio::test(start_paused = true)]
async fn no_restart_lengthens_a_lease_while_the_plane_is_not_heard() {
    let (clock, witness) = (clock(), Witness::of_this_boot());
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let mut lists = lists(clock.now());
    let mut list = FakeList::new(group(1));
    list.list.set(host(1), Expiry::Never);
    lists.receive(list.snapshot(clock.now()), Some(clock.now()), clock.now()).unwrap();
    let day = Duration::from_secs(86_400);

    for days in 1..=8 {
        tokio::time::sleep(day).await;
        save_all(&cache, &lists, &witness, clock.now());
        lists = self::lists(clock.now());
        cache.restore(&lists, &witness, &*clock);

        let failsafe_and_lease = if days < 7 { 2 } else { 1 };
        assert_eq!(state(&lists, clock.now()).1, failsafe_and_lease, "after {days} days");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_brake_holds_stays_held_over_a_restart() {
    let (clock, witness) = (clock(), Witness::of_this_boot());
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let before = lists(clock.now());
    let list = FakeList::new(group(1)).with_hosts(0..10);
    before.receive(list.snapshot(clock.now()), Some(clock.now()), clock.now()).unwrap();
    let mut shrunk = FakeList::new(group(1)).with_hosts(0..2);
    shrunk.revision = postern_shared::position::Revision(2);
    before.receive(shrunk.snapshot(clock.now()), Some(clock.now()), clock.now()).unwrap();
    assert!(is_holding(&before, clock.now()));
    save_all(&cache, &before, &witness, clock.now());

    let after = lists(clock.now());
    cache.restore(&after, &witness, &*clock);

    assert!(is_holding(&after, clock.now()));
    assert_eq!(state(&after, clock.now()), (ListState::Cached, 11));
    assert_eq!(after.confirm(None, clock.now()), 8);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_was_taken_away_stays_so_over_a_restart() {
    let (clock, witness) = (clock(), Witness::of_this_boot());
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let before = lists(clock.now());
    let list = FakeList::new(group(1)).with_hosts(0..10);
    before.receive(list.snapshot(clock.now()), Some(clock.now()), clock.now()).unwrap();
    let withdrawn = StreamEvent::Withdrawn(Withdrawn { group: group(1) });
    before.receive(withdrawn, None, clock.now()).unwrap();
    save_all(&cache, &before, &witness, clock.now());

    let after = lists(clock.now());
    cache.restore(&after, &witness, &*clock);

    assert_eq!(state(&after, clock.now()), (ListState::Withdrawn, 1), "the fail-safe network");
}

#[tokio::test]
async fn changes_reach_the_disk_by_themselves_and_a_full_disk_is_told_and_survived() {
    let (clock, witness) = (clock(), Arc::new(Witness::of_this_boot()));
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let lists = Arc::new(lists(clock.now()));
    let board = Arc::new(Board::new(String::new(), clock.now()));
    let keeping = keep(
        cache.clone(),
        Arc::clone(&lists),
        Arc::clone(&witness),
        Arc::clone(&clock),
        Arc::clone(&board),
    );
    let _task = tokio::spawn(keeping);
    let mut list = FakeList::new(group(1)).with_hosts(0..10);

    lists.receive(list.snapshot(clock.now()), Some(clock.now()), clock.now()).unwrap();
    until("it is on the disk", || cache.path(group(1)).exists()).await;

    // A directory in the way of the new file is as good as a disk that takes none.
    let aside = cache.directory.join(format!("{}.list.new", group(1)));
    fs::create_dir(&aside).unwrap();
    fs::write(aside.join("full"), "").unwrap();
    let change: [(Network, Expiry); 1] = [(host(50), Expiry::At(hour()))];
    lists.receive(list.change(&change, &[], clock.now()), None, clock.now()).unwrap();
    until("it is told", || !board.read().troubles.is_empty()).await;
    assert_eq!(state(&lists, clock.now()), (ListState::Followed, 12));
}

#[tokio::test(start_paused = true)]
async fn lists_that_are_no_longer_followed_leave_the_disk_and_nothing_else_does() {
    let (clock, witness) = (clock(), Witness::of_this_boot());
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let lists = lists(clock.now());
    let list = FakeList::new(group(1)).with_hosts(0..2);
    lists.receive(list.snapshot(clock.now()), Some(clock.now()), clock.now()).unwrap();
    save_all(&cache, &lists, &witness, clock.now());
    cache.save_groups(&[]).unwrap();
    fs::write(cache.path(group(2)), "old").unwrap();

    cache.keep_only(&BTreeSet::from([group(1)]));

    assert!(cache.path(group(1)).exists() && !cache.path(group(2)).exists());
    assert!(cache.directory.join(GROUPS_FILE).exists());
}

#[test]
fn groups_are_kept_and_a_broken_file_of_them_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let groups = vec![AgentGroup { id: group(1), number: 7, name: "ops".to_owned() }];

    cache.save_groups(&groups).unwrap();
    assert_eq!(cache.load_groups(), groups);

    fs::write(cache.directory.join(GROUPS_FILE), "[{").unwrap();
    assert_eq!(cache.load_groups(), []);
    assert!(cache.directory.join("groups.json.unreadable").exists());
}
