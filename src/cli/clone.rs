//! `pv clone`: clone a repository, with its records.

use std::fmt;

use serde::Serialize;

use super::Global;
use super::answer::count;
use super::fail::CliError;
use super::open;
use super::travel;
use super::ui::{NAME, Ui, paint};
use crate::git::{Asking, clone_repository};
use crate::project::Project;

/// Clone a repository, with the records of its snapshots, runs and versions
///
/// `git clone` does the first half, with your credentials. Then the records come, and from then on a
/// plain `git fetch` or `git pull` brings new ones. Data and results do not come yet: `pv pull` fetches them. Git hooks are not
/// installed: `pv hooks install` does that.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The repository: anything that `git clone` takes
    url: String,
    /// Where to put it; without it, a directory here that is named like the repository
    #[arg(value_name = "DIR")]
    into: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    directory: String,
    /// `null` if nobody could be asked for them.
    records: Option<usize>,
    has_pipeline: bool,
    /// What to call it from here.
    #[serde(skip)]
    given: String,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    open::definition(global)?;
    let from = open::directory(global)?;
    let given = match &args.into {
        Some(directory) => directory.clone(),
        None => directory_of(&args.url).ok_or_else(|| {
            CliError::usage("the address does not tell how to name the clone").hint("`pv clone URL DIR` names it")
        })?,
    };
    clone_repository(&from, &args.url, &given, ui.is_quiet())?;
    let project = Project::open(&from.join(&given), &global.pipeline)?;
    let records = match records(&project) {
        Ok(records) => Some(records),
        // The clone is there all the same.
        Err(error) => {
            ui.warn(error.text(false).unwrap_or_default().trim_end());
            None
        }
    };
    let directory = project.root.display().to_string();
    ui.show(&Answer { directory, records, has_pipeline: project.has_definitions(), given })?;
    Ok(0)
}

/// Takes in the records of the remotes of a fresh clone, which has one, and makes it go on so.
fn records(project: &Project) -> Result<usize, CliError> {
    travel::follow(project)?;
    let remotes = project.repository.remotes();
    remotes.iter().map(|remote| travel::receive(project, remote, Asking::Allowed)).sum()
}

/// Returns the directory that a clone goes to if nobody names one, as Git would.
fn directory_of(url: &str) -> Option<String> {
    let path = url.trim_end_matches('/').trim_end_matches("/.git").trim_end_matches('/');
    let name = path.rsplit(['/', ':']).next().unwrap_or(path);
    let name = name.strip_suffix(".git").or_else(|| name.strip_suffix(".bundle")).unwrap_or(name);
    (!name.is_empty() && name != "." && name != "..").then(|| name.to_owned())
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = paint(NAME, &self.given);
        match self.records {
            Some(0) => writeln!(f, "Cloned to {place}; nobody has sent records there yet.")?,
            Some(records) => writeln!(f, "Cloned to {place}, with {}.", count(records as u64, "record"))?,
            None => writeln!(f, "Cloned to {place}, without its records: `pv pull` there tries again.")?,
        }
        if self.has_pipeline {
            writeln!(
                f,
                "Next: `pv pull` there brings data and results, `pv hooks install` keeps it all in step with commits."
            )
        } else {
            writeln!(f, "There is no pipeline in it: `pv init` there makes a first one.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_named_as_git_names_it() {
        for (url, name) in [
            ("https://example.org/team/lesson.git", "lesson"),
            ("https://example.org/team/lesson/", "lesson"),
            ("git@example.org:lesson.git", "lesson"),
            ("/srv/git/lesson/.git", "lesson"),
            ("../lesson", "lesson"),
            ("lesson.bundle", "lesson"),
        ] {
            assert_eq!(directory_of(url).as_deref(), Some(name), "{url}");
        }
        assert_eq!(directory_of("/"), None);
        assert_eq!(directory_of(".."), None);
    }
}
