//! Where a remote is: what its address says.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a remote is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// In a directory that this machine sees.
    Directory(PathBuf),
    /// In a bucket of Amazon S3, or of a server that speaks its language.
    S3 {
        /// The bucket.
        bucket: String,
        /// Where in it; empty for its top.
        prefix: String,
    },
    /// In a bucket of Google Cloud Storage.
    Google {
        /// The bucket.
        bucket: String,
        /// Where in it; empty for its top.
        prefix: String,
    },
    /// In a container of Azure Blob Storage.
    Azure {
        /// The container.
        container: String,
        /// Where in it; empty for its top.
        prefix: String,
    },
    /// On a machine that `ssh` reaches and that has `pv`.
    Ssh {
        /// `host` or `user@host`.
        host: String,
        /// The port, if not the usual one.
        port: Option<u16>,
        /// The directory there, absolute, or relative to the home directory.
        path: String,
    },
    /// On a web server, to be read only.
    Web {
        /// The whole address.
        url: String,
    },
}

/// A text is no address of a remote.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAnAddress {
    /// There is nothing.
    #[error("the address is empty")]
    Empty,
    /// A scheme that is not known.
    #[error("`{scheme}:` is no kind of remote")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// A password, which would be stored and shown.
    #[error("the address has a password in it")]
    Password,
    /// No bucket, container or host.
    #[error("the address names no {what}")]
    Lacks {
        /// What it should name.
        what: &'static str,
    },
    /// A port that is none.
    #[error("`{port}` is no port")]
    Port {
        /// The text.
        port: String,
    },
    /// Something behind `?` or `#`, which would be lost.
    #[error("the address has `{part}` in it, which means nothing here")]
    Extra {
        /// The sign.
        part: char,
    },
}

impl Address {
    /// Reads an address: a path, `file:`, `s3:`, `gs:`, `az:`, `ssh:`, `http:` or `https:`. Paths count from `base`, `~` from `home`.
    ///
    /// # Errors
    ///
    /// [`NotAnAddress`] if it is none.
    pub fn read(text: &str, base: &Path, home: Option<&Path>) -> Result<Self, NotAnAddress> {
        if text.is_empty() {
            return Err(NotAnAddress::Empty);
        }
        let Some((scheme, rest)) = split_scheme(text) else {
            let path = match (text.strip_prefix("~/"), home) {
                (Some(below), Some(home)) => home.join(below),
                _ => below(base, text),
            };
            return Ok(Self::Directory(path));
        };
        if scheme == "file" {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            return match path {
                "" => Err(NotAnAddress::Lacks { what: "directory" }),
                path => Ok(Self::Directory(below(base, path))),
            };
        }
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        if let Some(part) = rest.chars().find(|sign| matches!(sign, '?' | '#')) {
            return Err(NotAnAddress::Extra { part });
        }
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        if place.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) {
            return Err(NotAnAddress::Password);
        }
        let of = |what| if place.is_empty() { Err(NotAnAddress::Lacks { what }) } else { Ok(place.to_owned()) };
        let prefix = path.trim_matches('/').to_owned();
        Ok(match scheme {
            "s3" => Self::S3 { bucket: of("bucket")?, prefix },
            "gs" => Self::Google { bucket: of("bucket")?, prefix },
            "az" => Self::Azure { container: of("container")?, prefix },
            "http" | "https" => {
                of("host")?;
                Self::Web { url: text.trim_end_matches('/').to_owned() }
            }
            "ssh" => ssh(&of("host")?, path)?,
            scheme => return Err(NotAnAddress::Scheme { scheme: scheme.to_owned() }),
        })
    }

    /// Returns whether nothing can be written there.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Web { .. })
    }
}

/// Returns the path that `text` names from `base`, which must be canonical: what leads up at the begin is followed.
fn below(base: &Path, text: &str) -> PathBuf {
    let (mut base, mut rest) = (base, Path::new(text));
    while let (Ok(up), Some(above)) = (rest.strip_prefix(".."), base.parent()) {
        (base, rest) = (above, up);
    }
    base.join(rest)
}

/// Returns scheme and rest. One letter is no scheme, and neither is what is behind a `/`.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.len() > 1
        && scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme
            .chars()
            .all(|sign| sign.is_ascii_lowercase() || sign.is_ascii_digit() || matches!(sign, '+' | '-' | '.'));
    is_scheme.then_some((scheme, rest))
}

fn ssh(place: &str, path: &str) -> Result<Address, NotAnAddress> {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) => {
            let number = port.parse().map_err(|_| NotAnAddress::Port { port: port.to_owned() })?;
            (host, Some(number))
        }
        None => (place, None),
    };
    // `ssh` would take such a host for an option.
    if host.is_empty() || host.starts_with('-') {
        return Err(NotAnAddress::Lacks { what: "host" });
    }
    let path = match path {
        "" => return Err(NotAnAddress::Lacks { what: "directory" }),
        path => path.strip_prefix("~/").map_or_else(|| format!("/{path}"), str::to_owned),
    };
    Ok(Address::Ssh { host: host.to_owned(), port, path })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_bucket = |f: &mut fmt::Formatter<'_>, scheme: &str, bucket: &str, prefix: &str| match prefix {
            "" => write!(f, "{scheme}://{bucket}"),
            prefix => write!(f, "{scheme}://{bucket}/{prefix}"),
        };
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::S3 { bucket, prefix } => in_bucket(f, "s3", bucket, prefix),
            Self::Google { bucket, prefix } => in_bucket(f, "gs", bucket, prefix),
            Self::Azure { container, prefix } => in_bucket(f, "az", container, prefix),
            Self::Ssh { host, port, path } => {
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                let between = if path.starts_with('/') { "" } else { "/~/" };
                write!(f, "ssh://{host}{port}{between}{path}")
            }
            Self::Web { url } => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Address, NotAnAddress> {
        Address::read(text, Path::new("/project"), Some(Path::new("/home/ada")))
    }

    #[test]
    fn every_kind_of_address_is_read_and_shown_again() {
        let shown = |text: &str| read(text).map(|address| address.to_string()).unwrap();
        for text in [
            "s3://bucket/some/where",
            "s3://bucket",
            "gs://b/p",
            "az://c/p",
            "ssh://ada@host:2222/srv/pv",
            "ssh://host/~/pv",
            "https://example.org/pv",
            "/srv/pv",
        ] {
            assert_eq!(shown(text), text);
            assert_eq!(read(&shown(text)), read(text));
        }
        assert_eq!(shown("file:///srv/pv"), "/srv/pv");
        assert_eq!(shown("file:share"), "/project/share");
        assert_eq!(shown("../share"), "/share");
        assert_eq!(shown("../../share"), "/../share");
        assert_eq!(shown("~/share"), "/home/ada/share");
        assert_eq!(shown("s3://bucket/some/where/"), "s3://bucket/some/where");
        assert_eq!(shown("C:"), "/project/C:");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        let complaint = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(complaint(""), "the address is empty");
        assert_eq!(complaint("ftp://host/x"), "`ftp:` is no kind of remote");
        assert_eq!(complaint("https://ada:secret@host/x"), "the address has a password in it");
        assert_eq!(complaint("s3:///x"), "the address names no bucket");
        assert_eq!(complaint("ssh://host"), "the address names no directory");
        assert_eq!(complaint("ssh://-oProxyCommand=x/y"), "the address names no host");
        assert_eq!(complaint("ssh://host:no/y"), "`no` is no port");
        assert_eq!(complaint("s3://bucket/x?secret=1"), "the address has `?` in it, which means nothing here");
    }
}
