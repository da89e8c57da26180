//! `hffs model`: ls, search, rm.
//!
//! Knows the cache as it is shown, and the daemon's word on who else has a file. Does not know how
//! files come; that is `add`.
//! Invariant: `ls` and `rm` need no daemon, since the cache is what is on disk.

use super::add::Add;
use super::exit::{Exit, Outcome, Wrong};
use super::printer::Printer;
use super::text::{self, Lean};
use crate::cache::{Cache, FileView, RepoView};
use crate::config::{Environment, Home, Wishes};
use crate::control::{Client, Request, SearchRequest, docs};
use crate::names::{Commit, Repo, RepoId, RepoPath, RepoType, Revision};

/// `hffs model …`
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List what this machine has
    Ls(Ls),
    /// Ask which peers have a repo or a file
    Search(Search),
    /// Download from whatever is fastest, and print each file's path
    Add(Add),
    /// Remove files, and then what nothing else refers to
    Rm(Rm),
}

/// A repo on the command line.
#[derive(Debug, clap::Args)]
pub(super) struct RepoArgs {
    /// `org/name`, as the Hub shows it
    #[arg(value_name = "REPO_ID")]
    id: RepoId,
    /// What kind of repo it is
    #[arg(long, value_name = "TYPE", default_value_t, value_parser = repo_type())]
    repo_type: RepoType,
}

impl RepoArgs {
    pub(super) fn repo(&self) -> Repo {
        Repo { kind: self.repo_type, id: self.id.clone() }
    }
}

/// Takes the three words for a repo type, and shows them in the help.
fn repo_type() -> impl clap::builder::TypedValueParser<Value = RepoType> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(RepoType::ALL.map(RepoType::singular)).try_map(|word| word.parse::<RepoType>())
}

/// `hffs model ls`
#[derive(Debug, clap::Args)]
pub(super) struct Ls {
    /// Show the files of this repo
    #[arg(long = "repo_id", alias = "repo-id", value_name = "REPO_ID")]
    repo_id: Option<RepoId>,
    /// Print the path of this file alone
    #[arg(long, value_name = "FILE", requires = "repo_id")]
    file: Option<RepoPath>,
    /// Only repos of this kind
    #[arg(long, value_name = "TYPE", value_parser = repo_type())]
    repo_type: Option<RepoType>,
    /// Only files of this branch, tag or commit
    #[arg(long, value_name = "REVISION", requires = "repo_id")]
    revision: Option<Revision>,
}

/// `hffs model search`
#[derive(Debug, clap::Args)]
pub(super) struct Search {
    #[command(flatten)]
    repo: RepoArgs,
    /// A file [default: the whole repo]
    #[arg(value_name = "FILE")]
    file: Option<RepoPath>,
    /// Branch, tag, refs/pr/N or commit [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<Revision>,
}

/// `hffs model rm`
#[derive(Debug, clap::Args)]
pub(super) struct Rm {
    #[command(flatten)]
    repo: RepoArgs,
    /// Files [default: all]
    #[arg(value_name = "FILE")]
    files: Vec<RepoPath>,
    /// Only of this branch, tag or commit [default: of all]
    #[arg(long, value_name = "REVISION")]
    revision: Option<Revision>,
}

/// Lists repos, or the files of one, or says where one file is.
pub(super) fn ls(ls: Ls, environment: &Environment, printer: Printer) -> Outcome {
    let home = Home::find(environment)?;
    let cache = Cache::look_at(home.hub_cache(), &home.own())?;
    let views = cache.repos_that(|repo| {
        ls.repo_type.is_none_or(|kind| kind == repo.kind) && ls.repo_id.as_ref().is_none_or(|id| *id == repo.id)
    });
    let Some(id) = ls.repo_id else {
        let repos: Vec<docs::ListedRepo> = views.into_iter().map(listed_repo).collect();
        if repos.is_empty() {
            printer.say("no models yet: `hffs model add REPO_ID` brings one");
        }
        printer.result(&repos, || if repos.is_empty() { String::new() } else { repo_table(&repos) })?;
        return Ok(Exit::Done);
    };
    if views.is_empty() {
        return Err(Wrong::new(format!("`{id}` is not on this machine")).hint(format!("hffs model add {id}")).into());
    }
    let mut files: Vec<FileView> = Vec::new();
    for view in &views {
        let of = ls.revision.as_ref().map(|revision| commit_of(view, revision)).transpose()?;
        files
            .extend(cache.files(&view.repo).into_iter().filter(|file| of.as_ref().is_none_or(|of| file.commit == *of)));
    }
    if let Some(path) = ls.file {
        files.retain(|file| file.path == path);
        let Some(best) = best(&views, &files) else {
            let error = Wrong::new(format!("`{path}` of `{id}` is not on this machine"));
            return Err(error.hint(format!("hffs model add {id} {path}")).into());
        };
        let local_path = best.local_path.display().to_string();
        let files: Vec<docs::ListedFile> = files.into_iter().map(listed_file).collect();
        printer.result(&files, || local_path)?;
        return Ok(Exit::Done);
    }
    let files: Vec<docs::ListedFile> = files.into_iter().map(listed_file).collect();
    printer.result(&files, || file_table(&files))?;
    Ok(Exit::Done)
}

/// Asks the daemon which peers have a repo, or one file of it.
pub(super) async fn search(search: Search, environment: &Environment, printer: Printer) -> Outcome {
    let home = Home::find(environment)?;
    let request = Request::Search(SearchRequest {
        repo: search.repo.repo(),
        revision: search.revision.unwrap_or_else(Revision::main),
        file: search.file,
        wishes: Wishes::of(environment)?,
    });
    let holders: Vec<docs::Holder> = Client::connect(&home).await?.ask(&request).await?;
    if holders.is_empty() {
        printer.say("no peer has any of it");
    }
    printer.result(&holders, || if holders.is_empty() { String::new() } else { holder_table(&holders) })?;
    Ok(Exit::Done)
}

/// Removes files of a repo.
pub(super) fn rm(rm: Rm, environment: &Environment, printer: Printer) -> Outcome {
    let home = Home::find(environment)?;
    let paths = (!rm.files.is_empty()).then_some(rm.files.as_slice());
    let gone = open(&home)?.remove(&rm.repo.repo(), paths, rm.revision.as_ref())?;
    let gone = docs::Removed { removed: gone.removed, freed: gone.freed };
    let files = text::count(gone.removed.len(), "file", "files");
    printer.say(&format!("removed {files}, freed {}", text::size(gone.freed)));
    printer
        .result(&gone, || gone.removed.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join("\n"))?;
    Ok(Exit::Done)
}

pub(super) fn open(home: &Home) -> Result<Cache, crate::cache::Error> {
    Cache::open(home.hub_cache(), &home.own())
}

fn commit_of(view: &RepoView, revision: &Revision) -> anyhow::Result<Commit> {
    let known = view.refs.get(revision).cloned().or_else(|| revision.as_commit());
    known.filter(|commit| view.commits.contains(commit)).ok_or_else(|| {
        let id = &view.repo.id;
        let error = Wrong::new(format!("revision `{revision}` of `{id}` is not on this machine"));
        error.hint(format!("hffs model add {id} --revision {revision}")).into()
    })
}

/// The file that is meant when several commits have one at that path: what `main` names, else what any
/// ref names, else any.
fn best<'a>(views: &[RepoView], files: &'a [FileView]) -> Option<&'a FileView> {
    let main = Revision::main();
    let rank = |file: &&FileView| {
        let refs = || views.iter().flat_map(|view| &view.refs).filter(|(_, commit)| **commit == file.commit);
        if refs().any(|(name, _)| *name == main) {
            0
        } else if refs().next().is_some() {
            1
        } else {
            2
        }
    };
    files.iter().min_by_key(rank)
}

fn listed_repo(view: RepoView) -> docs::ListedRepo {
    docs::ListedRepo {
        repo_id: view.repo.id,
        repo_type: view.repo.kind,
        commits: view.commits,
        refs: view.refs.into_iter().map(|(name, commit)| (name.to_string(), commit)).collect(),
        files: view.files,
        size: view.size,
    }
}

fn listed_file(file: FileView) -> docs::ListedFile {
    docs::ListedFile {
        path: file.path,
        commit: file.commit,
        size: file.size,
        etag: file.etag,
        local_path: file.local_path,
    }
}

fn repo_table(repos: &[docs::ListedRepo]) -> String {
    let heads = [
        ("REPO", Lean::Left),
        ("TYPE", Lean::Left),
        ("FILES", Lean::Right),
        ("SIZE", Lean::Right),
        ("REFS", Lean::Left),
    ];
    let rows = repos.iter().map(|repo| {
        let refs = repo.refs.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let size = text::size(repo.size);
        [repo.repo_id.to_string(), repo.repo_type.to_string(), repo.files.to_string(), size, refs]
    });
    text::table(heads, rows)
}

fn file_table(files: &[docs::ListedFile]) -> String {
    let heads = [("FILE", Lean::Left), ("SIZE", Lean::Right), ("COMMIT", Lean::Left)];
    let rows = files.iter().map(|file| [file.path.to_string(), text::size(file.size), short(&file.commit)]);
    text::table(heads, rows)
}

fn holder_table(holders: &[docs::Holder]) -> String {
    let heads = [
        ("PEER", Lean::Left),
        ("ADDRESS", Lean::Left),
        ("COMMIT", Lean::Left),
        ("FILES", Lean::Right),
        ("SIZE", Lean::Right),
        ("HAS", Lean::Left),
    ];
    let rows = holders.iter().map(|holder| {
        [
            holder.peer_id.short().to_owned(),
            holder.address.clone().unwrap_or_else(|| "-".into()),
            short(&holder.commit),
            holder.files.to_string(),
            text::size(holder.size),
            if holder.complete { "all" } else { "a part" }.to_owned(),
        ]
    });
    text::table(heads, rows)
}

fn short(commit: &Commit) -> String {
    commit.as_str().get(..12).unwrap_or_default().to_owned()
}
