//! Where the credentials for Google Cloud Storage are: the file that a variable names, that of Google's own program, or
//! the machine.

use object_store::gcp::GoogleCloudStorageBuilder;

use super::super::surroundings::Surroundings;
use super::wire;

/// Where the program keeps what a user logged in with, in its directory.
const DEFAULT_CREDENTIALS: &str = "application_default_credentials.json";

/// Returns the settings for a bucket.
pub(super) fn settings(bucket: &str, surroundings: &Surroundings<'_>) -> GoogleCloudStorageBuilder {
    let settings = GoogleCloudStorageBuilder::new().with_bucket_name(bucket);
    // The libraries of Google ask this one, if it is set, and ask it without credentials.
    if let Some(emulator) = surroundings.first(&["STORAGE_EMULATOR_HOST"]) {
        let url = if emulator.contains("://") { emulator } else { format!("http://{emulator}") };
        return settings
            .with_base_url(&url)
            .with_bearer_token("")
            .with_skip_signature(true)
            .with_client_options(wire::options(url.starts_with("http:")));
    }
    let logged_in =
        surroundings.file("CLOUDSDK_CONFIG", ".config/gcloud").map(|directory| directory.join(DEFAULT_CREDENTIALS));
    let file = surroundings
        .first(&["GOOGLE_APPLICATION_CREDENTIALS"])
        .or_else(|| Some(logged_in.filter(|file| file.is_file())?.to_str()?.to_owned()));
    let settings = settings.with_client_options(wire::options(false));
    match file {
        Some(file) => settings.with_application_credentials(file),
        None => settings,
    }
}
