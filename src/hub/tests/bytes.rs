//! Ranges, from endpoints and data hosts that do and do not play by the rules.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::*;
use crate::digest::Digest;
use crate::tree::Content;

const FILE: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

pub(super) fn place(file: &[u8], grant: Grant) -> Place {
    Place {
        repo: repo(),
        commit: commit(),
        path: "model.bin".parse().unwrap(),
        content: Content { digest: Digest::GitSha1([0; 20]), size: file.len() as u64 },
        grant,
    }
}

/// Reads to the end, with the offset of the first byte, and what ended it.
async fn read(body: &mut RangeBody) -> (Option<u64>, Vec<u8>, Option<Error>) {
    let (mut first, mut all) = (None, Vec::new());
    loop {
        match body.next().await {
            Ok(None) => return (first, all, None),
            Err(error) => return (first, all, Some(error)),
            Ok(Some((offset, bytes))) => {
                let begin = *first.get_or_insert(offset);
                assert_eq!(offset, begin + all.len() as u64, "bytes come in order");
                all.extend(bytes);
            }
        }
    }
}

async fn fetch(hub: &Hub, server: &Server, bytes: Range<u64>, reading: Reading) -> Result<RangeBody, Error> {
    let access = access(&[server.as_hub()]);
    hub.range(&access, &server.as_hub(), &place(FILE, Grant::Anonymous), bytes, reading).await
}

async fn failure(hub: &Hub, server: &Server, bytes: Range<u64>) -> Error {
    fetch(hub, server, bytes, Reading::Exact).await.err().unwrap()
}

fn is_good_for_data(hub: &Hub, server: &Server) -> bool {
    !hub.endpoints_for_data(&access(&[server.as_hub()]), Grant::Anonymous, Instant::now()).is_empty()
}

#[tokio::test]
async fn a_range_is_asked_for_and_passed_on_with_its_place() {
    let server = Server::start(|seen| Reply::file(FILE, seen)).await;
    let mut body = fetch(&hub(), &server, 10..20, Reading::Exact).await.unwrap();
    assert_eq!(read(&mut body).await, (Some(10), b"abcdefghij".to_vec(), None));
    assert_eq!(body.received(), 10);
    assert!(matches!(body.next().await, Ok(None)), "an end stays an end");
    let seen = server.seen();
    assert_eq!(seen[0].target, format!("/acme/tiny/resolve/{COMMIT}/model.bin"));
    assert_eq!((seen[0].header("range"), seen[0].header("accept-encoding")), (Some("bytes=10-19"), Some("identity")));
}

#[tokio::test]
async fn nobody_is_asked_for_no_bytes() {
    let server = Server::start(|seen| Reply::file(FILE, seen)).await;
    for bytes in [0..0, 36..40] {
        let mut body = fetch(&hub(), &server, bytes, Reading::Exact).await.unwrap();
        assert_eq!(read(&mut body).await, (None, Vec::new(), None));
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn ranges_that_begin_together_share_one_question_for_the_address() {
    let cdn = Server::start(|seen| Reply::file(FILE, seen)).await;
    let away = format!("{}/x?sig=1", cdn.url);
    let server = Server::start(move |_| Reply::redirect(302, away.clone()).body(vec![b'x'; 900])).await;
    let hub = hub();
    let ranges = (0..8u64).map(|n| {
        let (hub, server) = (&hub, &server);
        async move {
            let mut body = fetch(hub, server, n * 4..n * 4 + 4, Reading::Exact).await.unwrap();
            read(&mut body).await.1
        }
    });
    let all = futures::future::join_all(ranges).await.concat();
    assert_eq!(all, FILE[..32]);
    assert_eq!((server.count("resolve"), cdn.count("sig=1")), (1, 8));
}

#[tokio::test]
async fn an_address_on_the_endpoints_own_origin_is_learnt_too_and_gets_the_token() {
    let server = Server::start(|seen| match (seen.has_token(), seen.asks("/cache/")) {
        (false, _) => says_no(401, "GatedRepo"),
        (true, true) => Reply::file(FILE, seen),
        (true, false) => Reply::redirect(307, "/cache/x?%2Fkept=&etag=1"),
    })
    .await;
    let (hub, access) = (hub(), access(&[server.as_hub()]));
    for start in [0, 4] {
        let place = place(FILE, Grant::Token);
        let mut body = hub.range(&access, &server.as_hub(), &place, start..start + 4, Reading::Exact).await.unwrap();
        assert_eq!(read(&mut body).await.1, FILE[start as usize..][..4]);
    }
    assert_eq!((server.count("/resolve/"), server.count("/cache/x?%2Fkept=&etag=1")), (1, 2));
}

#[tokio::test]
async fn an_address_that_has_expired_is_replaced_once() {
    let cdn = Server::start(|seen| match seen.asks("sig=0") && seen.range() != Some(0..4) {
        true => Reply::new(403).body("<Error>expired</Error>"),
        false => Reply::file(FILE, seen),
    })
    .await;
    let (away, count) = (cdn.url.clone(), AtomicUsize::new(0));
    let server =
        Server::start(move |_| Reply::redirect(302, format!("{away}/x?sig={}", count.fetch_add(1, Ordering::SeqCst))))
            .await;
    let hub = hub();
    for start in [0, 4, 8] {
        let mut body = fetch(&hub, &server, start..start + 4, Reading::Exact).await.unwrap();
        assert_eq!(read(&mut body).await.1, FILE[start as usize..][..4]);
    }
    assert_eq!(server.count("resolve"), 2);
    assert!(is_good_for_data(&hub, &server));
}

#[tokio::test]
async fn an_endpoint_whose_data_host_fails_is_bad_for_data_and_good_for_questions() {
    let dead = nobody(Role::Hub).await.url;
    let cdn = Server::start(|_| Reply::new(403)).await;
    let overloaded = Server::start(|_| Reply::new(503)).await;
    for away in [dead, cdn.url.clone(), overloaded.url.clone()] {
        let server = Server::start(move |seen| match seen.asks("/api/") {
            true => Reply::new(200).json(PUBLIC),
            false => Reply::redirect(302, format!("{away}/x?sig=1")),
        })
        .await;
        let hub = hub();
        let error = failure(&hub, &server, 0..4).await;
        assert!(matches!(error, Error::Broken { .. }) && !error.is_final(), "{error}");
        assert!(error.to_string().contains("sends for the bytes to"), "{error}");
        assert!(!is_good_for_data(&hub, &server));
        hub.resolve(&access(&[server.as_hub()]), &repo(), &Revision::main()).await.unwrap();
        let asked = server.seen().len();
        failure(&hub, &server, 0..4).await;
        assert_eq!(server.seen().len(), asked, "it was asked again at once");
    }
}

#[tokio::test]
async fn a_whole_file_for_a_range_is_used_only_where_that_is_wanted() {
    let server = Server::start(|_| Reply::new(200).body(FILE)).await;
    let hub = hub();
    assert!(matches!(failure(&hub, &server, 10..20).await, Error::RangeIgnored { .. }));
    let mut body = fetch(&hub, &server, 10..20, Reading::FromStart).await.unwrap();
    assert_eq!(read(&mut body).await, (Some(0), FILE[..20].to_vec(), None));
    assert!(body.received() >= 20, "bytes that nobody wanted came as well");
    let mut body = fetch(&hub, &server, 0..10, Reading::Exact).await.unwrap();
    assert_eq!(read(&mut body).await, (Some(0), FILE[..10].to_vec(), None));
    assert!(is_good_for_data(&hub, &server));
}

#[tokio::test]
async fn a_body_without_a_length_is_read_to_its_end() {
    let long: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let file = long.clone();
    let server = Server::start(move |_| Reply::new(200).body(file.clone()).chunked()).await;
    let access = access(&[server.as_hub()]);
    let place = place(&long, Grant::Anonymous);
    let mut body = hub().range(&access, &server.as_hub(), &place, 0..400_000, Reading::Exact).await.unwrap();
    assert_eq!(read(&mut body).await, (Some(0), long, None));
    assert_eq!(body.received(), 400_000);
}

#[tokio::test]
async fn a_login_page_is_no_file() {
    let server = Server::start(|_| Reply::page()).await;
    let hub = hub();
    let error = failure(&hub, &server, 0..4).await;
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    assert!(!is_good_for_data(&hub, &server));
}

#[tokio::test]
async fn what_came_of_a_body_that_was_cut_short_is_passed_on_first() {
    let server = Server::start(|seen| Reply::file(FILE, seen).cut_short(6)).await;
    let hub = hub();
    let mut body = fetch(&hub, &server, 10..20, Reading::Exact).await.unwrap();
    let (first, bytes, error) = read(&mut body).await;
    assert_eq!((first, &bytes[..]), (Some(10), &FILE[10..16]));
    assert!(matches!(error, Some(Error::CutShort { got: 6, wanted: 10, .. })), "{error:?}");
    assert!(body.next().await.is_err(), "a failure does not turn into an end");
    assert_eq!(body.received(), 6);
}

#[tokio::test]
async fn a_part_that_is_shorter_than_asked_is_cut_short() {
    let server = Server::start(|_| Reply::new(206).header("content-range", "bytes 10-14/36").body(&FILE[10..15])).await;
    let mut body = fetch(&hub(), &server, 10..20, Reading::Exact).await.unwrap();
    let (_, bytes, error) = read(&mut body).await;
    assert_eq!(bytes, FILE[10..15]);
    assert!(matches!(error, Some(Error::CutShort { got: 5, wanted: 10, .. })), "{error:?}");
}

#[tokio::test]
async fn bytes_beyond_those_asked_for_are_not_passed_on_and_are_a_fault() {
    for reply in [
        Reply::new(206).header("content-range", "bytes 10-35/36").body(&FILE[10..]),
        Reply::new(206).header("content-range", "bytes 10-35/36").body(&FILE[10..]).chunked(),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let mut body = fetch(&hub(), &server, 10..20, Reading::Exact).await.unwrap();
        let (first, bytes, error) = read(&mut body).await;
        assert_eq!((first, &bytes[..]), (Some(10), &FILE[10..20]));
        assert!(matches!(error, Some(Error::Broken { .. })), "{error:?}");
    }
    let mut long = FILE.to_vec();
    long.push(b'!');
    let server = Server::start(move |_| Reply::new(200).body(long.clone()).chunked()).await;
    let mut body = fetch(&hub(), &server, 0..36, Reading::Exact).await.unwrap();
    let (_, bytes, error) = read(&mut body).await;
    assert_eq!(bytes, FILE);
    assert!(matches!(error, Some(Error::Broken { .. })), "{error:?}");
}

#[tokio::test]
async fn a_body_that_falls_silent_is_given_up() {
    let server = Server::start(|seen| Reply::file(FILE, seen).stall(3)).await;
    let hub = impatient();
    let mut body = fetch(&hub, &server, 0..10, Reading::Exact).await.unwrap();
    let (_, bytes, error) = read(&mut body).await;
    assert_eq!(bytes, FILE[..3]);
    assert!(matches!(error, Some(Error::Stalled { got: 3, wanted: 10, .. })), "{error:?}");
    assert!(is_good_for_data(&hub, &server), "a line may hang once");

    let server = Server::start(|seen| Reply::file(FILE, seen).stall(0)).await;
    let mut body = fetch(&hub, &server, 0..10, Reading::Exact).await.unwrap();
    assert!(matches!(read(&mut body).await.2, Some(Error::Stalled { got: 0, .. })));
    assert!(!is_good_for_data(&hub, &server), "a host that sends heads and no bytes is none");
}

#[tokio::test]
async fn a_file_of_another_size_is_told() {
    for (reply, size) in [
        (Reply::new(416).header("content-range", "bytes */5"), Some(5)),
        (Reply::new(416), None),
        (Reply::new(206).header("content-range", "bytes 0-3/99").body("0123"), Some(99)),
        (Reply::new(200).body("0123"), Some(4)),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let error = failure(&hub(), &server, 0..4).await;
        assert!(matches!(error, Error::SizeChanged { wanted: 36, found, .. } if found == size), "{error:?}");
    }
}

#[tokio::test]
async fn a_limit_on_requests_is_told_with_its_waiting_time_and_kept() {
    let server = Server::start(|_| Reply::new(429).header("retry-after", "33")).await;
    let hub = hub();
    let error = failure(&hub, &server, 0..4).await;
    assert!(matches!(error, Error::Busy { wait, .. } if wait == Duration::from_secs(33)), "{error:?}");
    assert!(matches!(failure(&hub, &server, 0..4).await, Error::Busy { .. }));
    assert_eq!(server.seen().len(), 1);
    assert!(!is_good_for_data(&hub, &server));
}

#[tokio::test]
async fn a_mirror_without_the_file_is_still_good_for_others() {
    for reply in [Reply::new(404), says_no(404, "EntryNotFound"), says_no(401, "GatedRepo")] {
        let server = Server::start(move |_| reply.clone()).await;
        let (hub, access) = (hub(), access(&[server.as_mirror()]));
        let place = place(FILE, Grant::Anonymous);
        let error = hub.range(&access, &server.as_mirror(), &place, 0..4, Reading::Exact).await.err().unwrap();
        assert!(matches!(error, Error::Lacks { .. }), "{error:?}");
        assert_eq!(hub.endpoints_for_data(&access, Grant::Anonymous, Instant::now()).len(), 1);
    }
}

#[tokio::test]
async fn a_silent_endpoint_costs_ranges_that_begin_together_one_wait() {
    let server = Server::start(|_| Reply::silence()).await;
    let hub = impatient();
    let begin = Instant::now();
    let ranges = (0..8u64).map(|n| failure(&hub, &server, n * 4..n * 4 + 4));
    for error in futures::future::join_all(ranges).await {
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(4), "they waited one after the other");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_endpoint_gets_a_bounded_number_of_ranges_at_one_time() {
    let server = Server::start(|seen| Reply::file(FILE, seen)).await;
    let hub = hub();
    let mut held = Vec::new();
    for _ in 0..crate::limits::HUB_SMALL_RANGES_MAX {
        held.push(fetch(&hub, &server, 0..4, Reading::Exact).await.unwrap());
    }
    let seventeenth = fetch(&hub, &server, 0..4, Reading::Exact);
    tokio::pin!(seventeenth);
    assert!(futures::poll!(&mut seventeenth).is_pending());
    assert_eq!(server.seen().len(), crate::limits::HUB_SMALL_RANGES_MAX);
    held.pop();
    assert!(seventeenth.await.is_ok());
}

#[tokio::test]
async fn small_ranges_do_not_wait_behind_large_ones() {
    const LARGE: u64 = crate::limits::LARGE_REQUEST_BYTES;
    let file: &'static [u8] = vec![7; LARGE as usize].leak();
    let server = Server::start(|seen| Reply::file(file, seen)).await;
    let (hub, access, place) = (hub(), access(&[server.as_hub()]), place(file, Grant::Anonymous));
    let hub_end = server.as_hub();
    let fetch = |bytes| hub.range(&access, &hub_end, &place, bytes, Reading::Exact);
    // As many as could take all places, if they were let.
    let all = crate::limits::HUB_LARGE_RANGES_MAX + crate::limits::HUB_SMALL_RANGES_MAX;
    let mut large: FuturesUnordered<_> = (0..all).map(|_| fetch(0..LARGE)).collect();
    let mut held = Vec::new();
    for _ in 0..crate::limits::HUB_LARGE_RANGES_MAX {
        held.push(large.next().await.unwrap().unwrap());
    }
    assert!(futures::poll!(large.next()).is_pending());
    let small = tokio::time::timeout(Duration::from_secs(20), fetch(0..4));
    held.push(small.await.expect("it waits for a large one").unwrap());
    assert_eq!(server.seen().len(), held.len(), "the others were not even asked for");
    held.remove(0);
    assert!(large.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_range_that_has_come_leaves_its_place_to_others() {
    let server = Server::start(|seen| Reply::file(FILE, seen)).await;
    let hub = hub();
    let mut held = Vec::new();
    for _ in 0..=crate::limits::HUB_SMALL_RANGES_MAX {
        let mut body = fetch(&hub, &server, 0..4, Reading::Exact).await.unwrap();
        read(&mut body).await;
        held.push(body);
    }
}

#[tokio::test]
async fn one_connection_serves_question_after_question() {
    let cdn = Server::start(|seen| Reply::file(FILE, seen)).await;
    let away = cdn.url.clone();
    let server = Server::start(move |seen| match (seen.asks("/api/"), seen.asks("?there")) {
        (true, false) => Reply::redirect(307, "?there").body(vec![b'x'; 500]),
        (true, true) => Reply::new(200).json(PUBLIC),
        (false, _) => Reply::redirect(302, format!("{away}/x")).body(vec![b'x'; 913]),
    })
    .await;
    let (hub, access) = (hub(), access(&[server.as_hub()]));
    for name in ["a", "b", "c"] {
        hub.resolve(&access, &repo(), &Revision::main()).await.unwrap();
        let place = Place { path: name.parse().unwrap(), ..place(FILE, Grant::Anonymous) };
        let mut body = hub.range(&access, &server.as_hub(), &place, 0..4, Reading::Exact).await.unwrap();
        read(&mut body).await;
    }
    assert_eq!((server.seen().len(), server.connections()), (9, 1));
    assert_eq!((cdn.seen().len(), cdn.connections()), (3, 1));
}
