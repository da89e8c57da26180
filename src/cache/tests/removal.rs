//! Lists and removals: what is shown, what goes, and what stays.

use super::*;

#[test]
fn nothing_is_removed_through_symlinks_below_the_cache() {
    for spoiled in ["snapshots/COMMIT", "blobs", "refs", "trees", ".no_exist", "snapshots", ""] {
        let scene = scene();
        scene.add("a", 'c', "sub/x", b"hello");
        scene.cache.write_ref(&repo("a"), &rev("main"), &commit('c'), SystemTime::now()).unwrap();
        scene.cache.write_tree(&repo("a"), &commit('c'), &Tree::default()).unwrap();
        scene.cache.mark_missing(&repo("a"), &commit('c'), &path("sub/y")).unwrap();
        let outside = tempfile::tempdir().unwrap();
        let at = scene.hub(
            format!("{}/{spoiled}", repo("a").folder()).replace("COMMIT", commit('c').as_str()).trim_end_matches('/'),
        );
        let moved = outside.path().join("moved");
        fs::rename(&at, &moved).unwrap();
        disk::symlink(&moved, &at).unwrap();
        let before = everything(&moved);
        let _ = scene.cache.remove(&repo("a"), None, None);
        assert_eq!(everything(&moved), before, "{spoiled}");
    }
}

#[test]
fn repos_and_files_are_listed_with_every_byte_counted_once() {
    let scene = scene();
    scene.add("a", 'c', "x", b"hello");
    scene.add("a", 'c', "y", b"hello");
    scene.add("a", 'd', "x", b"hello");
    scene.add("a", 'd', "z", b"other!");
    scene.cache.write_ref(&repo("a"), &rev("main"), &commit('d'), SystemTime::now()).unwrap();
    fs::create_dir_all(scene.folder("b").join(".hffs")).unwrap();
    fs::create_dir_all(scene.hub("kernels--x--y/snapshots")).unwrap();
    let gone = scene.folder("a").join(format!("snapshots/{}/gone", commit('c')));
    disk::symlink(Path::new("nowhere"), &gone).unwrap();
    let repos = scene.cache.repos();
    let view = RepoView {
        repo: repo("a"),
        commits: vec![commit('c'), commit('d')],
        refs: [(rev("main"), commit('d'))].into(),
        files: 4,
        size: 11,
    };
    assert_eq!(repos, [view]);
    let files = scene.cache.files(&repo("a"));
    assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["x", "y", "x", "z"]);
    assert_eq!(files[3].content(), Some(sha256(b"other!")));
    assert_eq!(scene.cache.files(&repo("none")), []);
}

#[test]
fn removing_frees_only_what_nothing_else_refers_to() {
    let scene = scene();
    scene.add("a", 'c', "sub/x", b"hello");
    scene.add("a", 'd', "x", b"hello");
    scene.add("a", 'c', "y", b"only here");
    scene.cache.write_ref(&repo("a"), &rev("old"), &commit('c'), SystemTime::now()).unwrap();
    scene.cache.write_ref(&repo("a"), &rev("main"), &commit('d'), SystemTime::now()).unwrap();
    scene.cache.write_tree(&repo("a"), &commit('c'), &Tree::default()).unwrap();

    let removed = scene.cache.remove(&repo("a"), Some(&[path("sub/x")]), None).unwrap();
    assert_eq!((removed.removed.len(), removed.freed), (1, 0));
    assert!(!scene.folder("a").join(format!("snapshots/{}/sub", commit('c'))).exists());
    let removed = scene.cache.remove(&repo("a"), None, Some(&rev("old"))).unwrap();
    assert_eq!((removed.removed.len(), removed.freed), (1, 9));
    assert_eq!(scene.cache.repos()[0].refs, [(rev("main"), commit('d'))].into());
    assert_eq!(scene.cache.repos()[0].commits, [commit('d')]);
    assert_eq!(names(&scene.folder("a").join("trees")), [] as [String; 0]);
    assert!(scene.shows("a", 'd', "x", sha256(b"hello")).is_some());
    let removed = scene.cache.remove(&repo("a"), None, Some(&rev(commit('d').as_str()))).unwrap();
    assert_eq!((removed.removed.len(), removed.freed), (1, 5));
    assert!(!scene.folder("a").exists());
    assert_eq!(scene.find(&sha256(b"hello")), None);
}

#[test]
fn removing_what_is_not_there_removes_nothing() {
    let scene = scene();
    scene.add("a", 'c', "x", b"hello");
    let remove = |name: &str, paths: Option<&[RepoPath]>, revision: Option<&Revision>| {
        scene.cache.remove(&repo(name), paths, revision).unwrap_err()
    };
    assert!(matches!(remove("b", None, None), Error::NoRepo { .. }));
    assert!(matches!(remove("a", None, Some(&rev("main"))), Error::NoRevision { .. }));
    assert!(matches!(remove("a", None, Some(&rev(commit('d').as_str()))), Error::NoRevision { .. }));
    let error = remove("a", Some(&[path("x"), path("y")]), None);
    assert!(matches!(&error, Error::NoFile { path: file, .. } if *file == path("y")));
    assert!(error.hint().is_some());
    assert!(scene.shows("a", 'c', "x", sha256(b"hello")).is_some());
}

#[test]
fn unfinished_files_of_other_tools_survive_and_the_repo_stays_whole_around_them() {
    let scene = scene();
    scene.add("a", 'c', "x", b"hello");
    let theirs = scene.folder("a").join("blobs/abc.12345678.incomplete");
    fs::write(&theirs, "half").unwrap();
    scene.cache.remove(&repo("a"), None, None).unwrap();
    assert!(theirs.exists());
    assert_eq!(names(&scene.folder("a")), ["blobs", "snapshots"]);
}

#[test]
fn content_with_a_second_name_frees_nothing() {
    let scene = scene();
    scene.add("a", 'c', "x", b"hello");
    let blob = scene.blob(&sha256(b"hello"));
    let other = scene.cache.link(&repo("b"), &commit('c'), &path("x"), &blob).unwrap();
    assert_eq!(scene.cache.remove(&repo("a"), None, None).unwrap().freed, 0);
    assert_eq!(fs::read(other).unwrap(), b"hello");
    scene.blob(&sha256(b"hello"));
    assert_eq!(scene.cache.remove(&repo("b"), None, None).unwrap().freed, 5);
}

#[test]
fn uninstall_takes_what_hffs_added_and_leaves_the_rest() {
    let scene = scene();
    scene.add("a", 'c', "ours", b"hello");
    scene.foreign("a", 'c', "theirs", git(b"their file"), b"their file");
    scene.foreign("b", 'c', "theirs", git(b"another"), b"another");
    scene.add("d", 'c', "ours", b"mine alone");
    // Publishing over what another tool had there does not make it ours.
    let sealed = scene.seal("b", git(b"another"), b"another");
    scene.cache.publish(&repo("b"), &commit('c'), &path("theirs"), sealed).unwrap();
    let plan = scene.cache.uninstall_plan();
    let holding = |name: &str, files, bytes| Holding { repo: repo(name), files, bytes };
    assert_eq!(plan.goes, [holding("a", 1, 5), holding("d", 1, 10)]);
    assert_eq!(plan.stays, [holding("a", 1, 10), holding("b", 1, 7)]);
    // Another process does it.
    let removed = open(scene.home.path()).uninstall_models().unwrap();
    assert_eq!((removed.removed.len(), removed.freed), (2, 15));
    assert_eq!(scene.cache.uninstall_plan(), Plan { goes: vec![], stays: plan.stays });
    assert!(!scene.folder("d").exists());
    assert!(!scene.cache.added_by_hffs(&repo("a"), &commit('c'), &path("ours")));
}

#[test]
fn visibility_is_remembered_and_unknown_content_is_not_public() {
    let scene = scene();
    let digest = sha256(b"hello").digest;
    assert!(!scene.cache.is_public(&digest));
    scene.cache.set_visibility(&[digest], &repo("private"), Visibility::Restricted).unwrap();
    assert!(!scene.cache.is_public(&digest));
    scene.cache.set_visibility(&[digest], &repo("open"), Visibility::Public).unwrap();
    assert!(scene.cache.is_public(&digest));
    let other = open(scene.home.path());
    assert!(other.is_public(&digest));
    other.set_visibility(&[digest], &repo("open"), Visibility::Restricted).unwrap();
    assert!(!scene.cache.is_public(&digest));
}

#[test]
fn a_repo_that_is_closed_is_closed_as_a_whole_and_opened_as_far_as_its_tree_goes() {
    let scene = scene();
    let [old, kept, new] = [b"old", b"kpt", b"new"].map(|bytes| sha256(bytes));
    let tree = |contents: &[Content]| {
        let mut tree = Tree::default();
        contents.iter().for_each(|content| tree.insert(path(&content.digest.to_string()), *content).unwrap());
        tree
    };
    let says = |visibility, contents: &[Content], wanted: Content| {
        scene.cache.set_repo_visibility(&repo("a"), visibility, &tree(contents), &[wanted.digest]).unwrap();
        [old, kept, new].map(|content| scene.cache.is_public(&content.digest))
    };
    assert_eq!(says(Visibility::Public, &[old, kept], old), [true, false, false]);
    assert_eq!(says(Visibility::Public, &[kept, new], kept), [true, true, false]);
    assert_eq!(says(Visibility::Restricted, &[kept, new], new), [false, false, false]);
    // Without being wanted again, what is in the tree is open with the rest of it.
    assert_eq!(says(Visibility::Public, &[kept, new], new), [false, true, true]);
    assert_eq!(scene.cache.visibility(&old.digest, &repo("a")), Some(Visibility::Restricted));
}

#[test]
fn looking_at_a_cache_makes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let look = || Cache::look_at(&home.path().join("hub"), &home.path().join("hffs")).unwrap();
    assert_eq!(look().repos(), []);
    assert_eq!(everything(home.path()), [] as [PathBuf; 0]);
    let content = sha256(b"hello");
    let scene = Scene { cache: look(), home };
    scene.foreign("a", 'c', "x", content, b"hello");
    assert_eq!(scene.cache.files(&repo("a")).len(), 1);
    assert!(!scene.home.path().join("hffs").exists());
}

#[test]
fn a_read_only_cache_gives_an_error_that_names_the_path_and_a_hint() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Cache::open(&file.path().join("hub"), &file.path().join("hffs")).unwrap_err();
    assert!(error.to_string().contains(file.path().to_str().unwrap()), "{error}");
    let error = Error::at("write", Path::new("x"), io::ErrorKind::ReadOnlyFilesystem.into());
    assert!(error.hint().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Adds and removes at random, and asks that each file is there exactly if it was not removed.
    #[test]
    fn blobs_are_there_exactly_as_long_as_something_refers_to_them(
        steps in proptest::collection::vec((0u8..2, 0u8..3, 0u8..3, any::<bool>()), 1..20),
    ) {
        let scene = scene();
        let mut there = std::collections::BTreeMap::new();
        for (of, file, content, add) in steps {
            let of = [ 'c', 'd' ][usize::from(of)];
            let name = format!("f{file}");
            if add && !there.contains_key(&(of, name.clone())) {
                scene.add("a", of, &name, &[content; 9]);
                there.insert((of, name), content);
            } else if there.remove(&(of, name.clone())).is_some() {
                scene.cache.remove(&repo("a"), Some(&[path(&name)]), Some(&rev(commit(of).as_str()))).unwrap();
            }
            for ((of, name), content) in &there {
                let shown = scene.shows("a", *of, name, sha256(&[*content; 9])).unwrap();
                prop_assert_eq!(fs::read(shown).unwrap(), [*content; 9]);
            }
            let needed: BTreeSet<String> = there.values().map(|content| sha256(&[*content; 9]).digest.to_string()).collect();
            let blobs = scene.folder("a").join("blobs");
            let have = if blobs.exists() { names(&blobs) } else { Vec::new() };
            prop_assert_eq!(have, needed.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(scene.cache.files(&repo("a")).len(), there.len());
        }
    }
}
