//! A lab of machines: network namespaces on one switch, whose cables can be pulled, slowed and listened to.
//!
//! Knows `ip`, `tc` and `nft`. Does not know hffs.
//! Invariant: everything it makes lies in namespaces named after this process and in one cable to the Hub, all of which
//! go when it is dropped; what a killed run left behind is swept by the next one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, io::Write as _, path::Path};

use super::command::{attempt, tool};
use super::hub::TestHub;
use super::node::Node;

/// Names begin so; the owner's process id follows.
const PREFIX: &str = "hffs-";

static LABS: AtomicU32 = AtomicU32::new(0);

/// Machines on a switch, with a Hub's place among them.
pub struct Lab {
    name: String,
    switch: String,
    /// The first three bytes of its IPv4 addresses.
    net: [u8; 3],
    cable: String,
    machines: u8,
    namespaces: Vec<String>,
    blocks: BTreeSet<String>,
}

impl Lab {
    /// A lab without machines. `None`, and a line that says so, where this user may not make one; on CI that is an
    /// error.
    pub fn new() -> Option<Self> {
        let lacking = lacking();
        if let Some(what) = lacking {
            println!("skipped: needs {what}");
            eprintln!("skipped: needs {what}");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must not skip the lab, and it lacks {what}");
            return None;
        }
        sweep();
        let number = std::process::id().wrapping_mul(8).wrapping_add(LABS.fetch_add(1, Ordering::Relaxed));
        let name = format!("{PREFIX}{}-{}", std::process::id(), number % 8);
        let mut lab = Self {
            switch: format!("{name}-switch"),
            name,
            net: free_net(number),
            cable: format!("hf{}", number % 1_000_000),
            machines: 0,
            namespaces: Vec::new(),
            blocks: BTreeSet::new(),
        };
        lab.build();
        Some(lab)
    }

    fn build(&mut self) {
        let switch = self.switch.clone();
        self.namespace(&switch);
        tool(&format!("ip -n {switch} link add br0 type bridge"));
        tool(&format!("ip -n {switch} link set br0 up"));
        tool(&format!("ip link add {} type veth peer name hub netns {switch}", self.cable));
        tool(&format!("ip -n {switch} link set hub master br0 up"));
        // Two addresses for a Hub and two for a mirror: metadata and data live on different hosts.
        for last in 1..=4 {
            tool(&format!("ip addr add {}/24 dev {}", self.ip(last), self.cable));
        }
        tool(&format!("ip link set {} up", self.cable));
        self.rules("add table bridge count\nadd chain bridge count c { type filter hook forward priority -10; }");
        self.rules("add table bridge block\nadd chain bridge block c { type filter hook forward priority 0; }");
        // The Hub's cable ends outside the lab, where other daemons may run; they are not to be found from here.
        self.rules(
            "add table bridge wall\nadd chain bridge wall c { type filter hook forward priority 0; }\n\
             add rule bridge wall c iifname \"hub\" udp dport 5353 drop\n\
             add rule bridge wall c oifname \"hub\" udp dport 5353 drop",
        );
    }

    fn namespace(&mut self, name: &str) {
        tool(&format!("ip netns add {name}"));
        self.namespaces.push(name.to_owned());
        tool(&format!("ip -n {name} link set lo up"));
    }

    fn ip(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, last)
    }

    /// A machine on the switch, without a Hub.
    pub fn node(&mut self, name: &str) -> Node {
        self.machines += 1;
        let (last, namespace) = (10 + self.machines, format!("{}-{name}", self.name));
        self.namespace(&namespace);
        tool(&format!("ip -n {} link add to-{name} type veth peer name eth0 netns {namespace}", self.switch));
        tool(&format!("ip -n {} link set to-{name} master br0 up", self.switch));
        tool(&format!("ip -n {namespace} addr add {}/24 dev eth0", self.ip(last)));
        tool(&format!("ip -n {namespace} addr add {}/64 dev eth0 nodad", self.ip6(last)));
        tool(&format!("ip -n {namespace} link set eth0 up"));
        Node::new(name, self.ip(last).into(), Some(namespace))
    }

    /// A second cable from a machine to the same switch, with an address of its own. Either one is enough: as on
    /// desktops, an unplugged cable is not taken for the way to anywhere.
    pub fn second_cable(&self, node: &Node) -> IpAddr {
        let IpAddr::V4(first) = node.ip else { panic!("machines have IPv4 addresses first") };
        let (port, ip) = (format!("{}2", port(node)), self.ip(first.octets()[3] + 100));
        let namespace = self.of(node);
        tool(&format!("ip -n {} link add {port} type veth peer name eth1 netns {namespace}", self.switch));
        tool(&format!("ip -n {} link set {port} master br0 up", self.switch));
        let heed = "net.ipv4.conf.all.ignore_routes_with_linkdown=1";
        tool(&format!("ip netns exec {namespace} sysctl -q -w {heed}"));
        tool(&format!("ip -n {namespace} addr add {ip}/24 dev eth1"));
        tool(&format!("ip -n {namespace} link set eth1 up"));
        ip.into()
    }

    fn of(&self, node: &Node) -> String {
        format!("{}-{}", self.name, node.name)
    }

    fn ip6(&self, last: u8) -> Ipv6Addr {
        let [_, b, c] = self.net;
        Ipv6Addr::new(0xfd00, b.into(), c.into(), 0, 0, 0, 0, last.into())
    }

    /// Teaches one machine a host name, as its administrator would.
    pub fn name(&self, node: &Node, host: &str, ip: IpAddr) {
        // `ip netns exec` lays the files of this folder over those of /etc.
        let folder = Path::new("/etc/netns").join(self.of(node));
        fs::create_dir_all(&folder).expect("a folder for a machine's own files");
        fs::write(folder.join("hosts"), format!("127.0.0.1 localhost\n{ip} {host}\n")).expect("a hosts file");
    }

    /// A machine's IPv6 address.
    pub fn ip6_of(&self, node: &Node) -> IpAddr {
        match node.ip {
            IpAddr::V4(ip) => self.ip6(ip.octets()[3]).into(),
            ip => ip,
        }
    }

    /// A Hub that the machines reach by its cable.
    pub fn hub(&self) -> TestHub {
        TestHub::start(self.ip(1).into())
    }

    /// A second Hub, for the part of a mirror.
    pub fn mirror(&self) -> TestHub {
        TestHub::start(self.ip(3).into())
    }

    // ---- what happens to the cables ------------------------------------------------------------

    /// Pulls a machine's cable: it loses its carrier.
    pub fn unplug(&self, node: &Node) {
        tool(&format!("ip -n {} link set {} down", self.switch, port(node)));
    }

    pub fn plug(&self, node: &Node) {
        tool(&format!("ip -n {} link set {} up", self.switch, port(node)));
    }

    /// Pulls the Hub's cable: its packets vanish, and nobody says so.
    pub fn unplug_hub(&self) {
        tool(&format!("ip -n {} link set hub down", self.switch));
    }

    pub fn plug_hub(&self) {
        tool(&format!("ip -n {} link set hub up", self.switch));
    }

    /// From now on the switch drops multicast, as careful or cheap ones do.
    pub fn drop_multicast(&mut self) {
        self.block("ip daddr 224.0.0.0/4 drop");
        // Neighbour discovery is multicast too, and IPv6 ends without it.
        self.block("ip6 daddr ff00::/8 udp dport 5353 drop");
    }

    /// Two machines no longer reach each other; packets vanish without a word.
    pub fn part(&mut self, one: &Node, other: &Node) {
        for (from, to) in [(one, other), (other, one)] {
            self.block(&format!("iifname \"{}\" oifname \"{}\" drop", port(from), port(to)));
        }
    }

    /// Ends what `drop_multicast` and `part` began.
    pub fn unblock(&mut self) {
        self.blocks.clear();
        self.apply_blocks();
    }

    fn block(&mut self, rule: &str) {
        self.blocks.insert(rule.to_owned());
        self.apply_blocks();
    }

    fn apply_blocks(&self) {
        let rules: Vec<String> = self.blocks.iter().map(|rule| format!("add rule bridge block c {rule}")).collect();
        self.rules(&format!("flush chain bridge block c\n{}", rules.join("\n")));
    }

    /// Both directions of a machine's cable carry at most this, in `tc`'s words, say `100mbit`.
    pub fn rate(&self, node: &Node, rate: &str) {
        self.tbf(&self.of(node), "eth0", rate);
        self.tbf(&self.switch, &port(node), rate);
    }

    /// The line to the Hub carries at most this.
    pub fn hub_rate(&self, rate: &str) {
        let burst = "burst 256kb latency 100ms";
        tool(&format!("tc qdisc replace dev {} root tbf rate {rate} {burst}", self.cable));
        self.tbf(&self.switch, "hub", rate);
    }

    fn tbf(&self, namespace: &str, device: &str, rate: &str) {
        let shape = format!("root tbf rate {rate} burst 256kb latency 100ms");
        tool(&format!("tc -n {namespace} qdisc replace dev {device} {shape}"));
    }

    // ---- what the cables carried ---------------------------------------------------------------

    /// Bytes that a machine has sent and received, every header and packet of them.
    pub fn carried(&self, node: &Node) -> Carried {
        carried(&format!("-n {}", self.switch), &port(node))
    }

    /// Bytes that the Hub's line has carried: `sent` by the Hub.
    pub fn carried_by_hub(&self) -> Carried {
        carried(&format!("-n {}", self.switch), "hub")
    }

    /// Counts, from now on, what one machine sends to another; `counted` reads it.
    pub fn count(&self, from: &Node, to: &Node) {
        let name = format!("{}_{}", from.name, to.name);
        self.rules(&format!(
            "add counter bridge count {name}\n\
             add rule bridge count c iifname \"{}\" oifname \"{}\" counter name {name}",
            port(from),
            port(to)
        ));
    }

    pub fn counted(&self, from: &Node, to: &Node) -> u64 {
        let name = format!("{}_{}", from.name, to.name);
        let text = tool(&format!("ip netns exec {} nft -j list counter bridge count {name}", self.switch));
        let value: serde_json::Value = serde_json::from_str(&text).expect("nft's JSON");
        let counters = value["nftables"].as_array().expect("nft's list");
        counters.iter().find_map(|item| item["counter"]["bytes"].as_u64()).expect("a counter")
    }

    fn rules(&self, text: &str) {
        let mut nft = Command::new("ip")
            .args(["netns", "exec", &self.switch, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nft");
        nft.stdin.take().expect("nft's input").write_all(text.as_bytes()).expect("nft reads");
        assert!(nft.wait().expect("nft ends").success(), "nft refused: {text}");
    }
}

/// The switch's end of a machine's cable.
fn port(node: &Node) -> String {
    format!("to-{}", node.name)
}

/// Bytes on a cable, from the machine's side of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    pub sent: u64,
    pub received: u64,
}

/// Reads a switch port's counters; what the port received is what the machine sent.
fn carried(place: &str, port: &str) -> Carried {
    let text = tool(&format!("ip {place} -s -j link show {port}"));
    let value: serde_json::Value = serde_json::from_str(&text).expect("ip's JSON");
    let bytes = |way: &str| value[0]["stats64"][way]["bytes"].as_u64().expect("a count of bytes");
    Carried { sent: bytes("rx"), received: bytes("tx") }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The cable goes with the switch's namespace, and the daemons went with their nodes.
        for namespace in &self.namespaces {
            clear(namespace);
        }
        attempt(&format!("ip link del {}", self.cable));
    }
}

/// Ends a namespace of ours and the processes in it.
fn clear(namespace: &str) {
    let inside = Command::new("ip").args(["netns", "pids", namespace]).output();
    for pid in String::from_utf8_lossy(&inside.map(|output| output.stdout).unwrap_or_default()).split_whitespace() {
        attempt(&format!("kill -KILL {pid}"));
    }
    attempt(&format!("ip netns del {namespace}"));
    let _ = fs::remove_dir_all(Path::new("/etc/netns").join(namespace));
}

/// Clears what runs that were killed have left.
fn sweep() {
    for namespace in tool("ip netns list").lines().filter_map(|line| line.split_whitespace().next()) {
        let owner = namespace.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            clear(namespace);
        }
    }
}

/// What this user or machine lacks for a lab.
fn lacking() -> Option<&'static str> {
    if !super::is_root() {
        return Some("root");
    }
    let found = |tool: &str| {
        std::env::var("PATH").unwrap_or_default().split(':').any(|folder| Path::new(folder).join(tool).exists())
    };
    [("ip", "ip (iproute2)"), ("tc", "tc (iproute2)"), ("nft", "nft (nftables)")]
        .into_iter()
        .find_map(|(tool, name)| (!found(tool)).then_some(name))
}

/// A /24 that this machine has no address in.
fn free_net(number: u32) -> [u8; 3] {
    for attempt in number..number + 64 {
        let bytes = (attempt % 16_384).to_be_bytes();
        let net = [10, 64 + bytes[2], bytes[3]];
        let text = tool(&format!("ip -o addr show to {}.{}.{}.0/24", net[0], net[1], net[2]));
        if text.trim().is_empty() {
            return net;
        }
    }
    panic!("every network that a lab could use is taken")
}
