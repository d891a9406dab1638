//! Records on their way between repositories, over the remotes of Git.
//!
//! What a remote holds is fetched to refs of its own, `refs/pv/fetched/<remote>/`, never to [`META_REF`]: so neither a
//! forced nor a plain `git fetch` can take anything away. It is united with ours, and ours is pushed as a
//! step forward. That is a compare-and-swap: who comes second fetches, unites and pushes again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::RecordError;
use super::exchange::{META_REF, bundles, lines};
use super::journal::Journal;
use crate::disk::{self, Durability};
use crate::git::{Asking, CommitId, Pushed, Repository};
use crate::hash::Digest;
use crate::host;
use crate::object::RecordId;

/// The branch that carries the records of a remote that refuses [`META_REF`].
pub const META_BRANCH: &str = "refs/heads/pv-meta";

/// What was fetched lies below this, by remote.
const FETCHED: &str = "refs/pv/fetched/";
/// The setting of a remote that says under which name it takes records. It goes with the remote, and is renamed with it.
const PLACE_SETTING: &str = "pvMetaRef";

/// Somebody is first each time, so this is enough for many at once.
const ATTEMPTS_MAX: u32 = 30;
/// After so many it is no matter of moments any more that a ref is not to be seen.
const UNSEEN_MAX: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What came of sending records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// How many records of the remote were new here.
    pub new_here: usize,
    /// How many of ours were new there.
    pub new_there: usize,
    /// The ref that carries them there: [`META_REF`], or else [`META_BRANCH`].
    pub place: &'static str,
    /// Why the server refused [`META_REF`], if it did so just now.
    pub refused: Option<String>,
}

impl Journal {
    /// Sends records to a remote that it does not have, after taking in those that it has.
    ///
    /// Of those who send at once, each succeeds. Costs two connections, or one if the remote has everything. If the
    /// server refuses [`META_REF`], the branch [`META_BRANCH`] is used from now on, and the configuration remembers that.
    ///
    /// # Errors
    ///
    /// [`RecordError::Git`] if the remote cannot be reached, [`RecordError::Refused`] if it takes neither ref,
    /// [`RecordError::Overtaken`] if others never let go of it, and as [`Journal::exchange`].
    /// What was not sent stays here, and goes the next time.
    pub fn send(&self, repository: &Repository, remote: &str, asking: Asking) -> Result<Sent, RecordError> {
        let mut sent = Sent { new_here: 0, new_there: 0, place: META_REF, refused: None };
        let mut pause = FIRST_PAUSE;
        let mut overtaken: Option<String> = None;
        let mut unseen = 0;
        for _ in 0..ATTEMPTS_MAX {
            sent.new_here += self.receive(repository, remote, asking)?;
            let there = self.choose_place(repository, remote, &mut sent);
            // Others got there first, and yet there is nothing to be seen: the server hides it from who fetches.
            unseen = if overtaken.is_some() && there.is_none() { unseen + 1 } else { 0 };
            if unseen == UNSEEN_MAX && sent.place == META_REF {
                sent.refused = Some("it hides it from those who fetch".to_owned());
                continue;
            }
            let Some(ours) = repository.set_tip(META_REF)? else { return Ok(sent) };
            let news = bundles(repository, &ours, there.as_ref())?;
            if news.is_empty() {
                return Ok(sent);
            }
            let followed = there.map(|there| repository.merge_set(META_REF, &there, true, &is_sound)).transpose()?;
            let tip = followed.flatten().unwrap_or(ours);
            match repository.push_commit(remote, &tip, sent.place, asking)? {
                Pushed::Done => {
                    sent.new_there = records(&news).len();
                    self.remember_sent(repository, remote, &tip, &sent)?;
                    return Ok(sent);
                }
                Pushed::Behind { reason } => {
                    std::thread::sleep(host::jittered(pause));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    overtaken = Some(reason);
                }
                Pushed::Refused { reason } if sent.place == META_REF => sent.refused = Some(reason),
                Pushed::Refused { reason } => {
                    return Err(RecordError::Refused { remote: remote.to_owned(), reference: sent.place, reason });
                }
            }
        }
        let reason = overtaken.or(sent.refused).unwrap_or_default();
        Err(RecordError::Overtaken { remote: remote.to_owned(), reason })
    }

    /// Takes in the records that a remote has, and returns how many were new here. Costs one connection.
    ///
    /// # Errors
    ///
    /// [`RecordError::Git`] if the remote cannot be reached, and as [`Journal::exchange`].
    pub fn receive(&self, repository: &Repository, remote: &str, asking: Asking) -> Result<usize, RecordError> {
        // What is here by other ways does not count.
        self.exchange(repository)?;
        let patterns = [
            (META_REF, fetched(repository, remote, META_REF)),
            (META_BRANCH, fetched(repository, remote, META_BRANCH)),
        ];
        repository.fetch_refs(remote, &patterns, asking)?;
        self.exchange(repository)
    }

    /// Returns whether a remote had everything when it was last asked or sent to. Connects to nobody.
    ///
    /// # Errors
    ///
    /// As [`Journal::exchange`].
    pub fn is_sent(&self, repository: &Repository, remote: &str) -> Result<bool, RecordError> {
        self.exchange(repository)?;
        let Some(ours) = repository.set_tip(META_REF)? else { return Ok(true) };
        let there = [META_REF, META_BRANCH].map(|place| repository.commit_at(&fetched(repository, remote, place)));
        if there.contains(&Some(ours)) {
            return Ok(true);
        }
        for there in there.iter().flatten() {
            if repository.set_files_since(&ours, Some(there))?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes a plain `git fetch` from a remote bring its records, where every command of `pv` finds them. Returns whether
    /// that is new.
    ///
    /// In a partial clone it is left as it is: a plain fetch would bring names without content.
    ///
    /// # Errors
    ///
    /// [`RecordError::Git`] if the configuration cannot be changed.
    pub fn follow(&self, repository: &Repository, remote: &str) -> Result<bool, RecordError> {
        if repository.flag(&format!("remote.{remote}.promisor")) == Some(true) {
            return Ok(false);
        }
        // A pattern, because git fails if a name is not there, and a remote may have no records yet.
        let refspec = format!("+{META_REF}*:{}*", fetched(repository, remote, META_REF));
        Ok(repository.configure_also(&*self.disk, &format!("remote.{remote}.fetch"), &refspec)?)
    }

    /// Unites [`META_REF`] with what was fetched since, and returns whether it moved.
    pub(super) fn unite_fetched(&self, repository: &Repository) -> (bool, Result<(), RecordError>) {
        let mut has_moved = false;
        let united = self.unite_each(repository, &mut has_moved);
        (has_moved, united)
    }

    fn unite_each(&self, repository: &Repository, has_moved: &mut bool) -> Result<(), RecordError> {
        let (on_ref, branch) = (last_name(META_REF), last_name(META_BRANCH));
        let fetched = repository.commits_below(FETCHED)?.into_iter();
        // The patterns bring whatever begins like ours.
        let fetched = fetched.filter(|(name, _)| [on_ref, branch].contains(&last_name(name)));
        let mut tips: BTreeSet<CommitId> = fetched.map(|(_, commit)| commit).collect();
        // Where a plain fetch puts the branch.
        let plain = repository.remotes().into_iter().map(|remote| format!("refs/remotes/{remote}/{branch}"));
        tips.extend(plain.filter_map(|reference| repository.commit_at(&reference)));
        let known = self.known_fetched()?;
        if tips == known {
            return Ok(());
        }
        let mut result = Ok(());
        let mut united = BTreeSet::new();
        for tip in tips {
            if known.contains(&tip) {
                united.insert(tip);
                continue;
            }
            let merged = repository.set_tip(META_REF).and_then(|before| {
                let after = repository.merge_set(META_REF, &tip, false, &is_sound)?;
                Ok(before != after)
            });
            match merged {
                Ok(moved) => {
                    *has_moved |= moved;
                    united.insert(tip);
                }
                Err(error) => result = Err(error.into()),
            }
        }
        self.remember_fetched(&united)?;
        result
    }

    /// Chooses the ref that carries records on a remote, and returns what is there now.
    fn choose_place(&self, repository: &Repository, remote: &str, sent: &mut Sent) -> Option<CommitId> {
        let there = |place: &str| repository.commit_at(&fetched(repository, remote, place));
        let (on_ref, on_branch) = (there(META_REF), there(META_BRANCH));
        let is_remembered = repository.setting(&place_setting(remote)).as_deref() == Some(META_BRANCH);
        // Others have found out before.
        let is_known = on_ref.is_none() && on_branch.is_some();
        if is_remembered || is_known || sent.refused.is_some() {
            sent.place = META_BRANCH;
            return on_branch;
        }
        on_ref
    }

    fn remember_sent(
        &self,
        repository: &Repository,
        remote: &str,
        tip: &CommitId,
        sent: &Sent,
    ) -> Result<(), RecordError> {
        // An address has no settings that could remember it.
        if sent.refused.is_some() && has_name(repository, remote) {
            repository.configure(&*self.disk, &place_setting(remote), Some(Path::new(sent.place)))?;
        }
        Ok(repository.move_reference(&fetched(repository, remote, sent.place), tip, "pv: sent records")?)
    }

    fn known_fetched_file(&self) -> PathBuf {
        self.directory.join("known-fetched")
    }

    fn known_fetched(&self) -> Result<BTreeSet<CommitId>, RecordError> {
        let bytes = disk::read_if_there(&self.known_fetched_file())?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Like the known tip, this only saves work.
    fn remember_fetched(&self, tips: &BTreeSet<CommitId>) -> Result<(), RecordError> {
        let text = tips.iter().fold(String::new(), |text, tip| text + &format!("{tip}\n"));
        let file = self.known_fetched_file();
        Ok(disk::write_whole_on(&*self.disk, &file, text.as_bytes(), Durability::Deferred)?)
    }
}

/// Returns whether a ref of a remote is one that carries records.
pub fn carries_records(reference: &str) -> bool {
    [META_REF, META_BRANCH].contains(&reference)
}

/// Returns whether a file may come into the set: a bundle that lies where its bytes say.
fn is_sound(path: &[u8], bytes: &[u8]) -> bool {
    let name = Digest::of(bytes).to_string();
    path == format!("{}/{}", &name[..2], &name[2..]).as_bytes()
}

/// Returns where what a remote has at `place` is fetched to.
fn fetched(repository: &Repository, remote: &str, place: &str) -> String {
    let name = last_name(place);
    if has_name(repository, remote) {
        return format!("{FETCHED}{remote}/{name}");
    }
    // An address makes no name of a ref.
    format!("{FETCHED}by-address/{}/{name}", Digest::of(remote.as_bytes()).short())
}

/// Returns whether this is the name of a remote, not an address.
fn has_name(repository: &Repository, remote: &str) -> bool {
    repository.remotes().iter().any(|name| name == remote)
}

fn last_name(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or(reference)
}

fn place_setting(remote: &str) -> String {
    format!("remote.{remote}.{PLACE_SETTING}")
}

fn records(bundles: &[Vec<u8>]) -> BTreeSet<RecordId> {
    lines(bundles).filter(|line| !line.is_empty()).map(RecordId::of).collect()
}
