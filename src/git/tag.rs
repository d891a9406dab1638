//! Tags: names that people give to commits.

use super::commit::find;
use super::durable::write;
use super::reference::{Entry, Held, Patience, WAIT_AT_MOST};
use super::{CommitId, GitError, Repository};
use crate::host;

impl Repository {
    /// Makes the annotated tag `name` for a commit, as `git tag -a -m` would.
    ///
    /// The tagger is the committer that git knows, the time is
    /// `GIT_COMMITTER_DATE` or now. An existing tag is never moved. Not signed.
    /// When this returns, the tag survives a power cut.
    ///
    /// # Errors
    ///
    /// [`GitError::BadTagName`], [`GitError::TagExists`], [`GitError::NoIdentity`],
    /// [`GitError::MissingCommit`], [`GitError::Busy`] or [`GitError::Locked`] if others hold it,
    /// or [`GitError::Git`] if it cannot be written.
    pub fn tag(&self, name: &str, commit: &CommitId, message: &str) -> Result<(), GitError> {
        let local = self.local();
        if name.starts_with('-') || gix::validate::tag::name(name.into()).is_err() {
            return Err(GitError::BadTagName { name: name.to_owned() });
        }
        let exists = || -> Result<bool, GitError> { Ok(find_tag(&local, name)?.is_some()) };
        if exists()? {
            return Err(GitError::TagExists { name: name.to_owned(), commit: self.tag_target(name)? });
        }
        let failed = || GitError::on(format!("make the tag `{name}`"));
        let tagger = local.committer().ok_or(GitError::NoIdentity)?.map_err(failed())?;
        let mut tagger = tagger.to_owned().map_err(failed())?;
        if host::variable_os("GIT_COMMITTER_DATE").is_none() {
            tagger.time.seconds = host::Time::now().epoch_ms.div_euclid(1000);
        }
        let commit = find(&local, commit)?.id;
        let message = tidied(message);
        let tag = gix::objs::Tag {
            target: commit,
            target_kind: gix::objs::Kind::Commit,
            name: name.into(),
            message: message.into(),
            tagger: Some(tagger.clone()),
            signature: None,
        };
        let mut patience = Patience::of(WAIT_AT_MOST);
        let held = Held::take(&local, &format!("refs/tags/{name}"), &mut patience)?;
        let tag = write(&local, &tag).map_err(failed())?;
        // As git logs it.
        let entry = Entry { signature: &tagger, message: "" };
        if held.move_it(None, tag, &entry, &mut patience)? {
            return Ok(());
        }
        // Somebody was faster.
        Err(GitError::TagExists { name: name.to_owned(), commit: self.tag_target(name)? })
    }

    /// Returns the commit that the tag `name` leads to; `None` if there is no such tag or it names something else.
    ///
    /// # Errors
    ///
    /// [`GitError::Git`] if the tag is damaged.
    pub fn tag_target(&self, name: &str) -> Result<Option<CommitId>, GitError> {
        let local = self.local();
        let failed = || GitError::on(format!("read the tag `{name}`"));
        let Some(mut reference) = find_tag(&local, name)? else { return Ok(None) };
        let id = reference.peel_to_id().map_err(failed())?.detach();
        let header = local.find_header(id).map_err(failed())?;
        Ok((header.kind() == gix::objs::Kind::Commit).then_some(CommitId(id)))
    }
}

/// Returns the message without blanks at the ends of lines, without empty lines around it and with single ones inside, as git tidies it.
fn tidied(message: &str) -> String {
    let mut out = String::new();
    for line in message.lines().map(str::trim_end) {
        let is_repeated_blank = line.is_empty() && (out.is_empty() || out.ends_with("\n\n"));
        if !is_repeated_blank {
            out.push_str(line);
            out.push('\n');
        }
    }
    if out.ends_with("\n\n") {
        out.pop();
    }
    out
}

fn find_tag<'repo>(local: &'repo gix::Repository, name: &str) -> Result<Option<gix::Reference<'repo>>, GitError> {
    // A text that cannot be a name names nothing.
    let Ok(full) = gix::refs::FullName::try_from(format!("refs/tags/{name}")) else { return Ok(None) };
    local.try_find_reference(full.as_ref()).map_err(GitError::on(format!("read the tag `{name}`")))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scratch;
    use super::*;

    #[test]
    fn a_tag_has_the_bytes_that_git_gives_it() {
        for options in [&["--object-format=sha1"], &["--object-format=sha256"]] {
            let scratch = Scratch::with(options);
            let commit = scratch.commit("first");
            let repository = scratch.repository();
            let message = "\n Version 1.0 \n\n\n \nwith more to say\n\n";
            repository.tag("v1.0", &commit, message).unwrap();
            let ours = scratch.git(&["cat-file", "tag", "v1.0"]);
            let date = scratch.line(&["for-each-ref", "--format=%(taggerdate:raw)", "refs/tags/v1.0"]);
            scratch.git(&["tag", "--delete", "v1.0"]);
            let mut git = scratch.command("git".as_ref(), &scratch.root);
            git.args(["tag", "-a", "-m", message, "v1.0"]).env("GIT_COMMITTER_DATE", date);
            assert!(git.status().unwrap().success());
            let by_git = scratch.git(&["cat-file", "tag", "v1.0"]);
            assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(by_git).unwrap());
        }
    }

    #[test]
    fn a_tag_is_found_and_never_moved() {
        let scratch = Scratch::new();
        let (first, second) = (scratch.commit("first"), scratch.commit("second"));
        scratch.git(&["tag", "tree", "HEAD^{tree}"]);
        let repository = scratch.repository();
        assert_eq!(repository.tag_target("v1.0").unwrap(), None);
        repository.tag("v1.0", &first, "x").unwrap();
        assert_eq!(repository.tag_target("v1.0").unwrap(), Some(first));
        let again = |name| repository.tag(name, &second, "x").unwrap_err();
        assert!(
            matches!(again("v1.0"), GitError::TagExists { name, commit } if name == "v1.0" && commit == Some(first))
        );
        assert!(matches!(again("tree"), GitError::TagExists { commit: None, .. }));
        assert_eq!(scratch.id("v1.0"), first);
        scratch.git(&["fsck", "--full", "--strict"]);
    }

    #[test]
    fn what_the_dead_left_stops_no_tag() {
        let scratch = Scratch::new();
        let commit = scratch.commit("first");
        let repository = scratch.repository();
        scratch.git(&["tag", "older"]);
        scratch.git(&["pack-refs", "--all"]);
        scratch.write_aged(".git/packed-refs.lock", "", 600);
        scratch.write_aged(".git/refs/tags/v1.0.lock", "", 61);
        repository.tag("v1.0", &commit, "x").unwrap();
        assert_eq!(scratch.id("v1.0"), commit);
        assert!(matches!(repository.tag("older", &commit, "x"), Err(GitError::TagExists { .. })));
    }

    #[test]
    fn a_tag_needs_a_name_a_commit_and_a_tagger() {
        let scratch = Scratch::new();
        let commit = scratch.commit("first");
        let tree: CommitId = scratch.line(&["rev-parse", "HEAD^{tree}"]).parse().unwrap();
        let repository = scratch.repository();
        for name in ["", "-x", "a..b", "two words", "x.lock", "a/"] {
            assert!(matches!(repository.tag(name, &commit, "x"), Err(GitError::BadTagName { .. })), "{name}");
            assert_eq!(repository.tag_target(name).unwrap(), None, "{name}");
        }
        assert!(matches!(repository.tag("v1.0", &tree, "x"), Err(GitError::Git { .. })));
        scratch.git(&["config", "--unset", "user.email"]);
        assert!(matches!(scratch.repository().tag("v1.0", &commit, "x"), Err(GitError::NoIdentity)));
        assert_eq!(repository.tag_target("v1.0").unwrap(), None);
    }
}
