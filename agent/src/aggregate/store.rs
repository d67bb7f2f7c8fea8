//! One reading of the kernel's histogram, counter and loss maps.

use std::collections::{HashMap, HashSet};

use agent_common::{
    histogram::{Block, BlockKey, Bucket, COUNTER, SUMS, Series},
    loss::Loss,
    net::Peer,
};
use aya::maps::{Map, MapData, MapError, PerCpuArray};

use super::{Histogram, Places, batch::Table};
use crate::{clock, model::MonoNs};

/// The kernel's aggregates.
pub struct Store {
    histograms: Places<BlockKey, Block>,
    peers: Table<u32, Peer>,
    loss: PerCpuArray<MapData, u64>,
}

/// Everything counted so far, cumulative since each target was attached.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// By target id, series, and what the series is split by.
    pub histograms: HashMap<(u32, u16, u32), Histogram>,
    pub counters: HashMap<(u32, u16, u32), u64>,
    /// Sums and counts: by target id, series, what the series is split by, and category.
    pub sums: HashMap<(u32, u16, u32, u8), Bucket>,
    /// Peer ids to peers.
    pub peers: HashMap<u32, Peer>,
    /// When it was read.
    pub time: MonoNs,
    /// By cause, in [`Loss::ALL`]'s order.
    pub loss: [u64; Loss::COUNT as usize],
    /// What the maps hold of targets that are gone: see [`Store::forget`].
    pub gone: Gone,
}

/// Keys of the kernel's maps that belong to targets that are gone.
#[derive(Clone, Debug, Default)]
pub struct Gone {
    /// Ids of targets that are not gone.
    kept: HashSet<u32>,
    /// Places of blocks.
    blocks: Vec<u32>,
    peers: Vec<u32>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot read the kernel's map {map}: {source}")]
pub struct StoreError {
    map: &'static str,
    source: MapError,
}

impl Store {
    /// Takes over the maps by their names in the object.
    pub fn new(take: &mut impl FnMut(&'static str) -> Option<Map>) -> Result<Self, StoreError> {
        Ok(Self {
            histograms: Places::new(open(take, "BLOCK_KEYS")?, open(take, "BLOCKS")?),
            peers: open(take, "PEERS")?,
            loss: open(take, "LOSS")?,
        })
    }

    /// Reads everything. It notes the keys of targets that are not to be `kept`, for [`Self::forget`].
    pub fn read(&self, kept: HashSet<u32>) -> Result<Reading, StoreError> {
        let mut reading = Reading {
            time: clock::now(),
            gone: Gone {
                kept,
                ..Gone::default()
            },
            ..Reading::default()
        };
        let each = |place, key: &BlockKey, block: &Block| {
            if reading.is_gone(key.target_id()) {
                reading.gone.blocks.push(place);
            }
            reading.add(key, block);
        };
        self.histograms.each(each).map_err(failed("BLOCKS"))?;
        let peers = self.peers.entries().map_err(failed("PEERS"))?;
        let of_gone = peers.iter().filter(|(_, peer)| reading.is_gone(peer.target_id));
        reading.gone.peers = of_gone.map(|(id, _)| *id).collect();
        reading.peers = peers.into_iter().collect();
        for (cause, _) in Loss::ALL {
            let values = self.loss.get(&(cause as u32), 0).map_err(failed("LOSS"))?;
            reading.loss[cause as usize] = values.iter().sum();
        }
        Ok(reading)
    }

    /// Removes what a reading found of targets that are gone.
    pub fn forget(&mut self, reading: &Reading) -> Result<(), StoreError> {
        let Gone { blocks, peers, .. } = &reading.gone;
        self.histograms.clear(blocks).map_err(failed("BLOCKS"))?;
        self.peers.remove(peers).map_err(failed("PEERS"))
    }
}

fn failed(map: &'static str) -> impl Fn(MapError) -> StoreError {
    move |source| StoreError { map, source }
}

impl Reading {
    /// One that found nothing.
    #[cfg(test)]
    pub fn at(time: MonoNs) -> Self {
        Self {
            time,
            ..Self::default()
        }
    }

    /// Adds a block of buckets. There may be several of one key.
    fn add(&mut self, key: &BlockKey, block: &Block) {
        let series = (key.target_id(), key.series(), key.id());
        for (at, bucket) in block.buckets.iter().enumerate().filter(|(_, bucket)| bucket.count > 0) {
            let index = key.first_bucket() + at as u16;
            if index == COUNTER {
                *self.counters.entry(series).or_default() += bucket.count;
            } else if index >= SUMS {
                let sum = (key.target_id(), key.series(), key.id(), index as u8);
                let sum = self.sums.entry(sum).or_default();
                sum.count += bucket.count;
                sum.sum += bucket.sum;
            } else {
                self.histograms.entry(series).or_default().add(index, *bucket);
            }
        }
    }

    /// Whether a target's figures are its last: see [`Store::forget`].
    pub fn is_gone(&self, target_id: u32) -> bool {
        !self.gone.kept.contains(&target_id)
    }

    /// The histogram of a series that is not split, or split by `id`.
    pub fn histogram(&self, target_id: u32, series: Series, id: u32) -> Option<&Histogram> {
        self.histograms.get(&(target_id, series as u16, id))
    }

    /// The histograms of a split series: (what it is split by, histogram).
    pub fn split(&self, target_id: u32, series: Series) -> impl Iterator<Item = (u32, &Histogram)> {
        self.histograms
            .iter()
            .filter(move |((of, kind, _), _)| *of == target_id && *kind == series as u16)
            .map(|((_, _, id), histogram)| (*id, histogram))
    }

    /// A series' histograms, merged.
    pub fn whole(&self, target_id: u32, series: Series) -> Histogram {
        let mut whole = Histogram::default();
        for (_, histogram) in self.split(target_id, series) {
            whole.merge(histogram);
        }
        whole
    }

    /// The sums of a series: (what it is split by, category, sum and count).
    pub fn sums(&self, target_id: u32, series: Series) -> impl Iterator<Item = (u32, u8, Bucket)> {
        self.sums
            .iter()
            .filter(move |((of, kind, ..), _)| *of == target_id && *kind == series as u16)
            .map(|((_, _, id, category), bucket)| (*id, *category, *bucket))
    }

    /// A counter: what it is split by, and how many of each.
    pub fn counts(&self, target_id: u32, series: Series) -> impl Iterator<Item = (u32, u64)> {
        self.counters
            .iter()
            .filter(move |((of, kind, _), _)| *of == target_id && *kind == series as u16)
            .map(|((_, _, id), count)| (*id, *count))
    }

    /// A counter, summed over what it is split by.
    pub fn counter(&self, target_id: u32, series: Series) -> u64 {
        self.counts(target_id, series).map(|(_, count)| count).sum()
    }
}

/// Takes one map over.
pub fn open<T: TryFrom<Map, Error = MapError>>(
    take: &mut impl FnMut(&'static str) -> Option<Map>,
    map: &'static str,
) -> Result<T, StoreError> {
    let found = take(map).ok_or_else(|| StoreError {
        map,
        source: MapError::InvalidName { name: map.to_owned() },
    })?;
    T::try_from(found).map_err(|source| StoreError { map, source })
}
