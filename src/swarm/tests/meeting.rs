//! Who meets whom, and what they take each other for.

use super::*;
use libp2p::futures::StreamExt;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairing_in_one_direction_makes_both_active() {
    let (mut a, b) = pair_of(Mood::Gives).await;
    let seen = a.sees("the round-trip time", |peers| peers.iter().all(|peer| peer.rtt.is_some())).await;
    assert_eq!(seen.len(), 1);
    assert!(seen[0].paired && seen[0].trouble.is_none());
    assert_eq!(seen[0].via, [Via::Manual]);
    assert_eq!(seen[0].address, Some(format!("127.0.0.1:{}", b.port())));
    assert_eq!(seen[0].agent, Some(behaviour::agent()));

    let seen = b.handle.peers();
    assert_eq!(seen[0].via, [Via::Inbound]);
    assert!(!seen[0].paired, "that the other trusts us is no reason to trust it");

    // The daemon is told what to write down: last of all with the identity.
    let mut told = None;
    while let Ok(Event::Pairings(pairings)) = a.events.try_recv() {
        told = Some(pairings);
    }
    let pairing = Pairing { host: localhost(), port: b.port(), peer_id: Some(b.id().clone()) };
    assert_eq!(told, Some(vec![pairing]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_is_answered_and_tells_who_asked() {
    let (a, b) = pair_of(Mood::Gives).await;
    assert_eq!(a.handle.query(b.id(), Query::Hello).await.unwrap(), Answer::Hello { agent: "shelf".into() });
    assert_eq!(b.handle.query(a.id(), Query::PieceList { content: content() }).await.unwrap(), Answer::Unknown);
    let asked = |node: &Node| node.shelf.asked.lock().unwrap().first().cloned().unwrap();
    assert_eq!(asked(&b), Asker { peer: a.id().clone(), paired: false });
    assert_eq!(asked(&a), Asker { peer: b.id().clone(), paired: true });
    let nobody = Identity::generate();
    assert!(matches!(a.handle.query(nobody.peer_id(), Query::Hello).await, Err(Error::Gone)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_starts_later_or_again_is_found_in_time() {
    let a = Node::start().await;
    let late = Node::start().await;
    let port = late.port();
    let identity = late.identity.clone();
    late.handle.stop().await;
    // Nobody answers there now; the pairing stays.
    assert_eq!(a.handle.pair(localhost(), port).await.unwrap(), None);
    let shown = a.handle.peers();
    assert_eq!((shown.len(), shown[0].active, shown[0].peer_id.clone()), (1, false, None));

    let again = Node::again(identity.clone(), Some(port), Vec::new(), Mood::Gives).await;
    let start = Instant::now();
    a.sees_active(again.id()).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());

    again.handle.stop().await;
    a.sees_nobody_active().await;
    let again = Node::again(identity, Some(port), Vec::new(), Mood::Gives).await;
    let start = Instant::now();
    a.sees_active(again.id()).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_identity_at_a_paired_address_is_loud_and_not_active() {
    let (a, b) = pair_of(Mood::Gives).await;
    let port = b.port();
    b.handle.stop().await;
    a.sees_nobody_active().await;
    let other = Node::again(Identity::generate(), Some(port), Vec::new(), Mood::Gives).await;
    let seen = a.sees("trouble", |peers| peers[0].trouble.as_ref().is_some_and(|t| t.contains("CHANGED"))).await;
    assert_eq!(seen[0].peer_id, Some(b.id().clone()));
    assert!(a.handle.active().is_empty());
    assert!(matches!(a.handle.pair(localhost(), port).await, Err(Error::Changed { .. })));

    // Only the user can say that it is right.
    assert_eq!(a.handle.unpair(localhost(), Some(port)).await.unwrap().len(), 1);
    assert_eq!(a.handle.pair(localhost(), port).await.unwrap(), Some(other.id().clone()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ourselves_are_no_peer() {
    let a = Node::start().await;
    let address = format!("127.0.0.1:{}", a.port());
    match a.pair(&a).await {
        Err(Error::Ourselves { address: told }) => assert_eq!(told, address),
        other => panic!("{other:?}"),
    }
    assert!(a.handle.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_does_not_exist_is_an_error_and_not_kept() {
    let a = Node::start().await;
    // Reserved to exist nowhere (RFC 2606); a name server that does not answer comes to the same.
    let host: Host = "no-such-host.invalid".parse().unwrap();
    assert!(matches!(a.handle.pair(host, 9009).await, Err(Error::Unresolved { .. })));
    assert!(a.handle.peers().is_empty());
}

#[derive(NetworkBehaviour)]
struct Stranger {
    identify: libp2p::identify::Behaviour,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_libp2p_program_is_hung_up_on_and_never_listed() {
    let a = Node::start().await;
    let key = libp2p::identity::Keypair::generate_ed25519();
    let identify = libp2p::identify::Config::new("/ipfs/0.1.0".into(), key.public());
    let behaviour = Stranger { identify: libp2p::identify::Behaviour::new(identify) };
    let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(PATIENCE);
    let mut stranger = Swarm::new(transport::build(&key).unwrap(), behaviour, key.public().to_peer_id(), config);
    let there = address::multiaddr(SocketAddr::from(([127, 0, 0, 1], a.port())));
    stranger.dial(there.clone()).unwrap();
    let closed = async {
        loop {
            if let libp2p::swarm::SwarmEvent::ConnectionClosed { .. } = stranger.select_next_some().await {
                return;
            }
        }
    };
    timeout(PATIENCE, closed).await.unwrap();
    assert!(a.handle.peers().is_empty());
    // It is remembered: the next connection does not outlive its handshake.
    stranger.dial(there).unwrap();
    let closed = async {
        loop {
            match stranger.select_next_some().await {
                libp2p::swarm::SwarmEvent::ConnectionClosed { .. }
                | libp2p::swarm::SwarmEvent::OutgoingConnectionError { .. } => return,
                _ => {}
            }
        }
    };
    timeout(PATIENCE, closed).await.unwrap();
    assert!(a.handle.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairing_with_something_that_is_not_hffs_says_so() {
    let a = Node::start().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = other.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        }
    });
    assert_eq!(a.handle.pair(localhost(), port).await.unwrap(), None);
    assert_eq!(a.handle.peers()[0].trouble.as_deref(), Some("does not answer"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_struck_peer_is_gone_and_not_let_in_again() {
    let (a, b) = pair_of(Mood::Gives).await;
    a.handle.strike(b.id(), Offence::WrongBytes).await;
    a.sees_nobody_active().await;
    b.sees_nobody_active().await;
    assert!(a.handle.peers()[0].trouble.as_ref().unwrap().contains("wrong bytes"));
    assert!(matches!(a.handle.query(b.id(), Query::Hello).await, Err(Error::Gone)));
    // The other side pairs, too, and is not let in.
    assert_eq!(b.pair(&a).await.unwrap(), None);
    assert!(a.handle.active().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_survives_a_panic_of_its_task() {
    let (a, b) = pair_of(Mood::Gives).await;
    let port = a.port();
    a.handle.commands.send(Command::Panic).await.unwrap();
    b.sees_nobody_active().await;
    a.sees_active(b.id()).await;
    assert_eq!(a.handle.query(b.id(), Query::Hello).await.unwrap(), Answer::Hello { agent: "shelf".into() });
    assert_eq!(a.port(), port);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_an_error_if_it_was_asked_for() {
    let a = Node::start().await;
    let identity = Identity::generate();
    let shelf = Arc::clone(&a.shelf) as Arc<dyn Serve>;
    let options = |port| Options {
        identity: identity.clone(),
        port,
        pairings: Vec::new(),
        discovery: Discovery::Off,
        lines: Lines::default(),
    };
    let taken = start(options(Some(a.port())), Arc::clone(&shelf), mpsc::channel(1).0).await;
    assert!(matches!(taken.err(), Some(Error::PortTaken { port }) if port == a.port()));
    let first = start(options(None), Arc::clone(&shelf), mpsc::channel(1).0).await.unwrap();
    let second = start(options(None), shelf, mpsc::channel(1).0).await.unwrap();
    assert_ne!(first.listening()[0].port(), second.listening()[0].port());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_whose_line_is_cut_without_a_word_is_noticed_in_time() {
    let (a, b) = (Node::start().await, Node::start().await);
    // A cable between the two, which passes bytes on until it is cut, and says nothing then.
    let cable = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, target) = (cable.local_addr().unwrap().port(), b.port());
    let (cut, is_cut) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((near, _)) = cable.accept().await {
            let far = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(pass(near_in, far_out, is_cut.clone()));
            tokio::spawn(pass(far_in, near_out, is_cut.clone()));
        }
    });
    assert_eq!(a.handle.pair(localhost(), port).await.unwrap(), Some(b.id().clone()));
    b.sees_active(a.id()).await;
    cut.send(true).unwrap();
    let start = Instant::now();
    a.sees_nobody_active().await;
    b.sees_nobody_active().await;
    assert!(start.elapsed() < Duration::from_secs(15), "noticed after {:?}", start.elapsed());
    cut.send(false).unwrap();
    let start = Instant::now();
    a.sees_active(b.id()).await;
    assert!(start.elapsed() < Duration::from_secs(10), "back after {:?}", start.elapsed());
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut is_cut: tokio::sync::watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(len) = from.read(&mut bytes).await {
        let _ = is_cut.wait_for(|cut| !cut).await;
        if len == 0 || to.write_all(&bytes[..len]).await.is_err() {
            return;
        }
    }
}
