//! What most commands begin with: the project, its records, a named snapshot.

use std::path::PathBuf;

use super::Global;
use super::fail::{CliError, exchange_hint};
use super::ui::Ui;
use crate::environment::{self, Toolboxes, Tools};
use crate::git::Repository;
use crate::host;
use crate::object::Snapshot;
use crate::path::ProjectPath;
use crate::pipeline::{self, Graph, Params, Pipeline, Trust};
use crate::project::Project;
use crate::record::By;
use crate::revision::{self, Named, Names};
use crate::run::{self, Images, Memory, Peers, Work, learnt_order, pythons, wanted};
use crate::snapshot::{
    Captured, POINTERS, SnapshotError, View, definition_path, excluded, load_pipeline, read_pointers, read_snapshot,
};
use crate::store::Store;

/// Returns the directory that the command works in.
pub(super) fn directory(global: &Global) -> Result<PathBuf, CliError> {
    let here = host::current_directory()
        .map_err(|error| CliError::usage(format!("the current directory cannot be used: {error}")))?;
    let Some(given) = &global.directory else { return Ok(here) };
    let directory = here.join(given);
    if directory.is_file() {
        return Err(CliError::usage(format!("`{}` is not a directory", directory.display())));
    }
    Ok(directory)
}

/// Opens the project, and takes in the records that arrived on the ref since.
pub(super) fn project(ui: &Ui, global: &Global) -> Result<Project, CliError> {
    definition(global)?;
    let project = Project::open(&directory(global)?, &global.pipeline)?;
    exchange(ui, &project);
    Ok(project)
}

/// Returns where the definition lies that `--pipeline` names.
pub(super) fn definition(global: &Global) -> Result<ProjectPath, CliError> {
    definition_path(&global.pipeline).ok_or_else(|| {
        CliError::usage(format!("`{}` is no name for a pipeline", global.pipeline))
            .hint("the name `train` stands for the file `.pipeline/train.yaml`")
    })
}

/// Makes records and ref the same. What fails here is done by the next command, so it only warns.
pub(super) fn exchange(ui: &Ui, project: &Project) {
    if let Err(error) = project.journal.exchange(&project.repository) {
        ui.say(format!("warning: records were not exchanged with `{}`: {error}", crate::record::META_REF));
        if let Some(hint) = exchange_hint(&error) {
            ui.say(format!("hint: {hint}"));
        }
    }
}

/// Returns this user on this machine.
pub(super) fn by(repository: &Repository) -> By {
    By::here(repository.identity().map(|identity| format!("{} <{}>", identity.name, identity.email)))
}

/// Returns what `text` names, looking for objects in `store`.
pub(super) fn resolve_in(project: &Project, store: &dyn Store, text: &str) -> Result<Named, CliError> {
    let memory = project.commits();
    Ok(revision::resolve(&Names { store, ..project.names(&memory) }, text)?)
}

/// Says of which directories the snapshot has no files, so that steps will not find any.
pub(super) fn note_submodules(ui: &Ui, paths: &[ProjectPath]) {
    for path in paths {
        ui.say(format!("note: of submodule `{path}` the snapshot has the commit only, not its files"));
    }
}

/// A snapshot with everything that is known by its id.
pub(super) struct Opened {
    pub(super) snapshot: Snapshot,
    pub(super) pipeline: Pipeline,
    pub(super) params: Params,
}

/// Reads the snapshot that was named.
pub(super) fn open(project: &Project, named: &Named) -> Result<Opened, CliError> {
    open_in(&project.store, named)
}

/// Reads the snapshot that was named out of `store`.
pub(super) fn open_in(store: &dyn Store, named: &Named) -> Result<Opened, CliError> {
    let snapshot = read_snapshot(store, named.snapshot)?;
    let (pipeline, params) = load_pipeline(store, &snapshot)?;
    Ok(Opened { snapshot, pipeline, params })
}

/// The steps of a snapshot, and what there is to judge them by.
pub(super) struct Steps<'a> {
    project: &'a Project,
    pipeline: &'a Pipeline,
    params: &'a Params,
    version: Option<&'a str>,
    graph: Graph,
    tools: Toolboxes,
    memory: Memory,
    images: Images,
    peers: Peers,
}

impl<'a> Steps<'a> {
    /// Returns them in their order, which is also learnt from what is on record. `version` is what steps are told that ask for it.
    pub(super) fn new(
        project: &'a Project,
        pipeline: &'a Pipeline,
        params: &'a Params,
        version: Option<&'a str>,
    ) -> Result<Self, CliError> {
        let (journal, memory) = (&project.journal, Memory::default());
        let graph = pipeline::order(pipeline).map_err(SnapshotError::from)?;
        let graph = learnt_order(pipeline, &project.pipeline, params, version, journal, &graph, &memory)?;
        let tools = Toolboxes::new(Tools::new(environment::search_path()).with_rules(project.rules()?));
        let trust = project.remotes()?.used.trust.unwrap_or(Trust::All);
        let peers = Peers { me: by(&project.repository), trust };
        Ok(Self { project, pipeline, params, version, graph, tools, memory, images: Images::new(), peers })
    }

    /// Returns the order of the steps.
    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Returns the facts that decisions about the steps are made from, with the files of `snapshot` as `store` has them.
    ///
    /// Python environments are those that are there already.
    pub(super) fn work<'w>(&'w mut self, snapshot: &'w Snapshot, store: &'w dyn Store) -> Result<Work<'w>, CliError> {
        let view = View::new(store, snapshot);
        for python in pythons(self.pipeline, &|_| true) {
            // Without its lock nothing can run in it; whoever lets something run says so.
            if let Some(wanted) = wanted(&view, python)? {
                let made = wanted.made(&self.project.python_environments());
                self.tools.add(python, &wanted, made);
            }
        }
        self.images = run::images(store, snapshot, self.pipeline)?;
        Ok(Work {
            images: &self.images,
            memory: std::mem::take(&mut self.memory),
            pipeline: self.pipeline,
            name: &self.project.pipeline,
            graph: &self.graph,
            params: self.params,
            view,
            version: self.version,
            tools: &self.tools,
            machine: &self.project.machine,
            journal: &self.project.journal,
            store,
            peers: &self.peers,
        })
    }
}

/// Says which Python environments are not there, so that of what steps load only that is known which the lock pins.
pub(super) fn note_unmade(ui: &Ui, work: &Work<'_>) {
    for lock in work.tools.unmade() {
        ui.say(format!("note: the Python environment of `{lock}` is not made here yet: this is told from the lock; `pv run` makes it"));
    }
}

/// Returns the current commit, and whether what was captured differs from what that commit alone determines.
pub(super) fn base(project: &Project, captured: &Captured) -> Result<(Option<String>, bool), CliError> {
    let head = project.repository.head()?;
    let Some(commit) = head.commit else { return Ok((None, true)) };
    // Git does not see data that it ignores; its pointer does.
    let pointers = read_pointers(project.site(), captured.pipeline())?;
    let follows = captured.pointed.iter().all(|root| pointers.contains(root));
    let changed = project.repository.changed_paths(project.prefix.as_ref())?;
    let dirty = !follows || changed.iter().any(|path| matters(captured.pipeline(), path));
    Ok((Some(commit.to_string()), dirty))
}

/// Returns whether a changed file makes another snapshot: anything in the tree, and the data pointers.
fn matters(pipeline: &Pipeline, path: &ProjectPath) -> bool {
    let is_pointer = path.as_bytes().starts_with(POINTERS.as_bytes());
    let in_data = pipeline.data.iter().any(|root| path.is_within(root));
    is_pointer || in_data || !excluded(pipeline, path)
}
