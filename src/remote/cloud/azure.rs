//! Where the keys for Azure Blob Storage are: variables, else the machine, else the login of Azure's own program.

use object_store::azure::{AzureConfigKey as Key, MicrosoftAzureBuilder};

use super::super::bucket::{BucketError, Trouble};
use super::super::surroundings::Surroundings;
use super::said::Said;
use super::wire;

/// The variables of each setting, and what it is called in a connection string.
const SETTINGS: [(&[&str], Option<&str>, Key); 9] = [
    (&["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"], Some("AccountName"), Key::AccountName),
    (
        &["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_KEY"],
        Some("AccountKey"),
        Key::AccessKey,
    ),
    (&["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"], Some("SharedAccessSignature"), Key::SasKey),
    (&["AZURE_STORAGE_ENDPOINT"], Some("BlobEndpoint"), Key::Endpoint),
    (&["AZURE_CLIENT_ID"], None, Key::ClientId),
    (&["AZURE_CLIENT_SECRET"], None, Key::ClientSecret),
    (&["AZURE_TENANT_ID"], None, Key::AuthorityId),
    (&["AZURE_AUTHORITY_HOST"], None, Key::AuthorityHost),
    (&["AZURE_FEDERATED_TOKEN_FILE"], None, Key::FederatedTokenFile),
];

/// Returns the settings for a container.
///
/// # Errors
///
/// [`BucketError`] if nothing says which account it belongs to.
pub(super) fn settings(container: &str, surroundings: &Surroundings<'_>) -> Result<MicrosoftAzureBuilder, BucketError> {
    let connection = surroundings.first(&["AZURE_STORAGE_CONNECTION_STRING"]).unwrap_or_default();
    let in_connection = |name: &str| {
        let pairs = connection.split(';').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    let mut settings = MicrosoftAzureBuilder::new().with_container_name(container);
    for (variables, name, key) in SETTINGS {
        if let Some(value) = surroundings.first(variables).or_else(|| in_connection(name?)) {
            settings = settings.with_config(key, value);
        }
    }
    if settings.get_config_value(&Key::AccountName).is_none() {
        let said = "`AZURE_STORAGE_ACCOUNT_NAME`, which names the account, is not set".to_owned();
        return Err(BucketError::on("reach", "", Trouble::Refused)(Said(said)));
    }
    let allow_http = settings.get_config_value(&Key::Endpoint).is_some_and(|endpoint| endpoint.starts_with("http:"));
    // A user who has logged in keeps that in this directory; a machine that is given an identity has no user.
    let login = surroundings.file("AZURE_CONFIG_DIR", ".azure").is_some_and(|directory| directory.is_dir());
    Ok(settings.with_use_azure_cli(login).with_client_options(wire::options(allow_http)))
}

#[cfg(test)]
mod tests {
    use super::super::super::surroundings::Patience;
    use super::*;

    fn with(variables: &'static [(&str, &str)]) -> Result<MicrosoftAzureBuilder, BucketError> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        settings("data", &Surroundings { variable: &variable, home: None, patience: Patience::default() })
    }

    #[test]
    fn a_connection_string_says_what_no_variable_says() {
        let settings = with(&[
            (
                "AZURE_STORAGE_CONNECTION_STRING",
                "AccountName=theirs;AccountKey=a2V5PT0=;BlobEndpoint=http://localhost:1/theirs",
            ),
            ("AZURE_STORAGE_ACCOUNT_NAME", "ours"),
        ]);
        let settings = settings.unwrap();
        let value = |key: Key| settings.get_config_value(&key);
        assert_eq!(value(Key::AccountName).as_deref(), Some("ours"));
        assert_eq!(value(Key::AccessKey).as_deref(), Some("a2V5PT0="));
        assert_eq!(value(Key::Endpoint).as_deref(), Some("http://localhost:1/theirs"));
        assert_eq!(value(Key::Client(object_store::ClientConfigKey::AllowHttp)).as_deref(), Some("true"));
    }

    #[test]
    fn without_an_account_nobody_is_asked() {
        let error = with(&[("AZURE_STORAGE_ACCOUNT_KEY", "hush")]).map(drop).unwrap_err();
        assert_eq!(error.trouble, Trouble::Refused);
        assert_eq!(error.source.to_string(), "`AZURE_STORAGE_ACCOUNT_NAME`, which names the account, is not set");
    }
}
