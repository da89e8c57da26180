//! The layout without symlinks, as Windows has it for users who may not make them: snapshots hold the
//! files themselves. It can be used on any file system, so its tests run everywhere.

use super::*;

fn scene_without_links() -> Scene {
    let scene = scene();
    scene.cache.0.symlinks.set(folder::Symlinks::No).unwrap();
    scene
}

impl Scene {
    fn tree(&self, name: &str, of: char, files: &[(&str, Content)]) {
        let mut tree = Tree::default();
        files.iter().for_each(|(file, content)| tree.insert(path(file), *content).unwrap());
        self.cache.write_tree(&repo(name), &commit(of), &tree).unwrap();
    }

    /// A file as `huggingface_hub` downloads it where there are no links.
    fn foreign_plain(&self, name: &str, of: char, file: &str, bytes: &[u8]) -> PathBuf {
        let shown = self.folder(name).join("snapshots").join(commit(of).as_str()).join(file);
        fs::create_dir_all(shown.parent().unwrap()).unwrap();
        fs::write(&shown, bytes).unwrap();
        shown
    }
}

#[test]
fn where_there_are_no_symlinks_the_snapshot_has_the_file_itself() {
    let scene = scene_without_links();
    scene.tree("a", 'c', &[("sub/x", sha256(b"hello"))]);
    let shown = scene.add("a", 'c', "sub/x", b"hello");
    assert!(fs::symlink_metadata(&shown).unwrap().is_file());
    assert!(!scene.folder("a").join("blobs").exists());
    assert_eq!(scene.cache.files(&repo("a"))[0].content(), Some(sha256(b"hello")));
    let blob = scene.blob(&sha256(b"hello"));
    assert_eq!(blob.path(), shown);
    let second = scene.cache.link(&repo("b"), &commit('c'), &path("x"), &blob).unwrap();
    assert!(fs::symlink_metadata(&second).unwrap().is_file());
    // Whoever opens the cache next finds it through the tree.
    assert!(matches!(open(scene.home.path()).find(&sha256(b"hello")), Some(Held::Verified(_))));
    assert_eq!(scene.cache.remove(&repo("b"), None, None).unwrap().freed, 0);
    assert_eq!(scene.cache.remove(&repo("a"), None, None).unwrap().freed, 5);
    assert!(!scene.folder("a").exists());
}

#[test]
fn what_other_tools_downloaded_without_links_is_found_and_hashed_once() {
    let scene = scene_without_links();
    let content = sha256(b"from Windows");
    let shown = scene.foreign_plain("a", 'c', "model.bin", b"from Windows");
    scene.tree("a", 'c', &[("model.bin", content)]);
    let Some(Held::Unverified(held)) = scene.find(&content) else { panic!("not found") };
    assert_eq!(held.path(), shown);
    let blob = scene.cache.verify(&held).unwrap();
    assert_eq!(open(scene.home.path()).find(&content), Some(Held::Verified(blob)));
    assert_eq!(scene.cache.files(&repo("a"))[0].content(), Some(content));
    assert_eq!(scene.shows("a", 'c', "model.bin", content), Some(shown));
    assert!(!scene.cache.added_by_hffs(&repo("a"), &commit('c'), &path("model.bin")));
}

#[test]
fn what_other_tools_downloaded_without_links_and_without_a_tree_is_found_by_its_size() {
    let scene = scene_without_links();
    let [base, tuned] = [b"base weights ", b"tuned weights"].map(|bytes| (bytes, sha256(bytes)));
    let first = scene.foreign_plain("a", 'c', "model.bin", base.0);
    let second = scene.foreign_plain("b", 'd', "model.bin", tuned.0);
    for (_, content) in [base, tuned] {
        assert_eq!(scene.find(&content), None, "nothing says what it is");
    }
    let guess = scene.cache.guess(&tuned.1).unwrap();
    let blob = match scene.cache.verify(&guess) {
        Ok(blob) => blob,
        Err(Error::Another { path, found }) => {
            assert_eq!((path, found), (first.clone(), base.1.digest));
            scene.cache.verify(&scene.cache.guess(&tuned.1).unwrap()).unwrap()
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(blob.path(), second);
    // Whatever was hashed is known for what it is.
    let other = scene.find(&base.1).or_else(|| scene.cache.guess(&base.1).map(Held::Unverified));
    match other.unwrap() {
        Held::Verified(blob) => assert_eq!(blob.path(), first),
        Held::Unverified(guess) => assert_eq!(scene.cache.verify(&guess).unwrap().path(), first),
    }
    let later = open(scene.home.path());
    for (path, content) in [(&first, base.1), (&second, tuned.1)] {
        assert!(matches!(later.find(&content), Some(Held::Verified(blob)) if blob.path() == path));
    }
    let absent = sha256(b"other weights");
    assert_eq!((later.find(&absent), later.guess(&absent)), (None, None), "each is hashed once, whatever is asked for");
    assert!(matches!(scene.cache.verify(&guess), Ok(blob) if blob.path() == second));
}

#[test]
fn before_a_download_no_more_is_read_of_files_without_names_than_the_file_has() {
    let scene = scene_without_links();
    let bytes = |n: u8| vec![n; limits::SMALL_FILE_BYTES as usize / 2 + 1];
    for n in 0..3 {
        scene.foreign_plain("a", 'c', &format!("part-{n}"), &bytes(n));
    }
    let absent = sha256(&bytes(9));
    assert_eq!(scene.find(&absent), None);
    let left = |of: &Content| scene.cache.guesses(of).len();
    for unread in [2, 1, 0] {
        assert_eq!(scene.cache.recognize(&absent, &path("part-7")), None);
        assert_eq!(left(&absent), unread);
    }
    let later = scene_without_links();
    for n in 0..3 {
        later.foreign_plain("a", 'c', &format!("sub/part-{n}"), &bytes(n));
    }
    let wanted = sha256(&bytes(1));
    assert_eq!(later.find(&wanted), None);
    let blob = later.cache.recognize(&wanted, &path("sub/part-1")).expect("the one of its name is looked at first");
    assert!(blob.path().ends_with("part-1"));
}

#[test]
fn a_file_without_a_name_is_hashed_once_however_many_look_for_something() {
    let scene = scene_without_links();
    scene.foreign_plain("a", 'c', "x", &vec![1; 4 << 20]);
    let absent: Vec<Content> = (2..10).map(|n| sha256(&vec![n; 4 << 20])).collect();
    assert_eq!(scene.find(&absent[0]), None);
    std::thread::scope(|scope| {
        for content in &absent {
            scope.spawn(|| assert_eq!(scene.cache.recognize(content, &path("x")), None));
        }
    });
    let noted = fs::read_to_string(scene.home.path().join("hffs/ledger.jsonl")).unwrap();
    assert_eq!(noted.matches("verified").count(), 1, "{noted}");
}

#[test]
fn a_file_that_was_added_without_its_commits_tree_is_known_after_a_restart() {
    let scene = scene_without_links();
    let content = sha256(b"hello");
    let shown = scene.add("a", 'c', "sub/x", b"hello");
    let later = open(scene.home.path());
    assert!(matches!(later.find(&content), Some(Held::Verified(blob)) if blob.path() == shown));
    assert_eq!(later.files(&repo("a"))[0].content(), Some(content));
}

#[test]
fn nothing_is_stored_twice_where_the_volume_has_hard_links() {
    let scene = scene_without_links();
    scene.add("a", 'c', "x", b"hello");
    let blob = scene.blob(&sha256(b"hello"));
    let number = |path: &Path| disk::identity(path, &fs::metadata(path).unwrap());
    for (name, of, file) in [("a", 'c', "y/z"), ("a", 'd', "x"), ("b", 'c', "x")] {
        let shown = scene.cache.link(&repo(name), &commit(of), &path(file), &blob).unwrap();
        assert_eq!(number(&shown), number(blob.path()));
        assert_eq!(names(&scene.folder(name).join(".hffs")), [] as [String; 0]);
    }
    assert_eq!(scene.cache.repos().iter().map(|view| view.size).collect::<Vec<_>>(), [5, 5]);
    // What another name still holds is not freed.
    assert_eq!(scene.cache.remove(&repo("a"), None, None).unwrap().freed, 0);
    assert_eq!(scene.cache.remove(&repo("b"), None, None).unwrap().freed, 5);
}

/// A file `x` that is not what the tree says.
fn damaged(scene: &Scene) -> PathBuf {
    let shown = scene.foreign_plain("a", 'c', "x", b"wrong");
    scene.tree("a", 'c', &[("x", sha256(b"right"))]);
    let Some(Held::Unverified(held)) = scene.find(&sha256(b"right")) else { panic!("not found") };
    assert!(matches!(scene.cache.verify(&held), Err(Error::Damaged { .. })));
    shown
}

#[test]
fn a_damaged_file_is_replaced_while_it_is_read() {
    let scene = scene_without_links();
    let shown = damaged(&scene);
    let reader = File::open(&shown).unwrap();
    scene.add("a", 'c', "x", b"right");
    assert_eq!(io::read_to_string(reader).unwrap(), "wrong");
    assert_eq!(fs::read(&shown).unwrap(), b"right");
}

#[test]
fn a_damaged_file_that_is_read_only_is_replaced_and_can_be_removed() {
    let scene = scene_without_links();
    let shown = damaged(&scene);
    let mut rights = fs::metadata(&shown).unwrap().permissions();
    rights.set_readonly(true);
    fs::set_permissions(&shown, rights).unwrap();
    scene.add("a", 'c', "x", b"right");
    assert_eq!(fs::read(&shown).unwrap(), b"right");
    let mut rights = fs::metadata(&shown).unwrap().permissions();
    rights.set_readonly(true);
    fs::set_permissions(&shown, rights).unwrap();
    assert_eq!(scene.cache.remove(&repo("a"), None, None).unwrap().freed, 5);
}

#[test]
fn a_file_noted_as_missing_is_so_no_more_once_it_is_there() {
    let scene = scene_without_links();
    scene.cache.mark_missing(&repo("a"), &commit('c'), &path("sub/x")).unwrap();
    scene.add("a", 'c', "sub/x", b"hello");
    assert!(!scene.folder("a").join(".no_exist").join(commit('c').as_str()).join("sub").join("x").exists());
}

/// A file system that does not tell large letters from small ones: where the tests run on one that does, only what
/// is noticed before anything is written can be seen, and names have to be led where they would lead there.
fn scene_with_letters_alike() -> Scene {
    let scene = scene_without_links();
    scene.cache.0.letters.set(disk::Letters::Alike).unwrap();
    scene
}

/// Lets another spelling lead to what is there, if it does not by itself, for as long as the result lives.
fn also_called(there: &Path, name: PathBuf) -> Option<tempfile::TempPath> {
    let made = fs::hard_link(there, &name).is_ok() || disk::symlink(there, &name).is_ok();
    made.then(|| tempfile::TempPath::try_from_path(name).unwrap())
}

#[test]
fn files_that_only_their_letters_tell_apart_never_take_each_others_place() {
    let scene = scene_with_letters_alike();
    let first = scene.add("a", 'c', "Sub/Readme.md", b"first");
    let snapshot = scene.folder("a").join("snapshots").join(commit('c').as_str());
    let folder = snapshot.join("Sub");
    for (other, there, spelt) in
        [("Sub/README.md", &first, "Sub/README.md"), ("sub/Readme.md", &folder, "sub"), ("sub/other", &folder, "sub")]
    {
        let _led = also_called(there, snapshot.join(spelt));
        let sealed = scene.seal("a", sha256(b"second"), b"second");
        let error = scene.cache.publish(&repo("a"), &commit('c'), &path(other), sealed).unwrap_err();
        assert!(matches!(&error, Error::OneName { .. }), "{error}");
        assert!(error.hint().is_some());
        let early = scene.cache.has_own_name(&repo("a"), &commit('c'), &path(other)).unwrap_err();
        assert_eq!(early.to_string(), error.to_string());
    }
    assert_eq!(fs::read(&first).unwrap(), b"first");
    for fine in ["Sub/Readme.md", "Sub/other", "other"] {
        scene.cache.has_own_name(&repo("a"), &commit('c'), &path(fine)).unwrap();
    }
    scene.add("a", 'd', "sub/README.md", b"second");
}

#[test]
fn refs_that_only_their_letters_tell_apart_never_stand_for_each_other() {
    let scene = scene_with_letters_alike();
    let now = SystemTime::now();
    scene.cache.write_ref(&repo("a"), &rev("Dev/main"), &commit('c'), now).unwrap();
    let refs = scene.folder("a").join("refs");
    for (other, there, spelt) in
        [("Dev/Main", "Dev/main", "Dev/Main"), ("dev/main", "Dev", "dev"), ("dev/other", "Dev", "dev")]
    {
        let _led = also_called(&refs.join(there), refs.join(spelt));
        scene.cache.write_ref(&repo("a"), &rev(other), &commit('d'), now).unwrap();
        assert_eq!(scene.cache.ref_of(&repo("a"), &rev(other)), None);
    }
    assert_eq!(scene.cache.ref_of(&repo("a"), &rev("Dev/main")).unwrap().0, commit('c'));
    assert_eq!(scene.cache.repos()[0].refs.len(), 1);
}

#[test]
fn paths_longer_than_windows_once_allowed_are_used_like_others() {
    let scene = scene_without_links();
    let long = format!("{}/{}/{}.bin", "d".repeat(100), "e".repeat(100), "f".repeat(100));
    let shown = scene.add("a", 'c', &long, b"hello");
    assert_eq!(fs::read(&shown).unwrap(), b"hello");
    scene.cache.mark_missing(&repo("a"), &commit('c'), &path(&format!("{long}.x"))).unwrap();
    assert_eq!(scene.cache.files(&repo("a")).len(), 1);
    assert_eq!(scene.cache.remove(&repo("a"), None, None).unwrap().freed, 5);
    assert!(!shown.exists());
}
