//! What git's configuration says, and changing it.
//!
//! A change is made as git makes it, under the file `config.lock`, but it also
//! outlasts a power cut: the new file is flushed before it replaces the old
//! one. Whatever dies on the way leaves nothing behind that stops the next try.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gix::bstr::{BString, ByteSlice};
use gix::config::AsKey;
use gix::config::file::{Metadata, init};

use super::{GitError, Repository};
use crate::disk::{self, Change, Disk, DiskError, Flush, Lock};
use crate::host;

const ACTION: &str = "change the configuration of the repository";

impl Repository {
    /// Returns the value of a key such as `user.name` in git's configuration; the last one counts.
    pub fn setting(&self, key: &str) -> Option<String> {
        let value = self.local().config_snapshot().string(key)?;
        Some(value.to_str_lossy().into_owned())
    }

    /// Returns the value of a key that is a path.
    ///
    /// As git has it, `~` is the directory in the variable `HOME`, and `~name` that of another user. Any other path that
    /// is not absolute is relative to the git directory that all working trees share.
    ///
    /// # Errors
    ///
    /// [`GitError::Git`] if a home directory is meant and not known, or the value is empty.
    pub fn path_setting(&self, key: &str) -> Result<Option<PathBuf>, GitError> {
        let Some(value) = self.local().config_snapshot().string(key) else { return Ok(None) };
        let home = host::variable_os("HOME").map(PathBuf::from);
        let context = gix::config::path::interpolate::Context { home_dir: home.as_deref(), ..Default::default() };
        let action = format!("understand the path `{value}` of `{key}` in git's configuration");
        if home.is_none() && (value == "~" || value.starts_with(b"~/")) {
            return Err(GitError::on(action)("the variable `HOME` is not set"));
        }
        let path = gix::config::Path::from(value).interpolate(context).map_err(GitError::on(action))?;
        Ok(Some(self.common_directory().join(path)))
    }

    /// Returns the value of a key that is a truth value; `None` if it is unset or no truth value.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.local().config_snapshot().boolean(key)
    }

    /// Sets or, without a value, unsets a key in the configuration of the repository, for all its working trees, durably.
    ///
    /// The rest of the file stays as it is. This value still says what the configuration was when it was opened.
    ///
    /// # Errors
    ///
    /// [`GitError::ConfigLocked`] while another process changes the file, [`GitError::Git`] if it cannot be understood,
    /// [`GitError::Disk`] if it cannot be written. The old file is then still there, whole.
    pub fn configure(&self, disk: &dyn Disk, key: &str, value: Option<&Path>) -> Result<(), GitError> {
        self.reconfigure(disk, &|before| edited(before, key, value))
    }

    /// Adds a value to a key that may have several, such as `remote.origin.fetch`, unless it has it: durably, and as
    /// [`Repository::configure`] does it. Returns whether it was added.
    ///
    /// # Errors
    ///
    /// As [`Repository::configure`].
    pub fn configure_also(&self, disk: &dyn Disk, key: &str, value: &str) -> Result<bool, GitError> {
        let has = |values: Vec<BString>| values.iter().any(|known| known == value);
        if self.local().config_snapshot().plumbing().raw_values(key).is_ok_and(has) {
            return Ok(false);
        }
        self.reconfigure(disk, &|before| with_value(before, key, value))?;
        Ok(true)
    }

    fn reconfigure(&self, disk: &dyn Disk, edit: Edit<'_>) -> Result<(), GitError> {
        let file = self.common_directory().join("config");
        // A link is followed: git keeps it, too.
        let file = file.canonicalize().map_err(DiskError::on("read", &file))?;
        let beside = |ending: &str| {
            let mut name = file.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        // What a process leaves that dies here is of no other that lives, and the next one removes it.
        let alone = Lock::exclusive(&beside(".pv-lock"))?;
        let replacing = Replacing { disk, file: &file, lock: beside(".lock"), new: beside(".pv-new") };
        let configured = replacing.change(edit);
        alone.remove();
        configured
    }
}

/// What a file is to become.
type Edit<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<u8>, GitError>;

/// The file that is replaced, and the names that are needed for that.
struct Replacing<'a> {
    disk: &'a dyn Disk,
    file: &'a Path,
    /// Where this is, nobody else changes the file.
    lock: PathBuf,
    new: PathBuf,
}

impl Replacing<'_> {
    fn change(&self, edit: Edit<'_>) -> Result<(), GitError> {
        loop {
            self.disk.change(Change::Remove(&self.new))?;
            let before = disk::read_if_there(self.file)?.unwrap_or_default();
            let after = edit(&before)?;
            if before == after {
                // An earlier try may have died before it flushed.
                self.disk.flush(Flush::File(self.file))?;
                return Ok(self.disk.flush(Flush::Directory(disk::parent(self.file)))?);
            }
            if self.replace(&before, &after)? {
                return Ok(());
            }
        }
    }

    /// Puts `after` in the place of `before`. Returns `false` if the file is not `before` any more.
    fn replace(&self, before: &[u8], after: &[u8]) -> Result<bool, GitError> {
        let replaced = self.write_new(after).and_then(|()| self.exchange(before, after));
        // The first error is the one to report; what is left is in nobody's way.
        let _ = self.disk.change(Change::Remove(&self.new));
        Ok(replaced? && self.disk.flush(Flush::Directory(disk::parent(self.file))).map(|()| true)?)
    }

    fn write_new(&self, after: &[u8]) -> Result<(), GitError> {
        let file = self.disk.create(&self.new)?;
        self.disk.write(&file, &self.new, 0, after)?;
        let mode = self.file.metadata().map_err(DiskError::on("read", self.file))?.permissions();
        file.set_permissions(mode).map_err(DiskError::on("set the mode of", &self.new))?;
        Ok(self.disk.flush(Flush::File(&self.new))?)
    }

    /// Makes the new file the lock, and the lock the file: at no moment is there a lock that is not whole.
    fn exchange(&self, before: &[u8], after: &[u8]) -> Result<bool, GitError> {
        match self.disk.change(Change::Link { from: &self.new, to: &self.lock }) {
            // It was left by a try that died, or makes the very same change: then it may as well be made here.
            Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists => {
                if disk::read_if_there(&self.lock)?.is_none_or(|bytes| bytes != after) {
                    return Err(GitError::ConfigLocked { lock: self.lock.clone() });
                }
                self.disk.flush(Flush::File(&self.lock))?;
            }
            linked => linked?,
        }
        if disk::read_if_there(self.file)?.unwrap_or_default() != before {
            self.disk.change(Change::Remove(&self.lock))?;
            return Ok(false);
        }
        self.disk.change(Change::Rename { from: &self.lock, to: self.file })?;
        Ok(true)
    }
}

/// Returns a configuration file with one key changed, and all else as it was.
fn edited(before: &[u8], key: &str, value: Option<&Path>) -> Result<Vec<u8>, GitError> {
    let mut config = parsed(before)?;
    let (section, name) = key.split_once('.').expect("a key has a section");
    match value {
        Some(value) => drop(config.set_raw_value(key, value.as_os_str().as_bytes()).map_err(GitError::on(ACTION))?),
        None => remove(&mut config, section, name),
    }
    Ok(config.to_bstring().into())
}

/// Returns a configuration file with one more value of a key, unless it has that, and all else as it was.
fn with_value(before: &[u8], key: &str, value: &str) -> Result<Vec<u8>, GitError> {
    let mut config = parsed(before)?;
    let known = config.raw_values(key).unwrap_or_default();
    if !known.iter().any(|known| known == value) {
        let key = key.try_as_key().ok_or_else(|| GitError::on(ACTION)(format!("`{key}` is no key")))?;
        let section = config.section_mut_or_create_new(key.section_name, key.subsection_name);
        let mut section = section.map_err(GitError::on(ACTION))?;
        section.push(key.value_name, value).map_err(GitError::on(ACTION))?;
    }
    Ok(config.to_bstring().into())
}

/// Returns a configuration file to be changed.
fn parsed(before: &[u8]) -> Result<gix::config::File, GitError> {
    let parsed = gix::config::File::from_bytes_no_includes(before, Metadata::api(), init::Options::default());
    let config = parsed.map_err(GitError::on(ACTION))?;
    let same = config.to_bstring();
    // It may end every line; anything else would be a change that nobody asked for.
    if same.strip_prefix(before).is_none_or(|added| !added.trim().is_empty()) {
        return Err(GitError::on(ACTION)("the file would not stay as it is"));
    }
    Ok(config)
}

/// Removes every value of a key, and the sections that have nothing in them then.
fn remove(config: &mut gix::config::File, section: &str, name: &str) {
    let found = config.sections_and_ids_by_name(section).into_iter().flatten();
    let found =
        found.filter(|(found, _)| found.header().subsection_name().is_none() && found.contains_value_name(name));
    let found: Vec<_> = found.map(|(_, id)| id).collect();
    for id in found {
        let Some(mut found) = config.section_mut_by_id(id) else { continue };
        while found.remove(name).is_some() {}
        let text = found.to_bstring();
        if text.trim_end().ends_with(b"]") && text.trim().lines().count() == 1 && found.num_values() == 0 {
            config.remove_section_by_id(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::fs::PermissionsExt;

    use super::super::fixture::{Scratch, is_rerun};
    use super::*;
    use crate::disk::{Durability, RealDisk};

    /// A configuration with all that people put into one.
    const FULL: &str = "# ours\n[core]\n\trepositoryformatversion = 0\n\tbare = false ; not bare\n[pv \"other\"]\n\tstorePath = /of/another\n\
        [PV]\n  storepath = /one\n[alias]\n\tlong = \"log \\\n  --oneline\"\n[pv]\n# why\n\tStorePath=/two\n[user]\n\tname = Ada\n\temail = ada@example.org";

    #[test]
    fn a_value_is_added_to_those_that_a_key_has_and_only_once() {
        let scratch = Scratch::new();
        scratch.git(&["remote", "add", "a.b", "/x"]);
        let (key, value) = ("remote.a.b.fetch", "+refs/pv/meta*:refs/pv/fetched/a.b/meta*");
        let add = || scratch.repository().configure_also(&RealDisk, key, value).unwrap();
        assert_eq!((add(), add()), (true, false));
        let both = format!("+refs/heads/*:refs/remotes/a.b/*\n{value}");
        assert_eq!(scratch.line(&["config", "--get-all", key]), both);
        assert_eq!(scratch.line(&["remote"]), "a.b");
        let odd = "remote.-odd.pvMetaRef";
        scratch.repository().configure_also(&RealDisk, odd, "refs/heads/x").unwrap();
        assert_eq!(scratch.repository().setting(odd).as_deref(), Some("refs/heads/x"));
    }

    #[test]
    fn settings_and_flags_are_read() {
        let scratch = Scratch::new();
        scratch.git(&["config", "pv.store", "/data/store"]);
        scratch.git(&["config", "pv.keep", "off"]);
        let repository = scratch.repository();
        assert_eq!(repository.setting("pv.store").as_deref(), Some("/data/store"));
        assert_eq!(repository.setting("pv.none"), None);
        assert_eq!((repository.flag("pv.keep"), repository.flag("pv.none")), (Some(false), None));
    }

    #[test]
    fn a_path_that_is_set_is_what_git_takes_it_for() {
        const TEST: &str = "git::settings::tests::a_path_that_is_set_is_what_git_takes_it_for";
        const KEYS: [&str; 7] = ["none", "home", "below", "absolute", "relative", "root", "odd"];
        if is_rerun() {
            let here = host::current_directory().unwrap();
            let repository = Repository::discover(&here).unwrap().unwrap();
            for key in KEYS {
                match repository.path_setting(&format!("pv.{key}")) {
                    Ok(path) => println!("> {}", path.unwrap_or_default().display()),
                    Err(error) => println!("> {error}"),
                }
            }
            return;
        }
        let scratch = Scratch::new();
        let values = ["~", "~/a store", "/data/~", "../shared", "~root/x", "a~b"];
        for (key, value) in KEYS[1..].iter().zip(values) {
            scratch.git(&["config", &format!("pv.{key}"), value]);
        }
        let home = scratch.beside("home");
        let below = home.join("a store");
        let relative = scratch.root.join(".git/../shared");
        let root = PathBuf::from(scratch.line(&["config", "--type=path", "pv.root"]));
        let odd = scratch.root.join(".git/a~b");
        let expected = ["".as_ref(), home.as_path(), &below, "/data/~".as_ref(), &relative, &root, &odd];
        let expected = expected.map(|path| path.display().to_string());
        assert_eq!(scratch.rerun(TEST, &scratch.root, &[("HOME", home.as_os_str())]), expected);
        let lost = |key: &str, value: &str| {
            format!("cannot understand the path `{value}` of `pv.{key}` in git's configuration")
        };
        let mut without_home = expected;
        without_home[1] = lost("home", "~");
        without_home[2] = lost("below", "~/a store");
        assert_eq!(scratch.rerun(TEST, &scratch.root, &[("HOME", OsStr::new(""))]), without_home);
    }

    #[test]
    fn a_key_is_set_and_unset_as_git_does_it_and_all_else_stays() {
        let scratch = Scratch::new();
        let file = scratch.root.join(".git/config");
        disk::write_whole(&file, FULL.as_bytes(), Durability::Deferred).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let set = |value: Option<&str>| {
            scratch.repository().configure(&RealDisk, "pv.storePath", value.map(Path::new)).unwrap();
            std::fs::read_to_string(&file).unwrap()
        };
        let odd = "/a b/\"#;\\/c ";
        let text = set(Some(odd));
        assert_eq!(scratch.repository().path_setting("pv.storePath").unwrap(), Some(PathBuf::from(odd)));
        assert_eq!(String::from_utf8(scratch.git(&["config", "-z", "pv.storePath"])).unwrap(), format!("{odd}\0"));
        let lines =
            |text: &str| text.lines().filter(|line| !line.contains("c ")).map(str::to_owned).collect::<Vec<_>>();
        let rest: Vec<_> = FULL.lines().filter(|line| !line.contains("/two")).map(str::to_owned).collect();
        assert_eq!(lines(&text), rest);
        assert_eq!(set(Some(odd)), text);
        let unset = set(None);
        assert_eq!(
            unset,
            format!("{}\n", FULL.replace("[PV]\n  storepath = /one\n", "").replace("\tStorePath=/two\n", ""))
        );
        assert_eq!(scratch.line(&["config", "pv.other.storePath"]), "/of/another");
        assert_eq!(set(None), unset);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        set(Some("/new"));
        assert_eq!(scratch.line(&["config", "pv.storePath"]), "/new");
        set(None);
        assert_eq!(scratch.repository().path_setting("pv.storePath").unwrap(), None);
    }

    #[test]
    fn the_lock_of_git_is_respected_and_one_that_was_left_behind_is_no_obstacle() {
        let scratch = Scratch::new();
        let file = scratch.root.join(".git/config");
        let lock = scratch.root.join(".git/config.lock");
        let before = std::fs::read(&file).unwrap();
        scratch.write(".git/config.lock", "");
        let configure = || scratch.repository().configure(&RealDisk, "pv.storePath", Some(Path::new("/x")));
        assert!(matches!(configure(), Err(GitError::ConfigLocked { lock: told }) if told == lock));
        assert_eq!(std::fs::read(&file).unwrap(), before);
        scratch.write(".git/config.lock", edited(&before, "pv.storePath", Some(Path::new("/x"))).unwrap());
        configure().unwrap();
        assert!(disk::look(&lock).unwrap().is_none());
        assert_eq!(scratch.line(&["config", "pv.storePath"]), "/x");
        let names = std::fs::read_dir(scratch.root.join(".git")).unwrap();
        assert!(names.flatten().all(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"config.")));
    }
}
