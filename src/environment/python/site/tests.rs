//! Owners of files, in made-up directories of packages and in a real one.

use super::*;
use crate::disk::{Durability, write_whole};

struct Made(tempfile::TempDir);

impl Made {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            write_whole(&root.path().join(path), text.as_bytes(), Durability::Deferred).unwrap();
        }
        Self(root)
    }

    fn loaded(&self, files: &[&str]) -> (Vec<String>, Vec<String>) {
        let files = files.iter().map(|file| self.0.path().join(file)).collect();
        let loaded = Packages::default().loaded(self.0.path(), &files);
        let text = |(name, version)| format!("{name} {version}");
        let relative = |path: PathBuf| path.strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned();
        (loaded.distributions.into_iter().map(text).collect(), loaded.unowned.into_iter().map(relative).collect())
    }
}

fn shared() -> Made {
    Made::new(&[
        ("six-1.16.0.dist-info/RECORD", "six.py,sha256=x,1\n__pycache__/six.cpython-311.pyc,,\n../../bin/x,,\n"),
        ("solo-2.dist-info/RECORD", "solo.py,,\n__pycache__/solo.cpython-311.pyc,,\n"),
        ("Google_Api.Core-1.0.dist-info/RECORD", "google/api/core.py,,\n\"google/api/a,b.py\",,\n"),
        ("google_auth-3.1.dist-info/RECORD", "google/auth/__init__.py,,\n"),
        ("six.py", ""),
        ("mine.py", ""),
        ("google/left/over.py", ""),
    ])
}

#[test]
fn a_file_belongs_to_the_distribution_that_recorded_it_also_below_a_shared_name() {
    let site = shared();
    assert_eq!(site.loaded(&["six.py"]).0, ["six 1.16.0"]);
    assert_eq!(site.loaded(&["__pycache__/six.cpython-311.pyc"]).0, ["six 1.16.0"]);
    assert_eq!(site.loaded(&["__pycache__/solo.cpython-312.pyc"]).0, ["solo 2"], "byte code of another interpreter");
    assert_eq!(site.loaded(&["google/auth/__init__.py"]).0, ["google-auth 3.1"]);
    assert_eq!(site.loaded(&["google/api/a,b.py", "google/auth"]).0, ["google-api-core 1.0", "google-auth 3.1"]);
    assert_eq!(site.loaded(&["google", "", "__pycache__"]), (vec![], vec![]));
    assert_eq!(site.loaded(&["six-1.16.0.dist-info/METADATA"]).0, ["six 1.16.0"]);
}

#[test]
fn a_file_that_nobody_recorded_is_named_itself() {
    let site = shared();
    assert_eq!(site.loaded(&["mine.py", "google/left/over.py", "gone.py"]).1, ["google/left/over.py", "mine.py"]);
    assert_eq!(site.loaded(&["__pycache__/mine.cpython-311.pyc"]).1, ["mine.py"]);
}

#[test]
fn without_a_record_the_top_level_names_count() {
    let site = Made::new(&[
        ("numpy-1.24.2.egg-info/top_level.txt", "numpy\n"),
        ("PyYAML-6.0.dist-info/top_level.txt", "_yaml\nyaml\n"),
        ("argparse-1.4-py3.11.egg-info", "Metadata-Version: 1.0\n"),
        ("numpy/__init__.py", ""),
    ]);
    assert_eq!(site.loaded(&["numpy/__init__.py", "yaml/loader.py"]).0, ["numpy 1.24.2", "pyyaml 6.0"]);
    let installed = Packages::default().installed(site.0.path());
    assert_eq!(
        installed.into_iter().map(|(n, v)| format!("{n} {v}")).collect::<Vec<_>>(),
        ["argparse 1.4", "numpy 1.24.2", "pyyaml 6.0"]
    );
}

#[test]
fn what_a_distribution_would_use_is_told_without_what_its_developers_use() {
    let metadata = "Requires-Dist: numpy>=1\nRequires-Dist: tzdata; sys_platform == \"win32\"\n\
                    Requires-Dist: numexpr>=2.8; extra == \"performance\"\nRequires-Dist: Bottle.Neck (>=1) ; extra == 'fast'\n\
                    Requires-Dist: pytest; extra == \"test\"\nRequires-Dist: sphinx; extra == \"docs\"\n\
                    Requires-Dist: pandas[aws]; extra == \"aws\"\n";
    let site =
        Made::new(&[("pandas-2.dist-info/METADATA", metadata), ("numpy-2.dist-info/RECORD", "numpy/__init__.py,,\n")]);
    let optional = Packages::default().optional(site.0.path(), "pandas");
    assert_eq!(optional.into_iter().collect::<Vec<_>>(), ["bottle-neck", "numexpr"]);
}

/// Every file that a real directory of packages records belongs to the distribution that records it.
///
/// Looks at the packages of the `python3` on the search path.
#[test]
fn every_recorded_file_of_a_real_environment_has_its_owner() {
    let python = crate::host::find_program("python3", &crate::environment::search_path());
    let sites = python.map(|program| super::super::site_directories(&program)).unwrap_or_default();
    let packages = Packages::default();
    let mut checked = 0;
    for site in &sites {
        for found in distributions_in(site) {
            let record = fs::read_to_string(found.place.join("RECORD")).unwrap_or_default();
            for path in recorded(&record).filter(|path| site.join(path).is_file()) {
                let loaded = packages.loaded(site, &[site.join(path)].into());
                assert!(loaded.unowned.is_empty(), "{path}");
                let versions = &loaded.distributions;
                assert!(versions.len() == 1, "{path}: {versions:?}");
                checked += 1;
            }
        }
    }
    if checked == 0 {
        eprintln!("NOT TESTED: owners in a real environment, because `python3` has no packages with records");
    }
}
