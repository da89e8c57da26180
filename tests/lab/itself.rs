//! The lab is what it says it is: cut cables carry nothing, slow ones are slow, and counters count.

use crate::kit::hub::{MIB, Repo, seeded};
use crate::kit::lab::Lab;
use crate::kit::node::Node;
use crate::kit::{secs, until};

/// Whether one machine's packets reach another, which refuses the connection and so answers.
fn reaches(from: &Node, to: &Node) -> bool {
    from.shell(&format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{}/9'", to.ip)).code == Some(1)
}

#[test]
fn the_lab_can_be_cut_slowed_and_counted() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.node("a"), lab.node("b"));
    let hub = lab.hub().with(Repo::model("org/m").lfs("w.bin", seeded(1, 4 * MIB)));
    until("machines reach each other", secs(5), || reaches(&a, &b));
    lab.part(&a, &b);
    assert!(!reaches(&a, &b) && !reaches(&b, &a));
    lab.unblock();
    lab.unplug(&b);
    assert!(!reaches(&a, &b));
    lab.plug(&b);
    until("machines reach each other again", secs(5), || reaches(&a, &b));

    let before = (lab.carried(&a), lab.carried_by_hub());
    let fetch = format!("curl -sLf -o /dev/null {}/org/m/resolve/main/w.bin", hub.url());
    a.shell(&fetch).ok();
    let received = lab.carried(&a).received - before.0.received;
    let sent = lab.carried_by_hub().sent - before.1.sent;
    let (payload, most) = (4 * MIB as u64, 5 * MIB as u64);
    assert!((payload..most).contains(&received) && (payload..most).contains(&sent), "{received} and {sent}");
    assert_eq!(hub.sent("w.bin"), payload);

    lab.rate(&a, "16mbit");
    let took = a.shell(&fetch).ok().took;
    assert!(took > secs(1), "2 MB/s let 4 MiB through in {took:?}");
}
