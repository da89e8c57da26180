//! Unfinished files are held against crashes, damage and a full disk. Each test works on real files.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::digest::{Hasher, PieceHash, PieceHasher};
use crate::limits::{self, MIB};
use crate::piece::PieceList;

/// A cache folder, and a file that is to be written in it.
struct Scene {
    hub: TempDir,
    bytes: Vec<u8>,
    content: Content,
}

fn scene(size: usize) -> Scene {
    let bytes: Vec<u8> = (0..size).map(|at| (at * 31 + (at >> 13) * 7 + at / 1021) as u8).collect();
    let content = Content { digest: sha256(&bytes), size: size as u64 };
    Scene { hub: tempfile::tempdir().unwrap(), bytes, content }
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Digest::Sha256([0; 32]), bytes.len() as u64);
    hasher.update(bytes);
    hasher.verify(()).unwrap_err().found
}

fn node(letter: char) -> PeerId {
    letter.to_string().repeat(44).parse().unwrap()
}

fn repo(name: &str) -> Repo {
    Repo { kind: Default::default(), id: format!("org/{name}").parse().unwrap() }
}

fn blake3(bytes: &[u8]) -> PieceHash {
    let mut hasher = PieceHasher::new();
    hasher.update(bytes);
    hasher.finish()
}

impl Scene {
    fn open(&self) -> Partials {
        Partials::open(self.hub.path(), &node('A')).unwrap()
    }

    fn piece(&self, piece: u32) -> &[u8] {
        let range = Cut::new(self.content.size).bytes(&(piece..piece + 1));
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn bring(&self, partial: &Partial, piece: u32) {
        partial.write_at(partial.cut().bytes(&(piece..piece + 1)).start, self.piece(piece)).unwrap();
        partial.note(piece, blake3(self.piece(piece)), "hub").unwrap();
    }

    fn path(&self, repo: &Repo, ending: &str) -> PathBuf {
        let name = format!("{}-{}.{ending}", self.content.digest, node('A').short());
        self.hub.path().join(repo.folder()).join(FOLDER).join(name)
    }
}

#[test]
fn a_file_written_in_any_order_is_sealed() {
    let scene = scene(5 * MIB as usize + 17);
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    for piece in [3, 0, 5, 1, 4, 2] {
        assert!(matches!(partial.seal(), Err(SealError::Missing { .. })));
        partial.advance().unwrap();
        scene.bring(&partial, piece);
    }
    assert!(partial.have().is_full());
    let sealed = partial.seal().unwrap();
    assert_eq!(sealed.digest(), scene.content.digest);
    assert_eq!(fs::read(&sealed.get().path).unwrap(), scene.bytes);
    let hashes = (0..6).map(|piece| blake3(scene.piece(piece))).collect();
    assert_eq!(Some(sealed.get().pieces.clone()), PieceList::new(hashes, partial.cut()));
}

#[test]
fn files_of_no_byte_and_of_one_piece_are_sealed_without_a_journal() {
    for size in [0, 1, 10_000, MIB as usize] {
        let scene = scene(size);
        let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
        if size > 0 {
            scene.bring(&partial, 0);
        }
        let sealed = partial.seal().unwrap();
        assert_eq!(fs::read(&sealed.get().path).unwrap(), scene.bytes);
        assert_eq!(sealed.get().scraps, [] as [PathBuf; 0]);
        assert!(!scene.path(&repo("a"), "journal").exists());
    }
}

#[test]
fn git_blob_digests_are_sealed_too() {
    let scene = scene(0);
    // `git hash-object` of five bytes.
    let content = Content { digest: "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0".parse().unwrap(), size: 5 };
    let partial = scene.open().claim(&repo("a"), &content).unwrap();
    partial.write_at(0, b"hello").unwrap();
    partial.note(0, blake3(b"hello"), "hub").unwrap();
    assert_eq!(partial.seal().unwrap().digest(), content.digest);
}

#[test]
fn nothing_is_written_after_the_seal() {
    let scene = scene(MIB as usize + 5);
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    (0..2).for_each(|piece| scene.bring(&partial, piece));
    let _sealed = partial.seal().unwrap();
    assert!(matches!(partial.write_at(0, b"x"), Err(Error::Closed { .. })));
    assert!(matches!(partial.note(0, blake3(b"x"), "hub"), Err(Error::Closed { .. })));
    assert!(matches!(partial.seal(), Err(SealError::Disk(Error::Closed { .. }))));
    assert!(matches!(partial.discard(), Err(Error::Closed { .. })));
}

#[test]
fn a_complete_piece_is_not_written_to_and_nothing_is_beyond_the_end() {
    let scene = scene(2 * MIB as usize + 5);
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    scene.bring(&partial, 1);
    for offset in [MIB, 2 * MIB - 1, MIB - 1] {
        assert!(matches!(partial.write_at(offset, b"xx"), Err(Error::Noted { piece: 1, .. })));
    }
    assert!(matches!(partial.note(1, blake3(b"x"), "hub"), Err(Error::Noted { piece: 1, .. })));
    assert!(matches!(partial.write_at(2 * MIB + 4, b"xx"), Err(Error::Outside { .. })));
    assert!(matches!(partial.write_at(u64::MAX, b"xx"), Err(Error::Outside { .. })));
    assert!(matches!(partial.note(3, blake3(b"x"), "hub"), Err(Error::Outside { .. })));
    partial.write_at(0, b"xx").unwrap();
}

#[test]
fn a_digest_is_claimed_once_at_a_time_until_the_sealed_file_is_dropped() {
    let scene = scene(10);
    let partials = scene.open();
    let partial = partials.claim(&repo("a"), &scene.content).unwrap();
    assert!(matches!(partials.claim(&repo("b"), &scene.content), Err(Error::Claimed { .. })));
    assert!(Arc::ptr_eq(&partials.claimed(&scene.content.digest).unwrap(), &partial));
    scene.bring(&partial, 0);
    let sealed = partial.seal().unwrap();
    drop(partial);
    assert!(matches!(partials.claim(&repo("b"), &scene.content), Err(Error::Claimed { .. })));
    drop(sealed);
    assert!(partials.claimed(&scene.content.digest).is_none());
    partials.claim(&repo("b"), &scene.content).unwrap();
}

#[test]
fn an_unfinished_file_is_resumed_from_another_repo() {
    let scene = scene(4 * MIB as usize);
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    assert_eq!(partial.resumed_bytes(), 0);
    scene.bring(&partial, 2);
    scene.bring(&partial, 0);
    drop(partial);

    let partials = scene.open();
    let unfinished = Unfinished { repo: repo("a"), content: scene.content, bytes: 2 * MIB };
    assert_eq!(partials.unfinished(), [unfinished]);
    let partial = partials.claim(&repo("b"), &scene.content).unwrap();
    assert_eq!(partial.resumed_bytes(), 2 * MIB);
    assert_eq!(partial.have().iter().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(partial.noted(2), Some((blake3(scene.piece(2)), "hub".to_owned())));
    scene.bring(&partial, 1);
    assert_eq!(partials.unfinished()[0].bytes, 3 * MIB);
    scene.bring(&partial, 3);
    let sealed = partial.seal().unwrap();
    assert_eq!(sealed.get().path, scene.path(&repo("a"), "data"));
    assert_eq!(sealed.get().scraps, [scene.path(&repo("a"), "journal")]);
    assert_eq!(fs::read(&sealed.get().path).unwrap(), scene.bytes);
}

#[test]
fn a_file_that_was_sealed_but_not_published_is_picked_up_whole() {
    let scene = scene(3 * MIB as usize);
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    (0..3).for_each(|piece| scene.bring(&partial, piece));
    drop(partial.seal().unwrap());
    drop(partial);
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    assert_eq!(partial.resumed_bytes(), 3 * MIB);
    partial.seal().unwrap();
}

#[test]
fn a_journal_cut_at_any_byte_resumes_what_its_whole_lines_say() {
    let scene = scene(3 * MIB as usize);
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    (0..3).for_each(|piece| scene.bring(&partial, piece));
    drop(partial);
    let path = scene.path(&repo("a"), "journal");
    let data = scene.path(&repo("a"), "data");
    let journal = fs::read(&path).unwrap();
    for cut in 0..=journal.len() {
        fs::write(&path, &journal[..cut]).unwrap();
        fs::write(&data, &scene.bytes).unwrap();
        let whole = journal[..cut].iter().filter(|&&byte| byte == b'\n').count() as u32;
        let partials = scene.open();
        let partial = partials.claim(&repo("a"), &scene.content).unwrap();
        assert_eq!(partial.have().len(), whole.saturating_sub(1), "cut at {cut}");
        // Whatever was lost can be written again on top of what was resumed.
        for piece in 0..3 {
            if !partial.have().contains(piece) {
                scene.bring(&partial, piece);
            }
        }
        partial.seal().unwrap();
    }
}

#[test]
fn pieces_whose_bytes_are_not_those_of_the_journal_are_not_believed() {
    let scene = scene(4 * MIB as usize);
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    (0..4).for_each(|piece| scene.bring(&partial, piece));
    disk::write_all_at(&partial.file(), b"rot", 2 * MIB + 99).unwrap();
    drop(partial);
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    assert_eq!(partial.have().iter().collect::<Vec<_>>(), [0, 1, 3]);
    drop(partial);
    // The journal that was written at the resume does not bring the piece back.
    disk::write_all_at(&File::options().write(true).open(scene.path(&repo("a"), "data")).unwrap(), b"x", 0).unwrap();
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    assert_eq!(partial.have().iter().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_file_of_another_size_or_with_a_second_name_is_begun_anew() {
    // Not every user of Windows may make a symlink.
    let spoils = ["shorter", "longer", "linked", "gone", "symlink"];
    for spoil in spoils.into_iter().take(if cfg!(windows) { 4 } else { 5 }) {
        let scene = scene(2 * MIB as usize);
        let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
        scene.bring(&partial, 0);
        drop(partial);
        let data = scene.path(&repo("a"), "data");
        let other = scene.hub.path().join("other");
        match spoil {
            "shorter" => File::options().write(true).open(&data).unwrap().set_len(5).unwrap(),
            "longer" => File::options().write(true).open(&data).unwrap().set_len(5 * MIB).unwrap(),
            "linked" => fs::hard_link(&data, &other).unwrap(),
            "symlink" => {
                fs::rename(&data, &other).unwrap();
                disk::symlink(&other, &data).unwrap();
            }
            _ => fs::remove_file(&data).unwrap(),
        }
        let before = fs::read(&other).ok();
        let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
        assert_eq!(partial.resumed_bytes(), 0, "{spoil}");
        (0..2).for_each(|piece| scene.bring(&partial, piece));
        assert_eq!(fs::read(partial.seal().unwrap().get().path.clone()).unwrap(), scene.bytes);
        assert_eq!(fs::read(&other).ok(), before, "{spoil}");
    }
}

#[test]
fn foreign_journals_and_other_daemons_files_are_no_ground_to_stand_on() {
    let scene = scene(2 * MIB as usize);
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    scene.bring(&partial, 0);
    drop(partial);
    let other = Partials::open(scene.hub.path(), &node('B')).unwrap();
    assert_eq!(other.unfinished(), []);
    assert_eq!(other.claim(&repo("a"), &scene.content).unwrap().resumed_bytes(), 0);
    assert_eq!(scene.open().unfinished().len(), 1);
    fs::write(scene.path(&repo("a"), "journal"), "hffs-partial 2 of the future\n").unwrap();
    let partials = scene.open();
    assert_eq!(partials.unfinished(), []);
    assert!(!scene.path(&repo("a"), "data").exists());
    assert_eq!(partials.claim(&repo("a"), &scene.content).unwrap().resumed_bytes(), 0);
}

#[test]
fn opening_sweeps_away_what_cannot_be_resumed_and_nothing_else() {
    let scene = scene(10);
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    let folder = scene.hub.path().join(repo("a").folder()).join(FOLDER);
    let stray = scene.path(&repo("a"), "journal");
    let foreign =
        ["x.data", "new-abc", &format!("{}-ABCDEFGH.data", scene.content.digest)].map(|name| folder.join(name));
    for path in foreign.iter().chain([&stray]) {
        fs::write(path, "x").unwrap();
    }
    drop(partial);
    scene.open();
    assert!(!stray.exists() && !scene.path(&repo("a"), "data").exists());
    assert!(foreign.iter().all(|path| path.exists()));
}

#[test]
fn a_forgotten_piece_is_hashed_anew_wherever_the_watermark_stands() {
    let pieces = 2 * limits::HASH_MARK_PIECES + 3;
    let scene = scene(pieces as usize * MIB as usize);
    for wrong in [0, 63, 64, 130] {
        let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
        for piece in 0..pieces {
            if piece == wrong {
                partial.write_at(u64::from(piece) * MIB, &vec![0xee; MIB as usize]).unwrap();
                partial.note(piece, blake3(&vec![0xee; MIB as usize]), "liar").unwrap();
            } else if !partial.have().contains(piece) {
                scene.bring(&partial, piece);
            }
        }
        partial.advance().unwrap();
        let error = partial.seal().unwrap_err();
        assert!(matches!(error, SealError::Mismatch { forgotten, .. } if forgotten.is_empty()));
        partial.advance().unwrap();
        assert_eq!(partial.noted(wrong).unwrap().1, "liar");
        partial.forget(wrong).unwrap();
        assert_eq!(partial.noted(wrong), None);
        partial.advance().unwrap();
        scene.bring(&partial, wrong);
        fs::remove_file(partial.seal().unwrap().get().path.clone()).unwrap();
    }
}

#[test]
fn a_seal_that_fails_forgets_the_pieces_that_rotted_on_disk() {
    let scene = scene(4 * MIB as usize);
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    (0..4).for_each(|piece| scene.bring(&partial, piece));
    disk::write_all_at(&partial.file(), b"rot", 3 * MIB).unwrap();
    let error = partial.seal().unwrap_err();
    assert!(matches!(error, SealError::Mismatch { forgotten, .. } if forgotten == [3]));
    scene.bring(&partial, 3);
    partial.seal().unwrap();
}

#[test]
fn hashing_goes_on_while_pieces_are_written_and_forgotten() {
    let scene = scene(40 * MIB as usize);
    let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                partial.advance().unwrap();
            }
        });
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (partial, scene) = (&partial, &scene);
                scope.spawn(move || {
                    for piece in (writer..40).step_by(4) {
                        partial.write_at(u64::from(piece) * MIB, &[7; 4096]).unwrap();
                        partial.note(piece, blake3(b"wrong"), "liar").unwrap();
                        partial.forget(piece).unwrap();
                        scene.bring(partial, piece);
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    partial.seal().unwrap();
}

#[test]
fn what_is_discarded_is_gone_and_may_be_begun_anew() {
    let scene = scene(2 * MIB as usize);
    let partials = scene.open();
    let partial = partials.claim(&repo("a"), &scene.content).unwrap();
    scene.bring(&partial, 0);
    partial.discard().unwrap();
    assert!(matches!(partial.write_at(0, b"x"), Err(Error::Closed { .. })));
    drop(partial);
    assert_eq!(partials.unfinished(), []);
    assert!(!scene.path(&repo("a"), "data").exists() && !scene.path(&repo("a"), "journal").exists());
    assert_eq!(partials.claim(&repo("a"), &scene.content).unwrap().resumed_bytes(), 0);
}

#[test]
fn a_repos_unfinished_files_are_discarded_unless_somebody_writes_them() {
    let scene = scene(2 * MIB as usize);
    let partials = scene.open();
    let partial = partials.claim(&repo("a"), &scene.content).unwrap();
    scene.bring(&partial, 0);
    assert_eq!(partials.discard_repo(&repo("a")), 0);
    drop(partial);
    assert_eq!(partials.discard_repo(&repo("b")), 0);
    assert_eq!(partials.discard_repo(&repo("a")), 2 * MIB);
    assert_eq!(partials.unfinished(), []);
    assert!(!scene.hub.path().join(repo("a").folder()).exists());
}

#[cfg(unix)]
#[test]
fn nothing_is_written_through_a_symlink_in_place_of_a_folder() {
    let scene = scene(2 * MIB as usize);
    let outside = tempfile::tempdir().unwrap();
    let folder = scene.hub.path().join(repo("a").folder());
    fs::create_dir(&folder).unwrap();
    disk::symlink(outside.path(), &folder.join(FOLDER)).unwrap();
    let error = scene.open().claim(&repo("a"), &scene.content).unwrap_err();
    assert!(matches!(error, Error::InTheWay { path } if path == folder.join(FOLDER)));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_claim_that_the_disk_has_no_room_for_leaves_nothing_behind() {
    let scene = scene(10);
    let partials = scene.open();
    let huge = Content { digest: scene.content.digest, size: limits::FILE_BYTES_MAX };
    let error = partials.claim(&repo("a"), &huge).unwrap_err();
    assert!(matches!(error, Error::Full { needed, .. } if needed == limits::FILE_BYTES_MAX), "{error}");
    assert!(!scene.path(&repo("a"), "data").exists());
    partials.claim(&repo("a"), &scene.content).unwrap();
}

/// Mounts a file system of a few MiB, if the test runs as a user that may.
#[cfg(target_os = "linux")]
struct SmallDisk(TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "hffs-test"])
            .arg(folder.path())
            .output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_loses_no_piece_and_goes_on_once_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        #[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
        {
            eprintln!("skipped: needs root");
        }
        return;
    };
    let scene = scene(4 * MIB as usize);
    let partials = Partials::open(disk.0.path(), &node('A')).unwrap();
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![1; 5 * MIB as usize]).unwrap();
    assert!(matches!(partials.claim(&repo("a"), &scene.content), Err(Error::Full { .. })));
    fs::remove_file(&ballast).unwrap();

    let partial = partials.claim(&repo("a"), &scene.content).unwrap();
    scene.bring(&partial, 0);
    // This small disk is memory, where nothing is reserved, so somebody else can take the space.
    fs::write(&ballast, vec![1; 8 * MIB as usize]).unwrap_err();
    assert!(matches!(partial.write_at(MIB, scene.piece(1)), Err(Error::Full { .. })));
    fs::remove_file(&ballast).unwrap();
    for piece in 1..4 {
        partial.write_at(u64::from(piece) * MIB, scene.piece(piece)).unwrap();
    }
    fs::write(&ballast, vec![1; 8 * MIB as usize]).unwrap_err();
    let label = "a long label to fill the journal's page ".repeat(3);
    let mut full = false;
    for _ in 0..100 {
        full |= matches!(partial.note(1, blake3(scene.piece(1)), &label), Err(Error::Full { .. }));
        full |= matches!(partial.forget(1), Err(Error::Full { .. }));
    }
    assert!(full);
    fs::remove_file(&ballast).unwrap();
    (1..4).for_each(|piece| partial.note(piece, blake3(scene.piece(piece)), "hub").unwrap());
    drop(partial);
    let partial = Partials::open(disk.0.path(), &node('A')).unwrap().claim(&repo("a"), &scene.content).unwrap();
    assert!(partial.have().is_full());
    partial.seal().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Damages the data and the journal at will, and asks that no wrong byte ever gets through.
    #[test]
    fn no_damage_to_an_unfinished_file_gets_past_the_resume(
        brought in proptest::collection::btree_set(0u32..3, 0..=3),
        flips in proptest::collection::vec((0usize..3 * MIB as usize, any::<u8>()), 0..4),
        scars in proptest::collection::vec((0usize..300, any::<u8>()), 0..4),
    ) {
        let scene = scene(3 * MIB as usize - 100);
        let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
        for &piece in &brought {
            scene.bring(&partial, piece);
        }
        drop(partial);
        let damage = |path: PathBuf, changes: &[(usize, u8)]| {
            let mut bytes = fs::read(&path).unwrap();
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(*at) {
                    *place = *byte;
                }
            }
            fs::write(&path, bytes).unwrap();
        };
        damage(scene.path(&repo("a"), "data"), &flips);
        damage(scene.path(&repo("a"), "journal"), &scars);
        let partial = scene.open().claim(&repo("a"), &scene.content).unwrap();
        let have: BTreeSet<u32> = partial.have().iter().collect();
        let on_disk = fs::read(scene.path(&repo("a"), "data")).unwrap();
        for piece in 0..3 {
            let range = partial.cut().bytes(&(piece..piece + 1));
            let intact = on_disk[range.start as usize..range.end as usize] == *scene.piece(piece);
            prop_assert!(intact || !have.contains(&piece));
            if !have.contains(&piece) {
                scene.bring(&partial, piece);
            }
        }
        prop_assert!(partial.seal().is_ok());
    }
}
