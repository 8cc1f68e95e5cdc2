//! What the Secrets of a played cluster hold: one set of files, by the names that the manifests' configuration gives them.

use std::net::Ipv4Addr;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};

use super::manifest::Files;
use crate::harness::ADMIN_TOKEN;
use crate::rest;

/// See the module. One authority for all pods.
pub(super) struct Secrets {
    authority: CertifiedIssuer<'static, KeyPair>,
    /// Names of the pods.
    names: Vec<String>,
}

impl Secrets {
    /// For pods of these names.
    pub(super) fn new(names: Vec<String>) -> Result<Secrets> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Ok(Secrets { authority: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?, names })
    }

    /// As a pod at this address finds them. Its certificate is for all pods by their names, and for the addresses that
    /// stand for a pod here: its own, and 127.0.0.1, where the others' names lead.
    pub(super) fn files(&self, address: Ipv4Addr) -> Result<Files> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(self.names.clone())?;
        let addresses = [address, Ipv4Addr::LOCALHOST];
        params.subject_alt_names.extend(addresses.map(|address| SanType::IpAddress(address.into())));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.authority)?;
        let files = [
            ("ca.crt", self.authority.pem()),
            ("tls.crt", certificate.pem()),
            ("tls.key", key.serialize_pem()),
            ("token", ADMIN_TOKEN.to_owned()),
            ("users", format!("{}:{}\n", rest::USER, rest::PASSWORD_HASH)),
            ("rest-admin", rest::PASSWORD_HASH.to_owned()),
        ];
        Ok(files.map(|(name, text)| (name.to_owned(), text)).into())
    }
}
