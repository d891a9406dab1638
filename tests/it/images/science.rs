//! A real training in real images: Python and scikit-learn of Debian's packages, from a registry that is gone afterwards.
//!
//! The images are made by `scripts/make-images.sh`, once, beside the Python environment of the tests.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::registry::Hub;
use super::run::{Podman, User, of, verdicts};
use super::{beside, told};
use crate::cloud::servers::Access;
use crate::fault::needs;
use crate::sandbox::Sandbox;

const DEFINITION: &str = "\
seed: 42
steps:
  prepare:
    run: python3 prepare.py > points.csv
    outputs: [points.csv]
  train:
    run: [python3, train.py]
    inputs: [points.csv]
    outputs: [model.pkl]
";

const PREPARE: &str = "\
import os, random
random.seed(int(os.environ['PV_SEED']))
for n in range(80):
    x, y = random.random(), random.random()
    print(x, y, int(x > y), sep=',')
";

const TRAIN: &str = "\
import os, pickle
import numpy
from sklearn.tree import ExtraTreeClassifier
numpy.random.seed(int(os.environ['PV_SEED']) % 2**32)
points = numpy.loadtxt('points.csv', delimiter=',')
model = ExtraTreeClassifier().fit(points[:, :2], points[:, 2])
pickle.dump(model, open('model.pkl', 'wb'))
";

fn project() -> Sandbox {
    let sandbox = Sandbox::with_pipeline(DEFINITION);
    sandbox.write("prepare.py", PREPARE);
    sandbox.write("train.py", TRAIN);
    sandbox.write(".gitignore", "/points.csv\n/model.pkl\n");
    sandbox
}

/// Returns the layout with the images: `debian`, and `newer` with another scikit-learn.
fn images(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).filter_map(|place| Some(place.parent()?.join("images")));
    let found = places.into_iter().find(|place| place.join("index.json").is_file());
    needs(test, "the images of scripts/make-images.sh", found.ok_or_else(|| "they were not made".to_owned()))
}

/// What both steps made, by its digest.
fn outputs(run: &Value) -> Value {
    let steps = run["steps"].as_array().unwrap();
    json!(steps.iter().map(|step| step["outputs"].clone()).collect::<Vec<_>>())
}

#[test]
fn a_training_repeats_bit_for_bit_whoever_runs_it_and_when_nothing_is_left_of_its_registry() {
    let test = "a_training_repeats_bit_for_bit_whoever_runs_it_and_when_nothing_is_left_of_its_registry";
    let (Some(images), Some(hub)) = (images(test), Hub::start(test, Access::Everybody)) else { return };
    let sandbox = project();
    hub.copy(&format!("oci:{}:debian", images.display()), "science:1");
    let tag = format!("{}/science:1", hub.host());
    let added = told(&sandbox, &["env", "add", &tag]);
    assert_eq!(added["layers"], 2);
    sandbox.commit("image");
    told(&sandbox, &["remote", "add", "share", &beside(&sandbox, "share")]);
    sandbox.commit("remote");
    let run = told(&sandbox, &["run"]);
    assert_eq!(verdicts(&run), of(&[("prepare", "ran"), ("train", "ran")]));
    assert!(sandbox.path("model.pkl").metadata().unwrap().len() > 1000);
    told(&sandbox, &["push"]);

    // The registry stops, and its disk is wiped with it.
    let storage = hub.storage();
    drop(hub);
    assert!(!storage.exists());
    let gone = sandbox.pv(&["env", "add", &tag, "--no-edit"]);
    assert!(gone.contains("--- exit 5"), "{gone}");

    // Nothing of the store is left either, nor of what was laid out of it: another machine, with Git and the remote.
    let clone = sandbox.beside("elsewhere/clone");
    sandbox.git(&["clone", "--quiet", ".", clone.to_str().unwrap()]);
    let store = sandbox.path(".git/pv");
    fs::rename(&store, sandbox.beside("kept")).unwrap();
    let mut replay = sandbox.pv_command_in(&clone, &["--json", "run", run["snapshot"].as_str().unwrap(), "--restore"]);
    let output = replay.env("XDG_CACHE_HOME", sandbox.beside("other-cache")).output().unwrap();
    assert!(output.status.success(), "{}", sandbox.tell(&output));
    let replayed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdicts(&replayed), of(&[("prepare", "ran"), ("train", "ran")]));
    assert_eq!(outputs(&replayed), outputs(&run));
    assert!(fs::read(clone.join("model.pkl")).unwrap() == fs::read(sandbox.path("model.pkl")).unwrap());
    fs::rename(sandbox.beside("kept"), &store).unwrap();
    fs::remove_dir_all(sandbox.beside("elsewhere")).unwrap();
    fs::remove_dir_all(sandbox.beside("other-cache")).unwrap();

    if let Some(podman) = Podman::find(&sandbox, test) {
        let definition = sandbox.read(".pipeline/pipeline.yaml");
        podman.switch_to(&sandbox);
        let theirs = podman.told(&sandbox, &["run", "--again"]);
        assert_eq!(verdicts(&theirs), of(&[("prepare", "ran"), ("train", "ran")]));
        assert_eq!(outputs(&theirs), outputs(&run));
        sandbox.write(".pipeline/pipeline.yaml", definition);
    }

    let Some(user) = User::given(&sandbox, test) else { return };
    let again = user.told(&sandbox, &["run", "--again"]);
    assert_eq!(verdicts(&again), of(&[("prepare", "ran"), ("train", "ran")]));
    assert_eq!(outputs(&again), outputs(&run));
}

#[test]
fn another_scikit_learn_in_an_image_is_named_with_the_step_that_runs_in_it() {
    let test = "another_scikit_learn_in_an_image_is_named_with_the_step_that_runs_in_it";
    let Some(images) = images(test) else { return };
    let sandbox = project();
    let version = |image: &str, tag: &str| {
        told(&sandbox, &["env", "add", &format!("oci:{}:{image}", images.display()), "--step", "train"]);
        sandbox.commit(tag);
        told(&sandbox, &["snapshot", "--tag", tag]);
    };
    version("debian", "v1");
    version("newer", "v2");
    let packages = || {
        let told = told(&sandbox, &["env", "diff", "v1", "v2"]);
        let list = told["packages"].as_array().unwrap().clone();
        list.into_iter().map(|package| (package["name"].as_str().unwrap().to_owned(), package)).collect::<Vec<_>>()
    };
    // Before anything has been run, and afterwards.
    let before = packages();
    let names: Vec<_> = before.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["python3-sklearn", "python3-sklearn-lib", "scikit-learn"]);
    let (old, new) = (&before[2].1["old"], &before[2].1["new"]);
    assert!(old.is_string() && new == "1.5.2" && before[0].1["new"].is_null(), "{before:?}");
    let expected = json!({"name": "scikit-learn", "old": old, "new": new, "loaded_by": [], "in_image_of": ["train"]});
    assert_eq!(before[2].1, expected);
    for version in ["v1", "v2"] {
        told(&sandbox, &["run", version]);
    }
    assert_eq!(packages(), before);
    let line = |command: &[&str]| {
        let said = sandbox.pv(command);
        said.lines().find(|line| line.contains("scikit-learn")).unwrap_or_else(|| panic!("{said}")).trim().to_owned()
    };
    let differs =
        format!("scikit-learn  {} -> 1.5.2  (in the image of train, whose output differs)", old.as_str().unwrap());
    assert_eq!(line(&["env", "diff", "v1", "v2"]), differs);
    assert_eq!(line(&["diff", "v1", "v2"]), format!("package {differs}"));
}
