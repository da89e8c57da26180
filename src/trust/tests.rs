//! The book of peers, played through: stories first, then random histories that must keep the invariants.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn id(n: usize) -> PeerId {
    let letters = (0..6).rev().map(|place| char::from(b'a' + u8::try_from(n / 10usize.pow(place) % 10).unwrap()));
    format!("12D3KooWxxxx{}", letters.collect::<String>()).parse().unwrap()
}

fn address(n: usize) -> SocketAddr {
    format!("10.0.0.{}:9009", n + 1).parse().unwrap()
}

fn host(n: usize) -> Host {
    format!("10.0.0.{}", n + 1).parse().unwrap()
}

fn hffs() -> Introduction {
    Introduction::Hffs { agent: "hffs/0.1.0".into() }
}

fn dials(actions: &[Action]) -> Vec<(RouteId, SocketAddr, Option<PeerId>)> {
    let dial = |action: &Action| match action {
        Action::Dial { route, address, expect } => Some((*route, *address, expect.clone())),
        _ => None,
    };
    actions.iter().filter_map(dial).collect()
}

/// A book of peer 0, and the clock that the stories move.
struct Story {
    book: Book,
    now: Instant,
    links: u64,
}

impl Story {
    fn new(pairings: Vec<Pairing>) -> Self {
        let now = Instant::now();
        Self { book: Book::new(id(0), pairings, 1, now), now, links: 0 }
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.book.actions(self.now)
    }

    /// Lets time pass until the book dials, and says how long that took.
    fn dials_within(&mut self, most: Duration) -> (RouteId, Duration) {
        let start = self.now;
        loop {
            let actions = self.book.actions(self.now);
            if let Some((route, ..)) = dials(&actions).first() {
                return (*route, self.now - start);
            }
            assert!(self.now - start <= most, "no dial within {most:?}");
            self.now += Duration::from_millis(50);
        }
    }

    fn link(&mut self, peer: usize, origin: Origin) -> LinkId {
        self.links += 1;
        let link = LinkId(self.links);
        self.book.linked(link, id(peer), address(peer), origin, self.now);
        link
    }

    fn meet(&mut self, peer: usize, origin: Origin) -> LinkId {
        let link = self.link(peer, origin);
        self.book.introduced(link, hffs(), self.now);
        link
    }

    fn paired_with(peer: usize) -> (Self, LinkId) {
        let mut story = Self::new(Vec::new());
        story.book.pair(host(peer), 9009, story.now).unwrap();
        let (route, _) = story.dials_within(SECOND);
        let link = story.meet(peer, Origin::Route(route));
        (story, link)
    }
}

#[test]
fn nothing_is_done_before_the_time_that_the_book_names() {
    let mut story = Story::new(vec![Pairing { host: host(1), port: 9009, peer_id: None }]);
    let mut route = None;
    for _ in 0..5 {
        let due = story.book.due(story.now).unwrap().max(story.now);
        if let Some(before) = due.checked_sub(Duration::from_millis(1)).filter(|before| *before > story.now) {
            assert_eq!(dials(&story.book.actions(before)), []);
        }
        story.now = due;
        let dialled = dials(&story.book.actions(due));
        let [(id, ..)] = dialled.as_slice() else { panic!("{dialled:?}") };
        assert_eq!(story.book.due(story.now), None, "while it is dialled, an event comes first");
        story.book.dial_failed(*id, DialFailure::Unreachable, story.now);
        route = Some(*id);
    }
    let link = story.link(1, Origin::Route(route.unwrap()));
    let due = story.book.due(story.now).unwrap();
    assert!(story.book.actions(due).iter().all(|action| !matches!(action, Action::Hang(_))));
    assert!(story.book.actions(due + Duration::from_millis(1)).contains(&Action::Hang(link)));
    story.book.unlinked(link, story.now);
    let link = story.meet(1, Origin::Route(route.unwrap()));
    assert_eq!(story.book.due(story.now), None, "nothing is due while all peers are here");
    story.book.unlinked(link, story.now);
    assert!(story.book.due(story.now).is_some());
}

#[test]
fn the_first_hffs_daemon_met_at_a_paired_address_is_pinned_and_remembered() {
    let (mut story, _) = Story::paired_with(3);
    assert!(story.book.is_paired(&id(3)) && story.book.is_active(&id(3)));
    let remembered = story.wait(Duration::ZERO).into_iter().find_map(|action| match action {
        Action::Remember(pairings) => Some(pairings),
        _ => None,
    });
    // The last word counts: pairing and pinning each sent one.
    assert_eq!(remembered.map(|p| p.len()), Some(1));
    assert_eq!(story.book.pairings()[0].peer_id, Some(id(3)));
    assert_eq!(story.book.contact(&host(3), 9009), Some(Contact::Met(id(3))));
    let view = story.book.views(story.now).remove(0);
    assert_eq!((view.via, view.active, view.paired), (vec![Via::Manual], true, true));
    assert_eq!(view.address.as_deref(), Some("10.0.0.4:9009"));
}

#[test]
fn a_changed_identity_is_loud_and_neither_trusted_nor_pinned_until_paired_anew() {
    let pairing = Pairing { host: host(3), port: 9009, peer_id: Some(id(3)) };
    let mut story = Story::new(vec![pairing.clone()]);
    let (route, _) = story.dials_within(SECOND);
    story.book.dial_failed(route, DialFailure::WrongPeer(id(4)), story.now);
    assert_eq!(story.book.pairings(), [pairing]);
    assert!(!story.book.is_paired(&id(4)));
    let view = story.book.views(story.now).remove(0);
    assert!(view.trouble.unwrap().contains("IDENTITY CHANGED"));
    // A dial that meets nobody does not make it quieter.
    let (route, _) = story.dials_within(limits::CHANGED_PAUSE);
    story.book.dial_failed(route, DialFailure::Unreachable, story.now);
    assert_eq!(story.book.contact(&host(3), 9009), Some(Contact::Changed));

    story.book.unpair(&host(3), None);
    story.book.pair(host(3), 9009, story.now).unwrap();
    let (route, _) = story.dials_within(SECOND);
    story.meet(4, Origin::Route(route));
    assert!(story.book.is_paired(&id(4)) && !story.book.is_paired(&id(3)));
}

#[test]
fn a_peer_of_the_lab_is_dialled_again_in_time_however_long_it_was_away() {
    for paired in [true, false] {
        let mut story = Story::new(Vec::new());
        if paired {
            story.book.pair(host(3), 9009, story.now).unwrap();
        } else {
            story.book.announced(id(3), address(3), story.now);
        }
        let (route, _) = story.dials_within(SECOND);
        let link = story.meet(3, Origin::Route(route));
        story.now += limits::STABLE;
        story.book.unlinked(link, story.now);
        assert!(!story.book.is_active(&id(3)));
        for _ in 0..40 {
            let (route, waited) = story.dials_within(Duration::from_secs(8));
            assert!(waited <= limits::DIAL_PAUSE_MAX + SECOND, "waited {waited:?}");
            story.now += limits::CONNECT;
            story.book.dial_failed(route, DialFailure::Unreachable, story.now);
        }
    }
}

#[test]
fn an_announced_stranger_that_never_answers_is_dialled_ever_less() {
    let mut story = Story::new(Vec::new());
    story.book.announced(id(3), address(3), story.now);
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let (route, waited) = story.dials_within(Duration::from_secs(61));
        longest = longest.max(waited);
        story.book.dial_failed(route, DialFailure::Unreachable, story.now);
    }
    assert!(longest > Duration::from_secs(20), "{longest:?}");
    assert!(story.book.views(story.now).is_empty(), "it never proved to be a peer");
}

#[test]
fn a_new_network_ends_all_waiting() {
    let mut story = Story::new(Vec::new());
    story.book.pair(host(3), 9009, story.now).unwrap();
    for _ in 0..10 {
        let (route, _) = story.dials_within(Duration::from_secs(8));
        story.book.dial_failed(route, DialFailure::Unreachable, story.now);
    }
    let network = Network { ip: "192.168.7.1".parse().unwrap(), prefix: 24 };
    story.book.networks_changed(vec![network], story.now);
    assert_eq!(story.dials_within(SECOND).1, Duration::ZERO);
}

#[test]
fn a_peer_is_local_while_all_its_connections_are_on_networks_of_this_machine() {
    let mut story = Story::new(Vec::new());
    story.meet(3, Origin::Inbound);
    assert!(!story.book.is_local(&id(3)), "no network of this machine is known yet");
    story.book.networks_changed(vec![Network { ip: "10.0.0.1".parse().unwrap(), prefix: 24 }], story.now);
    assert!(story.book.is_local(&id(3)));
    let far = LinkId(100);
    story.book.linked(far, id(3), "203.0.113.7:9009".parse().unwrap(), Origin::Inbound, story.now);
    assert!(!story.book.is_local(&id(3)));
    story.book.unlinked(far, story.now);
    assert!(story.book.is_local(&id(3)));
}

#[test]
fn of_two_that_hear_each_other_at_once_one_goes_first() {
    let mut small = Story::new(Vec::new());
    small.book.announced(id(3), address(3), small.now);
    assert_eq!(small.dials_within(SECOND).1, Duration::ZERO);
    let now = Instant::now();
    let mut large = Story { book: Book::new(id(9), Vec::new(), 1, now), now, links: 0 };
    large.book.announced(id(3), address(3), large.now);
    let (_, waited) = large.dials_within(SECOND);
    assert!(waited >= limits::DIAL_YIELD);
}

#[test]
fn announcements_of_far_places_and_of_ourselves_are_ignored() {
    let mut story = Story::new(Vec::new());
    for bad in ["8.8.8.8:9009", "127.0.0.1:9009", "10.0.0.9:0", "[2001:db8::1]:9009", "[fe80::1]:9009", "0.0.0.0:1"] {
        story.book.announced(id(3), bad.parse().unwrap(), story.now);
    }
    story.book.announced(id(0), address(0), story.now);
    assert!(dials(&story.wait(SECOND)).is_empty());
    // A public address is near when it lies in a network of this machine.
    story.book.networks_changed(vec![Network { ip: "130.60.1.2".parse().unwrap(), prefix: 24 }], story.now);
    story.book.announced(id(3), "130.60.1.9:9009".parse().unwrap(), story.now);
    story.book.announced(id(4), "130.60.2.9:9009".parse().unwrap(), story.now);
    let dialled = dials(&story.wait(SECOND));
    assert_eq!(dialled.len(), 1);
    assert_eq!(dialled[0].2, Some(id(3)));
}

#[test]
fn a_foreign_program_is_hung_up_on_forgotten_and_left_alone() {
    let mut story = Story::new(Vec::new());
    story.book.announced(id(3), address(3), story.now);
    let (route, _) = story.dials_within(SECOND);
    let link = story.link(3, Origin::Route(route));
    story.book.introduced(link, Introduction::Foreign, story.now);
    let actions = story.wait(Duration::ZERO);
    assert!(actions.contains(&Action::Hang(link)));
    assert!(actions.contains(&Action::Bar([id(3)].into())));
    story.book.unlinked(link, story.now);
    assert!(story.book.views(story.now).is_empty());
    story.book.announced(id(3), address(3), story.now);
    assert!(dials(&story.wait(Duration::from_secs(600))).is_empty());
    story.now += limits::FOREIGN_FOR;
    assert!(story.wait(SECOND).contains(&Action::Bar(BTreeSet::new())));
}

#[test]
fn a_wrong_byte_ends_every_connection_to_its_sender_for_a_while() {
    let (mut story, first) = Story::paired_with(3);
    let second = story.meet(3, Origin::Inbound);
    story.book.strike(&id(3), Offence::WrongBytes, story.now);
    let actions = story.wait(Duration::ZERO);
    assert!(actions.contains(&Action::Hang(first)) && actions.contains(&Action::Hang(second)));
    story.book.unlinked(first, story.now);
    story.book.unlinked(second, story.now);
    assert!(dials(&story.wait(Duration::from_secs(60))).is_empty());
    let view = story.book.views(story.now).remove(0);
    assert!(view.paired && !view.active && view.trouble.unwrap().contains("wrong bytes"));
    // It may come back by itself, and is turned away.
    let again = story.link(3, Origin::Inbound);
    assert!(story.wait(Duration::ZERO).contains(&Action::Hang(again)));
    story.book.unlinked(again, story.now);
    story.now += limits::BAN_WRONG_BYTES;
    story.dials_within(Duration::from_secs(10));
}

#[test]
fn a_peer_on_two_networks_is_one_peer_and_dialled_once() {
    let mut story = Story::new(Vec::new());
    story.book.announced(id(3), address(3), story.now);
    story.book.announced(id(3), "192.168.7.4:9009".parse().unwrap(), story.now);
    story.book.pair(host(3), 9009, story.now).unwrap();
    let first = dials(&story.wait(Duration::ZERO));
    // The pairing does not know yet who is there, so it looks for itself.
    assert_eq!(first.iter().filter(|(.., expect)| expect.is_some()).count(), 1);
    let (route, ..) = first.iter().find(|(.., expect)| expect.is_none()).unwrap();
    story.meet(3, Origin::Route(*route));
    assert!(dials(&story.wait(SECOND)).is_empty());
    let views = story.book.views(story.now);
    assert_eq!(views.len(), 1);
    assert_eq!(views[0].via, [Via::Manual, Via::Mdns]);
}

#[test]
fn ourselves_at_a_paired_address_is_told_once_and_never_listed() {
    let mut story = Story::new(Vec::new());
    story.book.pair(host(3), 9009, story.now).unwrap();
    let (route, _) = story.dials_within(SECOND);
    story.book.dial_failed(route, DialFailure::Ourselves, story.now);
    assert_eq!(story.book.contact(&host(3), 9009), Some(Contact::Ourselves));
    assert!(story.book.views(story.now).is_empty());
}

#[test]
fn all_addresses_of_a_name_are_tried_before_the_next_pause() {
    let mut story = Story::new(Vec::new());
    story.book.pair("box".parse().unwrap(), 9009, story.now).unwrap();
    let actions = story.wait(Duration::ZERO);
    let Some(Action::Resolve { route, .. }) = actions.iter().find(|action| matches!(action, Action::Resolve { .. }))
    else {
        panic!("no look-up in {actions:?}");
    };
    story.book.resolved(*route, vec![address(1), address(2)], story.now);
    assert_eq!(dials(&story.wait(Duration::ZERO))[0].1, address(1));
    story.book.dial_failed(*route, DialFailure::Unreachable, story.now);
    assert_eq!(dials(&story.wait(Duration::ZERO))[0].1, address(2));
    let link = story.meet(2, Origin::Route(*route));
    assert_eq!(story.book.views(story.now)[0].address.as_deref(), Some("10.0.0.3:9009"));
    assert_eq!(story.book.unpair(&host(2), Some(9009)).len(), 1, "it is known by its address, too");
    assert!(story.wait(Duration::ZERO).contains(&Action::Hang(link)));
}

#[test]
fn an_unpaired_peer_keeps_what_is_its_own() {
    let (mut story, dialled) = Story::paired_with(3);
    let inbound = story.meet(3, Origin::Inbound);
    assert_eq!(story.book.unpair(&host(3), Some(1)), []);
    assert_eq!(story.book.unpair(&host(3), None).len(), 1);
    let actions = story.wait(Duration::ZERO);
    assert!(actions.contains(&Action::Hang(dialled)) && !actions.contains(&Action::Hang(inbound)));
    story.book.unlinked(dialled, story.now);
    assert!(story.book.is_active(&id(3)) && !story.book.is_paired(&id(3)));
    assert_eq!(story.book.views(story.now)[0].via, [Via::Inbound]);
}

#[test]
fn a_flood_of_announcements_fills_its_own_table_and_slows_no_paired_dial() {
    let mut story = Story::new(Vec::new());
    for n in 1..5_000 {
        let address =
            SocketAddr::from(([10, 1, u8::try_from(n / 250).unwrap(), u8::try_from(n % 250 + 1).unwrap()], 9009));
        story.book.announced(id(n), address, story.now);
    }
    let flooded = dials(&story.wait(SECOND)).len();
    assert!(flooded <= limits::STRANGER_DIALS_MAX, "{flooded} dials at once");
    story.book.pair("172.16.0.1".parse().unwrap(), 9009, story.now).unwrap();
    let dialled = dials(&story.wait(Duration::ZERO));
    assert!(dialled.iter().any(|(_, address, _)| address.ip().to_string() == "172.16.0.1"));
    assert!(story.book.routes.len() <= limits::CANDIDATES_MAX + 1);
}

#[test]
fn a_connection_that_never_introduces_itself_is_closed() {
    let mut story = Story::new(Vec::new());
    let link = story.link(3, Origin::Inbound);
    assert!(!story.book.is_active(&id(3)));
    assert!(story.wait(limits::IDENTIFY_WAIT + SECOND).contains(&Action::Hang(link)));
    assert!(story.book.views(story.now).is_empty());
}

#[derive(Debug, Clone)]
enum Happening {
    Wait(u64),
    Pair(usize),
    Unpair(usize),
    Announce(usize, usize),
    Withdraw(usize, usize),
    DialEnds(usize, usize),
    Inbound(usize),
    Introduce(usize, bool),
    Close(usize),
    Strike(usize),
    Networks(usize),
    CutOff,
}

fn happenings() -> impl Strategy<Value = Happening> {
    let n = 1..8usize;
    prop_oneof![
        6 => (0u64..9_000).prop_map(Happening::Wait),
        1 => n.clone().prop_map(Happening::Pair),
        1 => n.clone().prop_map(Happening::Unpair),
        3 => (n.clone(), n.clone()).prop_map(|(peer, at)| Happening::Announce(peer, at)),
        1 => (n.clone(), n.clone()).prop_map(|(peer, at)| Happening::Withdraw(peer, at)),
        8 => (0..4usize, n.clone()).prop_map(|(how, peer)| Happening::DialEnds(how, peer)),
        2 => n.clone().prop_map(Happening::Inbound),
        6 => (0..4usize, proptest::bool::weighted(0.9)).prop_map(|(link, hffs)| Happening::Introduce(link, hffs)),
        2 => (0..4usize).prop_map(Happening::Close),
        1 => n.clone().prop_map(Happening::Strike),
        1 => n.prop_map(Happening::Networks),
        1 => Just(Happening::CutOff),
    ]
}

/// What a careful observer of the book's actions knows.
#[derive(Default)]
struct Observer {
    dialling: BTreeMap<RouteId, (SocketAddr, Option<PeerId>)>,
    links: BTreeMap<LinkId, (PeerId, Origin)>,
    /// Peers that were introduced on a dial to a pairing without an identity, or pinned before.
    may_be_paired: HashSet<PeerId>,
}

impl Observer {
    fn see(&mut self, book: &Book, actions: Vec<Action>, now: Instant) -> Result<(), TestCaseError> {
        for action in actions {
            match action {
                Action::Dial { route, address, expect } => {
                    if let Some(peer) = &expect {
                        prop_assert!(!book.is_barred(peer, now), "dialled a barred peer");
                        prop_assert!(
                            !self.links.values().any(|(linked, _)| linked == peer),
                            "dialled a connected peer"
                        );
                        prop_assert_ne!(peer, &id(0));
                        let twice = self.dialling.values().any(|(_, other)| other.as_ref() == Some(peer));
                        prop_assert!(!twice, "dialled a peer twice at once");
                    }
                    prop_assert!(self.dialling.insert(route, (address, expect)).is_none(), "a route was dialled twice");
                }
                Action::Hang(link) => {
                    self.links.get(&link).map(|_| ()).ok_or_else(|| TestCaseError::fail("hung up on nobody"))?;
                }
                Action::Bar(_) | Action::Remember(_) | Action::Resolve { .. } => {}
            }
        }
        for peer in (0..9).map(id) {
            prop_assert!(!book.is_paired(&peer) || self.may_be_paired.contains(&peer), "trust came from nowhere");
            prop_assert!(!book.is_active(&peer) || self.links.values().any(|(linked, _)| *linked == peer));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_history_breaks_the_invariants(history in proptest::collection::vec(happenings(), 1..120), seed: u64) {
        let mut now = Instant::now();
        let mut book = Book::new(id(0), Vec::new(), seed, now);
        let mut seen = Observer::default();
        let mut links = 0;
        for happening in history {
            match happening {
                Happening::Wait(millis) => now += Duration::from_millis(millis),
                Happening::Pair(n) => { let _ = book.pair(host(n), 9009, now); }
                Happening::Unpair(n) => {
                    book.unpair(&host(n), None);
                    // A dial for a pairing that ended meanwhile is nobody's business any more.
                    seen.dialling.retain(|route, _| book.routes.contains_key(route));
                }
                Happening::Announce(peer, at) => book.announced(id(peer), address(at), now),
                Happening::Withdraw(peer, at) => book.withdrawn(&id(peer), address(at)),
                Happening::DialEnds(how, found) => if let Some((route, (at, expect))) = seen.dialling.pop_first() {
                    let other = expect.as_ref().is_some_and(|expect| *expect != id(found));
                    match how {
                        0 => book.dial_failed(route, DialFailure::Unreachable, now),
                        1 => book.dial_failed(route, DialFailure::Ourselves, now),
                        _ if other => book.dial_failed(route, DialFailure::WrongPeer(id(found)), now),
                        _ => {
                            links += 1;
                            seen.links.insert(LinkId(links), (id(found), Origin::Route(route)));
                            book.linked(LinkId(links), id(found), at, Origin::Route(route), now);
                        }
                    }
                },
                Happening::Inbound(n) => {
                    links += 1;
                    seen.links.insert(LinkId(links), (id(n), Origin::Inbound));
                    book.linked(LinkId(links), id(n), address(n), Origin::Inbound, now);
                }
                Happening::Introduce(n, true) => if let Some((link, (peer, origin))) = seen.links.iter().nth(n) {
                    if let Origin::Route(_) = origin {
                        seen.may_be_paired.insert(peer.clone());
                    }
                    book.introduced(*link, hffs(), now);
                },
                Happening::Introduce(n, false) => if let Some((link, _)) = seen.links.iter().nth(n) {
                    book.introduced(*link, Introduction::Foreign, now);
                },
                Happening::Close(n) => if let Some(link) = seen.links.keys().nth(n).copied() {
                    seen.links.remove(&link);
                    book.unlinked(link, now);
                },
                Happening::Strike(n) => book.strike(&id(n), Offence::WrongBytes, now),
                Happening::Networks(n) => {
                    let network = Network { ip: address(n).ip(), prefix: 30 };
                    book.networks_changed(vec![network], now);
                }
                Happening::CutOff => {
                    book.cut_off(now);
                    seen.links.clear();
                    seen.dialling.clear();
                }
            }
            let actions = book.actions(now);
            seen.see(&book, actions, now)?;
            prop_assert!(book.views(now).iter().all(|view| view.peer_id != Some(id(0))));
        }
    }
}
