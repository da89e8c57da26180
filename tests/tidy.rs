//! The source tree keeps its own rules.
//!
//! Goal: what the crate documentation says of the architecture stays true. Method: read `src/`, leave out comments and
//! texts, and compare what is left with the table in `src/lib.rs`, which is the only place where rooms, layers and
//! doors are listed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test ends where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;

/// Words that say nothing about a thing.
const EMPTY_WORDS: [&str; 6] = ["manager", "handler", "helper", "util", "common", "info"];

/// Names that are ours to keep although they have such a word, each with the reason.
const KEPT: [&str; 6] = [
    // What the standard library calls taking a wrapper off.
    "into_inner",
    // What libp2p's traits demand of an upgrade and of a behaviour.
    "Info",
    "InfoIter",
    "protocol_info",
    "ConnectionHandler",
    "on_connection_handler_event",
];

/// What stands before a file's own tests.
const TEST_ONLY: &str = "#[cfg(test)]";

/// The kinds of systems as paths and conditions name them.
const SYSTEMS: [&str; 4] = ["unix", "windows", "linux", "target_os"];

/// Crates and types that only one kind of system has.
const ONE_SYSTEM: [(&str, &str); 9] = [
    ("unix", "rustix"),
    ("unix", "socket2"),
    ("unix", "libc"),
    ("unix", "UnixStream"),
    ("unix", "UnixListener"),
    ("windows", "winapi_util"),
    ("windows", "windows_registry"),
    ("windows", "filedescriptor"),
    ("windows", "widestring"),
];

#[test]
fn every_room_stands_in_the_table_of_lib_rs_and_nothing_else_does() {
    let on_disk: BTreeSet<String> = sources().iter().filter_map(|source| source.room()).collect();
    let in_table: BTreeSet<String> = rooms().into_keys().collect();
    assert_eq!(on_disk, in_table, "left: src/, right: the table in src/lib.rs");
}

#[test]
fn rooms_import_only_from_layers_above_theirs_in_the_table() {
    let rooms = rooms();
    none(sources().iter().flat_map(|source| {
        let Some(room) = source.room() else { return Vec::new() };
        let Some(row) = rooms.get(&room) else { return Vec::new() };
        let imported = source.words_after("crate");
        let crossing = imported
            .into_iter()
            .filter(|(_, other)| *other != room && rooms.get(other).is_some_and(|other| !row.may_import(other)));
        crossing.map(|(line, other)| source.says(line, &format!("`{room}` may not import `{other}`"))).collect()
    }));
}

#[test]
fn a_third_party_crate_is_named_behind_its_door_only() {
    let rooms = rooms();
    let doors: BTreeMap<&str, Vec<&str>> = rooms.iter().fold(BTreeMap::new(), |mut doors, (room, row)| {
        row.doors.iter().for_each(|name| doors.entry(name.as_str()).or_default().push(room));
        doors
    });
    assert!(doors.contains_key("libp2p") && doors.contains_key("reqwest"), "the table in src/lib.rs lists no doors");
    none(sources().iter().flat_map(|source| {
        let room = source.room().unwrap_or_default();
        let named = source.words().filter(|word| word.is_path_start());
        named
            .filter(|word| doors.get(word.text).is_some_and(|rooms| !rooms.contains(&room.as_str())))
            .map(|word| {
                source.says(word.line, &format!("`{}` stands behind the door of {:?}", word.text, doors[word.text]))
            })
            .collect::<Vec<_>>()
    }));
}

#[test]
fn what_one_kind_of_system_has_stands_in_a_file_of_its_name() {
    none(sources().iter().filter(|source| !source.is_test()).flat_map(|source| {
        let file = source.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        let shipped = source.shipped_lines();
        let found = source.words().filter(|word| word.line <= shipped && !word.is_of(&file)).filter(|word| {
            let system = word.inside_path && matches!(word.before, "os" | "signal") && SYSTEMS.contains(&word.text);
            // `cfg!` leaves both ways to the compiler, and `cfg_attr` only chooses a file.
            let gate = SYSTEMS.contains(&word.text) && source.line(word.line).contains("#[cfg(");
            system || gate || ONE_SYSTEM.iter().any(|(_, name)| *name == word.text)
        });
        found
            .map(|word| source.says(word.line, &format!("`{}` is of one kind of system", word.text)))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn what_one_kind_of_system_has_the_other_has_too() {
    let sources = sources();
    let [unix, windows] = ["unix.rs", "windows.rs"]
        .map(|name| sources.iter().filter(|source| source.path.ends_with(name)).collect::<Vec<_>>());
    assert!(!unix.is_empty() && unix.len() == windows.len());
    none(unix.into_iter().filter_map(|unix| {
        let Some(windows) = windows.iter().find(|source| source.path == unix.path.with_file_name("windows.rs")) else {
            return Some(unix.says(1, "has no twin"));
        };
        let (here, there) = (unix.offers(), windows.offers());
        let apart: Vec<&String> = here.symmetric_difference(&there).collect();
        (!apart.is_empty()).then(|| unix.says(1, &format!("its twin differs in {apart:?}")))
    }));
}

#[test]
fn the_token_is_revealed_in_the_hub_room_only() {
    none(sources().iter().filter(|source| source.room().as_deref() != Some("hub")).flat_map(|source| {
        // A room's own tests may look whether a token came through.
        let shipped = source.shipped_lines();
        let uses = source.words().filter(|word| word.text == "reveal" && word.before != "fn" && word.line <= shipped);
        uses.map(|word| source.says(word.line, "`reveal` outside `hub`")).collect::<Vec<_>>()
    }));
}

#[test]
fn files_open_with_what_they_are_and_stay_short_enough_to_enjoy() {
    none(sources().iter().chain(&tests()).flat_map(|source| {
        let lines = source.text.lines().count();
        let long = (lines > FILE_LINES_MAX).then(|| source.says(lines, "longer than people read"));
        let mute = (!source.text.starts_with("//!")).then(|| source.says(1, "does not open with `//!`"));
        long.into_iter().chain(mute)
    }));
}

#[test]
fn nothing_is_left_to_do() {
    none(sources().iter().flat_map(|source| {
        let left = source.text.lines().zip(1..).filter(|(line, _)| {
            ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX", "TODO"].iter().any(|mark| line.contains(mark))
        });
        left.map(|(line, at)| source.says(at, line.trim())).collect::<Vec<_>>()
    }));
}

#[test]
fn names_say_what_things_are() {
    none(sources().iter().flat_map(|source| {
        let defined = source.words().filter(|word| {
            let defines = ["fn", "struct", "enum", "trait", "mod", "type", "const", "static", "let", "mut"];
            defines.contains(&word.before) && !KEPT.contains(&word.text)
        });
        let empty = defined.filter(|word| {
            word.text.ends_with("_impl")
                || word.text.ends_with("_inner")
                || snake(word.text).split('_').any(|part| EMPTY_WORDS.contains(&part.trim_end_matches('s')))
        });
        empty.map(|word| source.says(word.line, &format!("`{}` says nothing", word.text))).collect::<Vec<_>>()
    }));
}

#[test]
fn the_changelog_has_room_for_the_next_change() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).expect("CHANGELOG.md");
    assert!(changelog.lines().any(|line| line == "## Unreleased"));
}

#[test]
fn tests_take_any_free_port() {
    none(tests().iter().flat_map(|source| {
        let fixed = source.text.lines().zip(1..).filter(|(line, _)| {
            line.match_indices("127.0.0.1:")
                .any(|(at, found)| line[at + found.len()..].starts_with(|digit: char| ('1'..='9').contains(&digit)))
        });
        fixed.map(|(line, at)| source.says(at, line.trim())).collect::<Vec<_>>()
    }));
}

// ---- the table -------------------------------------------------------------------------------------

/// A room's row in the table of `src/lib.rs`.
struct Row {
    /// Counted from the words at the top, which are 1.
    layer: usize,
    place: usize,
    doors: Vec<String>,
}

impl Row {
    /// Words are made of the words above them; elsewhere nothing goes sideways.
    fn may_import(&self, other: &Row) -> bool {
        other.layer < self.layer || self.layer == 1 && other.layer == 1 && other.place < self.place
    }
}

/// The table: `| layer | room | is | door to |`, where an empty layer is the one above.
fn rooms() -> BTreeMap<String, Row> {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let mut layers = 0;
    let mut rooms = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("//! |")) {
        let cells: Vec<&str> = line.trim_end_matches('|').split('|').map(str::trim).collect();
        let [layer, room, _, doors] = cells.as_slice() else { continue };
        let Some(room) = room.strip_prefix("[`").and_then(|room| room.strip_suffix("`]")) else {
            continue;
        };
        layers += usize::from(!layer.is_empty());
        let doors = doors.split(',').map(|name| name.trim().trim_matches('`').replace('-', "_"));
        let doors = doors.filter(|name| !name.is_empty()).collect();
        rooms.insert(room.to_owned(), Row { layer: layers, place: rooms.len(), doors });
    }
    assert!(!rooms.is_empty(), "src/lib.rs has no table of rooms");
    rooms
}

// ---- the sources -----------------------------------------------------------------------------------

struct Source {
    /// Below the package's folder.
    path: PathBuf,
    text: String,
    /// The text with comments and string contents blanked out.
    code: String,
}

/// A word of code, with what stands around it.
struct Word<'a> {
    text: &'a str,
    before: &'a str,
    /// Whether `::` stands before it.
    inside_path: bool,
    after: &'a str,
    line: usize,
}

impl Word<'_> {
    /// Whether it is the crate at the start of a path: `libp2p::…` or `use libp2p;`.
    fn is_path_start(&self) -> bool {
        !self.inside_path && (self.after.starts_with("::") || self.before == "use")
    }

    /// Whether it belongs into a file of this name: `unix` has what Linux has too.
    fn is_of(&self, file: &str) -> bool {
        let crates_system = ONE_SYSTEM.iter().find(|(_, name)| *name == self.text).map(|(system, _)| *system);
        match crates_system.unwrap_or(self.text) {
            "linux" => file == "unix",
            // The name of the system is a text, and texts are not seen here.
            "target_os" => matches!(file, "unix" | "windows"),
            system => file == system,
        }
    }
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        Self { path: path.strip_prefix(root()).unwrap().to_owned(), code: blank(&text), text }
    }

    /// The room that a file below `src/` belongs to: its folder, or itself.
    fn room(&self) -> Option<String> {
        let below = self.path.strip_prefix("src").ok()?.components().next()?;
        let name = below.as_os_str().to_str()?.trim_end_matches(".rs").to_owned();
        (!matches!(name.as_str(), "lib" | "main")).then_some(name)
    }

    /// How many lines come before the file's own tests.
    fn shipped_lines(&self) -> usize {
        let own_tests = self.code.match_indices(TEST_ONLY).map(|(at, _)| at).find(|at| is_inline(&self.code[*at..]));
        self.code[..own_tests.unwrap_or(self.code.len())].lines().count()
    }

    /// Whether it is a file of tests and nothing else.
    fn is_test(&self) -> bool {
        self.path.components().any(|part| part.as_os_str().to_str().is_some_and(|part| part.starts_with("tests")))
    }

    fn line(&self, number: usize) -> &str {
        self.code.lines().nth(number - 1).unwrap_or_default()
    }

    /// The names of what the room around a file gets from it.
    fn offers(&self) -> BTreeSet<String> {
        let shipped = self.shipped_lines();
        let defines = ["fn", "struct", "enum", "type", "const"];
        let offered = self.words().filter(|word| {
            word.line <= shipped && defines.contains(&word.before) && self.line(word.line).starts_with("pub")
        });
        offered.map(|word| word.text.to_owned()).collect()
    }

    fn words(&self) -> impl Iterator<Item = Word<'_>> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let mut words: Vec<Word<'_>> = Vec::new();
        for (line, code) in (1..).zip(self.code.lines()) {
            let mut at = 0;
            while let Some(start) = code[at..].find(is_word).map(|start| at + start) {
                let end = code[start..].find(|c| !is_word(c)).map_or(code.len(), |end| start + end);
                let before = words.last().map_or("", |word| word.text);
                let inside_path = code[..start].trim_end().ends_with("::");
                words.push(Word {
                    text: &code[start..end],
                    before,
                    inside_path,
                    after: code[end..].trim_start(),
                    line,
                });
                at = end;
            }
        }
        words.into_iter()
    }

    /// What `crate::` is followed by: one room, or each of a group in braces, however it is wrapped.
    fn words_after(&self, root: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices(&format!("{root}::")) {
            let line = self.code[..at].lines().count();
            let rest = &self.code[at + root.len() + 2..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(heads(group).into_iter().map(|head| (line, head))),
                None => found.extend(heads(rest).into_iter().take(1).map(|head| (line, head))),
            }
        }
        found
    }

    fn says(&self, line: usize, text: &str) -> String {
        format!("{}:{line}: {text}", self.path.display())
    }
}

/// Whether code that begins with attributes goes on with a module that is written there, and not only named.
fn is_inline(code: &str) -> bool {
    let item = code.lines().find(|line| !line.trim_start().starts_with("#[")).unwrap_or_default();
    item.trim_start().starts_with("mod ") && item.trim_end().ends_with('{')
}

/// The first name of each item of a group, up to the brace that closes it.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut head, mut fresh) = (0, Vec::new(), String::new(), true);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(std::mem::take(&mut head));
                fresh = true;
            }
            _ if fresh && (c.is_alphanumeric() || c == '_') => head.push(c),
            _ if fresh && !head.is_empty() => fresh = false,
            _ => {}
        }
    }
    heads.push(head);
    heads.retain(|head| !head.is_empty());
    heads
}

/// The code with every comment, text and character literal turned to blanks, line by line as it was.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r\"")
            || rest.starts_with("r#") && rest.trim_start_matches(['r', '#']).starts_with('"')
        {
            let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
            let close = format!("\"{}", "#".repeat(hashes));
            rest[2 + hashes..].find(&close).map_or(rest.len(), |end| 2 + hashes + end + close.len())
        } else if c == '"' {
            quoted(rest, '"').unwrap_or(rest.len())
        } else if c == '\'' {
            // A lifetime has no closing quote where a character would have it.
            let width = rest[1..].chars().next().map_or(0, char::len_utf8);
            let is_char = rest[1..].starts_with('\\') || rest.get(1 + width..).is_some_and(|end| end.starts_with('\''));
            if is_char { quoted(rest, '\'').unwrap_or(rest.len()) } else { 0 }
        } else {
            0
        };
        if skipped == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..skipped].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[skipped..];
        }
    }
    out
}

/// The length of a literal that begins with `quote` and ends with the next one that is not escaped.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Some(at + c.len_utf8()),
            _ => {}
        }
    }
    None
}

fn snake(name: &str) -> String {
    let parts = name.chars().flat_map(|c| {
        let gap = c.is_uppercase().then_some('_');
        gap.into_iter().chain(c.to_lowercase())
    });
    parts.collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    below("src")
}

fn tests() -> Vec<Source> {
    below("tests")
}

fn below(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.push(Source::read(&path));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

#[track_caller]
fn none(found: impl Iterator<Item = String>) {
    let found: Vec<String> = found.collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_file_is_shipped_up_to_the_tests_that_are_written_in_it() {
    let shipped =
        |code: &str| Source { path: "src/plan.rs".into(), text: String::new(), code: code.into() }.shipped_lines();
    assert_eq!(shipped("fn a() {}\n#[cfg(test)]\nmod tests;\nfn b() {}\n"), 4);
    assert_eq!(shipped("#[cfg(test)]\nuse x;\nfn b() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n}\n"), 3);
}

#[test]
fn the_reader_of_code_sees_through_comments_and_texts() {
    let source = Source {
        path: "src/plan.rs".into(),
        text: String::new(),
        code: blank(concat!(
            "use crate::{names::{self, X}, hub};\n",
            "let a = \"crate::cli\"; // crate::daemon\n",
            "let b = '\"'; crate::swarm::y(); r#\"crate::share\"#",
        )),
    };
    let found: Vec<String> = source.words_after("crate").into_iter().map(|(_, head)| head).collect();
    assert_eq!(found, ["names", "hub", "swarm"]);
    assert_eq!(
        source.words().filter(|word| word.before == "let").map(|word| word.text).collect::<Vec<_>>(),
        ["a", "b"]
    );
}
