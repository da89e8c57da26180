//! Every bound in the program, each with its reason.
//!
//! Knows numbers. Does not know who uses them.
//! Invariant: no other room holds a bare limit, so this page tells what the program can be made to do.

use std::time::Duration;

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

// ---- names -------------------------------------------------------------------------------------

/// The Hub's own limit for a repo id.
pub const REPO_ID_BYTES_MAX: usize = 96;
/// A ref becomes a file name below `refs/`; git hosts refuse longer ones.
pub const REVISION_BYTES_MAX: usize = 200;
/// Leaves room below Linux's 4,096-byte paths for the cache folder in front.
pub const PATH_BYTES_MAX: usize = 1_024;
/// What file systems take for one path part.
pub const PATH_PART_BYTES_MAX: usize = 255;
/// A base58 ed25519 peer id has 52 characters; an RSA one 46.
pub const PEER_ID_BYTES_MAX: usize = 64;

// ---- trees and pieces --------------------------------------------------------------------------

/// The largest public repos have some tens of thousands of files.
pub const TREE_ENTRIES_MAX: usize = 200_000;
/// Four times the largest file that the Hub takes (500 GB); keeps arithmetic far from overflow.
pub const FILE_BYTES_MAX: u64 = 1 << 41;
/// A piece lost to a cut line costs a second at 1 MB/s.
pub const PIECE_BYTES_MIN: u64 = MIB;
/// A full piece list is then 2 MiB, and a piece set 8 KiB.
pub const PIECES_MAX: u32 = 65_536;

// ---- pace --------------------------------------------------------------------------------------

/// The lowest limit. The dozen ranges of a few files share it, and each of them must still move every
/// second, or its source is taken for stuck.
pub const RATE_MIN: u64 = 10_000;
/// More than any network card gives is a slip of the finger.
pub const RATE_MAX: u64 = 1_000_000_000_000;
/// What a limited line may save up while nothing flows: makes up for timers that go off late. With one
/// portion that is the largest burst.
pub const PACE_SAVED: Duration = Duration::from_millis(100);
/// How long one transfer's portion takes at the limit: twenty waits a second cost nothing.
pub const PACE_PORTION: Duration = Duration::from_millis(50);
/// How long a round takes in which every transfer gets a portion: far below all times after which a
/// transfer counts as silent (`HEDGE_AFTER` is the shortest).
pub const PACE_ROUND: Duration = Duration::from_millis(250);
/// What an endpoint is asked for ahead of a limit: it does not know of the limit, and the kernel takes in
/// megabytes that nobody has read yet. Long enough that the next answer is there in time.
pub const PACE_AHEAD: Duration = Duration::from_millis(500);
/// Shorter ranges than this make more requests than they are worth. It is also how every range begins,
/// because nobody knows then how many will share the limit.
pub const PACE_AHEAD_BYTES_MIN: u64 = 256 << 10;
/// Smaller portions cost more than they carry.
pub const PACE_PORTION_BYTES_MIN: usize = 512;

// ---- plan --------------------------------------------------------------------------------------

/// Beside fellows a mirror is asked when it gives this many times what all together have got so far: its pieces
/// cannot be passed on, so what one machine takes from it crosses the WAN for that one alone.
pub const MIRROR_OVER_CREW: f64 = 1.5;
/// Where nobody knows how fast it is, that is tried after this time, once,
pub const MIRROR_AFTER: Duration = Duration::from_secs(10);
/// and only if all the rest would take longer than this.
pub const MIRROR_FROM: Duration = Duration::from_secs(120);
/// Ranges in flight with one source for one file: enough to hide a round trip and a slow disk; each
/// further one only queues. Large files that are brought from one peer at the same time share them.
pub const RANGES_PER_SOURCE: usize = 4;
/// The same for a peer with the whole file that gives full LAN speed. yamux lets 256 KiB of a range be under way: a
/// machine that needs some milliseconds to wake up and ask for more would have used up those of four.
pub const RANGES_PER_FAST_PEER: usize = 12;
/// What they share of an endpoint. Lines over an ocean give each connection little, so this is no less than what the
/// Hub's own client opens.
pub const RANGES_PER_ENDPOINT: usize = 8;
/// The longest range asked of a peer. Larger ones save nothing more (reference measurements: 16 MiB
/// is the cheapest), and a taker holds one upload slot for no longer.
pub const PEER_RANGE_BYTES: u64 = 16 * MIB;
/// The longest range asked of an endpoint: fewer requests on a slow line with long round trips.
pub const ENDPOINT_RANGE_BYTES: u64 = 64 * MIB;
/// The same, where fellows draw on the same source: together they hide its round trips, and what dies with
/// one of them is little.
pub const RANGES_AMONG_FELLOWS: usize = 2;
/// Pieces that change hands together between fellows. Requests of 8 MiB cost little more than longer ones.
pub const STRETCH_PIECES: u32 = 8;
/// A file has this many stretches at least, so that everybody gets about as much of it as everybody else.
pub const STRETCHES_MIN: u32 = 256;
/// Fellows are asked how they stand at the first tick of the planner after this time: every 400 ms, so that each
/// knows within half a second what the others have. A question and its answer are about a kilobyte on the wire, so
/// of 49 fellows each machine hears and says 120 kB a second for one file, and a few bytes for each piece that is new.
pub const FELLOW_EVERY: Duration = Duration::from_millis(300);
/// A download asks who else is bringing the file, and then how far they are, before it asks for pieces, and waits no
/// longer than this for each of the answers: machines that begin together would all begin with the same piece.
pub const FELLOW_FIRST: Duration = Duration::from_millis(400);
/// Nor longer than this for all of them: one answer may call for another question.
pub const FELLOWS_FIRST: Duration = Duration::from_millis(1_200);
/// Nobody waits for a fellow that has not answered for this long,
pub const FELLOW_SILENT: Duration = Duration::from_secs(3);
/// or that has something to bring and has got nothing for this long,
pub const FELLOW_STALL: Duration = Duration::from_secs(3);
/// or that has had no new piece for this long, or for twice the time that its speed calls for, whatever it says.
pub const FELLOW_PIECE: Duration = Duration::from_secs(15);
pub const FELLOW_PIECE_MAX: Duration = Duration::from_secs(300);
/// Pieces are taken off a fellow that needs longer than this for all that it owes. More than the time in which it
/// hears of that, or both would bring them.
pub const FELLOW_OWES: Duration = Duration::from_secs(2);
/// Whoever is next in line for such a piece waits for this long, to hear whether another took it.
pub const FELLOW_TURN: Duration = Duration::from_millis(700);
/// What is on its way to a fellow for longer than this is fetched a second time by one that is this many times faster.
pub const FELLOW_DOUBLE: Duration = Duration::from_secs(3);
pub const FELLOW_SLOWER: f64 = 3.0;
/// So many pieces are looked at to find the rarest; the order of the file matters too.
pub const RAREST_OF: usize = 64;
/// What is asked of a source that has not been measured.
pub const FIRST_RANGE_BYTES: u64 = 4 * MIB;
/// How long one range should take: long enough to be worth a request, short enough to deal anew.
pub const RANGE_TIME: Duration = Duration::from_secs(4);
/// The planner looks at clocks and rates this often.
pub const PLAN_TICK: Duration = Duration::from_millis(200);
/// A peer on a LAN that sends nothing for this long is stuck, frozen or gone.
pub const PEER_STALL: Duration = Duration::from_secs(3);
/// A WAN line may pause for longer; `hf` itself waits this long for a byte.
pub const ENDPOINT_STALL: Duration = Duration::from_secs(10);
/// How long a range may wait for its turn at an endpoint that serves others of this machine.
pub const ENDPOINT_TURN: Duration = Duration::from_secs(60);
/// A file of fewer pieces than this for each range in flight is asked for in fewer ranges: a request
/// costs more than it hides.
pub const PIECES_PER_RANGE_MIN: u32 = 8;
/// A range without a byte for this long may be fetched from an idle source as well.
pub const HEDGE_AFTER: Duration = Duration::from_millis(1_000);
/// Peers have to be slower than full LAN speed for this long before the WAN is asked to help.
pub const LAN_HEAD_START: Duration = Duration::from_millis(1_000);
/// Peers that together give this many bytes a second are "full LAN speed": the WAN is left alone. It is
/// what a busy machine still takes of a gigabit, and more than any line that a lab shares.
pub const LAN_FULL_BYTES_PER_SEC: f64 = 50.0e6;
/// The WAN is also left alone when the peers give this many times what it gives.
pub const LAN_OVER_WAN: f64 = 8.0;
/// Waiting time after a source's first failure; it doubles up to `SOURCE_BACKOFF_MAX`.
pub const SOURCE_BACKOFF: Duration = Duration::from_millis(500);
pub const SOURCE_BACKOFF_MAX: Duration = Duration::from_secs(30);

// ---- wire and swarm ----------------------------------------------------------------------------

/// A query names a repo, a path, or 256 digests of about 100 bytes each.
pub const QUERY_BYTES_MAX: usize = 64 << 10;
/// The longest answer is a full piece list of 2 MiB, or 256 piece sets of 8 KiB.
pub const ANSWER_BYTES_MAX: usize = 3 << 20;
/// A piece request or its header is a few small fields; anything near this is an attack.
pub const PIECE_FRAME_BYTES_MAX: usize = 4 << 10;
/// Digests asked about in one query; their piece sets then fit into one answer.
pub const HOLDS_MAX: usize = 256;
/// Files in one page of a tree: with the longest paths it still fits into one answer.
pub const TREE_PAGE_MAX: usize = 2_000;
/// The longest stretch of one piece request. More would hold an upload slot for too long.
pub const PIECE_REQUEST_BYTES_MAX: u64 = 256 * MIB;
/// Ranges that a peer says are on their way to it: those of as many sources as it could have.
pub const COMING_MAX: usize = 64;
/// Who has asked how a download stands, until the download looks.
pub const ASKERS_MAX: usize = 256;
/// What a peer may call itself.
pub const AGENT_BYTES_MAX: usize = 128;

/// The port that a daemon listens on when it is free and no other was asked for.
pub const PORT_DEFAULT: u16 = 9009;
/// Bytes between a file and a stream are moved in blocks of this size: the cheapest one measured.
pub const BLOCK_BYTES: usize = 256 << 10;
/// A block that a slow line has begun is handed on after this time, full or not: whoever waits for the
/// bytes judges the peer by them, so this is far below `PEER_STALL`.
pub const BLOCK_WAIT: Duration = Duration::from_millis(500);
/// How often the speed of a line that is full is measured.
pub const SPEED_EVERY: Duration = Duration::from_millis(250);
/// What one frame of a long answer takes of a slow line: it is waited for by whatever is small, once for each
/// long answer that is under way.
pub const FRAME_TIME: Duration = Duration::from_millis(5);
/// Shorter frames would be more of headers and encryption than of bytes.
pub const FRAME_BYTES_MIN: usize = 4 << 10;
/// What of one connection's bytes waits in the kernel for a slow line, and has not been sent.
pub const UNSENT_TIME: Duration = Duration::from_millis(20);
/// A kernel that has less to send would be idle before it is given more.
pub const UNSENT_BYTES_MIN: usize = 16 << 10;
/// What waits for a fast line, which is kept busy by what is under way.
pub const UNSENT_BYTES_MAX: usize = 256 << 10;
/// Blocks start at an address that is a multiple of this; unaligned ones cost the kernel twice the time.
pub const BLOCK_ALIGN: usize = 4_096;
/// A yamux frame is one system call. With its proofs it just fits into the 65,160 bytes that the kernel cuts
/// into packets of 1,500 at once: a few bytes more cost the giver a packet, and a third of its time.
pub const YAMUX_FRAME_BYTES: usize = 65_000;
/// What is encrypted at once. A little shorter than a frame, so that whoever opens it in the place where the
/// frame belongs has room for the 16 bytes of its proof.
pub const NOISE_BULK_BYTES: usize = 60 << 10;
/// Messages under one key, where the key changes at all: 4 GiB, far below what AES-GCM is sound for.
pub const NOISE_KEY_MESSAGES: u64 = 1 << 16;
/// One message of a handshake: keys, a signature and an identity, which for an RSA key takes half of this.
pub const HANDSHAKE_BYTES_MAX: usize = 2 << 10;
/// Streams of one connection. Above the sum of what the protocols use, because yamux ends a
/// connection that opens more; not far above, because each may have 256 KiB waiting unread.
pub const YAMUX_STREAMS_MAX: usize = 256;
/// What one connection's streams may have buffered together; yamux wants 256 KiB for each.
pub const YAMUX_WINDOW_BYTES_MAX: usize = YAMUX_STREAMS_MAX * (256 << 10);
/// Streams that a peer opened and nobody took up yet.
pub const YAMUX_WAITING_MAX: usize = 32;
/// Streams that a peer opened and has not agreed on a protocol for yet.
pub const STREAMS_NEGOTIATING_MAX: usize = 32;
/// Connecting, encrypting and agreeing on protocols takes milliseconds on a LAN. Short, because a
/// dial into a cut line must be over before the line is back.
pub const CONNECT: Duration = Duration::from_secs(4);
/// How often each side sends a ping: a living connection is never silent for much longer.
pub const PING_EVERY: Duration = Duration::from_secs(3);
/// A ping that queues behind bulk data is late, not lost; silence is what ends a connection.
pub const PING_WAIT: Duration = Duration::from_secs(20);
/// A connection is dead when nothing at all was received for this many seconds in a row.
pub const SILENT_SECS_MAX: u32 = 9;
/// How long closing a connection politely may take.
pub const GOODBYE: Duration = Duration::from_millis(500);
/// A connection that has not said who it is by then is of no use.
pub const IDENTIFY_WAIT: Duration = Duration::from_secs(8);
/// Connections between lab peers stay, for whoever asks next.
pub const CONNECTION_IDLE: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The largest lab has 50 machines, with up to a few connections each.
pub const CONNECTIONS_MAX: u32 = 256;
pub const CONNECTIONS_IN_MAX: u32 = 192;
pub const CONNECTIONS_OUT_MAX: u32 = 128;
/// Two for bulk, and as many again when both sides dialled at the same moment or over two networks.
pub const CONNECTIONS_PER_PEER_MAX: u32 = 8;
/// Connections in the middle of their handshake, so that silent ones cannot take every place.
pub const HANDSHAKES_IN_MAX: u32 = 64;
pub const HANDSHAKES_OUT_MAX: u32 = 48;
pub const HANDSHAKES_PER_IP_MAX: usize = 16;
/// Several daemons may share one address, behind a NAT or on one machine.
pub const CONNECTIONS_PER_IP_MAX: usize = 32;
/// Connections that carry pieces to one peer: one is one core's work, and a third gained nothing.
pub const BULK_CONNECTIONS: usize = 2;
/// How often a further connection for pieces is tried.
pub const BULK_RETRY: Duration = Duration::from_secs(30);

/// Requests of ours that one peer may have open, and its requests that we work on at once.
/// More than twice what a download keeps in flight.
pub const REQUESTS_PER_PEER_MAX: usize = 32;
/// Of these, requests for at least `LARGE_REQUEST_BYTES`: the rest is for small files, whose requests would
/// otherwise be refused for as long as large ones are fetched.
pub const LARGE_REQUESTS_PER_PEER_MAX: usize = 20;
/// What makes a request for pieces a large one: it takes longer than a whole small file.
pub const LARGE_REQUEST_BYTES: u64 = 2 * MIB;
/// Streams of one protocol on one connection, both directions together.
pub const STREAMS_PER_CONNECTION_MAX: usize = 2 * REQUESTS_PER_PEER_MAX;
/// Requests of all peers that are worked on at once.
pub const REQUESTS_MAX: usize = 512;
/// Requests a second that one peer is allowed, and how many it may save up. A repo of small files is
/// asked for with one request a file, and one costs its giver a third of a millisecond: a peer that
/// does nothing but ask takes two thirds of a core.
pub const REQUESTS_PER_SEC: f64 = 2_000.0;
pub const REQUESTS_BURST: f64 = 4_000.0;
/// Requests refused in a row before a peer counts as flooding.
pub const REFUSED_MAX: u32 = 20_000;
/// A whole query, from opening its stream to the last byte of its answer.
pub const QUERY_WAIT: Duration = Duration::from_secs(10);
/// How long our own rooms may think about a request before the peer is told that we are busy.
pub const SERVE_WAIT: Duration = Duration::from_secs(8);
/// A transfer that moves no byte for this long is over. Longer than the planner waits for, so that
/// its decision comes first.
pub const PIECES_STALL: Duration = Duration::from_secs(12);
/// A peer that takes nothing for this long gives its place to others. One that is dead is noticed within
/// seconds by its silence (`SILENT_SECS_MAX`); this is for one that lives and does not read. It is long,
/// because what a peer has read is told in steps of half a window: a peer that may take `RATE_MIN` with two
/// dozen streams says so for each of them every five minutes.
pub const PIECES_GIVE_STALL: Duration = Duration::from_secs(300);
/// How long the end of a stream may take behind its last byte.
pub const PIECES_END_WAIT: Duration = Duration::from_secs(1);
/// The longest allowed stretch at 100 kB/s takes 45 minutes.
pub const PIECES_WAIT: Duration = Duration::from_secs(3_600);
/// When to ask a busy peer again, if it does not say.
pub const BUSY_RETRY: Duration = Duration::from_millis(250);
/// The longest time that a busy peer may ask us to stay away.
pub const BUSY_RETRY_MAX: Duration = Duration::from_secs(10);
/// A request whose caller left is forgotten after this time, whatever became of it.
pub const CALL_LEFT: Duration = Duration::from_secs(60);
/// The shortest stretch that is worth a further connection.
pub const BULK_FROM_BYTES: u64 = 4 * MIB;
/// How long what a peer announced on the local network is believed.
pub const MDNS_TTL: Duration = Duration::from_secs(120);
/// How often the local network is asked for peers, should an announcement have been lost.
pub const MDNS_EVERY: Duration = Duration::from_secs(20);
/// Commands that wait for the swarm's task.
pub const COMMANDS_MAX: usize = 256;
/// Events that wait for the daemon.
pub const SWARM_EVENTS_MAX: usize = 64;
/// How long looking up a host name may take. Shorter than `PAIR_WAIT`, so that a name that nobody knows
/// is told as what it is.
pub const LOOKUP: Duration = Duration::from_millis(2_500);
/// How long `peer add` waits for a first contact.
pub const PAIR_WAIT: Duration = Duration::from_secs(3);
/// How long the network waits before it starts anew after a failure of its own.
pub const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// How often the swarm's task looks at its clocks while something waits that no event announces.
pub const SWARM_TICK: Duration = Duration::from_millis(250);
/// How often it does while nothing waits: bans end, and what is forgotten is forgotten, this much later.
pub const SWARM_IDLE_TICK: Duration = Duration::from_secs(5);

// ---- trust -------------------------------------------------------------------------------------

/// Peers that the user paired with.
pub const PAIRINGS_MAX: usize = 256;
/// Addresses that strangers announced. An mDNS flood can fill this and no more.
pub const CANDIDATES_MAX: usize = 512;
/// Addresses of one candidate: its interfaces.
pub const ADDRESSES_PER_PEER_MAX: usize = 8;
/// Peers about which anything is remembered.
pub const PEERS_MAX: usize = 1_024;
/// Networks wider than this are no local networks.
pub const NETWORK_PREFIX_MIN: u8 = 8;
/// A host name's longest text form.
pub const HOST_BYTES_MAX: usize = 253;
/// One label of it (RFC 1035, 2.3.4).
pub const HOST_LABEL_BYTES_MAX: usize = 63;
/// Addresses of one host name that are tried.
pub const ADDRESSES_PER_HOST_MAX: usize = 8;
/// Dials under way, to announced addresses that never proved to be hffs.
pub const STRANGER_DIALS_MAX: usize = 8;
/// New dials a second to such addresses.
pub const STRANGER_DIALS_PER_SEC: f64 = 5.0;
/// Dials under way to all others; with `STRANGER_DIALS_MAX` below `HANDSHAKES_OUT_MAX`.
pub const KNOWN_DIALS_MAX: usize = 32;
/// The first pause after a failed dial; it doubles.
pub const DIAL_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause for peers of the lab, which must be back within ten seconds.
pub const DIAL_PAUSE_MAX: Duration = Duration::from_secs(6);
/// The longest pause for all others.
pub const DIAL_PAUSE_STRANGER_MAX: Duration = Duration::from_secs(60);
/// A peer that was here this recently is dialled as often as a paired one.
pub const RECENTLY: Duration = Duration::from_secs(3_600);
/// A connection that lasted this long ends the doubling of pauses.
pub const STABLE: Duration = Duration::from_secs(20);
/// When both sides hear of each other at once, the one with the larger id waits this long.
pub const DIAL_YIELD: Duration = Duration::from_millis(700);
/// How long an address that led to ourselves or to a foreign program is left alone.
pub const FOREIGN_FOR: Duration = Duration::from_secs(3_600);
/// How long a paired address with a wrong identity is left alone between looks.
pub const CHANGED_PAUSE: Duration = Duration::from_secs(30);
/// A peer that sent a wrong byte has a broken disk or bad intentions; both take time to mend.
pub const BAN_WRONG_BYTES: Duration = Duration::from_secs(3_600);
/// The ban for malformed messages or a flood of requests.
pub const BAN_RUDE: Duration = Duration::from_secs(600);
/// Malformed messages before a ban, because one may be a bug of an older version.
pub const STRIKES_MAX: u32 = 3;
/// Strikes older than this are forgotten.
pub const STRIKES_FOR: Duration = Duration::from_secs(600);
/// A peer that nobody paired with is forgotten this long after it was last heard of.
pub const FORGET_AFTER: Duration = Duration::from_secs(3_600);

// ---- hub ---------------------------------------------------------------------------------------

/// A silent endpoint has to be noticed within 5 s; what is left is for us to say so.
pub const HUB_ANSWER: Duration = Duration::from_millis(4_500);
/// Shorter than the wait for an answer, so that a dead address is told from a slow server.
pub const HUB_CONNECT: Duration = Duration::from_secs(4);
/// Data hosts fetch cold files from far away before the first byte; `huggingface_hub` waits as long.
pub const HUB_STALL: Duration = Duration::from_secs(10);
/// A page of a listing is below 1 MiB and comes in this time on any line worth using.
pub const HUB_PAGE: Duration = Duration::from_secs(60);
/// A connection that broke before its answer is tried once more after this pause.
pub const HUB_RETRY_PAUSE: Duration = Duration::from_millis(300);
/// A body's end is waited for no longer: all it saves is a connection.
pub const HUB_DRAIN: Duration = Duration::from_secs(1);
/// The model page of the largest repos has some megabytes of file names.
pub const HUB_PAGE_BYTES_MAX: usize = 64 << 20;
/// All pages of one listing: 200,000 entries of a kilobyte each.
pub const HUB_LISTING_BYTES_MAX: usize = 256 << 20;
/// The Hub lists 1,000 entries a page; small test servers list fewer of fewer.
pub const HUB_PAGES_MAX: usize = 2_000;
/// A listing whose entries are all refused is no reason to keep them all.
pub const HUB_REFUSED_MAX: usize = 1_000;
/// An error's text is one JSON object; more is a web page.
pub const HUB_ERROR_BYTES_MAX: usize = 16 << 10;
/// What is shown to a person of a foreign sentence.
pub const HUB_TEXT_CHARS_MAX: usize = 200;
/// A renamed repo, a signed address and a data host's own turn are four.
pub const HUB_HOPS_MAX: usize = 10;
/// Small ranges that one endpoint gets at a time: one for each of `SMALL_FILES_AT_ONCE`. More connections to one host
/// gain nothing on a line that is full, and look like an attack.
pub const HUB_SMALL_RANGES_MAX: usize = 16;
/// The same for ranges of at least `LARGE_REQUEST_BYTES`: what three large files begin with. A further one would wait
/// for seconds for one of their ranges to end.
pub const HUB_LARGE_RANGES_MAX: usize = 12;
/// Questions are counted against the lab's common limit; they do not queue behind ranges.
pub const HUB_QUESTIONS_MAX: usize = 8;
/// Sets of proxies that are in use at one time: the daemon's, and those of a few terminals.
pub const HUB_CLIENTS_MAX: usize = 4;
/// Files that are being fetched through signed addresses; one that is forgotten is asked for again.
pub const HUB_WAYS_MAX: usize = 1_024;
/// The Hub signs addresses for an hour; a range that starts late has to end in time.
pub const HUB_SIGNED_FOR: Duration = Duration::from_secs(50 * 60);
/// An endpoint that failed is asked again at the latest after this time.
pub const HUB_BAD_MAX: Duration = Duration::from_secs(60);
/// Endpoints of which something bad is remembered, over all users' environments.
pub const HUB_BAD_ENDPOINTS_MAX: usize = 64;
/// The Hub counts in windows of five minutes.
pub const HUB_WAIT_MAX: Duration = Duration::from_secs(300);
/// When the Hub wants us to wait and does not say how long.
pub const HUB_WAIT_DEFAULT: Duration = Duration::from_secs(5);
/// Different warnings that are logged; a server that makes up new ones is not heard any more.
pub const HUB_WARNINGS_MAX: usize = 64;

// ---- config and control ------------------------------------------------------------------------

/// A settings file is some lines; what is larger was not written for us.
pub const CONFIG_BYTES_MAX: u64 = MIB;
/// Each endpoint may cost seconds before it is given up, so a long list helps nobody.
pub const ENDPOINTS_MAX: usize = 16;
/// What servers take for a URL.
pub const ENDPOINT_BYTES_MAX: usize = 2_048;
/// Unknown keys that are named one by one; a wholly foreign file need not fill the screen.
pub const CONFIG_WARNINGS_MAX: usize = 10;
/// Ten times a lab: each saved peer is dialled for as long as the daemon runs.
pub const SAVED_PEERS_MAX: usize = 500;
/// The least of what systems take for a socket's path (104 bytes with the closing zero on macOS), and some room.
pub const SOCKET_PATH_BYTES_MAX: usize = 100;
/// A request names at most what fits on a command line (2 MiB on Linux), and JSON's quotes around it.
pub const REQUEST_BYTES_MAX: usize = 4 * MIB as usize;
/// The answer for the largest repo lists `TREE_ENTRIES_MAX` files, at some hundred bytes each.
pub const REPLY_BYTES_MAX: usize = 256 * MIB as usize;
/// Commands that the daemon talks to at once; each may keep an unfinished add.
pub const CALLS_MAX: usize = 128;
/// A command sends its request at once; what stays silent is no command.
pub const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// A command that reads nothing for so long is suspended or gone; its queue is full long before.
pub const REPLY_WAIT: Duration = Duration::from_secs(30);
/// Events that wait for a command to read them: a few seconds of the busiest add.
pub const EVENTS_WAITING_MAX: usize = 1_024;
/// Events that are written to a command in one go: some kilobytes.
pub const EVENTS_AT_ONCE: usize = 64;
/// How long a command that was interrupted waits for the daemon to stop its work.
pub const CANCEL_WAIT: Duration = Duration::from_secs(3);
/// Bars for running files that still leave a terminal of 24 lines its history.
pub const BARS_MAX: usize = 12;
/// How long a daemon may take until it answers; it never hashes what it finds.
pub const STARTUP: Duration = Duration::from_secs(30);
/// What a daemon that cannot start says is an error and its hint.
pub const STARTUP_WORDS_MAX: u64 = 64 * 1_024;
/// Some days of a busy daemon's log.
pub const LOG_BYTES_MAX: u64 = 8 * MIB;
/// The log that is written to, and two that were.
pub const LOG_FILES: u32 = 3;
/// How long a command waits for what the daemon knows by heart.
pub const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long `peer add` waits: a name look-up, a connection and a first word, each at its slowest.
pub const PAIRING_WAIT: Duration = Duration::from_secs(30);
/// How long `model search` waits: a Hub that has to be given up, and the slowest peer.
pub const SEARCH_WAIT: Duration = Duration::from_secs(60);

// ---- cache and partial -------------------------------------------------------------------------

/// The page of every system that a lab runs.
pub const PAGE_BYTES: usize = 4_096;
/// One read or write of a file: large enough that its call costs nothing, small enough for a core's cache.
pub const DISK_BUFFER_BYTES: usize = 256 << 10;
/// Left free on the disk, so that logs, journals and the user's shell go on working.
pub const DISK_RESERVE_BYTES: u64 = 1 << 30;
/// A ref has 40 bytes; some tools end it with a line break.
pub const REF_BYTES_MAX: u64 = 64;
/// `TREE_ENTRIES_MAX` entries of 640 bytes: a path, two digests and sizes.
pub const TREE_FILE_BYTES_MAX: u64 = 128 * MIB;
/// The longest path, escaped, and a repo, a commit and a digest.
pub const LEDGER_LINE_BYTES_MAX: u64 = 16 << 10;
/// How often the ledger is opened anew because somebody shortened it meanwhile: a start of a daemon does that once.
pub const LEDGER_OPENINGS: usize = 8;
/// A ledger of this size holds some 20,000 lines and is read in a blink; beyond it is worth shortening.
pub const LEDGER_COMPACT_BYTES: u64 = 4 * MIB;
/// How long a publish is polite to another tool that holds the blob's lock; that one may hold it for hours.
pub const PUBLISH_LOCK_WAIT: Duration = Duration::from_millis(500);
/// How often a lock that somebody holds is tried again.
pub const LOCK_RETRY: Duration = Duration::from_millis(10);
/// How long a file that another program holds open is waited for, where that is in the way (Windows): virus scanners
/// are done with a new file sooner, and a program that uses the file is not done for hours.
pub const HELD_FILE_WAIT: Duration = Duration::from_millis(500);
/// What other tools put into the cache is noticed this much later at most, when something is looked for in vain.
pub const CACHE_RESCAN: Duration = Duration::from_millis(50);
/// A rescan may take one part in this many of the time.
pub const CACHE_RESCAN_SHARE: u32 = 20;
/// File systems stamp times with a tick of up to two seconds (FAT); a folder this fresh is scanned again.
pub const CACHE_FRESH: Duration = Duration::from_secs(2);
/// Changed folders that wait for one fsync; more would make the last publish of a burst slow.
pub const UNSYNCED_FOLDERS_MAX: usize = 256;
/// Files that one thread looks at before it takes the next ones: a few milliseconds.
pub const LOOKS_AT_ONCE: usize = 512;
/// Leftovers of a process that died while it renamed something into place are this old at least.
pub const STRAY_AGE: Duration = Duration::from_secs(3_600);
/// A line of a kibibyte for each of `PIECES_MAX` pieces; most take a tenth of that.
pub const JOURNAL_BYTES_MAX: u64 = 64 * MIB;
/// A source's label in a journal: an endpoint's host or a peer id.
pub const SOURCE_CHARS_MAX: usize = 128;
/// The whole-file hash is kept at every so many pieces: a forgotten piece costs at most these to hash again.
pub const HASH_MARK_PIECES: u32 = 64;

// ---- fetch and share ---------------------------------------------------------------------------

/// Files of at most this size count as small: they are quick, so many run at once.
pub const SMALL_FILE_BYTES: u64 = 8 * MIB;
/// Small files in flight: hides the round trips of a WAN; more would trip the Hub's rate limit.
pub const SMALL_FILES_AT_ONCE: usize = 16;
/// The same, when some of them are the first of an add that would have to wait for others' adds.
pub const SMALL_FILES_MAX: usize = 24;
/// Large files in flight: each already uses every source, more only spread the disk's head.
pub const LARGE_FILES_AT_ONCE: usize = 3;
/// The same, when some of them are the first of an add that would have to wait for others' adds: as many users
/// of one machine as ever fetch at the same time.
pub const LARGE_FILES_MAX: usize = 8;
/// Peers are asked again who holds a running file after this time: they may have got more meanwhile.
/// An answer is at most 8 KiB a file, so fifty machines cost each other 400 KB/s at the very most.
pub const HOLDERS_AGE: Duration = Duration::from_secs(1);
/// What peers said before an add stays good for its small files for this long.
pub const HOLDERS_KEPT: Duration = Duration::from_secs(60);
/// A peer that is connected answers a small question within a round trip; one that does not is
/// left out of the question.
pub const PEER_ANSWER: Duration = Duration::from_secs(3);
/// How old an endpoint's word may be that a paired peer passes on, to be taken instead of asking for what a branch or
/// tag means: long enough for a class that starts at nine. Whoever waits for what was pushed a minute ago can name the
/// commit itself.
pub const NAME_AGE: Duration = Duration::from_secs(60);
/// How long paired peers have to say what they know of a revision before an endpoint is asked, so that one which is
/// frozen costs no more than this.
pub const NAME_ANSWER: Duration = Duration::from_millis(400);
/// Peers that are just finding it out themselves are waited for this long, which is enough for an endpoint's two
/// answers on a poor line,
pub const NAME_TURN: Duration = Duration::from_secs(3);
/// and are asked this often whether they know by now.
pub const NAME_AGAIN: Duration = Duration::from_millis(100);
/// Revisions of which an endpoint's word is remembered; one that is forgotten costs a question.
pub const NAMES_SAID_MAX: usize = 1_024;
/// Questions about an add's contents that one peer has open at a time. More than `REQUESTS_PER_PEER_MAX` would be
/// refused, and few are enough: each is about `HOLDS_MAX` contents.
pub const HOLDS_AT_ONCE: usize = 4;
/// How long a download goes on without one byte from anybody before it is given up. What is there
/// stays, and the next `model add` goes on from it.
pub const FETCH_PATIENCE: Duration = Duration::from_secs(30);
/// The same, when sources are there and ask to be left alone for a while: a peer that hashes a large
/// file before it shares it, a Hub that counts requests.
pub const BUSY_PATIENCE: Duration = Duration::from_secs(600);
/// How long a download waits for one that was just cancelled to let go of the unfinished file: that one
/// may be hashing what an earlier run has left.
pub const CLAIM_PATIENCE: Duration = Duration::from_secs(300);
/// An endpoint that sent wrong bytes is not asked for this long; then its fault may have passed.
pub const ENDPOINT_BAN: Duration = Duration::from_secs(600);
/// A peer that sent wrong bytes is not asked for this long.
pub const PEER_BAN: Duration = Duration::from_secs(3_600);
/// How often a file that does not match its digest is repaired before it is given up.
pub const REPAIRS_MAX: u32 = 4;
/// The first pause before a Hub with a passing fault is asked again; it doubles. With the times below
/// that is what `huggingface_hub` does: five tries, up to eight seconds apart.
pub const ASK_AGAIN: Duration = Duration::from_secs(1);
pub const ASK_AGAIN_TIMES: usize = 4;
/// An endpoint that asks for a longer wait than this is told to the user instead of waited for.
pub const BUSY_WAIT_MAX: Duration = Duration::from_secs(75);
/// The progress of an add is told this often.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// Running files that one progress report names.
pub const PROGRESS_FILES_MAX: usize = 16;
/// An add that goes on after a restart and fails is tried again after this time, doubled each time.
pub const RETRY_ADD: Duration = Duration::from_secs(10);
pub const RETRY_ADD_MAX: Duration = Duration::from_secs(300);
/// Unfinished adds that are remembered across restarts.
pub const ADDS_MAX: usize = 1_000;
/// Adds that run at the same time for commands that wait; further ones wait for their turn. Half of the commands that a
/// daemon talks to, so that others always find a place.
pub const ADDS_AT_ONCE: usize = CALLS_MAX / 2;
/// Adds that go on after a restart at the same time: enough for `LARGE_FILES_AT_ONCE`, and no crowd at the Hub's door.
pub const RESUMED_ADDS_AT_ONCE: usize = 8;
/// Blobs of other tools that wait to be hashed before they are shared.
pub const VERIFICATIONS_WAITING: usize = 256;
/// How long an answer to a peer may wait for a blob of another tool to be hashed, or for the Hub to
/// say that its repo is public.
pub const SHARE_PATIENCE: Duration = Duration::from_millis(1_500);
/// How long a peer is told to wait for a blob that is being hashed.
pub const VERIFY_RETRY: Duration = Duration::from_secs(1);
/// How long the Hub's answer about a repo's visibility is remembered.
pub const VISIBILITY_AGE: Duration = Duration::from_secs(600);
/// How long its silence is: a line that was cut comes back.
pub const VISIBILITY_SILENCE: Duration = Duration::from_secs(60);
/// How long an answer is waited for, though whoever asked first got one without it.
pub const VISIBILITY_WAIT: Duration = Duration::from_secs(15);
/// Repos asked about within `VISIBILITY_AGE`: the Hub allows an address 500 questions in five minutes, and
/// those are the user's in the first place.
pub const VISIBILITIES_MAX: usize = 256;
/// Such questions under way at once: some of `HUB_QUESTIONS_MAX`, so that the user's never queue behind them.
pub const VISIBILITY_QUESTIONS: usize = 2;
/// Files in one page of a tree that is sent to a peer: a page of the longest paths still fits.
pub const TREE_PAGE: usize = 2_000;

/// How long `daemon stop` may take before the process is ended anyway.
pub const SHUTDOWN: Duration = Duration::from_secs(4);
