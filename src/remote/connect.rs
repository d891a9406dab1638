//! The way from an address to the files that lie there.

use super::RemoteError;
use super::address::Address;
use super::bucket::Bucket;
use super::cloud::Cloud;
use super::directory::Directory;
use super::ssh::Ssh;
use super::surroundings::Surroundings;

/// Returns the files at an address. Nothing is asked of the other side yet.
///
/// # Errors
///
/// [`RemoteError::Bucket`] if the way there cannot be prepared, such as for half a pair of keys.
pub fn connect(address: &Address) -> Result<Box<dyn Bucket>, RemoteError> {
    match address {
        Address::Directory(path) => Ok(Box::new(Directory::new(path.clone()))),
        Address::Ssh { host, port, path } => Ok(Box::new(Ssh::connect(host.clone(), *port, path.clone()))),
        Address::S3 { .. } | Address::Google { .. } | Address::Azure { .. } | Address::Web { .. } => {
            Ok(Box::new(Cloud::open(address, &Surroundings::of_this_process())?))
        }
    }
}
