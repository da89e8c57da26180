//! What peers say to each other, and its bytes.
//!
//! Two protocols. `/hffs/query/1`: one `Query`, one `Answer`. `/hffs/piece/1`: one `PieceRequest`, one
//! `PieceHeader`, then exactly the header's `len` raw bytes, which never pass through here. Every
//! message is a frame: its length as a big-endian `u32`, then CBOR.
//!
//! Knows messages, their bytes and their bounds. Does not know peers, streams or what an answer means.
//! Invariant: a decoded message obeys every bound in `limits`, and decoding allocates no more than a
//! small multiple of the bytes that are really there.
//!
//! A message that this version does not know is told apart from a broken one, because the former comes
//! from an honest newer peer and must not be held against it.

use std::time::Duration;

use cbor4ii::core::utils::SliceReader;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::names::{Commit, Repo, RepoPath, Revision};
use crate::tree::Content;

/// The protocol of `Query` and `Answer`.
pub const QUERY_PROTOCOL: &str = "/hffs/query/1";
/// The protocol of `PieceRequest` and `PieceHeader`.
pub const PIECE_PROTOCOL: &str = "/hffs/piece/1";
/// What every hffs daemon of this generation calls its protocol family when it introduces itself.
pub const FAMILY: &str = "/hffs/1";

/// A question to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Who are you?
    Hello,
    /// Which commit does the revision mean, as far as you know?
    Resolve { repo: Repo, revision: Revision },
    /// Which files does the commit have? A page of them, after the given path.
    Tree { repo: Repo, commit: Commit, after: Option<RepoPath> },
    /// Which of these do you hold? At most `HOLDS_MAX`.
    Holds { contents: Vec<Content> },
    /// The BLAKE3 of each piece.
    PieceList { content: Content },
    /// How do you stand with this content, which I am bringing too? What was said up to the mark is known.
    Stand { content: Content, known: Mark },
}

/// The answer to a `Query`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To `Hello`: the program and its version, as in `hffs/0.1.0`.
    Hello { agent: String },
    /// To `Resolve`: the commit, and when the answering peer learned of it, in seconds since 1970.
    Resolved {
        commit: Commit,
        learned_unix_secs: u64,
        /// Whether the Hub told the answering peer itself that anybody may have the files.
        #[serde(default)]
        public: bool,
        /// An endpoint's word that the answering peer heard itself a short while ago, of a branch or tag of a repo
        /// that is public.
        #[serde(default)]
        said: Option<Said>,
    },
    /// To `Tree`: files in the order of their paths; `more` when the page is not the last.
    Tree { files: Vec<(RepoPath, Content)>, more: bool },
    /// To `Holds`: one entry for each content asked for, in the same order.
    Holds(Vec<Hold>),
    /// To `PieceList`: what `piece::PieceList::to_bytes` wrote.
    PieceList(#[serde(with = "serde_bytes")] Vec<u8>),
    /// To `Stand`.
    Stand(Stand),
    /// Nothing is known of what was asked, or the asker is not to know.
    Unknown,
    /// Not now; ask again a little later.
    Busy,
}

/// Who said what a revision means, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// `digest::spread` of the endpoint's URL: who asks the same one knows it by that, and others learn nothing of
    /// where a lab keeps its own Hub.
    pub endpoint: u64,
    /// An age, because clocks differ from machine to machine.
    pub age_ms: u64,
}

/// How far somebody has followed what a peer says of its pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Another one after every loss of pieces: then what was said before does not hold.
    pub run: u64,
    /// How many pieces were told.
    pub count: u32,
}

/// How a peer stands with a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stand {
    /// It is bringing it.
    Bringing(Progress),
    Whole,
    /// It has nothing of it, and brings nothing.
    Gone,
}

/// How far a peer has come with a content that it is bringing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub mark: Mark,
    pub gained: Gained,
    /// First piece, and the one behind the last, of what is on its way at first hand. At most `COMING_MAX`.
    pub coming: Vec<(u32, u32)>,
    /// Bytes that came at first hand.
    pub drawn: u64,
    /// Whether it can get more at first hand that it may pass on.
    pub able: bool,
}

/// The pieces that a peer can give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gained {
    /// Those that came after the mark of the question.
    Since(Vec<u32>),
    /// All, as what `piece::PieceSet::to_bytes` wrote.
    All(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// How much of a content a peer holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    No,
    Whole,
    /// What `piece::PieceSet::to_bytes` wrote.
    Pieces(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// A request for a stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceRequest {
    pub content: Content,
    /// The first byte, counted from the start of the file.
    pub start: u64,
    /// How many bytes: at least one, at most `PIECE_REQUEST_BYTES_MAX`, none beyond the file's end.
    pub len: u64,
}

/// What comes before the bytes of a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PieceHeader {
    /// Exactly `len` bytes follow.
    Ok { len: u64 },
    /// Not now. Ask again after that many milliseconds.
    Busy { retry_ms: u64 },
    /// The peer does not hold all of the stretch.
    Missing,
    /// The peer did not understand the request.
    Bad,
}

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A well-formed message of a kind that only a newer version knows. Nobody's fault.
    #[error("the peer speaks of something that this version does not know")]
    Unknown,
    /// Bytes that no version sends.
    #[error("malformed message")]
    Malformed,
    /// A message beyond its bound: when decoding the sender's fault, when encoding ours.
    #[error("message of {bytes} bytes where at most {max} are allowed")]
    TooLong { bytes: usize, max: usize },
}

/// A message with a bound on its bytes.
pub trait Message: Serialize + DeserializeOwned {
    /// The most bytes that its CBOR may take.
    const BYTES_MAX: usize;
    /// The kinds that this version knows, empty for messages of one kind.
    const KINDS: &'static [&'static str];

    /// Whether the message obeys the bounds that its types do not express.
    fn is_bounded(&self) -> bool;
}

impl Message for Query {
    const BYTES_MAX: usize = limits::QUERY_BYTES_MAX;
    const KINDS: &'static [&'static str] = &["Hello", "Resolve", "Tree", "Holds", "PieceList", "Stand"];

    fn is_bounded(&self) -> bool {
        match self {
            Query::Hello | Query::Resolve { .. } | Query::Tree { .. } => true,
            Query::Holds { contents } => contents.len() <= limits::HOLDS_MAX && contents.iter().all(fits),
            Query::PieceList { content } | Query::Stand { content, .. } => fits(content),
        }
    }
}

impl Message for Answer {
    const BYTES_MAX: usize = limits::ANSWER_BYTES_MAX;
    const KINDS: &'static [&'static str] =
        &["Hello", "Resolved", "Tree", "Holds", "PieceList", "Stand", "Unknown", "Busy"];

    fn is_bounded(&self) -> bool {
        match self {
            Answer::Hello { agent } => agent.len() <= limits::AGENT_BYTES_MAX,
            Answer::Tree { files, .. } => {
                let ordered = files.is_sorted_by(|(a, _), (b, _)| a < b);
                ordered && files.len() <= limits::TREE_PAGE_MAX && files.iter().all(|(_, content)| fits(content))
            }
            Answer::Holds(holds) => holds.len() <= limits::HOLDS_MAX,
            Answer::Stand(Stand::Bringing(progress)) => progress.is_bounded(),
            Answer::Stand(Stand::Whole | Stand::Gone) => true,
            Answer::Resolved { .. } | Answer::PieceList(_) | Answer::Unknown | Answer::Busy => true,
        }
    }
}

impl Progress {
    fn is_bounded(&self) -> bool {
        // At the end of a file a piece may be on its way from two sources.
        let coming: u64 = self.coming.iter().map(|(start, end)| u64::from(end.saturating_sub(*start))).sum();
        let gained = if let Gained::Since(pieces) = &self.gained { pieces.len() } else { 0 };
        self.coming.len() <= limits::COMING_MAX
            && coming <= 2 * u64::from(limits::PIECES_MAX)
            && gained <= limits::PIECES_MAX as usize
    }
}

impl Message for PieceRequest {
    const BYTES_MAX: usize = limits::PIECE_FRAME_BYTES_MAX;
    const KINDS: &'static [&'static str] = &[];

    fn is_bounded(&self) -> bool {
        let end = self.start.checked_add(self.len);
        fits(&self.content)
            && (1..=limits::PIECE_REQUEST_BYTES_MAX).contains(&self.len)
            && end.is_some_and(|end| end <= self.content.size)
    }
}

impl Message for PieceHeader {
    const BYTES_MAX: usize = limits::PIECE_FRAME_BYTES_MAX;
    const KINDS: &'static [&'static str] = &["Ok", "Busy", "Missing", "Bad"];

    fn is_bounded(&self) -> bool {
        match self {
            PieceHeader::Ok { len } => *len <= limits::PIECE_REQUEST_BYTES_MAX,
            PieceHeader::Busy { .. } | PieceHeader::Missing | PieceHeader::Bad => true,
        }
    }
}

fn fits(content: &Content) -> bool {
    content.size <= limits::FILE_BYTES_MAX
}

impl PieceHeader {
    /// `Busy`, with the time to wait.
    pub fn busy(retry: Duration) -> Self {
        PieceHeader::Busy { retry_ms: u64::try_from(retry.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// The bytes in front of a message: its length.
pub const LENGTH_BYTES: usize = 4;

/// Reads a message's length from the bytes in front of it, and refuses one beyond the message's bound
/// before anything is allocated for it.
pub fn length<M: Message>(bytes: [u8; LENGTH_BYTES]) -> Result<usize, Error> {
    let bytes = usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX);
    if bytes > M::BYTES_MAX {
        return Err(Error::TooLong { bytes, max: M::BYTES_MAX });
    }
    Ok(bytes)
}

/// A message as a frame: its length, then its CBOR. Fails for a message that no peer would take.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, Error> {
    if !message.is_bounded() {
        return Err(Error::Malformed);
    }
    let mut frame = cbor4ii::serde::to_vec(vec![0; LENGTH_BYTES], message).map_err(|_| Error::Malformed)?;
    let bytes = frame.len().saturating_sub(LENGTH_BYTES);
    let too_long = Error::TooLong { bytes, max: M::BYTES_MAX };
    if bytes > M::BYTES_MAX {
        return Err(too_long);
    }
    let length = u32::try_from(bytes).map_err(|_| too_long)?;
    for (place, byte) in frame.iter_mut().zip(length.to_be_bytes()) {
        *place = byte;
    }
    Ok(frame)
}

/// Reads the CBOR of one message, without the length in front of it.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, Error> {
    if bytes.len() > M::BYTES_MAX {
        return Err(Error::TooLong { bytes: bytes.len(), max: M::BYTES_MAX });
    }
    match read_all::<M>(bytes) {
        Some(message) if message.is_bounded() => Ok(message),
        Some(_) => Err(Error::Malformed),
        None if is_of_another_kind::<M>(bytes) => Err(Error::Unknown),
        None => Err(Error::Malformed),
    }
}

/// Reads a value that takes up all of the bytes.
fn read_all<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut deserializer = cbor4ii::serde::Deserializer::new(SliceReader::new(bytes));
    let value = T::deserialize(&mut deserializer).ok()?;
    let mut rest = deserializer.into_inner();
    let rest = cbor4ii::core::dec::Read::fill(&mut rest, 1).ok()?;
    rest.as_ref().is_empty().then_some(value)
}

/// Whether the bytes are a well-formed message whose kind this version has never heard of: CBOR writes
/// a kind as its bare name, or as a map from the name to the content.
fn is_of_another_kind<M: Message>(bytes: &[u8]) -> bool {
    let strange = |kind: &str| !M::KINDS.is_empty() && !M::KINDS.contains(&kind);
    if let Some(kind) = read_all::<String>(bytes) {
        return strange(&kind);
    }
    match read_all::<std::collections::BTreeMap<String, IgnoredAny>>(bytes) {
        Some(map) if map.len() == 1 => map.keys().all(|kind| strange(kind)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn contents() -> impl Strategy<Value = Content> {
        let digest = prop_oneof!["[0-9a-f]{64}", "[0-9a-f]{40}"];
        (digest, 0..=limits::FILE_BYTES_MAX)
            .prop_map(|(digest, size)| Content { digest: digest.parse().unwrap(), size })
    }

    fn queries() -> impl Strategy<Value = Query> {
        let repo = "[a-z]{1,9}/[a-z]{1,9}".prop_map(|id| Repo { kind: Default::default(), id: id.parse().unwrap() });
        prop_oneof![
            Just(Query::Hello),
            (repo.clone(), "[a-z]{1,20}")
                .prop_map(|(repo, revision)| Query::Resolve { repo, revision: revision.parse().unwrap() }),
            (repo, "[0-9a-f]{40}", proptest::option::of("[a-z]{1,9}/[a-z]{1,9}")).prop_map(|(repo, commit, after)| {
                Query::Tree { repo, commit: commit.parse().unwrap(), after: after.map(|path| path.parse().unwrap()) }
            }),
            vec(contents(), 0..=limits::HOLDS_MAX).prop_map(|contents| Query::Holds { contents }),
            contents().prop_map(|content| Query::PieceList { content }),
            (contents(), any::<(u64, u32)>())
                .prop_map(|(content, (run, count))| Query::Stand { content, known: Mark { run, count } }),
        ]
    }

    fn answers() -> impl Strategy<Value = Answer> {
        let hold = prop_oneof![Just(Hold::No), Just(Hold::Whole), vec(any::<u8>(), 0..200).prop_map(Hold::Pieces),];
        prop_oneof![
            "[a-z/0-9.]{0,40}".prop_map(|agent| Answer::Hello { agent }),
            ("[0-9a-f]{40}", any::<u64>(), any::<bool>(), any::<Option<(u64, u64)>>()).prop_map(
                |(commit, learned_unix_secs, public, said)| Answer::Resolved {
                    commit: commit.parse().unwrap(),
                    learned_unix_secs,
                    public,
                    said: said.map(|(endpoint, age_ms)| Said { endpoint, age_ms })
                }
            ),
            (proptest::collection::btree_map("[a-z]{1,9}", contents(), 0..9), any::<bool>()).prop_map(
                |(files, more)| Answer::Tree {
                    files: files.into_iter().map(|(path, content)| (path.parse().unwrap(), content)).collect(),
                    more
                }
            ),
            vec(hold, 0..=limits::HOLDS_MAX).prop_map(Answer::Holds),
            vec(any::<u8>(), 0..5_000).prop_map(Answer::PieceList),
            stands().prop_map(Answer::Stand),
            Just(Answer::Unknown),
            Just(Answer::Busy),
        ]
    }

    fn stands() -> impl Strategy<Value = Stand> {
        let gained = prop_oneof![
            vec(any::<u32>(), 0..50).prop_map(Gained::Since),
            vec(any::<u8>(), 0..50).prop_map(Gained::All)
        ];
        let range = (0..limits::PIECES_MAX, 0..1_000u32).prop_map(|(start, len)| (start, start + len));
        let coming = vec(range, 0..=limits::COMING_MAX);
        let progress = (any::<(u64, u32)>(), gained, coming, any::<u64>(), any::<bool>());
        prop_oneof![
            Just(Stand::Whole),
            Just(Stand::Gone),
            progress.prop_map(|((run, count), gained, coming, drawn, able)| {
                Stand::Bringing(Progress { mark: Mark { run, count }, gained, coming, drawn, able })
            }),
        ]
    }

    fn request() -> PieceRequest {
        let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".parse().unwrap();
        PieceRequest { content: Content { digest, size: 1 << 30 }, start: 1 << 20, len: 1 << 20 }
    }

    fn body(frame: &[u8]) -> &[u8] {
        let (front, body) = frame.split_at(LENGTH_BYTES);
        assert_eq!(u32::from_be_bytes(front.try_into().unwrap()) as usize, body.len());
        body
    }

    #[test]
    fn the_largest_honest_messages_fit() {
        let sets = vec![Hold::Pieces(vec![0xff; limits::PIECES_MAX as usize / 8]); limits::HOLDS_MAX];
        encode(&Answer::Holds(sets)).unwrap();
        encode(&Answer::PieceList(vec![0xff; limits::PIECES_MAX as usize * 32])).unwrap();
        let content = Content { digest: request().content.digest, size: limits::FILE_BYTES_MAX };
        encode(&Query::Holds { contents: vec![content; limits::HOLDS_MAX] }).unwrap();
        let long = |n: usize| format!("{n:05}/{}", vec!["x".repeat(200); 5].join("/")).parse().unwrap();
        let files = (0..limits::TREE_PAGE_MAX).map(|n| (long(n), content)).collect();
        encode(&Answer::Tree { files, more: true }).unwrap();
    }

    #[test]
    fn messages_beyond_their_bounds_are_neither_sent_nor_taken() {
        let content = request().content;
        let many = Query::Holds { contents: vec![content; limits::HOLDS_MAX + 1] };
        assert!(encode(&many).is_err());
        let raw = cbor4ii::serde::to_vec(Vec::new(), &many).unwrap();
        assert_eq!(decode::<Query>(&raw), Err(Error::Malformed));

        let progress = |coming, pieces| Progress {
            mark: Mark::default(),
            gained: Gained::Since(vec![0; pieces]),
            coming,
            drawn: 0,
            able: true,
        };
        for (coming, pieces) in [
            (vec![(0, 1); limits::COMING_MAX + 1], 0),
            (vec![(0, u32::MAX)], 0),
            (vec![], limits::PIECES_MAX as usize + 1),
        ] {
            let stand = Answer::Stand(Stand::Bringing(progress(coming, pieces)));
            assert_eq!(encode(&stand), Err(Error::Malformed));
        }

        let request = request();
        let size = request.content.size;
        for (start, len) in [(0, 0), (0, u64::MAX), (u64::MAX, 1), (size, 1), (size - 1, 2), (0, (256 << 20) + 1)] {
            let bad = PieceRequest { start, len, ..request };
            let raw = cbor4ii::serde::to_vec(Vec::new(), &bad).unwrap();
            assert_eq!(decode::<PieceRequest>(&raw), Err(Error::Malformed), "{start}+{len}");
        }
        assert!(length::<Query>([0xff; 4]).is_err());
        assert!(length::<PieceHeader>(4_097u32.to_be_bytes()).is_err());
        assert_eq!(length::<PieceHeader>(4_096u32.to_be_bytes()), Ok(4_096));
    }

    #[test]
    fn a_newer_peers_message_is_unknown_and_no_fault() {
        #[derive(Serialize)]
        enum Newer {
            Gossip { about: Vec<u32> },
            Wave,
        }
        let encode = |newer: &Newer| cbor4ii::serde::to_vec(Vec::new(), newer).unwrap();
        for newer in [Newer::Gossip { about: vec![1, 2] }, Newer::Wave] {
            assert_eq!(decode::<Query>(&encode(&newer)), Err(Error::Unknown));
            assert_eq!(decode::<Answer>(&encode(&newer)), Err(Error::Unknown));
        }

        #[derive(Serialize)]
        enum Grown {
            Hello { agent: String, mood: u8 },
        }
        let grown = Grown::Hello { agent: "hffs/9".into(), mood: 3 };
        let raw = cbor4ii::serde::to_vec(Vec::new(), &grown).unwrap();
        assert_eq!(decode::<Answer>(&raw), Ok(Answer::Hello { agent: "hffs/9".into() }));
    }

    #[test]
    fn hostile_names_inside_a_message_are_malformed() {
        let good = cbor4ii::serde::to_vec(Vec::new(), &("../../etc/passwd",)).unwrap();
        assert!(read_all::<(RepoPath,)>(&good).is_none());
    }

    #[test]
    fn a_deep_message_is_refused_and_does_not_exhaust_the_stack() {
        for opener in [0x81u8, 0xa1, 0xc1, 0x9f] {
            let deep = vec![opener; limits::QUERY_BYTES_MAX];
            assert!(decode::<Query>(&deep).is_err());
            let mut inside = b"\xa1\x65Other".to_vec();
            inside.extend(&deep[..limits::QUERY_BYTES_MAX - 10]);
            assert!(decode::<Query>(&inside).is_err());
        }
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // A map with the key `Holds` and an array, text or byte string of 2^62 entries behind it.
        for major in [0x9bu8, 0x7b, 0x5b, 0xbb] {
            let mut lie = b"\xa1\x65Holds".to_vec();
            lie.push(major);
            lie.extend((1u64 << 62).to_be_bytes());
            assert_eq!(decode::<Answer>(&lie), Err(Error::Malformed));
            assert_eq!(decode::<Query>(&lie), Err(Error::Malformed));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_query_survives_the_wire(query in queries()) {
            let frame = encode(&query).unwrap();
            prop_assert_eq!(decode::<Query>(body(&frame)), Ok(query));
        }

        #[test]
        fn every_answer_survives_the_wire(answer in answers()) {
            let frame = encode(&answer).unwrap();
            prop_assert_eq!(decode::<Answer>(body(&frame)), Ok(answer));
        }

        #[test]
        fn a_message_cut_anywhere_is_malformed(answer in answers(), query in queries()) {
            let frame = encode(&answer).unwrap();
            let body = body(&frame);
            for end in (0..body.len()).step_by(1 + body.len() / 300) {
                prop_assert_eq!(decode::<Answer>(&body[..end]), Err(Error::Malformed));
            }
            let frame = encode(&query).unwrap();
            let body = frame.split_at(LENGTH_BYTES).1;
            for end in (0..body.len()).step_by(1 + body.len() / 300) {
                prop_assert_eq!(decode::<Query>(&body[..end]), Err(Error::Malformed));
            }
        }

        #[test]
        fn a_message_with_something_behind_it_is_malformed(query in queries(), tail in vec(any::<u8>(), 1..9)) {
            let mut frame = encode(&query).unwrap();
            frame.extend(tail);
            let body = frame.split_at(LENGTH_BYTES).1;
            prop_assume!(body.len() <= limits::QUERY_BYTES_MAX);
            prop_assert_eq!(decode::<Query>(body), Err(Error::Malformed));
        }

        #[test]
        fn noise_is_never_taken_for_a_message_beyond_its_bounds(bytes in vec(any::<u8>(), 0..300)) {
            if let Ok(request) = decode::<PieceRequest>(&bytes) {
                prop_assert!(request.is_bounded());
            }
            if let Ok(answer) = decode::<Answer>(&bytes) {
                prop_assert!(answer.is_bounded());
            }
        }
    }

    #[test]
    fn requests_and_headers_survive_the_wire_and_truncation() {
        let frame = encode(&request()).unwrap();
        assert_eq!(decode::<PieceRequest>(body(&frame)), Ok(request()));
        for end in 0..body(&frame).len() {
            assert!(decode::<PieceRequest>(&body(&frame)[..end]).is_err());
        }
        let headers = [
            PieceHeader::Ok { len: 7 },
            PieceHeader::busy(Duration::from_secs(2)),
            PieceHeader::Missing,
            PieceHeader::Bad,
        ];
        for header in headers {
            let frame = encode(&header).unwrap();
            assert_eq!(decode::<PieceHeader>(body(&frame)), Ok(header));
            for end in 0..body(&frame).len() {
                assert!(decode::<PieceHeader>(&body(&frame)[..end]).is_err());
            }
        }
    }
}
