//! What a file costs over one TCP connection with nothing around it but encryption and a hash: the yardstick of `scripts/bench.sh`.
//!
//! `plain-tcp give ADDRESS FILE` sends the file to everyone who connects; `plain-tcp take ADDRESS COPY` writes it and
//! prints its sha256. Records of 64 KiB, each sealed with ChaCha20-Poly1305, one system call each, in buffers that begin
//! at a page: the least that a program can do with blocking calls. The key is known to everybody, because the price of
//! encryption is all that is wanted here.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a tool of the measurements")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};

const RECORD: usize = 64 << 10;
const TAG: usize = 16;
const PAGE: usize = 4_096;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["give", address, file] => {
            let listener = TcpListener::bind(address).expect("an address to listen on");
            for stream in listener.incoming() {
                give(stream.expect("a connection"), file);
            }
        }
        ["take", address, copy] => {
            let sum = take(TcpStream::connect(address).expect("a connection"), copy);
            println!("{}", sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
        _ => println!("usage: plain-tcp give|take ADDRESS FILE"),
    }
}

fn give(mut to: TcpStream, file: &str) {
    let mut file = File::open(file).expect("the file");
    let size = file.metadata().expect("its size").len();
    to.write_all(&size.to_be_bytes()).expect("room for the size");
    let (key, mut room) = (key(), vec![0; RECORD + TAG + PAGE]);
    let buffer = paged(&mut room);
    for (number, len) in records(size) {
        file.read_exact(&mut buffer[..len]).expect("the file's bytes");
        let tag = key.seal_in_place_separate_tag(nonce(number), Aad::empty(), &mut buffer[..len]).expect("a record");
        buffer[len..len + TAG].copy_from_slice(tag.as_ref());
        to.write_all(&buffer[..len + TAG]).expect("a taker who listens");
    }
}

fn take(mut from: TcpStream, copy: &str) -> [u8; 32] {
    let mut size = [0; 8];
    from.read_exact(&mut size).expect("the size");
    let mut file = File::create(copy).expect("a place for the copy");
    let (key, mut sum, mut room) = (key(), Sha256::new(), vec![0; RECORD + TAG + PAGE]);
    let buffer = paged(&mut room);
    for (number, len) in records(u64::from_be_bytes(size)) {
        from.read_exact(&mut buffer[..len + TAG]).expect("a whole record");
        let plain = key.open_in_place(nonce(number), Aad::empty(), &mut buffer[..len + TAG]).expect("a true record");
        file.write_all(plain).expect("room on the disk");
        sum.update(&*plain);
    }
    sum.finalize().into()
}

/// Number and length of each record of a file.
fn records(size: u64) -> impl Iterator<Item = (u64, usize)> {
    let length = move |number| usize::try_from(size - number * RECORD as u64).map_or(RECORD, |left| left.min(RECORD));
    (0..size.div_ceil(RECORD as u64)).map(move |number| (number, length(number)))
}

fn key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).expect("a key of the right length"))
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// The part of a buffer that begins at a page: unaligned ones cost the kernel twice the time.
fn paged(room: &mut [u8]) -> &mut [u8] {
    let start = room.as_ptr().align_offset(PAGE);
    &mut room[start..start + RECORD + TAG]
}
