//! Where the token goes, and above all where it does not.

use super::*;

fn private_page(seen: &server::Seen) -> Reply {
    match seen.has_token() {
        true => Reply::new(200).json(PUBLIC.replace("\"private\":false", "\"private\":true")),
        false => says_no(401, "RepoNotFound"),
    }
}

#[tokio::test]
async fn a_public_repo_is_asked_for_without_the_token() {
    let server = Server::start(|_| Reply::new(200).json(PUBLIC)).await;
    let found = hub().resolve(&access(&[server.as_hub()]), &repo(), &Revision::main()).await.unwrap();
    assert_eq!((found.commit, found.visibility, found.grant), (commit(), Visibility::Public, Grant::Anonymous));
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].has_token());
    assert_eq!(seen[0].target, "/api/models/acme/tiny/revision/main");
    assert_eq!(seen[0].header("user-agent"), Some(concat!("hffs/", env!("CARGO_PKG_VERSION"), "; rust")));
}

#[tokio::test]
async fn a_private_repo_is_asked_for_again_with_the_token_and_is_restricted() {
    let server = Server::start(private_page).await;
    let found = hub().resolve(&access(&[server.as_hub()]), &repo(), &Revision::main()).await.unwrap();
    assert_eq!((found.visibility, found.grant), (Visibility::Restricted, Grant::Token));
    let seen = server.seen();
    assert_eq!(
        seen.iter().map(|seen| seen.header("authorization")).collect::<Vec<_>>(),
        [None, Some("Bearer hf_canary")]
    );
}

#[tokio::test]
async fn what_the_token_opened_is_restricted_even_if_it_calls_itself_public() {
    let server = Server::start(|seen| match seen.has_token() {
        true => Reply::new(200).json(PUBLIC),
        false => says_no(404, "RepoNotFound"),
    })
    .await;
    let found = hub().resolve(&access(&[server.as_hub()]), &repo(), &Revision::main()).await.unwrap();
    assert_eq!((found.visibility, found.grant), (Visibility::Restricted, Grant::Token));
}

#[tokio::test]
async fn a_gated_repo_is_restricted_and_needs_the_token_for_its_files() {
    for (gated, grant) in [("\"auto\"", Grant::Token), ("\"manual\"", Grant::Token), ("null", Grant::Anonymous)] {
        let page = PUBLIC.replace("\"gated\":false", &format!("\"gated\":{gated}"));
        let server = Server::start(move |_| Reply::new(200).json(page.clone())).await;
        let found = hub().resolve(&access(&[server.as_hub()]), &repo(), &Revision::main()).await.unwrap();
        assert_eq!((found.visibility, found.grant), (Visibility::Restricted, grant), "{gated}");
        assert!(!server.seen()[0].has_token());
    }
}

#[tokio::test]
async fn a_mirror_never_sees_the_token() {
    let mirror = Server::start(|_| says_no(401, "GatedRepo")).await;
    let server = Server::start(private_page).await;
    let hub = hub();
    let access = access(&[mirror.as_mirror(), server.as_hub()]);
    let found = hub.resolve(&access, &repo(), &Revision::main()).await.unwrap();
    assert_eq!(found.endpoint, server.as_hub());
    assert_eq!(mirror.seen().len(), 1);
    assert!(!mirror.seen()[0].has_token());

    let _ = hub.tree(&access, &repo(), &commit(), Grant::Token).await;
    let place = bytes::place(b"secret", Grant::Token);
    assert!(matches!(
        hub.range(&access, &mirror.as_mirror(), &place, 0..6, Reading::Exact).await,
        Err(Error::Lacks { .. })
    ));
    assert_eq!(mirror.seen().len(), 1, "a mirror is not even told the names of what only the token opens");
    assert_eq!(hub.endpoints_for_data(&access, Grant::Token, Instant::now()), [server.as_hub()]);
}

#[tokio::test]
async fn the_token_follows_a_renamed_repo_on_its_own_origin() {
    let server = Server::start(|seen| match (seen.has_token(), seen.asks("new-name")) {
        (false, _) => says_no(401, "RepoNotFound"),
        (true, false) => Reply::redirect(307, "/api/models/acme/new-name/revision/main"),
        (true, true) => Reply::new(200).json(PUBLIC),
    })
    .await;
    let found = hub().resolve(&access(&[server.as_hub()]), &repo(), &Revision::main()).await.unwrap();
    assert_eq!(found.grant, Grant::Token);
}

#[tokio::test]
async fn the_token_does_not_pass_a_redirect_to_another_origin_nor_come_back_from_one() {
    // The way leads away and back again; both servers are on one host and differ in the port alone.
    let home = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let target = home.clone();
    let other = Server::start(move |_| Reply::redirect(302, format!("{}/back", target.get().unwrap()))).await;
    let away = other.url.clone();
    let server = Server::start(move |seen| match (seen.asks("/back"), seen.has_token()) {
        (true, _) => Reply::new(200).json(PUBLIC),
        (false, true) => Reply::redirect(302, format!("{away}/away")),
        (false, false) => says_no(401, "RepoNotFound"),
    })
    .await;
    home.set(server.url.clone()).unwrap();
    hub().resolve(&access(&[server.as_hub()]), &repo(), &Revision::main()).await.unwrap();
    assert_eq!(other.seen().len(), 1);
    assert!(!other.seen()[0].has_token());
    let back = server.seen().into_iter().find(|seen| seen.asks("/back")).unwrap();
    assert!(!back.has_token());
}

#[tokio::test]
async fn the_token_goes_to_the_endpoint_for_bytes_and_not_to_the_data_host() {
    let file = b"some bytes of a private file";
    let cdn = Server::start(|seen| Reply::file(file, seen)).await;
    let away = cdn.url.clone();
    let server = Server::start(move |seen| match seen.has_token() {
        true => Reply::redirect(302, format!("{away}/x?sig=1")),
        false => says_no(401, "GatedRepo"),
    })
    .await;
    let access = access(&[server.as_hub()]);
    let place = bytes::place(file, Grant::Token);
    let mut body = hub().range(&access, &server.as_hub(), &place, 5..10, Reading::Exact).await.unwrap();
    assert_eq!(body.next().await.unwrap().unwrap().1, "bytes");
    assert!(server.seen().iter().all(server::Seen::has_token));
    assert!(!cdn.seen().is_empty() && !cdn.seen().iter().any(server::Seen::has_token));
    assert!(cdn.seen().iter().all(|seen| seen.header("referer").is_none()));
}

#[tokio::test]
async fn a_repo_that_was_open_when_it_was_resolved_is_not_opened_with_the_token_later() {
    let server = Server::start(|_| says_no(401, "GatedRepo")).await;
    let access = access(&[server.as_hub()]);
    let place = bytes::place(b"abc", Grant::Anonymous);
    let error = hub().range(&access, &server.as_hub(), &place, 0..3, Reading::Exact).await.err().unwrap();
    assert!(matches!(error, Error::Gated { .. }));
    assert!(!server.seen().iter().any(server::Seen::has_token));
}

#[tokio::test]
async fn no_error_tells_the_token_or_a_signature() {
    let cdn = Server::start(|_| Reply::new(403)).await;
    let away = cdn.url.clone();
    let server = Server::start(move |_| Reply::redirect(302, format!("{away}/x?sig=hidden"))).await;
    let access = access(&[server.as_hub()]);
    let place = bytes::place(b"abc", Grant::Token);
    let error = hub().range(&access, &server.as_hub(), &place, 0..3, Reading::Exact).await.err().unwrap();
    let told = format!("{error} {error:?} {access:?}");
    assert!(!told.contains("hidden") && !told.contains(SECRET), "{told}");
}
