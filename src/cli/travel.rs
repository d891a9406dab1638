//! Records to and from Git remotes, with what is worth saying about it.

use super::fail::CliError;
use super::ui::Ui;
use crate::git::Asking;
use crate::project::Project;
use crate::record::{META_BRANCH, META_REF, Sent};

/// Returns the Git remote that records go to and come from if none is named: `origin`, or the only one.
pub(super) fn usual(project: &Project) -> Option<String> {
    let mut remotes = project.repository.remotes();
    let only = remotes.len() == 1;
    let at = remotes.iter().position(|name| only || name == "origin")?;
    Some(remotes.swap_remove(at))
}

/// Sends records to a Git remote, and takes in those that it has.
pub(super) fn send(ui: &Ui, project: &Project, remote: &str, asking: Asking) -> Result<Sent, CliError> {
    let sent = project.journal.send(&project.repository, remote, asking)?;
    if let Some(reason) = &sent.refused {
        let branch = META_BRANCH.trim_start_matches("refs/heads/");
        ui.warn(format!(
            "note: `{remote}` refuses `{META_REF}` ({reason}); its branch `{branch}` carries the records from now on"
        ));
    }
    Ok(sent)
}

/// Takes in the records of a Git remote, and returns how many were new here.
pub(super) fn receive(project: &Project, remote: &str, asking: Asking) -> Result<usize, CliError> {
    Ok(project.journal.receive(&project.repository, remote, asking)?)
}

/// Makes a plain `git fetch` from each remote bring its records, and returns the remotes of which that is new.
pub(super) fn follow(project: &Project) -> Result<Vec<String>, CliError> {
    let mut new = Vec::new();
    for remote in project.repository.remotes() {
        if project.journal.follow(&project.repository, &remote)? {
            new.push(remote);
        }
    }
    Ok(new)
}
