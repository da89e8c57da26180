//! What revisions mean and what commits hold, with everything that can be in the way.

use super::*;
use crate::names::RepoPath;

const GIT: &str = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
const SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn entry(path: &str) -> String {
    format!(r#"{{"type":"file","oid":"{GIT}","size":5,"path":"{path}"}}"#)
}

async fn refusal(status: u16, code: &'static str, access_of: fn(&[Endpoint]) -> Access) -> Error {
    let server = Server::start(move |_| says_no(status, code)).await;
    hub().resolve(&access_of(&[server.as_hub()]), &repo(), &Revision::main()).await.unwrap_err()
}

#[tokio::test]
async fn each_refusal_of_the_hub_has_its_own_message_and_hint() {
    let errors = [
        refusal(404, "RepoNotFound", access).await,
        refusal(404, "RevisionNotFound", access).await,
        refusal(403, "GatedRepo", access).await,
        refusal(401, "RepoNotFound", without_token).await,
        refusal(401, "", access).await,
    ];
    assert!(matches!(
        errors,
        [
            Error::NoRepo { .. },
            Error::NoRevision { .. },
            Error::Gated { .. },
            Error::NeedsToken { .. },
            Error::BadToken { .. }
        ]
    ));
    let texts: std::collections::HashSet<_> = errors.iter().map(|e| (e.to_string(), e.hint().unwrap())).collect();
    assert_eq!(texts.len(), errors.len());
    assert!(errors.iter().all(Error::is_final));
    assert!(errors[2].hint().unwrap().contains("/acme/tiny and set HF_TOKEN"));

    let server =
        Server::start(|_| Reply::new(403).header("x-error-message", "Access to this resource is disabled.").json("{}"))
            .await;
    let error = hub().resolve(&access(&[server.as_hub()]), &repo(), &Revision::main()).await.unwrap_err();
    assert!(matches!(error, Error::Disabled { .. }));
}

#[tokio::test]
async fn the_hubs_no_is_final_and_a_mirrors_is_not() {
    let mirror = Server::start(|_| Reply::new(200).json(PUBLIC)).await;
    let server = Server::start(|_| says_no(404, "RepoNotFound")).await;
    let error =
        hub().resolve(&access(&[server.as_hub(), mirror.as_mirror()]), &repo(), &Revision::main()).await.unwrap_err();
    assert!(matches!(error, Error::NoRepo { .. }));
    assert!(mirror.seen().is_empty());

    let found = hub().resolve(&access(&[server.as_mirror(), mirror.as_hub()]), &repo(), &Revision::main()).await;
    assert_eq!(found.unwrap().endpoint, mirror.as_hub());

    let error = hub().resolve(&access(&[server.as_mirror()]), &repo(), &Revision::main()).await.unwrap_err();
    assert!(matches!(error, Error::NoRepo { .. }), "where there is no Hub, the mirror's word is the last");

    let dead = nobody(Role::Hub).await;
    let error = hub().resolve(&access(&[server.as_mirror(), dead]), &repo(), &Revision::main()).await.unwrap_err();
    let Error::Unreachable { tried } = error else { panic!("{error}") };
    assert!(matches!(tried[..], [Attempt { why: Failure::Said(_), .. }, Attempt { why: Failure::Refused(_), .. }]));
}

#[tokio::test]
async fn whatever_is_wrong_with_an_endpoint_the_next_one_is_asked() {
    let faults = [
        Reply::page(),
        Reply::new(404),
        Reply::new(500),
        Reply::new(503).header("content-type", "text/html"),
        Reply::new(200).json("{\"sha\":"),
        Reply::new(200).json("{\"sha\":\"main\",\"private\":false,\"gated\":false}"),
        Reply::new(200).json(PUBLIC).cut_short(20),
        Reply::hang_up(),
        Reply::new(304),
        Reply::redirect(302, "/again"),
        Reply::redirect(308, nobody(Role::Hub).await.url),
        Reply::redirect(302, "ftp://x/"),
        Reply::new(403).header("content-type", "text/html"),
        Reply::new(429),
    ];
    for fault in faults {
        let reply = fault.clone();
        let bad = Server::start(move |_| reply.clone()).await;
        let mirror = Server::start(|_| Reply::new(200).json(PUBLIC)).await;
        let access = access(&[bad.as_hub(), mirror.as_mirror()]);
        let found = hub().resolve(&access, &repo(), &Revision::main()).await;
        assert_eq!(found.map(|found| found.endpoint), Ok(mirror.as_mirror()), "{fault:?}");
    }
}

#[tokio::test]
async fn a_no_from_where_the_hub_redirects_to_is_not_the_hubs() {
    let other = Server::start(|_| says_no(404, "RepoNotFound")).await;
    let away = other.url.clone();
    let server = Server::start(move |_| Reply::redirect(308, away.clone())).await;
    let error = hub().resolve(&access(&[server.as_hub()]), &repo(), &Revision::main()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_revision_is_missing_with_and_without_the_token() {
    let server = Server::start(|_| says_no(404, "RevisionNotFound")).await;
    let error = hub().resolve(&access(&[server.as_hub()]), &repo(), &Revision::main()).await.unwrap_err();
    assert!(matches!(error, Error::NoRevision { .. }));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_server_that_stumbles_once_is_asked_again() {
    for stumble in [Reply::new(503), Reply::hang_up()] {
        let times = std::sync::atomic::AtomicUsize::new(0);
        let server = Server::start(move |_| match times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => stumble.clone(),
            _ => Reply::new(200).json(PUBLIC),
        })
        .await;
        hub().resolve(&access(&[server.as_hub()]), &repo(), &Revision::main()).await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_endpoint_is_noticed_within_five_seconds_and_remembered() {
    let silent = Server::start(|_| Reply::silence()).await;
    let hub = Hub::new();
    let access = access(&[silent.as_hub()]);
    let begin = Instant::now();
    let error = hub.resolve(&access, &repo(), &Revision::main()).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(matches!(&error, Error::Unreachable { tried } if tried[0].why == Failure::Silent), "{error}");
    assert!(!error.is_final() && error.hint().is_some());

    let asked = silent.seen().len();
    let again = Instant::now();
    assert_eq!(hub.clone().resolve(&access, &repo(), &Revision::main()).await.unwrap_err(), error);
    assert!(hub.tree(&access, &repo(), &commit(), Grant::Anonymous).await.is_err());
    assert!(again.elapsed() < Duration::from_secs(1));
    assert_eq!(silent.seen().len(), asked, "it was asked again");
    assert!(hub.endpoints_for_data(&access, Grant::Anonymous, Instant::now()).is_empty());
    let later = Instant::now() + crate::limits::HUB_BAD_MAX;
    assert_eq!(hub.endpoints_for_data(&access, Grant::Anonymous, later).len(), 1);
}

#[tokio::test]
async fn a_silent_hub_gives_way_to_a_mirror() {
    let silent = Server::start(|_| Reply::silence()).await;
    let mirror = Server::start(|_| Reply::new(200).json(PUBLIC)).await;
    let access = access(&[silent.as_hub(), mirror.as_mirror()]);
    let found = impatient().resolve(&access, &repo(), &Revision::main()).await.unwrap();
    assert_eq!(found.endpoint, mirror.as_mirror());
}

#[tokio::test]
async fn an_endpoint_that_wants_us_to_wait_is_left_alone_for_so_long() {
    let server = Server::start(|_| Reply::new(429).header("ratelimit", "\"api\";r=0;t=55")).await;
    let (hub, access) = (hub(), access(&[server.as_hub()]));
    let error = hub.resolve(&access, &repo(), &Revision::main()).await.unwrap_err();
    assert!(matches!(error, Error::Busy { wait, .. } if wait == Duration::from_secs(56)), "{error}");
    let error = hub.resolve(&access, &repo(), &Revision::main()).await.unwrap_err();
    assert!(matches!(error, Error::Busy { wait, .. } if wait <= Duration::from_secs(56)), "{error}");
    assert_eq!(server.seen().len(), 1);
    assert_eq!(hub.endpoints_for_data(&access, Grant::Anonymous, Instant::now()).len(), 1, "bytes are counted apart");
}

#[tokio::test]
async fn nobody_is_asked_while_offline() {
    let server = Server::start(|_| Reply::new(200).json(PUBLIC)).await;
    let access = Access { offline: true, ..access(&[server.as_hub()]) };
    let hub = hub();
    let place = bytes::place(b"abc", Grant::Anonymous);
    assert_eq!(hub.resolve(&access, &repo(), &Revision::main()).await.unwrap_err(), Error::Offline);
    assert_eq!(hub.tree(&access, &repo(), &commit(), Grant::Anonymous).await.unwrap_err(), Error::Offline);
    assert!(hub.range(&access, &server.as_hub(), &place, 0..3, Reading::Exact).await.is_err());
    assert!(hub.endpoints_for_data(&access, Grant::Anonymous, Instant::now()).is_empty());
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn proxies_are_used_but_for_the_hosts_that_are_excepted() {
    let proxy = Server::start(|_| Reply::new(200).json(PUBLIC)).await;
    let server = Server::start(|_| Reply::new(200).json(PUBLIC)).await;
    let hub = hub();
    let through = |no: Option<&str>| Access {
        proxies: Proxies { http: Some(proxy.url.clone()), no: no.map(str::to_owned), ..Proxies::default() },
        ..access(&[server.as_hub()])
    };
    hub.resolve(&through(None), &repo(), &Revision::main()).await.unwrap();
    assert_eq!((proxy.seen().len(), server.seen().len()), (1, 0));
    assert!(proxy.seen()[0].target.starts_with(&server.url));
    hub.resolve(&through(Some("example.org,127.0.0.1")), &repo(), &Revision::main()).await.unwrap();
    assert_eq!((proxy.seen().len(), server.seen().len()), (1, 1));

    let proxies = Proxies { all: Some("junk://me:pw@host".to_owned()), ..Proxies::default() };
    let broken = Access { proxies, ..access(&[server.as_hub()]) };
    let error = hub.resolve(&broken, &repo(), &Revision::main()).await.unwrap_err();
    assert_eq!(error, Error::BadProxy { variable: "ALL_PROXY" });
}

#[tokio::test]
async fn a_listing_is_read_page_by_page_from_the_endpoint_in_use() {
    let server = Server::start(|seen| match seen.asks("cursor=2") {
        false => Reply::new(200)
            .header("link", "<https://huggingface.co/api/models/acme/tiny/tree/x?cursor=2>; rel=\"next\"")
            .json(format!("[{}]", entry("a"))),
        true => Reply::new(200).json(format!("[{},{}]", entry("sub/b"), entry("../evil\u{202e}"))),
    })
    .await;
    let listing = hub().tree(&access(&[server.as_hub()]), &repo(), &commit(), Grant::Token).await.unwrap();
    assert_eq!(listing.tree.iter().map(|(path, _)| path.as_str().to_owned()).collect::<Vec<_>>(), ["a", "sub/b"]);
    assert_eq!(listing.refused.len(), 1);
    assert!(!listing.refused[0].to_string().contains('\u{202e}'));
    assert_eq!(server.seen()[0].target, format!("/api/models/acme/tiny/tree/{COMMIT}?recursive=true&expand=false"));
    assert!(server.seen().iter().all(server::Seen::has_token));
}

#[tokio::test]
async fn a_listing_in_circles_or_without_end_is_given_up() {
    let circle = Server::start(|seen| {
        let link = format!("<{}>; rel=\"next\"", seen.target);
        Reply::new(200).header("link", link).json("[]")
    })
    .await;
    let error = hub().tree(&access(&[circle.as_hub()]), &repo(), &commit(), Grant::Anonymous).await.unwrap_err();
    assert!(error.to_string().contains("circles"), "{error}");

    let count = std::sync::atomic::AtomicUsize::new(0);
    let endless = Server::start(move |_| {
        let page = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Reply::new(200).header("link", format!("</next?page={page}>; rel=\"next\"")).json("[]")
    })
    .await;
    let error = hub().tree(&access(&[endless.as_hub()]), &repo(), &commit(), Grant::Anonymous).await.unwrap_err();
    assert!(error.to_string().contains("without end"), "{error}");
    assert!(endless.seen().len() <= crate::limits::HUB_PAGES_MAX);
}

#[tokio::test]
async fn a_listing_behind_a_trailing_slash_or_in_the_other_form_is_read_too() {
    let slash = Server::start(|seen| match seen.target.split_once('?') {
        Some((path, _)) if path.ends_with('/') => Reply::new(200).json(format!("[{}]", entry("a"))),
        Some((path, query)) => Reply::redirect(307, format!("{path}/?{query}")),
        None => Reply::new(400),
    })
    .await;
    let blobs = Server::start(|seen| match seen.asks("?blobs=true") {
        true => Reply::new(200).json(format!(r#"{{"siblings":[{{"rfilename":"a","size":5,"blobId":"{GIT}"}}]}}"#)),
        false => Reply::new(404),
    })
    .await;
    let hub = hub();
    let first = hub.tree(&access(&[slash.as_hub()]), &repo(), &commit(), Grant::Anonymous).await.unwrap();
    let second = hub.tree(&access(&[blobs.as_hub()]), &repo(), &commit(), Grant::Anonymous).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(first.tree.len(), 1);
}

#[tokio::test]
async fn an_entry_is_read_from_the_hop_before_the_data_host() {
    let cdn = Server::start(|_| Reply::new(200).header("etag", format!("\"{}\"", "0".repeat(64)))).await;
    let away = format!("{}/x?sig=1", cdn.url);
    let server = Server::start(move |seen| match seen.asks("resolve-cache") {
        true => Reply::redirect(302, away.clone())
            .header("x-repo-commit", COMMIT)
            .header("x-linked-etag", format!("\"{SHA256}\""))
            .header("x-linked-size", "548105171")
            .body(vec![0; 913]),
        false => Reply::redirect(307, "/api/resolve-cache/x?%2Facme=&etag=%22y%22"),
    })
    .await;
    let path: RepoPath = "model.safetensors".parse().unwrap();
    let found = hub().entry(&access(&[server.as_hub()]), &repo(), &Revision::main(), &path).await.unwrap();
    assert_eq!(found.commit, commit());
    assert_eq!(found.content, tree::Content { digest: SHA256.parse().unwrap(), size: 548_105_171 });
    assert!(cdn.seen().is_empty());
    assert!(
        server.seen().iter().all(|seen| seen.method == "HEAD" && seen.header("accept-encoding") == Some("identity"))
    );
    assert_eq!(server.seen()[1].target, "/api/resolve-cache/x?%2Facme=&etag=%22y%22");
}

#[tokio::test]
async fn an_entry_whose_size_no_header_tells_is_measured_by_a_range() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "HEAD" => Reply::new(200).header("x-repo-commit", COMMIT).header("etag", format!("W/\"{GIT}\"")).chunked(),
        _ => Reply::file(b"hello", seen),
    })
    .await;
    let path: RepoPath = "config.json".parse().unwrap();
    let found = hub().entry(&access(&[server.as_hub()]), &repo(), &Revision::main(), &path).await.unwrap();
    assert_eq!(found.content, tree::Content { digest: GIT.parse().unwrap(), size: 5 });

    let missing = Server::start(|_| Reply::new(404).header("x-error-code", "EntryNotFound")).await;
    let error = hub().entry(&access(&[missing.as_hub()]), &repo(), &Revision::main(), &path).await.unwrap_err();
    assert!(matches!(error, Error::NoFile { .. }) && error.is_final());
}

#[tokio::test]
async fn an_endpoint_without_an_api_can_still_be_asked_for_entries() {
    let server = Server::start(|seen| match seen.asks("/api/") {
        true => Reply::new(404),
        false => Reply::new(200).header("x-repo-commit", COMMIT).header("etag", GIT).header("content-length", "5"),
    })
    .await;
    let (hub, access) = (hub(), access(&[server.as_hub()]));
    assert!(matches!(hub.resolve(&access, &repo(), &Revision::main()).await, Err(Error::Unreachable { .. })));
    let path: RepoPath = "config.json".parse().unwrap();
    let found = hub.entry(&access, &repo(), &Revision::main(), &path).await.unwrap();
    assert_eq!((found.content.size, found.grant), (5, Grant::Anonymous));
}

#[tokio::test]
async fn the_answers_can_be_awaited_in_tasks_of_their_own() {
    let server = Server::start(|_| Reply::new(404).header("x-error-code", "RepoNotFound")).await;
    let (hub, access, path) = (hub(), access(&[server.as_hub()]), "a".parse::<RepoPath>().unwrap());
    let task = tokio::spawn(async move {
        let main = Revision::main();
        (
            hub.resolve(&access, &repo(), &main).await.is_err(),
            hub.tree(&access, &repo(), &commit(), Grant::Anonymous).await.is_err(),
            hub.entry(&access, &repo(), &main, &path).await.is_err(),
            hub.range(&access, &access.endpoints[0], &bytes::place(b"a", Grant::Anonymous), 0..1, Reading::Exact)
                .await
                .is_err(),
        )
    });
    assert_eq!(task.await.unwrap(), (true, true, true, true));
}
