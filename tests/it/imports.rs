//! What our module does to Python: nothing that a program can see, but that it lists no directory of the project.
//!
//! Small programs run under the real `python3` twice in the same tree, with the module and without it, and have to
//! print the same, to the byte; that the module was at work shows in what they asked of the file system.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The module, as a step finds it.
const MODULE: &str = include_str!("../../src/run/python/probe.py");

/// The names under which it is there.
const NAMES: [&str; 2] = ["encodings.py", "sitecustomize.py"];

/// A place as that of a step, with modules in a project and others outside of it.
struct Tree {
    top: tempfile::TempDir,
    /// Whether programs have a seed, so that the module seeds what they import.
    is_seeded: bool,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { top: tempfile::tempdir().unwrap(), is_seeded: false };
        tree.lay(MODULE, &NAMES);
        for (path, text) in [
            ("steps/helper.py", "NAME = 'helper'\n"),
            ("steps/pkg/__init__.py", "from . import sub\n"),
            ("steps/pkg/sub.py", "import pkg\nNAME = 'sub'\n"),
            ("steps/pkg/__main__.py", "import sys, helper\nprint(sys.argv[1:], sys.path, __spec__, helper.NAME)\n"),
            ("steps/pkg/data.txt", "data\n"),
            ("steps/pkg/deep/er.py", "NAME = 'deeper'\n"),
            ("steps/spread/one.py", "NAME = 1\n"),
            ("steps/both.py", "NAME = 'the module, not the directory'\n"),
            ("steps/both/within.py", ""),
            ("steps/twice.py", ""),
            ("steps/twice/__init__.py", "NAME = 'the package, not the module'\n"),
            ("steps/Case.py", ""),
            ("steps/json.py", "NAME = 'hides the library'\n"),
            ("steps/file", "not a module\n"),
            ("steps/broken.py", "def broken(:\n"),
            ("steps/fails.py", "import nothing_of_this_name\n"),
            ("steps/odd name.py", "NAME = 'odd'\n"),
            ("steps/closed/hidden.py", ""),
            ("steps/größe.py", "NAME = 'size'\n"),
            ("steps/.py", "NAME = 'no name at all'\n"),
            ("src/lib.py", "import deep.below\nNAME = 'lib'\n"),
            ("src/deep/below.py", "NAME = 'below'\n"),
        ] {
            tree.write(&format!("work/{path}"), text);
        }
        tree.write("outside/spread/two.py", "NAME = 2\n");
        symlink("pkg", tree.path("work/steps/linked")).unwrap();
        symlink("nowhere.py", tree.path("work/steps/dangling.py")).unwrap();
        symlink("steps", tree.path("work/way")).unwrap();
        tree
    }

    fn lay(&self, text: &str, names: &[&str]) {
        for name in NAMES {
            let path = self.path("python").join(name);
            if path.exists() {
                std::fs::remove_file(path).unwrap();
            }
        }
        names.iter().for_each(|name| self.write(&format!("python/{name}"), text));
    }

    fn path(&self, path: &str) -> PathBuf {
        self.top.path().canonicalize().unwrap().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Runs `python3` in the project, with the module if asked for, and `given` as the path that a definition says.
    fn python(&self, with: bool, given: Option<&str>, arguments: &[&str]) -> Output {
        let mut command = Command::new("python3");
        command.args(arguments).current_dir(self.path("work")).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.top.path());
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONHASHSEED", "0").env("LC_ALL", "C.UTF-8");
        if self.is_seeded {
            command.env("PV_SEED", "42");
        }
        let own = with.then(|| self.path("python").display().to_string());
        let parts: Vec<String> = own.into_iter().chain(given.map(str::to_owned)).collect();
        if !parts.is_empty() {
            command.env("PYTHONPATH", parts.join(":"));
        }
        command.output().unwrap()
    }

    /// Fails unless the program does the same with the module as without; returns what it prints.
    fn compare(&self, given: Option<&str>, arguments: &[&str]) -> String {
        let [without, with] = [false, true].map(|with| self.python(with, given, arguments));
        let text = |output: &Output| {
            let streams = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            without_addresses(&format!("{}--- stderr\n{}--- {:?}", streams[0], streams[1], output.status.code()))
        };
        assert_eq!(text(&with), text(&without), "python3 {arguments:?}, path {given:?}");
        text(&with)
    }

    fn script(&self, program: &str) -> String {
        self.write("work/steps/main.py", program);
        self.compare(None, &["steps/main.py", "argument"])
    }
}

/// Returns the text without where in memory things are.
fn without_addresses(text: &str) -> String {
    let mut parts = text.split(" at 0x");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += " at [ADDRESS]";
        plain += part.trim_start_matches(|letter: char| letter.is_ascii_hexdigit());
    }
    plain
}

/// Programs that succeed without the module, by what they are about.
const PROGRAMS: [(&str, &str); 24] = [
    (
        "what is loaded and where from",
        "import helper, pkg.sub, csv, sys\nprint(sorted(sys.modules), sys.path, sys.argv)\nprint(helper, helper.__spec__, pkg, pkg.__path__, pkg.__spec__)",
    ),
    (
        "a package inside of a package without a file of its own",
        "import pkg.deep.er as er, pkg.deep\nprint(er.__spec__, list(pkg.deep.__path__), pkg.deep.__spec__.loader.__class__)",
    ),
    (
        "a package in two places",
        "import sys; sys.path.append('../outside')\nimport spread.one, spread.two\nprint(list(spread.__path__), spread.two.__file__)",
    ),
    (
        "a module comes before a directory, a package before a module",
        "import both, twice; print(both.NAME, twice.NAME)",
    ),
    ("a module that hides one of the library", "import json; print(json.NAME, json.__file__)"),
    (
        "links to directories and to nothing",
        "import linked.sub\nprint(linked.__file__)\nfor name in ['dangling', 'file']:\n    try: __import__(name)\n    except ImportError as error: print(repr(error), error.path)",
    ),
    (
        "letters in other cases",
        "for name in ['case', 'CASE', 'Case', 'HELPER', 'größe', 'GRÖSSE']:\n    try: print(__import__(name))\n    except ImportError as error: print(repr(error))",
    ),
    (
        "names that no module has",
        "import importlib\nfor name in ['a/b', 'pkg/sub', '../src/lib', 'odd name', 'x\\0y', '\\ud800', '\\udcff', 'x' * 300, 'pkg.', 'file.x', '..', 'pkg..sub', ' ']:\n    try: print(importlib.import_module(name))\n    except Exception as error: print(repr(name), repr(error))",
    ),
    (
        "what is not there",
        "for name in ['nothing', 'pkg.nothing', 'helper.nothing', 'spread.nothing', 'fails', 'broken']:\n    try: __import__(name)\n    except Exception as error: print(repr(error), error.__traceback__.tb_next is None)",
    ),
    (
        "asking without loading",
        "import importlib.util\nfor name in ['helper', 'pkg', 'pkg.sub', 'spread', 'nothing', 'sys', 'json']:\n    print(importlib.util.find_spec(name))",
    ),
    (
        "all modules",
        "import pkgutil, pkg, sys\nprint([(m.name, m.ispkg) for m in pkgutil.iter_modules()][:30])\nprint(sorted((m.name, repr(m.module_finder)) for m in pkgutil.walk_packages(pkg.__path__, 'pkg.')))",
    ),
    (
        "resources",
        "from importlib import resources\nimport pkg\nprint((resources.files('pkg') / 'data.txt').read_text(), sorted(p.name for p in resources.files('spread').iterdir()))\nimport pkgutil; print(pkgutil.get_data('pkg', 'data.txt'))",
    ),
    (
        "a module written while it runs",
        "import importlib, helper\nopen('steps/late.py', 'w').write('NAME = 1\\n')\nimportlib.invalidate_caches()\nimport late; print(late.NAME)\nopen('steps/late.py', 'w').write('NAME = 22\\n')\nprint(importlib.reload(late).NAME, importlib.reload(helper))\nimport os, sys; os.remove('steps/late.py'); del sys.modules['late']; importlib.invalidate_caches()\ntry: import late\nexcept ImportError as error: print(repr(error))",
    ),
    (
        "a path that is added",
        "import sys; sys.path.insert(0, 'src'); sys.path.insert(0, '')\nimport lib, deep.below; print(lib.__file__, deep.below.__file__, deep.__path__)\nimport steps.helper; print(steps.helper.__file__)",
    ),
    (
        "paths that are written oddly",
        "import sys\nfor path in ['./src', 'src/', 'src//', '../work/src', 'steps/../src']:\n    sys.path.insert(0, path); import lib; print(lib.__file__); del sys.modules['lib'], sys.modules['deep'], sys.modules['deep.below'], sys.path[0]",
    ),
    (
        "another working directory",
        "import os, sys\nsys.path[:0] = ['']\nos.chdir('src'); import lib; print(lib.__file__)\nos.chdir('..')\ntry: import below\nexcept ImportError as error: print(repr(error))\nos.chdir('src/deep'); import below; print(below.__file__)",
    ),
    (
        "running modules",
        "import runpy\nprint(runpy.run_module('helper')['NAME'], runpy.run_path('steps/both.py')['__file__'], runpy.run_path('src/deep/below.py', run_name='x')['__name__'])\nrunpy.run_module('pkg', run_name='__main__', alter_sys=True)",
    ),
    (
        "byte code without a source",
        "import py_compile, os, importlib\nopen('only.py', 'w').write('NAME = 1\\n')\npy_compile.compile('only.py', 'steps/only.pyc'); os.remove('only.py'); importlib.invalidate_caches()\nimport only; print(only.NAME, only.__spec__)\nos.remove('steps/only.pyc')",
    ),
    (
        "an extension module",
        "import sys, glob, shutil, os, importlib\nfor directory in sys.path:\n    found = sorted(glob.glob(directory + '/_bisect.*.so') + glob.glob(directory + '/_queue.*.so') + glob.glob(directory + '/_csv.*.so'))\n    if found: break\nif found:\n    name = os.path.basename(found[0]); shutil.copy(found[0], 'steps/' + name); importlib.invalidate_caches()\n    print(importlib.import_module(name.split('.')[0]).__spec__)\n    os.remove('steps/' + name)",
    ),
    (
        "processes that are forked and spawned",
        "import multiprocessing as mp, helper, sys\ndef work(n):\n    import twice; return n, twice.NAME, sys.path\nif __name__ == '__main__':\n    for way in ['fork', 'spawn', 'forkserver']:\n        with mp.get_context(way).Pool(1) as pool: print(way, pool.map(work, [1]))",
    ),
    (
        "a Python that it starts",
        "import subprocess, sys\nprint(subprocess.check_output([sys.executable, '-c', 'import sys; sys.path.append(\"src\"); import lib; print(sys.path, lib.__file__, sorted(sys.modules))'], text=True))",
    ),
    (
        "threads that import at once",
        "import threading, importlib\ndone = []\nthreads = [threading.Thread(target=lambda n=n: done.append(importlib.import_module(n).__name__)) for n in ['helper', 'pkg.sub', 'both', 'twice', 'csv', 'decimal'] * 4]\n[t.start() for t in threads]; [t.join() for t in threads]; print(sorted(done))",
    ),
    (
        "the finder itself",
        "import sys, helper, copy, importlib.machinery as machinery, inspect, pkgutil\nfinder = sys.path_importer_cache[sys.path[0]]\nprint(finder, type(finder) is machinery.FileFinder, finder.find_spec('helper'), finder.find_spec('nothing'), finder.path)\nprint([str(hook).split(' at ')[0] for hook in sys.path_hooks], sys.path_hooks[1].__doc__, pkgutil.get_importer('src'), sys.path_hooks[1]('src'))\ntry: sys.path_hooks[1]('steps/helper.py')\nexcept ImportError as error: print(repr(error), error.path)\nprint(inspect.getsourcefile(helper), inspect.getmodule(helper))\nimport pickle; again = pickle.loads(pickle.dumps(finder)); print(again.find_spec('helper'), copy.copy(finder).find_spec('pkg'), sorted(vars(finder)))\nprint(machinery.FileFinder(sys.path[0], (machinery.SourceFileLoader, ['.txt', 'er.py'])).find_spec('help'))\nclass Mine(machinery.FileFinder):\n    def names(self): self._fill_cache(); return sorted(self._path_cache)\nprint(Mine('src').names(), inspect.signature(machinery.FileFinder._fill_cache), machinery.FileFinder._fill_cache.__qualname__, machinery.FileFinder._fill_cache.__doc__)",
    ),
    (
        "a directory that may not be listed",
        "import os, sys\nos.chmod('steps/closed', 0o300); sys.path.insert(0, 'steps/closed')\ntry: import hidden; print('found')\nexcept ImportError as error: print(repr(error))\nos.chmod('steps/closed', 0o700)\nimport importlib; importlib.invalidate_caches(); import hidden; print(hidden.__file__)",
    ),
];

#[test]
fn a_program_does_the_same_with_our_module_as_without() {
    let mut tree = Tree::new();
    // Where what Python loads first is built into it, the other one has to do.
    for (names, is_seeded) in [(&NAMES[..], false), (&NAMES[1..], false), (&NAMES[..], true)] {
        tree.lay(MODULE, names);
        tree.is_seeded = is_seeded;
        for (about, program) in PROGRAMS {
            let told = tree.script(program);
            assert!(told.contains("--- stderr\n--- Some(0)"), "{about}: {told}");
            assert!(!told.starts_with("---"), "{about}: it says nothing");
        }
    }
}

#[test]
fn a_program_that_has_a_seed_finds_nothing_but_generators_that_are_seeded() {
    let mut tree = Tree::new();
    tree.is_seeded = true;
    let told = tree.script(
        "import random, multiprocessing, multiprocessing.process as process, inspect, sys, os\n\
         print(sorted(sys.modules), sys.meta_path, inspect.signature(process.BaseProcess._bootstrap))\n\
         print(process.BaseProcess._bootstrap.__qualname__, process.BaseProcess._bootstrap.__module__)\n\
         def fails(): raise ValueError('in a worker')\n\
         for way in ['fork', 'spawn']:\n    \
             worker = multiprocessing.get_context(way).Process(target=len if way == 'spawn' else fails)\n    \
             if __name__ == '__main__': worker.start(); worker.join(); print(worker.exitcode)\n\
         import importlib; print(importlib.reload(random))\n\
         import broken\n",
    );
    assert!(told.contains("in a worker") && told.contains("SyntaxError"), "{told}");
    let seeded = "import random, os; one = random.random()\nif not os.fork(): print(one, random.random(), flush=True); os._exit(0)\nos.wait()";
    tree.write("work/steps/main.py", seeded);
    let [one, two] = [(); 2].map(|()| String::from_utf8(tree.python(true, None, &["steps/main.py"]).stdout).unwrap());
    assert!(one.starts_with("0.6394267984578837 ") && one == two, "{one}, {two}");
    assert_ne!(String::from_utf8(tree.python(false, None, &["steps/main.py"]).stdout).unwrap(), one);
}

#[test]
fn every_way_to_start_a_program_is_as_before() {
    let tree = Tree::new();
    tree.write(
        "work/steps/main.py",
        "import sys, helper\nprint(sys.path, helper.NAME, sys.argv, sorted(sys.modules))\n",
    );
    tree.write("work/app/__main__.py", "import part, sys\nprint(part.__file__, sys.path)\n");
    tree.write("work/app/part.py", "");
    tree.write("work/pack.py", "import shutil\nshutil.make_archive('packed', 'zip', 'app')\n");
    assert!(tree.python(false, None, &["pack.py"]).status.success());
    let code = "import sys, steps.pkg.sub; print(sys.path, steps.pkg.sub.__file__)";
    let outside = tree.path("outside").display().to_string();
    let mut told = Vec::new();
    for given in [None, Some("src"), Some(":src:"), Some(outside.as_str())] {
        for arguments in [
            &["steps/main.py", "x"][..],
            &["way/main.py"],
            &["./steps/../steps/main.py"],
            &["-c", code],
            &["-m", "steps.helper"],
            &["app"],
            &["packed.zip"],
            &["-B", "-s", "steps/main.py"],
            &["-S", "steps/main.py"],
            &["-OO", "-X", "dev", "-W", "error", "steps/main.py"],
            &["-X", "frozen_modules=off", "-X", "utf8", "steps/main.py"],
            &["-I", "steps/main.py"],
            &["-E", "steps/main.py"],
            &["-c", "import lib; print(lib.__file__)"],
            &["-c", "import site; print(site.ENABLE_USER_SITE, site.getsitepackages())"],
            &["-m", "site", "--user-base"],
            &["-c", "1 +"],
            &["nothing.py"],
        ] {
            told.push(tree.compare(given, arguments));
        }
    }
    for arguments in [&["-m", "pkg", "x"], &["-m", "pkg.sub", "x"], &["-P", "main.py", "x"]] {
        let program = "import os, runpy, subprocess, sys\nos.chdir('steps')\n\
                       end = subprocess.run([sys.executable] + sys.argv[1:], capture_output=True, text=True)\n\
                       print(end.stdout, end.stderr, end.returncode)\n";
        tree.write("work/start.py", program);
        told.push(tree.compare(None, &[&["start.py"][..], arguments].concat()));
    }
    assert!(told.iter().filter(|told| told.contains("Some(0)")).count() > 40, "{told:?}");
}

#[test]
fn the_site_module_that_ours_hides_is_executed_as_before() {
    let tree = Tree::new();
    tree.write("work/steps/main.py", "import sys, helper\nprint(helper.NAME, sys.modules.get('sitecustomize'))\n");
    for (text, told) in [
        ("print('mine', __name__, __file__, __spec__)\n", "mine sitecustomize"),
        ("import builtins, helper_of_mine\nbuiltins.print('mine', helper_of_mine.NAME)\n", "mine here"),
        ("raise RuntimeError('no')\n", "RuntimeError: no"),
        ("import nothing_of_this_name\n", "nothing_of_this_name"),
        ("def broken(:\n", "SyntaxError"),
        ("import sys; sys.path.insert(0, 'src'); import lib; print(lib.__file__)\n", "src/lib.py"),
    ] {
        for place in ["outside", "work/src"] {
            tree.write(&format!("{place}/sitecustomize.py"), text);
            tree.write(&format!("{place}/helper_of_mine.py"), "NAME = 'here'\n");
            let given = tree.path(place).display().to_string();
            let seen = tree.compare(Some(&given), &["steps/main.py"]);
            assert!(seen.contains(told), "{text}: {seen}");
            std::fs::remove_file(tree.path(&format!("{place}/sitecustomize.py"))).unwrap();
        }
    }
}

#[test]
fn the_project_is_probed_and_what_lies_outside_is_as_it_was() {
    let tree = Tree::new();
    // The kernel tells when a directory is listed: here it may be searched, and listing it would find nothing.
    tree.write(
        "work/steps/main.py",
        "import sys, helper\nsys.path.append(sys.path[0].replace('work/steps', 'outside'))\n\
         import spread.one, spread.two\n\
         for path, finder in sorted(sys.path_importer_cache.items()):\n    \
             if 'spread' in path or path.endswith(('steps', 'outside')):\n        \
                 print(path.split('/')[-2:], type(finder._path_cache).__name__)\n",
    );
    let told = |output: Output| String::from_utf8(output.stdout).unwrap();
    let stock = told(tree.python(false, None, &["steps/main.py"]));
    let own = told(tree.python(true, None, &["steps/main.py"]));
    assert_eq!(stock.matches(" set\n").count(), 4, "{stock}");
    assert_eq!(own.matches(" Names\n").count(), 2, "{own}");
    assert_eq!(own.matches(" set\n").count(), 2, "{own}");
    assert!(Path::new(&tree.path("work/steps")).is_dir());
}

#[test]
fn a_module_that_fails_leaves_python_as_it_was() {
    // A Python that is not known: ours must not try.
    let tree = Tree::new();
    let unknown = MODULE.replace("sys.version_info >= (3, 15)", "sys.version_info >= (3, 0)");
    assert_ne!(unknown, MODULE);
    let failing = MODULE.replace("external.FileFinder,", "external.NoSuchFinder,");
    assert_ne!(failing, MODULE);
    for text in [unknown, failing] {
        tree.lay(&text, &NAMES);
        tree.write(
            "work/steps/main.py",
            "import sys, helper, pkg.sub\nfinder = sys.path_importer_cache[sys.path[0]]\n\
             print(sys.path, type(finder._path_cache), finder._fill_cache.__code__.co_filename)\n",
        );
        let told = tree.compare(None, &["steps/main.py"]);
        assert!(told.contains("class 'set'"), "{told}");
    }
    std::fs::set_permissions(tree.path("python/sitecustomize.py"), PermissionsExt::from_mode(0o000)).unwrap();
    tree.compare(None, &["steps/main.py"]);
}
