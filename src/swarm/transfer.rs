//! The piece protocol on a stream: a request, a header, and the bytes between stream and file.
//!
//! Knows streams, files and sinks. Does not know which file it is, or who asks.
//! Invariant: bytes are moved block by block, so a transfer of any size takes one block of memory at either
//! end; every byte that is counted was given to the sink; and no byte that came is kept from it for longer
//! than `BLOCK_WAIT`, or than a limit wants it kept.
//!
//! This runs on the connection's own task, which is slowed down by a slow disk and then reads no more from
//! the peer. That is wanted: a reader that runs ahead of its disk fills memory and gains nothing.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::block::{Block, step};
use super::frame::{self, Unread};
use super::{Body, Error, Refusal, Sink, Verdict};
use crate::disk;
use crate::limits;
use crate::pace::Toll;
use crate::wire::{self, PieceHeader, PieceRequest};

/// What we want from a peer, and where its bytes go.
pub(super) struct Wanted {
    pub(super) request: PieceRequest,
    pub(super) sink: Box<dyn Sink>,
    /// What the bytes have to pass before the sink gets them.
    pub(super) toll: Toll,
    /// Closes when nobody waits for the bytes any more.
    pub(super) cancelled: oneshot::Receiver<()>,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wanted({:?})", self.request)
    }
}

/// A request, seen from either side.
#[derive(Debug)]
pub(super) enum Call {
    Ours(Wanted),
    Theirs(Result<PieceRequest, wire::Error>),
}

/// The outcome of a request, seen from either side.
#[derive(Debug)]
pub(super) enum Outcome {
    /// What a peer gets from us, and how fast.
    Given(Result<(Body, Toll), Refusal>),
    /// The peer's request made no sense.
    Refused,
    /// What we got from a peer: how many bytes.
    Taken(Result<u64, Error>),
}

/// A clone serves one stream, and carries what we want from `write_request` to `read_response`.
#[derive(Default)]
pub(super) struct TransferCodec {
    wanted: Option<Wanted>,
}

impl Clone for TransferCodec {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Codec for TransferCodec {
    type Protocol = StreamProtocol;
    type Request = Call;
    type Response = Outcome;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Call>
    where
        T: AsyncRead + Unpin + Send,
    {
        match timeout(limits::QUERY_WAIT, frame::read(io)).await? {
            Ok(request) => Ok(Call::Theirs(Ok(request))),
            Err(Unread::Refused(error)) => Ok(Call::Theirs(Err(error))),
            Err(Unread::Broken(error)) => Err(error),
        }
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, call: Call) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let Call::Ours(wanted) = call else { return Err(io::ErrorKind::InvalidInput.into()) };
        timeout(limits::QUERY_WAIT, frame::write(io, &wanted.request)).await??;
        self.wanted = Some(wanted);
        Ok(())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Outcome>
    where
        T: AsyncRead + Unpin + Send,
    {
        let wanted = self.wanted.take().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Outcome::Taken(take(io, wanted).await))
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, outcome: Outcome) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let header = match &outcome {
            Outcome::Given(Ok((body, _))) => PieceHeader::Ok { len: body.len },
            Outcome::Given(Err(Refusal::Busy(retry))) => PieceHeader::busy(*retry),
            Outcome::Given(Err(Refusal::Missing)) => PieceHeader::Missing,
            Outcome::Refused => PieceHeader::Bad,
            Outcome::Taken(_) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        timeout(limits::PIECES_GIVE_STALL, frame::write(io, &header)).await??;
        match outcome {
            Outcome::Given(Ok((body, toll))) => give(io, &body, &toll).await,
            _ => Ok(()),
        }
    }
}

/// Writes a stretch of a file to the stream, as fast as the toll allows.
async fn give(io: &mut (impl AsyncWrite + Unpin + Send), body: &Body, toll: &Toll) -> io::Result<()> {
    let mut block = Block::new(body.len);
    let mut given = 0;
    while given < body.len {
        let offset = body.offset + given;
        let most = toll.portion(step(offset, body.len - given));
        let Some(place) = block.bytes_mut().get_mut(..most) else { break };
        let len = disk::read_at(&body.file, place, offset)?;
        if len == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file that is being sent became shorter"));
        }
        let Some(bytes) = block.bytes().get(..len) else { break };
        toll.pay(len).await;
        write(io, bytes).await?;
        given += len as u64;
    }
    Ok(())
}

/// Writes bytes to the stream. A peer that takes any of them within the time is alive: one that is held
/// back by a limit of its own takes few.
async fn write(io: &mut (impl AsyncWrite + Unpin + Send), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let len = timeout(limits::PIECES_GIVE_STALL, io.write(bytes)).await??;
        bytes = bytes.get(len..).filter(|_| len > 0).ok_or(io::ErrorKind::WriteZero)?;
    }
    Ok(())
}

/// Reads what was wanted from the stream and gives it to the sink.
async fn take(io: &mut (impl AsyncRead + Unpin + Send), wanted: Wanted) -> Result<u64, Error> {
    let Wanted { request, mut sink, toll, mut cancelled } = wanted;
    let header = tokio::select! {
        biased;
        _ = &mut cancelled => return Err(Error::Stopped),
        header = timeout(limits::PIECES_STALL, frame::read::<PieceHeader>(io)) => header,
    };
    match header.map_err(|_| Error::Timeout)? {
        Ok(PieceHeader::Ok { len }) if len == request.len => {}
        Ok(PieceHeader::Ok { .. }) => return Err(Error::BadMessage { why: "another length than asked for" }),
        Ok(PieceHeader::Busy { retry_ms }) => {
            let retry = Duration::from_millis(retry_ms).clamp(limits::BUSY_RETRY, limits::BUSY_RETRY_MAX);
            return Err(Error::Busy { retry });
        }
        Ok(PieceHeader::Missing) => return Err(Error::Missing),
        Ok(PieceHeader::Bad) => return Err(Error::BadRequest),
        Err(Unread::Refused(error)) => return Err(error.into()),
        Err(Unread::Broken(_)) => return Err(Error::Gone),
    }

    let mut block = Block::new(request.len);
    let mut taken = 0;
    while taken < request.len {
        let offset = request.start + taken;
        let most = toll.portion(step(offset, request.len - taken));
        let place = block.bytes_mut().get_mut(..most).unwrap_or_default();
        let (len, cut_short) = fill(io, place, &mut cancelled).await;
        // Paid for here and not before, because only now is it known how many came. While this waits nothing
        // is read, and so the peer sends no more than the stream's window.
        tokio::select! {
            biased;
            () = toll.pay(len) => {}
            _ = &mut cancelled => return Err(Error::Stopped),
        }
        // Also what came before a cut is given to the sink: it was paid for.
        let bytes = place.get(..len).unwrap_or_default();
        if !bytes.is_empty() {
            match catch_unwind(AssertUnwindSafe(|| sink.write(offset, bytes))) {
                Ok(Verdict::Go) => taken += len as u64,
                Ok(Verdict::Enough) => return Ok(taken + len as u64),
                Ok(Verdict::Failed(error)) => return Err(Error::Sink(error)),
                Err(_) => return Err(Error::Sink(io::Error::other("the sink panicked"))),
            }
        }
        if let Some(error) = cut_short {
            return Err(error);
        }
    }
    // The peer closes the stream behind the last byte. A moment of waiting shows whether it does not.
    let mut more = [0; 1];
    match timeout(limits::PIECES_END_WAIT, io.read(&mut more)).await {
        Ok(Ok(len)) if len > 0 => Err(Error::BadMessage { why: "more bytes than asked for" }),
        _ => Ok(taken),
    }
}

/// Fills a place with bytes from the stream, but for no longer than `BLOCK_WAIT` from the first one on.
/// Says how many came, and why the transfer ends, if it does.
///
/// What is handed on early ends anywhere in a page. Only a slow line pays for that, one odd write in half
/// a second, and `step` makes the next block end where blocks should.
async fn fill(
    io: &mut (impl AsyncRead + Unpin + Send),
    place: &mut [u8],
    cancelled: &mut oneshot::Receiver<()>,
) -> (usize, Option<Error>) {
    let mut filled = 0;
    let mut begun: Option<Instant> = None;
    while let Some(rest) = place.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let patience = begun.map_or(limits::PIECES_STALL, |begun| limits::BLOCK_WAIT.saturating_sub(begun.elapsed()));
        let read = tokio::select! {
            biased;
            _ = &mut *cancelled => return (filled, Some(Error::Stopped)),
            read = timeout(patience, io.read(rest)) => read,
        };
        match read {
            Ok(Ok(len)) if len > 0 => {
                filled += len;
                begun.get_or_insert_with(Instant::now);
            }
            Ok(_) => return (filled, Some(Error::Gone)),
            Err(_) if filled > 0 => return (filled, None),
            Err(_) => return (filled, Some(Error::Timeout)),
        }
    }
    (filled, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::Cursor;
    use futures::{StreamExt, TryStreamExt};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept {
        bytes: Arc<Mutex<Vec<u8>>>,
        /// Where each write ended.
        ends: Arc<Mutex<Vec<u64>>>,
        more: Arc<tokio::sync::Notify>,
        enough_at: Option<usize>,
    }

    impl Sink for Kept {
        fn write(&mut self, offset: u64, bytes: &[u8]) -> Verdict {
            let mut kept = self.bytes.lock().unwrap();
            assert_eq!(offset, START + kept.len() as u64, "a gap");
            assert!(bytes.len() <= limits::BLOCK_BYTES);
            assert_eq!(bytes.as_ptr().align_offset(limits::BLOCK_ALIGN), 0);
            kept.extend_from_slice(bytes);
            self.ends.lock().unwrap().push(offset + bytes.len() as u64);
            self.more.notify_one();
            if self.enough_at.is_some_and(|enough| kept.len() >= enough) { Verdict::Enough } else { Verdict::Go }
        }
    }

    const START: u64 = 100_000;
    const LEN: u64 = 700_000;

    fn request() -> PieceRequest {
        let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".parse().unwrap();
        PieceRequest { content: crate::tree::Content { digest, size: 1 << 20 }, start: START, len: LEN }
    }

    fn content() -> Vec<u8> {
        (0..1u32 << 20).map(|n| (n % 253) as u8).collect()
    }

    async fn taken(stream: &[u8], kept: &Kept) -> Result<u64, Error> {
        let (_keep, cancelled) = oneshot::channel();
        let wanted = Wanted { request: request(), sink: Box::new(kept.clone()), toll: Toll::default(), cancelled };
        take(&mut Cursor::new(stream), wanted).await
    }

    async fn served() -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &content()).unwrap();
        let body = Body { file: Arc::new(file), offset: START, len: LEN };
        let mut stream = Vec::new();
        let protocol = StreamProtocol::new(wire::PIECE_PROTOCOL);
        let outcome = Outcome::Given(Ok((body, Toll::default())));
        TransferCodec::default().write_response(&protocol, &mut stream, outcome).await.unwrap();
        stream
    }

    fn wanted_bytes() -> Vec<u8> {
        content()[START as usize..(START + LEN) as usize].to_vec()
    }

    #[tokio::test]
    async fn a_stretch_comes_out_as_it_lies_in_the_file() {
        let kept = Kept::default();
        assert_eq!(taken(&served().await, &kept).await.unwrap(), LEN);
        assert_eq!(*kept.bytes.lock().unwrap(), wanted_bytes());
    }

    #[tokio::test]
    async fn what_came_before_a_cut_reaches_the_sink() {
        let whole = served().await;
        let header = whole.len() - LEN as usize;
        for cut in [0, 3, header - 1, header, header + 1, header + 300_000, whole.len() - 1] {
            let kept = Kept::default();
            let error = taken(&whole[..cut], &kept).await.unwrap_err();
            assert!(matches!(error, Error::Gone), "cut at {cut}: {error:?}");
            let came = cut.saturating_sub(header);
            assert_eq!(*kept.bytes.lock().unwrap(), wanted_bytes()[..came], "cut at {cut}");
        }
    }

    /// A line that carries the next part only when all parts before it were taken.
    fn patient_line(parts: Vec<Vec<u8>>, kept: &Kept) -> impl AsyncRead + Unpin + Send + use<> {
        let (kept, mut sent) = (kept.clone(), 0);
        let parts = futures::stream::iter(parts).then(move |part| {
            let (kept, wanted) = (kept.clone(), sent);
            sent += part.len();
            async move {
                while kept.bytes.lock().unwrap().len() < wanted {
                    kept.more.notified().await;
                }
                Ok::<_, io::Error>(part)
            }
        });
        Box::pin(parts).into_async_read()
    }

    #[tokio::test]
    async fn on_a_slow_line_the_sink_gets_what_came_before_a_block_is_full() {
        let whole = served().await;
        let (header, body) = whole.split_at(whole.len() - LEN as usize);
        let (kept, (_keep, cancelled)) = (Kept::default(), oneshot::channel());
        let wanted = Wanted { request: request(), sink: Box::new(kept.clone()), toll: Toll::default(), cancelled };
        let mut parts: Vec<Vec<u8>> = body[..30_000].chunks(10_000).map(<[u8]>::to_vec).collect();
        parts.push(body[30_000..].to_vec());
        let mut line = Cursor::new(header).chain(patient_line(parts, &kept));
        assert_eq!(take(&mut line, wanted).await.unwrap(), LEN);
        assert_eq!(*kept.bytes.lock().unwrap(), wanted_bytes());
        // Behind the slow parts, blocks end again where they should.
        let ends = kept.ends.lock().unwrap();
        assert_eq!(ends[..3], [START + 10_000, START + 20_000, START + 30_000]);
        assert!(ends[3..ends.len() - 1].iter().all(|end| end % limits::BLOCK_BYTES as u64 == 0), "{ends:?}");
    }

    #[tokio::test]
    async fn a_peer_that_sends_more_than_was_asked_for_broke_the_protocol() {
        let mut stream = served().await;
        stream.push(0);
        let error = taken(&stream, &Kept::default()).await.unwrap_err();
        assert!(matches!(error, Error::BadMessage { .. }), "{error:?}");

        for len in [0, LEN - 1, LEN + 1, limits::PIECE_REQUEST_BYTES_MAX] {
            let mut stream = wire::encode(&PieceHeader::Ok { len }).unwrap();
            stream.extend(vec![0; 10]);
            let kept = Kept::default();
            let error = taken(&stream, &kept).await.unwrap_err();
            assert!(matches!(error, Error::BadMessage { .. }), "{error:?}");
            assert!(kept.bytes.lock().unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn enough_ends_a_transfer_well() {
        let kept = Kept { enough_at: Some(300_000), ..Kept::default() };
        let took = taken(&served().await, &kept).await.unwrap();
        assert_eq!(took, kept.bytes.lock().unwrap().len() as u64);
        assert!((300_000..LEN).contains(&took));
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let refused = |header: PieceHeader| async move {
            taken(&wire::encode(&header).unwrap(), &Kept::default()).await.unwrap_err()
        };
        let busy = refused(PieceHeader::Busy { retry_ms: u64::MAX }).await;
        assert!(matches!(busy, Error::Busy { retry } if retry == limits::BUSY_RETRY_MAX), "{busy:?}");
        assert!(matches!(refused(PieceHeader::Missing).await, Error::Missing));
        assert!(matches!(refused(PieceHeader::Bad).await, Error::BadRequest));
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_never_padded() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(START + 5).unwrap();
        let body = Body { file: Arc::new(file), offset: START, len: LEN };
        let mut stream = Vec::new();
        assert!(give(&mut stream, &body, &Toll::default()).await.is_err());
        assert_eq!(stream.len(), 5);
    }

    #[tokio::test]
    async fn a_sink_that_fails_or_panics_ends_its_transfer_only() {
        struct Broken(bool);
        impl Sink for Broken {
            fn write(&mut self, _: u64, _: &[u8]) -> Verdict {
                assert!(!self.0, "as the test wants it");
                Verdict::Failed(io::ErrorKind::StorageFull.into())
            }
        }
        for panics in [false, true] {
            let (_keep, cancelled) = oneshot::channel();
            let wanted =
                Wanted { request: request(), sink: Box::new(Broken(panics)), toll: Toll::default(), cancelled };
            let error = take(&mut Cursor::new(served().await), wanted).await.unwrap_err();
            assert!(matches!(error, Error::Sink(_)), "{error:?}");
        }
    }
}
