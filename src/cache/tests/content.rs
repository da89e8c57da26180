//! Content: how it is found, verified, published and linked.

use super::*;

#[test]
fn a_published_file_lies_where_other_tools_look() {
    let scene = scene();
    let shown = scene.add("a", 'c', "sub/a b+c.bin", b"hello");
    let blob = format!("blobs/{}", sha256(b"hello").digest);
    assert_eq!(shown, scene.folder("a").join("snapshots").join(commit('c').as_str()).join("sub/a b+c.bin"));
    assert_eq!(fs::read_link(&shown).unwrap(), Path::new("../../..").join(&blob));
    assert_eq!(fs::read(&shown).unwrap(), b"hello");
    assert!(fs::symlink_metadata(scene.folder("a").join(blob)).unwrap().is_file());
    assert_eq!(names(&scene.folder("a").join(".hffs")), [] as [String; 0]);
    assert_eq!(names(&scene.hub("")), ["CACHEDIR.TAG", "models--org--a"]);
    assert_eq!(scene.shows("a", 'c', "sub/a b+c.bin", sha256(b"hello")), Some(shown));
    assert_eq!(scene.shows("a", 'd', "sub/a b+c.bin", sha256(b"hello")), None);
    assert!(scene.cache.added_by_hffs(&repo("a"), &commit('c'), &path("sub/a b+c.bin")));
}

#[test]
fn published_files_are_readable_as_the_umask_says() {
    use std::os::unix::fs::PermissionsExt;
    let scene = scene();
    let usual = scene.home.path().join("usual");
    fs::write(&usual, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    scene.cache.write_ref(&repo("a"), &rev("main"), &commit('c'), SystemTime::now()).unwrap();
    scene.cache.write_tree(&repo("a"), &commit('c'), &Tree::default()).unwrap();
    let shown = scene.add("a", 'c', "x", b"hello");
    let blob = scene.blob(&sha256(b"hello"));
    let linked = scene.cache.link(&repo("b"), &commit('c'), &path("x"), &blob).unwrap();
    let tree = scene.folder("a").join("trees").join(format!("{}.json", commit('c')));
    for path in [shown, linked, tree, scene.folder("a").join("refs/main")] {
        assert_eq!(mode(&path), mode(&usual), "{path:?}");
    }
}

#[test]
fn what_other_tools_downloaded_is_found_and_hashed_once() {
    let scene = scene();
    let bytes = vec![7; 3 << 20];
    let content = sha256(&bytes);
    assert_eq!(scene.find(&content), None);
    scene.foreign("a", 'c', "model.bin", content, &bytes);
    let Some(Held::Unverified(held)) = scene.find(&content) else { panic!("not found") };
    assert_eq!(scene.cache.piece_list(&content), None);
    let blob = scene.cache.verify(&held).unwrap();
    assert_eq!(blob.open().unwrap().metadata().unwrap().len(), content.size);
    assert_eq!(scene.cache.piece_list(&content), Some(piece_list(&bytes)));
    assert_eq!(scene.cache.find(&content), Some(Held::Verified(blob.clone())));
    // Another process, and the next start, know it too.
    assert_eq!(open(scene.home.path()).find(&content), Some(Held::Verified(blob)));
    assert!(!scene.cache.added_by_hffs(&repo("a"), &commit('c'), &path("model.bin")));
}

#[test]
fn content_that_is_not_what_its_name_says_is_neither_shared_nor_deleted() {
    let scene = scene();
    let content = sha256(b"right");
    scene.foreign("a", 'c', "x", content, b"wrong");
    let Some(Held::Unverified(held)) = scene.find(&content) else { panic!("not found") };
    let error = scene.cache.verify(&held).unwrap_err();
    assert!(matches!(&error, Error::Damaged { found, .. } if *found == sha256(b"wrong").digest));
    assert!(error.to_string().contains(&content.digest.to_string()), "{error} names no path");
    assert_eq!(scene.find(&content), None);
    assert_eq!(fs::read(held.path()).unwrap(), b"wrong");
    // What is fetched instead takes its place.
    scene.add("a", 'c', "x", b"right");
    assert_eq!(scene.blob(&content).path(), held.path());
    assert_eq!(fs::read(held.path()).unwrap(), b"right");
}

#[test]
fn a_file_that_was_touched_since_is_no_longer_verified() {
    let scene = scene();
    let content = sha256(b"hello");
    let shown = scene.add("a", 'c', "x", b"hello");
    let blob = scene.blob(&content);
    fs::write(&shown, b"hellO").unwrap();
    File::options().write(true).open(&shown).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(matches!(blob.open(), Err(Error::Changed { .. })));
    assert!(matches!(scene.find(&content), Some(Held::Unverified(_))));
    fs::write(&shown, b"hell").unwrap();
    assert_eq!(scene.find(&content), None);
}

#[test]
fn the_etag_is_the_name_of_the_first_hop_into_a_store_that_repos_share() {
    let scene = scene();
    let content = sha256(b"shared bytes");
    let xet = "e".repeat(64);
    fs::create_dir_all(scene.hub("blobs/ee")).unwrap();
    fs::write(scene.hub("blobs/.huggingface-shared-blobs"), "1\n").unwrap();
    let payload = scene.hub("blobs/ee").join(&xet);
    fs::write(&payload, b"shared bytes").unwrap();
    scene.foreign("a", 'c', "sub/model.bin", content, b"");
    let blob = scene.folder("a").join("blobs").join(content.digest.to_string());
    fs::remove_file(&blob).unwrap();
    disk::symlink(Path::new(&format!("../../blobs/ee/{xet}")), &blob).unwrap();

    let files = scene.cache.files(&repo("a"));
    assert_eq!(files[0].content(), Some(content));
    assert_eq!(scene.find(&content_as(Digest::Sha256([0; 32]), b"x")), None);
    let Some(Held::Unverified(held)) = scene.find(&content) else { panic!("not found") };
    assert_eq!(held.path(), blob);
    let verified = scene.cache.verify(&held).unwrap();
    // Another repo gets the bytes themselves, not a link that dangles once this repo is gone.
    let shown = scene.cache.link(&repo("b"), &commit('d'), &path("m"), &verified).unwrap();
    let second = scene.folder("b").join("blobs").join(content.digest.to_string());
    assert!(fs::symlink_metadata(&second).unwrap().is_file());
    assert_eq!(fs::read(&shown).unwrap(), b"shared bytes");
    let removed = scene.cache.remove(&repo("a"), None, None).unwrap();
    assert_eq!(removed.freed, 0);
    assert_eq!(fs::read(&payload).unwrap(), b"shared bytes");
    assert_eq!(fs::read(&shown).unwrap(), b"shared bytes");
}

#[test]
fn the_same_content_in_another_place_is_linked_and_not_copied() {
    let scene = scene();
    scene.add("a", 'c', "x", b"hello");
    let blob = scene.blob(&sha256(b"hello"));
    let ino = |path: &Path| disk::identity(path, &fs::metadata(path).unwrap());
    for (name, of, file) in [("a", 'c', "y/z"), ("a", 'd', "x"), ("b", 'c', "x"), ("b", 'c', "x")] {
        let shown = scene.cache.link(&repo(name), &commit(of), &path(file), &blob).unwrap();
        assert_eq!(ino(&shown), ino(blob.path()));
        assert!(shown.canonicalize().unwrap().starts_with(scene.folder(name).canonicalize().unwrap()));
        assert!(scene.cache.added_by_hffs(&repo(name), &commit(of), &path(file)));
        assert_eq!(names(&scene.folder(name).join(".hffs")), [] as [String; 0]);
    }
}

#[test]
fn a_blob_that_changed_is_not_linked() {
    let scene = scene();
    let shown = scene.add("a", 'c', "x", b"hello");
    let blob = scene.blob(&sha256(b"hello"));
    fs::write(shown, b"other bytes").unwrap();
    let error = scene.cache.link(&repo("b"), &commit('c'), &path("x"), &blob).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }));
}

#[test]
fn a_sealed_file_that_somebody_swapped_is_not_published() {
    let scene = scene();
    let sealed = scene.seal("a", sha256(b"hello"), b"hello");
    let at = sealed.get().path.clone();
    fs::remove_file(&at).unwrap();
    fs::write(&at, b"evil!").unwrap();
    let error = scene.cache.publish(&repo("a"), &commit('c'), &path("x"), sealed).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }));
    assert_eq!(scene.shows("a", 'c', "x", sha256(b"hello")), None);
}

#[test]
fn a_file_at_its_place_counts_only_as_the_content_that_it_is() {
    let scene = scene();
    scene.add("a", 'c', "x", b"hello");
    assert!(scene.shows("a", 'c', "x", sha256(b"hello")).is_some());
    assert_eq!(scene.shows("a", 'c', "x", sha256(b"other")), None, "another content of the same size");
    let content = sha256(b"what another tool brought");
    scene.foreign("a", 'c', "y", content, b"what another tool spoilt ");
    assert!(scene.shows("a", 'c', "y", content).is_some(), "nobody has hashed it");
    let Some(Held::Unverified(unverified)) = scene.find(&content) else { panic!("it was not verified") };
    scene.cache.verify(&unverified).unwrap_err();
    assert_eq!(scene.shows("a", 'c', "y", content), None, "it is known to be damaged");
}

#[test]
fn a_file_without_a_blob_counts_by_the_ledger_or_the_commits_tree() {
    let scene = scene();
    let [mine, foreign] = [sha256(b"mine"), sha256(b"foreign")];
    scene.cache.0.symlinks.set(folder::Symlinks::No).unwrap();
    let shown = scene.add("a", 'c', "x", b"mine");
    fs::write(shown.with_file_name("y"), b"foreign").unwrap();
    assert!(scene.shows("a", 'c', "x", mine).is_some());
    assert_eq!(scene.shows("a", 'c', "y", foreign), None, "nothing tells what it is");
    let mut tree = Tree::default();
    tree.insert(path("y"), foreign).unwrap();
    scene.cache.write_tree(&repo("a"), &commit('c'), &tree).unwrap();
    assert!(scene.shows("a", 'c', "y", foreign).is_some());
}

#[test]
fn a_good_blob_is_kept_when_the_same_content_comes_again() {
    let scene = scene();
    let ino = |path: &Path| disk::identity(path, &fs::metadata(path).unwrap());
    let first = scene.add("a", 'c', "x", b"hello");
    let before = ino(&first);
    scene.add("a", 'd', "x", b"hello");
    assert_eq!(ino(&first), before);
    assert_eq!(names(&scene.folder("a").join(".hffs")), [] as [String; 0]);
}

#[test]
fn an_empty_file_is_a_file() {
    let scene = scene();
    let shown = scene.add("a", 'c', "__init__.py", b"");
    assert_eq!(fs::read(shown).unwrap(), b"");
    assert_eq!(scene.cache.files(&repo("a")).len(), 1);
    scene.blob(&sha256(b""));
}

#[test]
fn one_digest_published_by_many_at_once_is_there_for_each() {
    let scene = scene();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let scene = &scene;
            scope.spawn(move || {
                for round in 0..10 {
                    let name = ["a", "b"][n % 2];
                    let shown = scene.add(name, 'c', &format!("f{n}/{round}"), b"the same bytes");
                    assert_eq!(fs::read(shown).unwrap(), b"the same bytes");
                }
            });
        }
    });
    for name in ["a", "b"] {
        assert_eq!(names(&scene.folder(name).join("blobs")).len(), 1);
        assert_eq!(names(&scene.folder(name).join(".hffs")), [] as [String; 0]);
        assert_eq!(scene.cache.files(&repo(name)).len(), 40);
    }
}

#[test]
fn readers_never_see_a_part_of_a_file() {
    let scene = scene();
    let bytes: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; 100_000 + usize::from(n)]).collect();
    let shown: Vec<PathBuf> = (0..40)
        .map(|n| scene.cache.0.root.join(repo("a").folder()).join(format!("snapshots/{}/f{n}", commit('c'))))
        .collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for (path, bytes) in shown.iter().zip(&bytes) {
                        if let Ok(read) = fs::read(path) {
                            assert!(read == *bytes, "{path:?} was read in part");
                        }
                    }
                }
            });
        }
        for (n, bytes) in bytes.iter().enumerate() {
            scene.add("a", 'c', &format!("f{n}"), bytes);
            // A blob that is no longer known to be right is replaced while it is read.
            let blob = scene.folder("a").join("blobs").join(sha256(bytes).digest.to_string());
            File::options().write(true).open(blob).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            scene.add("a", 'd', &format!("f{n}"), bytes);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_lock_that_somebody_holds_delays_a_publish_and_never_stops_it() {
    let scene = scene();
    let etag = sha256(b"hello").digest.to_string();
    let locks = scene.hub(".locks").join(repo("a").folder());
    fs::create_dir_all(&locks).unwrap();
    let held = File::create(locks.join(format!("{etag}.lock"))).unwrap();
    held.lock().unwrap();
    let shown = scene.add("a", 'c', "x", b"hello");
    assert_eq!(fs::read(shown).unwrap(), b"hello");
}

#[test]
fn a_damaged_piece_list_is_removed_and_one_of_another_size_is_not_given_out() {
    let scene = scene();
    let bytes = vec![3; (2 << 20) + 5];
    let content = sha256(&bytes);
    scene.cache.save_piece_list(&content, &piece_list(&bytes)).unwrap();
    let file = scene.home.path().join("hffs/pieces").join(content.digest.to_string());
    assert_eq!(scene.cache.piece_list(&Content { size: 5, ..content }), None);
    assert_eq!(scene.cache.piece_list(&content), Some(piece_list(&bytes)));
    let good = fs::read(&file).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, bad).unwrap();
        assert_eq!(scene.cache.piece_list(&content), None, "byte {at}");
        fs::write(&file, &good[..at]).unwrap();
        assert_eq!(scene.cache.piece_list(&content), None, "cut at {at}");
        assert!(!file.exists());
    }
}
