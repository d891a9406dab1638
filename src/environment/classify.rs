//! What a path outside the project is to a step: a part of its environment, or an input that nobody declared.
//!
//! A decision from the text of the path alone; no file is looked at. The rules are in [`super::rules`].

use std::path::{Path, PathBuf};

use super::rules::{Rule, Rules, built_in};
use crate::path::Located;

/// What a path outside the project is to a step that touches it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// It decides nothing that is not known from elsewhere: locale, devices, the files of an interpreter.
    Noise,
    /// A program, which decides by its bytes.
    Program,
    /// A shared library, header or the like, which decides by its bytes.
    Library,
    /// A part of a Python package, which decides by the version of its distribution.
    Package {
        /// The `site-packages` directory that it lies in.
        site: PathBuf,
    },
    /// Anything else: data, settings, models.
    Input,
}

/// Returns what the absolute `path`, which lies outside the project, is under `rules`.
///
/// Of the user's own rules the most exact one counts, and one that says `inputs` before one that is as exact; they
/// come before the built-in ones, of which the first one counts. A file that the user puts into the environment
/// decides by its bytes if the built-in rules know it as a program, a library or a package, and else not at all.
pub fn classify(path: &Path, rules: &Rules) -> Class {
    let located = Located::new(path, rules.homes());
    let own = rules.own().iter().filter(|rule| rule.pattern.covers_located(&located));
    let built_in = || by_built_in(path, &located, rules);
    match own.max_by_key(|rule| (rule.pattern.exactness(), rule.class == Class::Input)) {
        Some(Rule { class: Class::Input, .. }) => Class::Input,
        Some(_) => Some(built_in()).filter(|class| *class != Class::Input).unwrap_or(Class::Noise),
        None => built_in(),
    }
}

fn by_built_in(path: &Path, located: &Located<'_>, rules: &Rules) -> Class {
    if is_on_the_way(path, rules.homes()) || rules.private().iter().any(|private| path.starts_with(private)) {
        return Class::Noise;
    }
    let rule = built_in().iter().find(|rule| rule.pattern.covers_located(located));
    match rule.map(|rule| &rule.class) {
        Some(Class::Package { .. }) => Class::Package { site: site_of(path) },
        Some(class) => class.clone(),
        None => Class::Input,
    }
}

/// Returns whether `path` is only passed through: the root, a directory right below it, or one that homes lie in.
fn is_on_the_way(path: &Path, homes: &[PathBuf]) -> bool {
    path.components().count() <= 2 || homes.iter().any(|home| home.starts_with(path))
}

/// Returns the outermost directory of packages that `path` lies in.
fn site_of(path: &Path) -> PathBuf {
    let is_site = |ancestor: &&Path| {
        ancestor.file_name().is_some_and(|name| ["site-packages", "dist-packages"].iter().any(|site| name == *site))
    };
    let outermost = path.ancestors().filter(is_site).last();
    outermost.unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Pattern;

    fn rules() -> Rules {
        Rules::new(vec!["/home/ada".into(), "/pv/home".into()]).with_private(vec!["/pv/home".into(), "/pv/tmp".into()])
    }

    fn class(path: &str) -> Class {
        classify(Path::new(path), &rules())
    }

    #[test]
    fn what_every_program_touches_is_noise() {
        for path in [
            "/",
            "/home",
            "/home/ada",
            "/data",
            "/proc/self/maps",
            "/sys/fs/cgroup/cpu.max",
            "/dev/urandom",
            "/dev/shm/x",
            "/run/systemd/resolve/stub-resolv.conf",
            "/etc/ld.so.cache",
            "/etc/passwd",
            "/etc/nsswitch.conf",
            "/etc/localtime",
            "/etc/ssl/certs/ca-certificates.crt",
            "/usr/share/zoneinfo/UTC",
            "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
            "/usr/lib/locale/C.utf8/LC_CTYPE",
            "/lib/terminfo/x/xterm",
            "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache",
            "/usr/lib/python3.11/os.py",
            "/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so",
            "/usr/lib/python311.zip",
            "/root/.pyenv/versions/3.12.1/lib/python3.12/json/__init__.py",
            "/root/.pyenv/versions/3.12.1/lib/python312.zip",
            "/opt/conda/lib/python3.12/__pycache__/os.cpython-312.pyc",
            "/home/ada/venv/pyvenv.cfg",
            "/home/ada/.config/matplotlib/matplotlibrc",
            "/home/ada/.cache/huggingface/hub/x",
            "/home/ada/.gitconfig",
            "/pv/home/.anything",
            "/pv/tmp/tmpabc",
            "/srv/code/.git/HEAD",
            "/etc/perl/POSIX.pm",
            "/etc/gnutls/config",
            "/usr/local/etc/gitconfig",
            "/root/.pyenv/version",
            "/root/.pyenv/plugins/pyenv-virtualenv/etc/pyenv.d/which/conda.bash",
            "/root/.pyenv/versions/3.11.7/share/locale/en/LC_MESSAGES/messages.mo",
            "/srv/code/.python-version",
            "/home/ada/venv/pip.conf",
            "/home/ada/.curlrc",
            "/home/ada/.netrc",
            "/home/ada/.local/share/fonts",
        ] {
            assert_eq!(class(path), Class::Noise, "{path}");
        }
    }

    #[test]
    fn what_decides_by_its_bytes_is_told_apart_from_packages_and_inputs() {
        for path in [
            "/pv/venv/bin",
            "/pv/venv/bin/tool",
            "/usr/bin/env",
            "/bin/sh",
            "/usr/local/bin/dvc",
            "/home/ada/venv/bin/python3",
            "/opt/spark/bin/x",
        ] {
            assert_eq!(class(path), Class::Program, "{path}");
        }
        for path in [
            "/usr/lib/x86_64-linux-gnu/libopenblas.so.0",
            "/lib64/ld-linux-x86-64.so.2",
            "/opt/cuda/lib/libcudart.so",
            "/usr/include/stdio.h",
            "/usr/lib/gcc/x86_64-linux-gnu/12/cc1",
            "/usr/lib/R/library/stats/R/stats.rdb",
            "/opt/conda/lib/python3.12/site-packages/distutils-precedence.pth",
        ] {
            assert_eq!(class(path), Class::Library, "{path}");
        }
        let site = |path: &str| Class::Package { site: path.into() };
        assert_eq!(
            class("/home/ada/p/.venv/lib/python3.11/site-packages/numpy/_core/x.cpython-311-x86_64-linux-gnu.so"),
            site("/home/ada/p/.venv/lib/python3.11/site-packages")
        );
        assert_eq!(class("/usr/lib/python3/dist-packages/six.py"), site("/usr/lib/python3/dist-packages"));
        assert_eq!(
            class("/v/lib/python3.11/site-packages/a/site-packages/__pycache__/b.pyc"),
            site("/v/lib/python3.11/site-packages")
        );
        for path in [
            "/home/ada/x.csv",
            "/data/big.parquet",
            "/etc/myapp.conf",
            "/opt/model.bin",
            "/tmp/left-over",
            "/home/ada/.cache/torch/hub/checkpoints/resnet.pth",
            "/home/ada/.aws/credentials",
            "/srv/python3.11/table.csv",
            "/home/ada/usr/share/x",
        ] {
            assert_eq!(class(path), Class::Input, "{path}");
        }
    }

    #[test]
    fn the_users_rules_win_and_of_those_the_more_exact() {
        let pattern = |text: &str| Pattern::new(text).unwrap();
        let environment = [pattern("/opt/vendor"), pattern("/etc/app/*.conf"), pattern("/srv/x")];
        let inputs = [pattern("/opt/vendor/models"), pattern("/usr/share/dict"), pattern("/srv/x")];
        let rules = rules().with_own(&environment, &inputs, ".pipeline/config.yaml");
        let class = |path: &str| classify(Path::new(path), &rules);
        assert_eq!(class("/opt/vendor/settings"), Class::Noise);
        assert_eq!(class("/opt/vendor/lib/libx.so"), Class::Library);
        assert_eq!(class("/opt/vendor/models/a.bin"), Class::Input);
        assert_eq!(class("/usr/share/dict/words"), Class::Input);
        assert_eq!(class("/usr/share/misc"), Class::Noise);
        assert_eq!(class("/etc/app/a.conf"), Class::Noise);
        assert_eq!(class("/etc/app/a.yaml"), Class::Input);
        assert_eq!(class("/srv/x"), Class::Input, "as exact as the other, so the careful one counts");
    }
}
