//! Bytes on their way, and what may happen to them.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_comes_out_as_it_went_in_to_the_byte() {
    let (a, b) = pair_of(Mood::Gives).await;
    let sink = Checked::default();
    let taken = a.handle.pieces(b.id(), stretch(0, FILE_BYTES), Box::new(sink.clone())).await.unwrap();
    assert_eq!((taken, sink.bytes.load(Ordering::Relaxed)), (FILE_BYTES, FILE_BYTES));

    // Odd stretches, many at once, over as many connections as there are by now.
    let odd = [(1, 1), (5, 262_144), (262_143, 2), (1 << 20, 5 << 20), (FILE_BYTES - 1, 1), (77, 8_000_003)];
    let sinks = odd.map(|_| Checked::default());
    let moves = odd.iter().zip(&sinks).map(|((start, len), sink)| {
        a.handle.pieces(b.id(), stretch(*start, *len), Box::new(sink.clone())).map(|taken| taken.unwrap())
    });
    let back = b.handle.pieces(a.id(), stretch(0, 16 << 20), Box::new(Checked::default())).map(Result::unwrap);
    let (taken, back) = futures::join!(futures::future::join_all(moves), back);
    assert_eq!(taken, odd.map(|(_, len)| len));
    assert_eq!(back, 16 << 20);
    assert!(a.handle.active().iter().any(|peer| peer.id == *b.id()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_reaches_the_caller_as_what_it_is() {
    let (a, busy) = pair_of(Mood::Busy).await;
    let misses = Node::with(Mood::Misses).await;
    a.pair(&misses).await.unwrap();
    let ask = |node: &Node| {
        let (handle, id) = (a.handle.clone(), node.id().clone());
        async move { handle.pieces(&id, stretch(0, 1 << 20), Box::new(Checked::default())).await.unwrap_err() }
    };
    let error = ask(&busy).await;
    assert!(matches!(error, Error::Busy { retry } if retry == Duration::from_millis(700)), "{error:?}");
    assert!(matches!(ask(&misses).await, Error::Missing));
    for (start, len) in [(0, 0), (FILE_BYTES, 1), (0, u64::MAX)] {
        let error = a.handle.pieces(busy.id(), stretch(start, len), Box::new(Checked::default())).await.unwrap_err();
        assert!(matches!(error, Error::BadRequest), "{error:?}");
    }
    assert!(!a.handle.active().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_or_a_long_thought_in_a_room_harms_nobody_else() {
    let (a, panics) = pair_of(Mood::Panics).await;
    let broods = Node::with(Mood::Broods).await;
    a.pair(&broods).await.unwrap();
    assert!(matches!(a.handle.query(panics.id(), Query::Hello).await, Err(Error::Gone)));
    let pieces = a.handle.pieces(panics.id(), stretch(0, 1), Box::new(Checked::default())).await;
    assert!(matches!(pieces, Err(Error::Gone)), "{pieces:?}");
    assert_eq!(a.handle.query(broods.id(), Query::Hello).await.unwrap(), Answer::Busy);
    // Both still answer what needs no thought: they are active, and ask us.
    assert!(panics.handle.query(a.id(), Query::Hello).await.is_ok());
    assert!(broods.handle.query(a.id(), Query::Hello).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_dies_on_the_way_is_gone_and_what_it_sent_was_right() {
    let (a, b) = pair_of(Mood::Gives).await;
    let (progress, mut told) = mpsc::unbounded_channel();
    let sink = Checked { progress: Some(progress), pause: Duration::from_millis(5), ..Checked::default() };
    let moving = a.handle.pieces(b.id(), stretch(0, FILE_BYTES), Box::new(sink.clone()));
    let dying = async {
        while told.recv().await.unwrap() < 4 << 20 {}
        b.handle.stop().await;
    };
    let (taken, ()) = futures::join!(moving, dying);
    assert!(matches!(taken, Err(Error::Gone)), "{taken:?}");
    assert!((4 << 20..FILE_BYTES).contains(&sink.bytes.load(Ordering::Relaxed)));
    a.sees_nobody_active().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_transfer_stops_and_frees_its_places() {
    let (a, b) = pair_of(Mood::Gives).await;
    for _ in 0..2 * limits::REQUESTS_PER_PEER_MAX {
        let (progress, mut told) = mpsc::unbounded_channel();
        let sink = Checked { progress: Some(progress), ..Checked::default() };
        let moving = a.handle.pieces(b.id(), stretch(0, FILE_BYTES), Box::new(sink.clone()));
        tokio::select! {
            ended = moving => panic!("it was to be cut short, not to end: {ended:?}"),
            first = told.recv() => assert!(first.unwrap() > 0),
        }
        // The sink is dropped with its transfer, and its channel with it.
        drop(sink);
        timeout(PATIENCE, async { while told.recv().await.is_some() {} }).await.unwrap();
    }
    // Both sides have all their places again.
    let whole = a.handle.pieces(b.id(), stretch(0, 8 << 20), Box::new(Checked::default()));
    assert_eq!(timeout(PATIENCE, whole).await.unwrap().unwrap(), 8 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_than_a_peer_may_have_are_busy_and_cost_nothing() {
    let (a, b) = pair_of(Mood::Broods).await;
    let calls = (0..3 * limits::REQUESTS_PER_PEER_MAX)
        .map(|_| a.handle.pieces(b.id(), stretch(0, 1), Box::new(Checked::default())));
    let outcomes = futures::future::join_all(calls).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::Busy { .. }))), "{outcomes:?}");
    assert_eq!(b.shelf.opened.load(Ordering::Relaxed), limits::REQUESTS_PER_PEER_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_stop_everything_says_so() {
    let (a, b) = pair_of(Mood::Gives).await;
    a.handle.stop().await;
    b.sees_nobody_active().await;
    assert!(matches!(a.handle.query(b.id(), Query::Hello).await, Err(Error::Stopped)));
    assert!(matches!(a.handle.pair(localhost(), 1).await, Err(Error::Stopped)));
    let pieces = a.handle.pieces(b.id(), stretch(0, 1), Box::new(Checked::default())).await;
    assert!(matches!(pieces, Err(Error::Stopped)));
}
