//! The keys of a control plane.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// What the API server calls itself, from outside and from inside a cluster.
const NAMES: [&str; 6] =
    ["127.0.0.1", "localhost", "10.96.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];

/// Files in PEM.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// The authority that clients trust.
    pub(crate) ca: PathBuf,
    /// What the API server shows to clients.
    pub(crate) serving: PathBuf,
    pub(crate) serving_key: PathBuf,
    /// What tokens of service accounts are signed with, and what they are checked with.
    pub(crate) accounts_key: PathBuf,
    pub(crate) accounts_public_key: PathBuf,
}

// === impl Certificates ===

impl Certificates {
    /// New ones, in this folder.
    pub(crate) fn new(folder: &Path) -> Result<Self, String> {
        Self::generate(folder).map_err(|error| format!("certificates cannot be made: {error}"))
    }

    fn generate(folder: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let write = |name: &str, pem: String| -> std::io::Result<PathBuf> {
            let path = folder.join(name);
            std::fs::write(&path, pem)?;
            Ok(path)
        };
        let mut authority = CertificateParams::default();
        authority.distinguished_name = common_name("testbed");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority_key = KeyPair::generate()?;
        let authority_certificate = authority.self_signed(&authority_key)?;

        let mut serving = CertificateParams::new(NAMES.map(String::from))?;
        serving.distinguished_name = common_name("kube-apiserver");
        serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let serving_key = KeyPair::generate()?;
        let serving = serving.signed_by(&serving_key, &Issuer::new(authority, authority_key))?;

        let accounts_key = KeyPair::generate()?;
        Ok(Self {
            ca: write("ca.pem", authority_certificate.pem())?,
            serving: write("serving.pem", serving.pem())?,
            serving_key: write("serving-key.pem", serving_key.serialize_pem())?,
            accounts_key: write("accounts-key.pem", accounts_key.serialize_pem())?,
            accounts_public_key: write("accounts.pem", accounts_key.public_key_pem())?,
        })
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
