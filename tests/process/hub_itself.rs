//! The test Hub is what it says it is: its faults strike where they should, and its counters count.

use crate::kit::command::{self, Output};
use crate::kit::hub::{Fault, Host, MIB, Repo, TestHub, seeded, unique};
use crate::kit::{secs, until};

/// What `curl` makes of a line of arguments.
fn curl(line: &str) -> Output {
    let mut curl = std::process::Command::new("curl");
    command::start(curl.args(["-s", "--max-time", "5"]).args(line.split_whitespace())).wait(secs(20))
}

#[test]
fn faults_strike_where_and_as_often_as_they_should() {
    let content = seeded(7, 2 * MIB);
    let mut hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", content.clone()).file("a.json", "{}"));
    let url = format!("{}/org/m/resolve/main/w.bin", hub.url());
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let to = folder.path().join("got");
    let get = |more: &str| {
        let _ = std::fs::remove_file(&to);
        let code = curl(&format!("-L -f -o {} {more} {url}", to.display())).code;
        (code, std::fs::read(&to).unwrap_or_default())
    };
    assert!(get("") == (Some(0), content.to_vec()));
    assert!(get("-r 100-199") == (Some(0), content[100..200].to_vec()));

    hub.fault(Fault::Flip { offset: 1_000_000 }.file("w.bin").times(1));
    let spoilt = get("").1;
    let wrong: Vec<usize> = (0..content.len()).filter(|at| spoilt[*at] != content[*at]).collect();
    assert_eq!(wrong, [1_000_000]);
    assert!(get("").1 == content);

    hub.fault(Fault::CutAfter { bytes: 500_000 }.times(1));
    let (code, cut) = get("");
    assert!(code == Some(18) && cut[..] == content[..500_000], "code {code:?}, {} bytes", cut.len());
    hub.fault(Fault::ShortBody { bytes: 1000 }.times(1));
    assert!(get("") == (Some(0), content[..1000].to_vec()));
    hub.fault(Fault::IgnoreRange.times(1));
    assert!(get("-r 100-199").1.len() >= 100);
    hub.fault(Fault::StallAfter { bytes: 1000 }.times(1));
    assert_eq!(get("").0, Some(28));
    hub.fault(Fault::Rate { bytes_per_sec: 1 << 20 });
    let started = std::time::Instant::now();
    get("");
    assert!(started.elapsed() > secs(1), "2 MiB at 1 MiB/s took {:?}", started.elapsed());
    hub.heal();

    let location = |hub: &TestHub| {
        let head = curl(&format!("-I {}/org/m/resolve/main/w.bin", hub.url())).stdout;
        head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().trim().to_owned()
    };
    let old = location(&hub);
    assert_eq!(curl(&format!("-f -o /dev/null {old}")).code, Some(0));
    hub.expire_signatures();
    assert_eq!(curl(&format!("-f -o /dev/null {old}")).code, Some(22));
    assert_eq!(curl(&format!("-f -o /dev/null -H Authorization:x {}", location(&hub))).code, Some(22));
    assert_eq!(hub.tokens_seen(Host::Data).len(), 1);

    hub.refuse(Host::Api);
    assert_eq!(curl(&hub.url()).code, Some(7));
    hub.restore(Host::Api);
    assert!(get("").1 == content);
    hub.fault(Fault::Silent);
    assert_eq!(get("").0, Some(28));
}

#[test]
fn scripts_can_break_the_hub_too() {
    let mut hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", unique(MIB)));
    let (control, url) = (hub.control_url(), hub.url());
    let api = format!("-f -o /dev/null {url}/api/models/org/m");
    let json = "-H Content-Type:application/json -d";
    curl(&format!("-f {json} {{\"fault\":\"status\",\"status\":503,\"route\":\"info\"}} {control}/faults")).ok();
    assert_eq!(curl(&api).code, Some(22));
    curl(&format!("-f -X DELETE {control}/faults")).ok();
    curl(&api).ok();
    curl(&format!("-f -X POST {control}/api/refuse")).ok();
    hub.obey();
    assert_eq!(curl(&api).code, Some(7));
    curl(&format!("-f -X POST {control}/api/restore")).ok();
    hub.obey();
    until("it answers again", secs(5), || curl(&api).code == Some(0));
    curl(&format!("-f -L -o /dev/null {url}/org/m/resolve/main/w.bin")).ok();
    assert_eq!(curl(&format!("{control}/ledger")).ok().json()["sent_in_all"], MIB as u64);
}
