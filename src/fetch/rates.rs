//! Rates: what each source gives to this machine, over all downloads.
//!
//! Knows what running downloads measure, and which sources they draw on. Does not know what they do with it.
//! Invariant: what a download gets is forgotten with it, and lives on only as the source's last rate.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::plan::Source;

/// Names a download for as long as it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DownloadId(u64);

/// Bytes a second, by source and download.
#[derive(Debug, Default)]
pub(super) struct Rates {
    downloads: u64,
    now: BTreeMap<DownloadId, HashMap<Source, f64>>,
    last: HashMap<Source, f64>,
    drawn_on: BTreeMap<DownloadId, BTreeSet<Source>>,
}

impl Rates {
    /// A new download.
    pub(super) fn begin(&mut self) -> DownloadId {
        self.downloads += 1;
        DownloadId(self.downloads)
    }

    /// A download gets this now.
    pub(super) fn tell<'a>(&mut self, download: DownloadId, rates: impl Iterator<Item = (&'a Source, f64)>) {
        let rates: HashMap<Source, f64> = rates.map(|(source, rate)| (source.clone(), rate)).collect();
        let sources: Vec<Source> = rates.keys().cloned().collect();
        self.now.insert(download, rates);
        for source in sources {
            let rate = self.together(&source);
            self.last.insert(source, rate);
        }
    }

    /// A download draws on these sources now. Says how many others draw on which.
    pub(super) fn draw(&mut self, download: DownloadId, on: BTreeSet<Source>) -> BTreeMap<Source, usize> {
        self.drawn_on.insert(download, on);
        let mut others = BTreeMap::new();
        for (_, sources) in self.drawn_on.iter().filter(|(other, _)| **other != download) {
            sources.iter().for_each(|source| *others.entry(source.clone()).or_default() += 1);
        }
        others
    }

    /// A download is over.
    pub(super) fn end(&mut self, download: DownloadId) {
        self.now.remove(&download);
        self.drawn_on.remove(&download);
    }

    /// What a source gives to all downloads, or gave last.
    pub(super) fn of(&self, source: &Source) -> Option<f64> {
        self.last.get(source).copied()
    }

    /// What peers give to all downloads but this.
    pub(super) fn of_peers_elsewhere(&self, download: DownloadId) -> f64 {
        let others = self.now.iter().filter(|(other, _)| **other != download).flat_map(|(_, rates)| rates);
        others.filter(|(source, _)| matches!(source, Source::Peer(_))).map(|(_, rate)| rate).sum()
    }

    fn together(&self, source: &Source) -> f64 {
        self.now.values().filter_map(|rates| rates.get(source)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_source_gives_is_the_sum_over_downloads_and_outlives_them() {
        let (peer, hub) = (Source::read("peer 12D3KooWNumberTwo"), Source::read("endpoint https://hub"));
        let mut rates = Rates::default();
        let (one, other) = (rates.begin(), rates.begin());
        rates.tell(one, [(&peer, 10.0), (&hub, 5.0)].into_iter());
        rates.tell(other, [(&peer, 20.0)].into_iter());
        assert_eq!((rates.of(&peer), rates.of(&hub)), (Some(30.0), Some(5.0)));
        assert_eq!((rates.of_peers_elsewhere(one), rates.of_peers_elsewhere(other)), (20.0, 10.0));
        rates.end(other);
        assert_eq!(rates.of_peers_elsewhere(one), 0.0);
        rates.tell(one, [(&peer, 25.0)].into_iter());
        rates.end(one);
        assert_eq!((rates.of(&peer), rates.of(&hub)), (Some(25.0), Some(5.0)));
    }

    #[test]
    fn a_download_hears_how_many_others_draw_on_a_source() {
        let (peer, hub) = (Source::read("peer 12D3KooWNumberTwo"), Source::read("endpoint https://hub"));
        let mut rates = Rates::default();
        let (one, other, third) = (rates.begin(), rates.begin(), rates.begin());
        assert_eq!(rates.draw(one, [peer.clone(), hub.clone()].into()), BTreeMap::new());
        assert_eq!(rates.draw(other, [peer.clone()].into()), [(peer.clone(), 1), (hub.clone(), 1)].into());
        assert_eq!(rates.draw(third, BTreeSet::new()), [(peer.clone(), 2), (hub, 1)].into());
        rates.end(one);
        assert_eq!(rates.draw(third, BTreeSet::new()), [(peer, 1)].into());
    }
}
