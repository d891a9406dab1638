//! Finding the result of a step of which a thousand read sets are known.

use std::path::PathBuf;

use pv::environment::Tools;
use pv::exec::Rung;
use pv::hash::Digest;
use pv::host::Time;
use pv::object::StepKey;
use pv::pipeline::{self, Trust};
use pv::project::Project;
use pv::record::{By, Observed, Recipe, Record, StepResult};
use pv::run::{Memory, Peers, Verdict, Work, plan};
use pv::snapshot::{Captured, View, capture_working};

use crate::common::child::{Cost, in_turns};
use crate::common::row::{Hold, Row, Series};
use crate::common::scratch::Scratch;
use crate::common::size::Size;

const SETS: usize = 1000;
const FILES: usize = 2000;
/// How many files each set has.
const FILES_READ: usize = 50;

const DEFINITION: &str = "steps:
  read:
    run: sh read.sh
    inputs: []
    outputs: [out.txt]
";

/// Each set has other files; the one that holds is the oldest, so all are looked at.
pub(crate) fn lookup(scratch: &Scratch, size: Size) -> Row {
    let place = place(scratch);
    let project = Project::open(&place, "pipeline").unwrap();
    let captured = capture_working(project.site(), &project.store, &|_, _| true).unwrap();
    let recipe = judged(&project, &captured).1;
    let results: Vec<StepResult> = (0..SETS).map(|number| result(&recipe, number)).collect();
    let (task, key) = (recipe.task(), results[0].key);
    project.journal.add(&results.into_iter().map(Record::Step).collect::<Vec<_>>()).unwrap();
    let sets = project.journal.read_sets(task).unwrap();
    assert_eq!(sets.sets.len(), SETS);
    project.journal.remember_read_sets(task).unwrap();
    let (subject, floor) = in_turns(
        size.rounds(20),
        |_| Cost::of(|| assert_eq!(judged(&project, &captured).0, Some(key))),
        |_| Cost::of(|| assert_eq!(project.journal.results(Some(task), key).unwrap().len(), 1)),
    );
    Row {
        name: "lookup".to_owned(),
        what: "key lookup with 1,000 recorded read sets of 50 files each".to_owned(),
        measured: Series::times("pv", &subject),
        floor: Some(Series::times("list the records of the task and read one", &floor)),
        hold: Hold::Amount(10.0),
        hold_peak_mib: None,
        peers: Vec::new(),
    }
}

/// Returns the key of the result that is reused, and what the step depends on.
fn judged(project: &Project, captured: &Captured) -> (Option<StepKey>, Recipe) {
    let graph = pipeline::order(captured.pipeline()).unwrap();
    let tools = Tools::new(String::new());
    let work = Work {
        pipeline: captured.pipeline(),
        name: "pipeline",
        graph: &graph,
        params: &captured.params,
        view: View::new(&project.store, &captured.snapshot),
        images: &pv::run::Images::new(),
        version: None,
        tools: &tools,
        machine: &project.machine,
        journal: &project.journal,
        store: &project.store,
        peers: &Peers { me: By::here(None), trust: Trust::All },
        memory: Memory::default(),
    };
    let judged = plan(&work).unwrap().remove(0);
    let key = match judged.verdict {
        Verdict::Reuse(result) => Some(result.key),
        Verdict::Run => None,
    };
    (key, judged.recipe.unwrap())
}

/// Returns a result that read files of its own. Only the first read them as they are.
fn result(guess: &Recipe, number: usize) -> StepResult {
    let mut recipe = guess.clone();
    recipe.reads.clear();
    for place in 0..FILES_READ {
        let file = (number * 7 + place * 11) % FILES;
        let digest = if number == 0 { content_of(file) } else { format!("other {file}") };
        recipe.reads.insert(format!("data/{file}.txt"), format!("file {}", Digest::of(digest.as_bytes())));
    }
    StepResult {
        key: recipe.key(),
        recipe,
        outputs: Vec::new(),
        log: None,
        started: Time { epoch_ms: i64::try_from(number).unwrap() },
        elapsed_ms: 1,
        by: By { who: "a".to_owned(), host: "b".to_owned(), platform: "c".to_owned(), pv: "d".to_owned() },
        observed: Some(Observed { rung: Rung::Notify, ..Observed::default() }),
    }
}

fn content_of(file: usize) -> String {
    format!("content of {file}\n")
}

fn place(scratch: &Scratch) -> PathBuf {
    let place = scratch.root.join("lookup");
    std::fs::create_dir_all(place.join(".pipeline")).unwrap();
    std::fs::create_dir_all(place.join("data")).unwrap();
    std::fs::write(place.join(".pipeline/pipeline.yaml"), DEFINITION).unwrap();
    std::fs::write(place.join("read.sh"), "true\n").unwrap();
    for file in 0..FILES {
        std::fs::write(place.join(format!("data/{file}.txt")), content_of(file)).unwrap();
    }
    scratch.commit(&place);
    place
}
