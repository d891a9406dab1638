//! Where the keys for Amazon S3 are: variables, and the profiles that its own program keeps.
//!
//! Keys in the environment win over profiles, as everywhere. Without either, the machine is asked.

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};

use super::super::bucket::{BucketError, Trouble};
use super::super::surroundings::{Surroundings, read_text};
use super::said::Said;
use super::wire;

/// What is taken as it is, if it is set: a role that a platform gives to what it runs.
const OF_PLATFORMS: [(&str, Key); 7] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", Key::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", Key::RoleArn),
    ("AWS_ROLE_SESSION_NAME", Key::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", Key::StsEndpoint),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", Key::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", Key::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", Key::ContainerAuthorizationTokenFile),
];
/// Ways of a profile to get keys that only Amazon's own program knows.
const OTHER_WAYS: [&str; 4] = ["credential_process", "sso_session", "sso_start_url", "role_arn"];

/// Returns the settings for a bucket.
///
/// # Errors
///
/// [`BucketError`] if there is half a pair of keys, or the profile that is asked for is not there or has no keys.
pub(super) fn settings(bucket: &str, surroundings: &Surroundings<'_>) -> Result<AmazonS3Builder, BucketError> {
    let profile = Profile::read(surroundings);
    let endpoint =
        surroundings.first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]).or_else(|| profile.get("endpoint_url"));
    let region = surroundings.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]).or_else(|| profile.get("region"));
    let allow_http = endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http:"));
    let mut settings = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region.unwrap_or_else(|| "us-east-1".to_owned()))
        // Files are removed one by one; not every server that speaks S3 knows how to remove many.
        .with_disable_bulk_delete(true)
        .with_client_options(wire::options(allow_http));
    settings = match endpoint {
        Some(endpoint) => settings.with_endpoint(endpoint),
        // A name with a dot in it does not match the certificate.
        None => settings.with_virtual_hosted_style_request(!bucket.contains('.')),
    };
    let keys = match Keys::in_environment(surroundings)? {
        None if surroundings.first(&["AWS_WEB_IDENTITY_TOKEN_FILE"]).is_none() => profile.keys()?,
        keys => keys,
    };
    if let Some(keys) = keys {
        settings = settings.with_access_key_id(keys.id).with_secret_access_key(keys.secret);
        return Ok(match keys.token {
            Some(token) => settings.with_token(token),
            None => settings,
        });
    }
    for (variable, key) in OF_PLATFORMS {
        if let Some(value) = surroundings.first(&[variable]) {
            settings = settings.with_config(key, value);
        }
    }
    Ok(settings)
}

/// What a user signs with. Never shown.
struct Keys {
    id: String,
    secret: String,
    token: Option<String>,
}

impl Keys {
    fn in_environment(surroundings: &Surroundings<'_>) -> Result<Option<Self>, BucketError> {
        let (id, secret) = (surroundings.first(&["AWS_ACCESS_KEY_ID"]), surroundings.first(&["AWS_SECRET_ACCESS_KEY"]));
        match (id, secret) {
            (Some(id), Some(secret)) => {
                Ok(Some(Self { id, secret, token: surroundings.first(&["AWS_SESSION_TOKEN"]) }))
            }
            (None, None) => Ok(None),
            _ => Err(refused("only one of `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` is set".to_owned())),
        }
    }
}

/// A named set of settings, from both files that have some.
struct Profile {
    name: String,
    is_asked_for: bool,
    settings: Vec<(String, String)>,
}

impl Profile {
    fn read(surroundings: &Surroundings<'_>) -> Self {
        let asked_for = surroundings.first(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]);
        let is_asked_for = asked_for.is_some();
        let name = asked_for.unwrap_or_else(|| "default".to_owned());
        let text = |variable: &str, below_home: &str| {
            surroundings.file(variable, below_home).and_then(|path| read_text(&path)).unwrap_or_default()
        };
        let credentials = text("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
        let config = text("AWS_CONFIG_FILE", ".aws/config");
        let headings = [format!("profile {name}"), name.clone()];
        // The first of two settings counts, and keys are looked for among the credentials first.
        let mut settings = section(&credentials, &headings[1..]);
        settings.extend(section(&config, if name == "default" { &headings } else { &headings[..1] }));
        Self { name, is_asked_for, settings }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.settings.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    fn keys(&self) -> Result<Option<Keys>, BucketError> {
        let name = &self.name;
        if let (Some(id), Some(secret)) = (self.get("aws_access_key_id"), self.get("aws_secret_access_key")) {
            return Ok(Some(Keys { id, secret, token: self.get("aws_session_token") }));
        }
        if let Some(way) = OTHER_WAYS.iter().find(|way| self.get(way).is_some()) {
            return Err(refused(format!("the profile `{name}` has no keys of its own, but `{way}`")));
        }
        if self.is_asked_for {
            return Err(refused(format!("the profile `{name}` has no keys, or is not there")));
        }
        Ok(None)
    }
}

/// Returns the settings below these headings of a file. What is indented belongs to the setting above it.
fn section(text: &str, headings: &[String]) -> Vec<(String, String)> {
    let mut is_ours = false;
    let mut settings = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.trim().strip_prefix('[').and_then(|line| line.split_once(']')) {
            let words: Vec<_> = heading.0.split_whitespace().collect();
            is_ours = headings.contains(&words.join(" "));
        } else if is_ours
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((name, value)) = line.split_once('=')
        {
            settings.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    settings
}

fn refused(said: String) -> BucketError {
    BucketError::on("reach", "", Trouble::Refused)(Said(said))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::super::surroundings::Patience;
    use super::*;
    use crate::disk::{self, Durability};

    const CREDENTIALS: &str = "\
# comment = no
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = default/secret

[ work ]
aws_access_key_id=AKIAWORK
aws_secret_access_key=work/se=cret
aws_session_token = work-token

[sso]
";
    const CONFIG: &str = "\
[default]
region = eu-west-1
s3 =
    endpoint_url = https://nested.example

[profile work]
region = us-west-2
endpoint_url = http://localhost:9000

[work]
region = wrong

[profile sso]
sso_session = company
";

    fn with<T>(variables: &[(&str, &str)], act: impl FnOnce(Result<AmazonS3Builder, BucketError>) -> T) -> T {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in [("credentials", CREDENTIALS), ("config", CONFIG)] {
            disk::write_whole(&home.path().join(".aws").join(name), text.as_bytes(), Durability::Deferred).unwrap();
        }
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        let surroundings = Surroundings {
            variable: &|name| variables.get(name).map(|value| (*value).to_owned()),
            home: Some(home.path().to_owned()),
            patience: Patience::default(),
        };
        act(settings("data", &surroundings))
    }

    fn found(variables: &[(&str, &str)]) -> Vec<Option<String>> {
        with(variables, |settings| {
            let settings = settings.unwrap();
            [Key::AccessKeyId, Key::SecretAccessKey, Key::Token, Key::Region, Key::Endpoint]
                .map(|key| settings.get_config_value(&key))
                .to_vec()
        })
    }

    fn some(values: &[&str]) -> Vec<Option<String>> {
        values.iter().map(|value| (!value.is_empty()).then(|| (*value).to_owned())).collect()
    }

    #[test]
    fn keys_come_from_the_environment_else_from_the_profile_that_is_asked_for() {
        assert_eq!(found(&[]), some(&["AKIADEFAULT", "default/secret", "", "eu-west-1", ""]));
        assert_eq!(
            found(&[("AWS_PROFILE", "work")]),
            some(&["AKIAWORK", "work/se=cret", "work-token", "us-west-2", "http://localhost:9000"])
        );
        let environment = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "env"), ("AWS_PROFILE", "work")];
        assert_eq!(found(&environment), some(&["AKIAENV", "env", "", "us-west-2", "http://localhost:9000"]));
        let endpoints = [("AWS_ENDPOINT_URL", "https://a"), ("AWS_ENDPOINT_URL_S3", "https://b"), ("AWS_REGION", "r")];
        assert_eq!(found(&endpoints), some(&["AKIADEFAULT", "default/secret", "", "r", "https://b"]));
    }

    #[test]
    fn what_a_platform_gives_wins_over_a_profile() {
        let given = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x")];
        assert_eq!(found(&given)[..2], some(&["", ""]));
        with(&given, |settings| {
            let settings = settings.unwrap();
            assert_eq!(settings.get_config_value(&Key::WebIdentityTokenFile).as_deref(), Some("/token"));
        });
    }

    #[test]
    fn only_an_address_that_says_http_is_asked_without_encryption() {
        let allows_http = |variables: &[(&str, &str)]| {
            let key = Key::Client(object_store::ClientConfigKey::AllowHttp);
            with(variables, |settings| settings.unwrap().get_config_value(&key)).unwrap()
        };
        assert_eq!(allows_http(&[]), "false");
        assert_eq!(allows_http(&[("AWS_ENDPOINT_URL", "https://localhost")]), "false");
        assert_eq!(allows_http(&[("AWS_ENDPOINT_URL", "http://localhost")]), "true");
    }

    #[test]
    fn a_profile_that_cannot_be_used_is_explained_without_its_keys() {
        let complaint = |variables: &[(&str, &str)]| {
            with(variables, |settings| {
                let error = settings.map(drop).unwrap_err();
                assert_eq!(error.trouble, Trouble::Refused);
                format!("{error}: {}", error.source)
            })
        };
        assert_eq!(
            complaint(&[("AWS_PROFILE", "nobody")]),
            "cannot reach its files: the profile `nobody` has no keys, or is not there"
        );
        assert_eq!(
            complaint(&[("AWS_PROFILE", "sso")]),
            "cannot reach its files: the profile `sso` has no keys of its own, but `sso_session`"
        );
        let half = complaint(&[("AWS_SECRET_ACCESS_KEY", "hush")]);
        assert!(half.ends_with("only one of `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` is set"), "{half}");
        assert!(!half.contains("hush"));
    }
}
