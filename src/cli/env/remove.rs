//! `pv env remove`: let an image or a Python environment go.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::known::{Image, Python, images, pythons};
use crate::cli::Global;
use crate::cli::answer::bytes;
use crate::cli::fail::CliError;
use crate::cli::gc::{DAY_SECONDS, KEEP_DAYS};
use crate::cli::open;
use crate::cli::ui::{FAINT, NAME, Ui, paint};
use crate::environment;
use crate::host::Time;
use crate::object::{Entry, Kind, Pin};
use crate::pipeline::Pipeline;
use crate::project::Project;
use crate::retention;
use crate::snapshot::{PINS, SnapshotError, check_definition, for_each_file};
use crate::store::{Live, Store};

/// Let an image or a Python environment go
///
/// Of an image its pins are removed, in the working tree and in the Git directory. Its files stay in the store for as long as a snapshot
/// that is kept needs them, and `pv gc` gives back the rest. A Python environment is removed at once; a run that needs it makes it again.
/// What the definition in the working tree names is not removed, unless you say `--force`, nor what a run is using.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The image or the Python environment: its digest, or the begin of that, as `pv env list` shows it; or the path of a lock
    #[arg(value_name = "ENVIRONMENT")]
    environment: String,
    /// Remove it also if the definition names it
    #[arg(long)]
    force: bool,
}

/// What was found by its name.
enum Found {
    Image(Image),
    Python(Python),
}

#[derive(Serialize)]
struct Answer {
    /// The tree of the image, or what decides about the Python environment.
    environment: String,
    /// The digest of the image; `None` if it is none.
    image: Option<String>,
    /// The lock of the Python environment; `None` if it is none.
    lock: Option<String>,
    /// What has gone from the disk.
    freed_bytes: u64,
    /// What of it nothing needs any more and `pv gc` gives back.
    garbage_bytes: u64,
    /// What snapshots need and stays.
    needed_bytes: u64,
}

pub(super) fn run(ui: &mut Ui, global: &Global, args: &Args) -> Result<u8, CliError> {
    let project = open::project(ui, global)?;
    let pipeline = match check_definition(project.site()) {
        Ok(definition) => Some(definition.pipeline),
        Err(SnapshotError::NoPipeline { .. }) => None,
        // Nobody knows what it names.
        Err(_) if args.force => None,
        Err(error) => return Err(error.into()),
    };
    let found = find(&project, pipeline.as_ref(), &args.environment)?;
    let steps = match &found {
        Found::Image(image) => &image.steps,
        Found::Python(python) => &python.steps,
    };
    if !steps.is_empty() && !args.force {
        let named = format!("`{}` is named by the definition, for {}", args.environment, steps.join(", "));
        return Err(CliError::usage(named).hint("let these steps run in something else first, or say `--force`"));
    }
    let answer = match found {
        Found::Image(image) => remove_image(&project, &image.pin)?,
        Found::Python(python) => remove_python(&project, &python)?,
    };
    ui.show(&answer)?;
    Ok(0)
}

/// Returns the one environment that `text` names.
fn find(project: &Project, pipeline: Option<&Pipeline>, text: &str) -> Result<Found, CliError> {
    let digest = text.rsplit_once('@').map_or(text, |(_, digest)| digest);
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    let begins = |whole: &str| !digits.is_empty() && whole.starts_with(digits);
    let mut found = Vec::new();
    for image in images(project, pipeline)? {
        let hex = image.pin.image.strip_prefix("sha256:").unwrap_or(&image.pin.image);
        if begins(hex) || begins(&image.pin.tree.digest().to_string()) {
            found.push((image.pin.image.clone(), Found::Image(image)));
        }
    }
    for python in pythons(project, pipeline)? {
        let whole = python.made.digest.to_string();
        if python.made.lock == text || begins(&whole) {
            found.push((whole, Found::Python(python)));
        }
    }
    let names: Vec<String> = found.iter().map(|(name, _)| format!("`{name}`")).collect();
    match (found.pop(), found.is_empty()) {
        (Some((_, found)), true) => Ok(found),
        (None, _) => Err(CliError::usage(format!("no environment here is called `{text}`"))
            .hint("`pv env list` shows those that were taken in or made here")),
        _ => Err(CliError::usage(format!("`{text}` may be {}", names.join(" or "))).hint("say more of its digest")),
    }
}

fn remove_image(project: &Project, pin: &Pin) -> Result<Answer, CliError> {
    let since = Time { epoch_ms: Time::now().epoch_ms - i64::from(KEEP_DAYS) * DAY_SECONDS * 1000 };
    let roots = project.roots_without(since, &pin.image)?;
    let live = retention::mark(&project.store, &roots, &Live::new())?;
    let (mut garbage_bytes, mut needed_bytes, mut counted) = (0, 0, BTreeSet::new());
    if project.store.length(Kind::Tree, pin.tree.digest())?.is_some() {
        for_each_file(&project.store, pin.tree, None, &mut |_, entry| {
            if let Entry::File { id, size, .. } = entry
                && counted.insert(id.digest())
            {
                let is_needed = live.contains(&(Kind::Blob, id.digest()));
                *(if is_needed { &mut needed_bytes } else { &mut garbage_bytes }) += size;
            }
            Ok(())
        })?;
    }
    for directory in [project.pins(), project.root.join(PINS)] {
        environment::remove_pin(&directory, &pin.image)?;
    }
    Ok(Answer {
        environment: pin.tree.digest().to_string(),
        image: Some(pin.image.clone()),
        lock: None,
        freed_bytes: 0,
        garbage_bytes,
        needed_bytes,
    })
}

fn remove_python(project: &Project, python: &Python) -> Result<Answer, CliError> {
    let made = &python.made;
    let freed = environment::remove_python(&project.python_environments(), &made.digest)?;
    let in_use = || {
        CliError::usage(format!("the Python environment of `{}` is in use", made.lock))
            .hint("wait for the end of the run or the `pv shell` that uses it")
    };
    Ok(Answer {
        environment: made.digest.to_string(),
        image: None,
        lock: Some(made.lock.clone()),
        freed_bytes: freed.ok_or_else(in_use)?,
        garbage_bytes: 0,
        needed_bytes: 0,
    })
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(lock) = &self.lock {
            return writeln!(f, "removed: Python environment of {}  {}", paint(NAME, lock), bytes(self.freed_bytes));
        }
        let image = self.image.as_deref().unwrap_or(&self.environment);
        writeln!(f, "removed: the pins of {}; commit that", paint(NAME, image))?;
        if self.garbage_bytes > 0 {
            writeln!(f, "`pv gc` gives back {}", bytes(self.garbage_bytes))?;
        }
        if self.needed_bytes > 0 {
            let needed = format!("{} of it stay: snapshots that are kept need them", bytes(self.needed_bytes));
            writeln!(f, "{}", paint(FAINT, needed))?;
        }
        Ok(())
    }
}
