//! Sessions over a line in memory: among ourselves, with libp2p's own noise, and with somebody who means ill.

use std::task::{Context, Poll};

use futures::future::try_join;
use libp2p::noise::Config as Stock;
use tokio::io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf, duplex};

use super::*;
use crate::limits;

/// One end of a line, in the form in which libp2p wants it. Writing to it turns some bits.
struct Line {
    stream: DuplexStream,
    /// Which byte of all that is written is changed.
    changed: Option<usize>,
    written: usize,
}

fn line() -> (Line, Line) {
    // Short enough for every message to be cut in two.
    let (a, b) = duplex(50_000);
    let end = |stream| Line { stream, changed: None, written: 0 };
    (end(a), end(b))
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        Pin::new(&mut self.stream).poll_read(cx, &mut into).map_ok(|()| into.filled().len())
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut bytes = bytes.to_vec();
        let changed = self.changed.and_then(|changed| changed.checked_sub(self.written));
        if let Some(byte) = changed.and_then(|changed| bytes.get_mut(changed)) {
            *byte ^= 1;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, &bytes);
        if let Poll::Ready(Ok(len)) = &written {
            self.written += len;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn sessions(suite: Suite, lines: (Line, Line)) -> io::Result<(Session<Line>, Session<Line>)> {
    let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (caller, answerer) = (Noise::new(&a)?, Noise::new(&b)?);
    let ((to_b, one), (to_a, other)) =
        try_join(caller.upgrade_outbound(lines.0, suite), answerer.upgrade_inbound(lines.1, suite)).await?;
    assert_eq!((to_a, to_b), (a.public().to_peer_id(), b.public().to_peer_id()));
    Ok((one, other))
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// Writes in steps of odd sizes, each flushed or not, and closes.
async fn tell(mut to: impl AsyncWrite + Unpin, bytes: &[u8]) -> io::Result<()> {
    let (mut rest, mut step) = (bytes, 1);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(step));
        to.write_all(now).await?;
        if step % 2 == 0 {
            to.flush().await?;
        }
        rest = later;
        step = step * 5 % 300_007;
    }
    to.close().await
}

/// Reads in steps of odd sizes until the end, or until something is wrong: what came is what counts.
async fn hear(mut from: impl AsyncRead + Unpin, heard: &mut Vec<u8>) -> io::Result<()> {
    let mut step = 1;
    loop {
        let mut place = vec![0; step];
        let len = from.read(&mut place).await?;
        if len == 0 {
            return Ok(());
        }
        heard.extend_from_slice(&place[..len]);
        step = step * 3 % 200_003;
    }
}

async fn both_ways(
    (mut one, mut other): (impl AsyncRead + AsyncWrite + Unpin, impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<()> {
    let content = content(3_000_000);
    let (mut there, mut back) = (Vec::new(), Vec::new());
    try_join(tell(&mut one, &content), hear(&mut other, &mut there)).await?;
    try_join(tell(&mut other, &content), hear(&mut one, &mut back)).await?;
    assert!(there == content && back == content);
    Ok(())
}

#[tokio::test]
async fn every_byte_comes_out_as_it_went_in_and_each_side_knows_the_other() {
    for suite in [Suite::ChaCha, Suite::Aes] {
        both_ways(sessions(suite, line()).await.unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn libp2ps_own_noise_understands_ours() {
    let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let ids = (b.public().to_peer_id(), a.public().to_peer_id());

    let (left, right) = line();
    let theirs = async { Stock::new(&b).unwrap().upgrade_inbound(right, "/noise").await.map_err(io::Error::other) };
    let ours = Noise::new(&a).unwrap().upgrade_outbound(left, Suite::ChaCha);
    let ((to_b, one), (to_a, other)) = try_join(ours, theirs).await.unwrap();
    assert_eq!((to_b, to_a), ids);
    both_ways((one, other)).await.unwrap();

    let (left, right) = line();
    let theirs = async { Stock::new(&b).unwrap().upgrade_outbound(right, "/noise").await.map_err(io::Error::other) };
    let ours = Noise::new(&a).unwrap().upgrade_inbound(left, Suite::ChaCha);
    let ((to_b, one), (to_a, other)) = try_join(ours, theirs).await.unwrap();
    assert_eq!((to_b, to_a), ids);
    both_ways((one, other)).await.unwrap();
}

#[tokio::test]
async fn a_byte_that_was_changed_on_the_way_ends_the_session_and_is_never_read() {
    let content = content(200_000);
    // In a length, in what is encrypted, in a proof, and far behind.
    for changed in [0, 1, 2, 7, 18, 19, 70_000, 150_001, 200_100] {
        let (mut one, mut other) = sessions(Suite::Aes, line()).await.unwrap();
        one.io_mut().changed = Some(one.io_mut().written + changed);
        let mut heard = Vec::new();
        let told = async {
            let _ = tell(&mut one, &content).await;
            drop(one);
        };
        let (error, ()) = futures::join!(
            async {
                let error = hear(&mut other, &mut heard).await.unwrap_err();
                let again = other.read(&mut [0; 100]).await;
                drop(other);
                assert!(again.is_err(), "read on behind a wrong byte");
                error
            },
            told
        );
        assert!(matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof), "{error:?}");
        assert!(content.starts_with(&heard) && heard.len() < content.len(), "{changed}");
    }
}

#[tokio::test]
async fn nobody_passes_for_another() {
    let (liar, victim) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let true_words = Noise::new(&victim).unwrap();
    for payload in [true_words.payload.clone(), Vec::new().into(), vec![0xff; 40].into()] {
        let lie = Noise { payload, ..Noise::new(&liar).unwrap() };
        let (left, right) = line();
        let honest = Noise::new(&Keypair::generate_ed25519()).unwrap().upgrade_outbound(left, Suite::ChaCha);
        assert!(try_join(honest, lie.clone().upgrade_inbound(right, Suite::ChaCha)).await.is_err());

        let (left, right) = line();
        let honest = Noise::new(&Keypair::generate_ed25519()).unwrap().upgrade_inbound(left, Suite::ChaCha);
        let lied = lie.upgrade_outbound(right, Suite::ChaCha);
        assert!(futures::join!(honest, lied).0.is_err());
    }
}

#[tokio::test]
async fn a_handshake_ends_at_its_bound() {
    let (left, mut right) = line();
    let honest = Noise::new(&Keypair::generate_ed25519()).unwrap().upgrade_inbound(left, Suite::ChaCha);
    let attack = async {
        right.write_all(&[0xff; 40_000]).await?;
        Ok::<_, io::Error>(right)
    };
    assert_eq!(try_join(honest, attack).await.err().map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
}

#[tokio::test]
async fn the_key_changes_on_both_sides_at_the_same_message() {
    let (mut one, mut other) = sessions(Suite::Aes, line()).await.unwrap();
    for number in 0..2 * limits::NOISE_KEY_MESSAGES + 10 {
        let word = number.to_be_bytes();
        one.write_all(&word).await.unwrap();
        one.flush().await.unwrap();
        let mut heard = [0; 8];
        other.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, word);
    }
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_not_written_for_without_end() {
    let (mut one, _other) = sessions(Suite::ChaCha, line()).await.unwrap();
    let chunk = vec![7; 10_000];
    let mut taken = 0;
    std::future::poll_fn(|cx| {
        loop {
            match Pin::new(&mut one).poll_write(cx, &chunk) {
                Poll::Ready(len) => taken += len.unwrap(),
                Poll::Pending => return Poll::Ready(()),
            }
            let _ = Pin::new(&mut one).poll_flush(cx).map(Result::unwrap);
        }
    })
    .await;
    assert!(taken <= 50_000 + limits::BLOCK_BYTES, "{taken}");
}
