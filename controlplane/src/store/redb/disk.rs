//! A disk for tests, which forgets what was not synced when its power is cut.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

/// What a real disk writes whole.
const SECTOR_BYTES: usize = 512;

/// A generator of the same numbers on every run.
#[derive(Debug, Clone)]
pub(super) struct Seeded(u64);

impl Seeded {
    pub(super) fn new(seed: u64) -> Seeded {
        Seeded(seed)
    }

    /// The next number, below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

/// A disk in memory; clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    synced: Vec<u8>,
    /// What a reader sees.
    cached: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Writes, syncs and changes of the length until the power is cut.
    steps_left: Option<usize>,
    /// Claims to have synced and has not, as broken hardware does.
    lies: bool,
}

impl Disk {
    pub(super) fn with(content: Vec<u8>) -> Disk {
        Disk(Arc::new(Mutex::new(State {
            synced: content.clone(),
            cached: content,
            unsynced: Vec::new(),
            steps_left: None,
            lies: false,
        })))
    }

    pub(super) fn content(&self) -> Vec<u8> {
        self.lock().cached.clone()
    }

    /// Cuts the power after so many more steps.
    pub(super) fn cut_after(&self, steps: usize) {
        self.lock().steps_left = Some(steps);
    }

    /// Stops syncing, but not saying so.
    pub(super) fn lie(&self) {
        self.lock().lies = true;
    }

    /// What is on the disk when the power is back: everything that was synced, and any of the
    /// sectors that were not.
    pub(super) fn after_power_cut(&self, random: &mut Seeded) -> Disk {
        let state = self.lock();
        let mut content = state.synced.clone();
        if random.below(2) == 0 {
            content.resize(state.cached.len(), 0);
        }
        for (offset, data) in &state.unsynced {
            for (n, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                let start = offset + n * SECTOR_BYTES;
                let end = start + sector.len();
                if random.below(2) == 0 && end <= content.len() {
                    content[start..end].copy_from_slice(sector);
                }
            }
        }
        Disk::with(content)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test fails while it holds the lock")
    }
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.steps_left {
            Some(0) => Err(io::Error::other("the power is cut")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        let start = offset as usize;
        let found = state.cached.get(start..start + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        state.cached.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        if !state.lies {
            state.synced = state.cached.clone();
            state.unsynced.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        let start = offset as usize;
        state.cached[start..start + data.len()].copy_from_slice(data);
        state.unsynced.push((start, data.to_owned()));
        Ok(())
    }
}
