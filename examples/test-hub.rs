//! The test Hub on its own, for scripts: serves made-up repos and prints where.
//!
//! `test-hub [--ip IP] [--size MIB] [--seed N] [--many N]` serves `org/model` with one large file of that size,
//! `org/small`, the dataset `org/data`, `org/odd` with names that not every system can have, and `org/many` with N files
//! of 10 KB; prints `hub URL` and `control URL` (see `tests/kit/hub/control.rs`), and runs until it is ended.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a tool of the tests")]

#[path = "../tests/kit/hub/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a part of the tests' kit, of which this uses a part"
)]
mod hub;

use std::net::IpAddr;
use std::time::Duration;

use hub::{MIB, Repo, TestHub, seeded};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1)).map(String::as_str)
    };
    let ip: IpAddr = option("--ip").unwrap_or("127.0.0.1").parse().expect("--ip takes an address");
    let size: usize = option("--size").unwrap_or("32").parse().expect("--size takes mebibytes");
    let seed: u64 = option("--seed").unwrap_or("1").parse().expect("--seed takes a number");

    let many: u64 = option("--many").unwrap_or("0").parse().expect("--many takes a number");

    let mut hub = TestHub::start(ip)
        .with(
            Repo::model("org/model")
                .file("config.json", r#"{"model_type": "test", "hidden_size": 8}"#)
                .file("tokenizer/vocab.json", r#"{"hello": 0, "world": 1}"#)
                .file("README.md", "# A model of a model\n")
                .lfs("model.safetensors", seeded(seed, size * MIB)),
        )
        .with(Repo::model("org/small").file("config.json", "{}").lfs("weights.bin", seeded(seed + 1, MIB)))
        .with(Repo::dataset("org/data").lfs("train.parquet", seeded(seed + 2, MIB)))
        .with(odd(Repo::model("org/odd")));
    if many > 0 {
        let small = |repo: Repo, n: u64| repo.file(&format!("{:02}/{n:05}.bin", n % 20), seeded(seed + 3 + n, 10_000));
        hub.put((0..many).fold(Repo::model("org/many"), small));
    }
    println!("hub {}", hub.url());
    println!("control {}", hub.control_url());
    loop {
        hub.obey();
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Windows has the first and the last of these, one of the second and third, and none of the others.
fn odd(repo: Repo) -> Repo {
    let deep = format!("{}end.txt", "deep/".repeat(60));
    let paths = ["ok.txt", "Notes.md", "notes.md", "why?.txt", "sub/a|b", "aux.txt", &deep];
    paths.into_iter().fold(repo, |repo, path| repo.file(path, path.to_owned()))
}
