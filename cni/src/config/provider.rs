//! An external IPAM that has the last word on the addresses of a pool.

use super::network::one_of;
use super::raw::RawProvider;
use super::{ConfigurationError, Secret};

/// An external IPAM and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Which one.
    pub kind: ProviderKind,
    /// Its address, with the scheme.
    pub url: String,
    /// Path of the certificate authority of the server, PEM; `None` means those of the system.
    pub ca_file: Option<String>,
    /// How we show who we are.
    pub credentials: Credentials,
    /// The application of phpIPAM.
    pub app_id: Option<String>,
}

/// The external IPAMs that a configuration may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// phpIPAM.
    PhpIpam,
    /// openwisp-ipam.
    Openwisp,
    /// NetBox.
    NetBox,
    /// NSX-T.
    Nsxt,
}

/// How we show an external IPAM who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user name.
    pub user: Option<String>,
    /// The password itself, from an old flat file.
    pub password: Option<Secret>,
    /// Path of the file with the password.
    pub password_file: Option<String>,
    /// Path of the file with the token.
    pub token_file: Option<String>,
}

const KNOWN: &[(&str, ProviderKind)] = &[
    ("phpipam", ProviderKind::PhpIpam),
    ("openwisp", ProviderKind::Openwisp),
    ("netbox", ProviderKind::NetBox),
    ("nsxt", ProviderKind::Nsxt),
    // As the old fork wrote it.
    ("nsxtipam", ProviderKind::Nsxt),
];

// === impl Provider ===

impl Provider {
    pub(crate) fn resolve(raw: RawProvider) -> Result<Self, ConfigurationError> {
        let some = |typed: Option<String>| typed.filter(|text| !text.is_empty());
        let kind = one_of("provider.type", raw.kind.as_deref().unwrap_or_default(), KNOWN)?;
        let url = check_url(&raw.url.unwrap_or_default(), raw.insecure_http.unwrap_or(false))?;
        let credentials = Credentials {
            user: some(raw.user),
            password: raw.password,
            password_file: some(raw.password_file),
            token_file: some(raw.token_file),
        };
        let has_password = credentials.password.is_some() || credentials.password_file.is_some();
        if credentials.token_file.is_none() && !(credentials.user.is_some() && has_password) {
            return Err(ConfigurationError::value(
                "provider",
                kind.name(),
                "there are no credentials",
                "set provider.token_file, or provider.user and provider.password_file",
            ));
        }
        Ok(Self { kind, url, ca_file: some(raw.ca_file), credentials, app_id: some(raw.app_id) })
    }

    /// The one place that says which providers this build can use.
    pub(crate) fn require_available(&self, pool: &str) -> Result<(), ConfigurationError> {
        Err(ConfigurationError::ProviderNotAvailable { value: self.kind.name(), pool: super::warning::shorten(pool) })
    }
}

// === impl ProviderKind ===

impl ProviderKind {
    /// The word for it, as in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PhpIpam => "phpipam",
            Self::Openwisp => "openwisp",
            Self::NetBox => "netbox",
            Self::Nsxt => "nsxt",
        }
    }
}

/// A secret must neither stand in a URL, which is logged, nor travel unencrypted unless that was written out.
fn check_url(typed: &str, insecure: bool) -> Result<String, ConfigurationError> {
    let wrong =
        |shown: &str, problem: &str, cure: &str| Err(ConfigurationError::value("provider.url", shown, problem, cure));
    // The old fork wrote host[:port].
    let url = if typed.contains("://") || typed.is_empty() { typed.to_owned() } else { format!("https://{typed}") };
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        wrong("…", "contains a user or a password", "move them to provider.user and provider.password_file")
    } else if host.is_empty() || host.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
        wrong(typed, "has no host", "write https://host[:port][/path]")
    } else if scheme.eq_ignore_ascii_case("https") || (scheme.eq_ignore_ascii_case("http") && insecure) {
        Ok(url)
    } else if scheme.eq_ignore_ascii_case("http") {
        wrong(typed, "is not encrypted", "write https://, or set provider.insecure_http to true")
    } else {
        wrong(typed, "is neither https nor http", "write https://host[:port][/path]")
    }
}
