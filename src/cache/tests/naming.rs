//! Names: refs, trees, and folders that are not what they seem.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

#[test]
fn refs_have_forty_bytes_and_may_have_slashes() {
    let scene = scene();
    for name in ["main", "v1.0", "feature/x", "refs/pr/1"] {
        scene.cache.write_ref(&repo("a"), &rev(name), &commit('c'), SystemTime::now()).unwrap();
        assert_eq!(fs::read(scene.folder("a").join("refs").join(name)).unwrap(), commit('c').as_str().as_bytes());
        assert_eq!(scene.cache.ref_of(&repo("a"), &rev(name)).unwrap().0, commit('c'));
    }
    assert!(scene.folder("a").join("snapshots").join(commit('c').as_str()).is_dir());
    scene.cache.write_ref(&repo("a"), &rev("main"), &commit('d'), SystemTime::now()).unwrap();
    assert_eq!(scene.cache.ref_of(&repo("a"), &rev("main")).unwrap().0, commit('d'));
    scene.cache.write_ref(&repo("a"), &rev(commit('e').as_str()), &commit('e'), SystemTime::now()).unwrap();
    assert_eq!(names(&scene.folder("a").join("refs")), ["feature", "main", "refs", "v1.0"]);
    let error = scene.cache.write_ref(&repo("a"), &rev("main/sub"), &commit('c'), SystemTime::now()).unwrap_err();
    assert!(matches!(error, Error::InTheWay { .. }), "{error}");
}

#[test]
fn a_refs_time_is_when_its_meaning_was_learned_whether_it_changed_or_not() {
    let scene = scene();
    let [first, then] = [1_000, 2_000].map(|secs| UNIX_EPOCH + Duration::from_secs(secs));
    for (to, learned) in [('c', then), ('c', first), ('d', then), ('e', first)] {
        scene.cache.write_ref(&repo("a"), &rev("main"), &commit(to), learned).unwrap();
        assert_eq!(scene.cache.ref_of(&repo("a"), &rev("main")), Some((commit(to), learned)));
    }
}

#[test]
fn refs_that_are_none_are_not_believed() {
    let scene = scene();
    let refs = scene.folder("a").join("refs");
    fs::create_dir_all(&refs).unwrap();
    for (text, good) in [
        (commit('c').to_string(), true),
        (format!("{}\n", commit('c')), true),
        ("../../etc".to_owned(), false),
        ("c".repeat(100), false),
        (String::new(), false),
    ] {
        fs::write(refs.join("main"), &text).unwrap();
        assert_eq!(scene.cache.ref_of(&repo("a"), &rev("main")).is_some(), good, "{text:?}");
    }
}

#[test]
fn trees_are_written_as_huggingface_hub_writes_them() {
    let scene = scene();
    let mut tree = Tree::default();
    tree.insert(path("config.json"), git(b"{}")).unwrap();
    tree.insert(path("model.bin"), sha256(b"weights")).unwrap();
    scene.cache.write_tree(&repo("a"), &commit('c'), &tree).unwrap();
    assert_eq!(scene.cache.read_tree(&repo("a"), &commit('c')), Some(tree));
    let text = fs::read(scene.folder("a").join("trees").join(format!("{}.json", commit('c')))).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let sha = sha256(b"weights").digest.to_string();
    // `printf '%s\n' 'version https://git-lfs.github.com/spec/v1' "oid sha256:$sha" 'size 7' | git hash-object --stdin`
    assert_eq!(
        json,
        serde_json::json!({"format_version": 1, "files": {
            "config.json": {"size": 2, "blob_id": git(b"{}").digest.to_string()},
            "model.bin": {"size": 7, "blob_id": "c6a67be4f3ef29ed4a07b4f2446625126a25cfda", "lfs_sha256": sha, "lfs_size": 7},
        }})
    );
}

#[test]
fn trees_of_other_tools_are_read_and_left_as_they_are() {
    let scene = scene();
    let sha = sha256(b"weights").digest;
    let text = format!(
        r#"{{"format_version": 1, "new": 1, "files": {{"m.bin": {{"size": 7, "blob_id": "{}",
           "lfs_sha256": "{sha}", "lfs_size": 7, "xet_hash": "{}"}}}}}}"#,
        "a".repeat(40),
        "b".repeat(64)
    );
    let place = scene.folder("a").join("trees").join(format!("{}.json", commit('c')));
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, &text).unwrap();
    let tree = scene.cache.read_tree(&repo("a"), &commit('c')).unwrap();
    assert_eq!(tree.get(&path("m.bin")), Some(sha256(b"weights")));
    scene.cache.write_tree(&repo("a"), &commit('c'), &Tree::default()).unwrap();
    assert_eq!(fs::read_to_string(&place).unwrap(), text);
}

#[test]
fn hostile_and_foreign_trees_are_none_and_are_replaced() {
    let scene = scene();
    let place = scene.folder("a").join("trees").join(format!("{}.json", commit('c')));
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    let entry = format!(r#"{{"size": 7, "blob_id": "{}"}}"#, "a".repeat(40));
    for text in [
        format!(r#"{{"format_version": 2, "files": {{"x": {entry}}}}}"#),
        format!(r#"{{"format_version": 1, "files": {{"../x": {entry}}}}}"#),
        format!(r#"{{"format_version": 1, "files": {{"/etc/x": {entry}}}}}"#),
        r#"{"format_version": 1, "files": {"x": {"size": 7, "blob_id": "../../x"}}}"#.to_owned(),
        r#"{"format_version": 1, "files": {"x": {"size": -7, "blob_id": "a"}}}"#.to_owned(),
        r#"{"format_version": 1, "fi"#.to_owned(),
        "[".repeat(100_000),
    ] {
        fs::write(&place, &text).unwrap();
        assert_eq!(scene.cache.read_tree(&repo("a"), &commit('c')), None, "{text:.80}");
    }
    scene.cache.write_tree(&repo("a"), &commit('c'), &Tree::default()).unwrap();
    assert_eq!(scene.cache.read_tree(&repo("a"), &commit('c')), Some(Tree::default()));
}

#[test]
fn a_file_noted_as_missing_is_so_until_it_is_published() {
    let scene = scene();
    scene.cache.mark_missing(&repo("a"), &commit('c'), &path("sub/x")).unwrap();
    scene.cache.mark_missing(&repo("a"), &commit('c'), &path("sub/x")).unwrap();
    let note = scene.folder("a").join(".no_exist").join(commit('c').as_str()).join("sub/x");
    assert_eq!(fs::read(&note).unwrap(), b"");
    scene.add("a", 'c', "sub/x", b"hello");
    assert!(!note.exists());
}

#[cfg(unix)]
#[test]
fn nothing_is_written_through_symlinks_below_the_cache() {
    for spoiled in ["", "blobs", "snapshots", "snapshots/COMMIT", "snapshots/COMMIT/sub", "refs", "trees", ".no_exist"]
    {
        let scene = scene();
        let outside = tempfile::tempdir().unwrap();
        let at = scene.hub(
            format!("{}/{spoiled}", repo("a").folder()).replace("COMMIT", commit('c').as_str()).trim_end_matches('/'),
        );
        let sealed = scene.seal("b", sha256(b"hello"), b"hello");
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        disk::symlink(outside.path(), &at).unwrap();
        let results = [
            scene.cache.publish(&repo("a"), &commit('c'), &path("sub/x"), sealed).map(|_| ()),
            scene.cache.write_ref(&repo("a"), &rev("main"), &commit('c'), SystemTime::now()),
            scene.cache.write_tree(&repo("a"), &commit('c'), &Tree::default()),
            scene.cache.mark_missing(&repo("a"), &commit('c'), &path("sub/y")),
        ];
        assert!(
            results.iter().any(|result| matches!(result, Err(Error::InTheWay { path }) if *path == at)),
            "{spoiled}"
        );
        assert_eq!(names(outside.path()), [] as [String; 0], "{spoiled}");
    }
}
