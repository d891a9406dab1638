//! Which Python modules of the project a script imports.
//!
//! Read from the text of the scripts, without running them: `import a.b` and
//! `from a import b`, relative or not, wherever they stand in the file. An import that is
//! computed is not seen. What this finds is added to what a step depends on, so
//! a wrong guess costs a run too many, never a stale result.
//! Source: the Python language reference, section 5 (the import system).

use std::collections::BTreeSet;

use super::RunError;
use crate::object::{Entry, Kind};
use crate::path::ProjectPath;
use crate::snapshot::View;

/// A script larger than this is data, not code.
const SCRIPT_BYTES_MAX: u64 = 1 << 20;

/// Where modules are looked for.
pub(super) struct Sources<'a> {
    /// The project's files.
    pub(super) view: &'a View<'a>,
    /// What the step's own `PYTHONPATH` names.
    pub(super) roots: Vec<ProjectPath>,
    /// Where the step runs; `None` is the top.
    pub(super) workdir: Option<ProjectPath>,
}

/// Returns the project's modules that the scripts among `named`, and those run by `-m` and `-c`, import, directly or not.
///
/// # Errors
///
/// [`RunError`] if an object cannot be read.
pub(super) fn modules(
    sources: &Sources<'_>,
    words: &[String],
    named: &BTreeSet<ProjectPath>,
) -> Result<BTreeSet<ProjectPath>, RunError> {
    let mut found = BTreeSet::new();
    let mut open: Vec<(ProjectPath, Vec<Option<ProjectPath>>)> = Vec::new();
    let common: Vec<Option<ProjectPath>> = sources.roots.iter().cloned().map(Some).collect();
    for script in named.iter().filter(|path| path.as_bytes().ends_with(b".py")) {
        // A script's own directory comes first on the path.
        let mut roots = vec![script.parent()];
        roots.extend(common.clone());
        open.push((script.clone(), roots));
    }
    for pair in words.windows(2).filter(|pair| pair[0] == "-m") {
        let mut roots = vec![sources.workdir.clone()];
        roots.extend(common.clone());
        for module in [pair[1].clone(), format!("{}.__main__", pair[1])] {
            for path in locate(sources.view, &roots, &module)? {
                if found.insert(path.clone()) {
                    open.push((path, roots.clone()));
                }
            }
        }
    }
    for pair in words.windows(2).filter(|pair| pair[0] == "-c") {
        let mut roots = vec![sources.workdir.clone()];
        roots.extend(common.clone());
        for module in imported(&pair[1]) {
            for path in locate(sources.view, &roots, &module)? {
                if found.insert(path.clone()) {
                    open.push((path, roots.clone()));
                }
            }
        }
    }
    while let Some((script, roots)) = open.pop() {
        let Some(text) = read(sources.view, &script)? else { continue };
        for module in imported(&text) {
            let dots = module.bytes().take_while(|byte| *byte == b'.').count();
            let paths = if dots == 0 {
                locate(sources.view, &roots, &module)?
            } else {
                let package = (0..dots).try_fold(script.clone(), |path, _| path.parent());
                locate(sources.view, &[package], &module[dots..])?
            };
            for path in paths {
                if found.insert(path.clone()) {
                    open.push((path, roots.clone()));
                }
            }
        }
    }
    Ok(found)
}

/// Returns the files that importing `module` executes: the module and the packages above it.
fn locate(view: &View<'_>, roots: &[Option<ProjectPath>], module: &str) -> Result<Vec<ProjectPath>, RunError> {
    for root in roots {
        let mut files = Vec::new();
        let mut directory = root.clone();
        for name in module.split('.').filter(|name| !name.is_empty()) {
            let below = |name: &str| match &directory {
                Some(directory) => Some(directory.join(name.as_bytes())),
                None => ProjectPath::new(name).ok(),
            };
            let (Some(file), Some(package)) = (below(&format!("{name}.py")), below(name)) else { break };
            let is_file = |path: &ProjectPath| Ok::<_, RunError>(matches!(view.entry(path)?, Some(Entry::File { .. })));
            let init = package.join(b"__init__.py");
            if is_file(&init)? {
                files.push(init);
            } else if is_file(&file)? {
                files.push(file);
            }
            directory = Some(package);
        }
        if !files.is_empty() {
            return Ok(files);
        }
    }
    Ok(Vec::new())
}

fn read(view: &View<'_>, path: &ProjectPath) -> Result<Option<String>, RunError> {
    match view.entry(path)? {
        Some(Entry::File { size, id, .. }) if size <= SCRIPT_BYTES_MAX => {
            let bytes = view.store().get(Kind::Blob, id.digest())?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        _ => Ok(None),
    }
}

/// Returns the dotted names that a Python text may import.
fn imported(text: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    // A statement may go on over several lines, and a line may hold several statements.
    let joined = text.replace("\\\n", " ").replace(';', "\n");
    let mut lines = joined.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_start().trim_start_matches(">>> ");
        if let Some(rest) = line.strip_prefix("import ") {
            modules.extend(names(rest));
        } else if let Some(rest) = line.strip_prefix("from ")
            && let Some((module, names_text)) = rest.split_once(" import")
        {
            let module = module.trim();
            let mut list = names_text.split('#').next().unwrap_or_default().to_owned();
            if list.contains('(') {
                while !list.contains(')') {
                    match lines.next() {
                        Some(line) => list.push_str(line.split('#').next().unwrap_or_default()),
                        None => break,
                    }
                }
            }
            modules.insert(module.to_owned());
            // The name may be a module of its own.
            let joint = if module.ends_with('.') { "" } else { "." };
            modules.extend(names(&list.replace(['(', ')'], " ")).map(|name| format!("{module}{joint}{name}")));
        }
    }
    modules
}

fn names(list: &str) -> impl Iterator<Item = String> + '_ {
    let list = list.split('#').next().unwrap_or_default();
    list.split(',').filter_map(|item| item.split_whitespace().next()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_of_every_form_are_seen() {
        let text = "import os, lib.a as x  # why\nfrom . import near\nfrom ..up.b import (one,  # first\n  two)\n\
                    def f():\n    from pkg import sub; import late\nimportant = 1\nfrom_x = 'import y'\n";
        let found: Vec<_> = imported(text).into_iter().collect();
        assert_eq!(
            found,
            [".", "..up.b", "..up.b.one", "..up.b.two", ".near", "late", "lib.a", "os", "pkg", "pkg.sub"]
                .map(str::to_owned)
        );
    }
}
