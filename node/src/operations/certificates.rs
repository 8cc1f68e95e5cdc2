//! Authorities that vouch for devices, and certificates of devices.

use std::sync::Arc;

use fulmar_platform::Secret;
use fulmar_platform::registry::{AuthKind, Authority, Kind, Record};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::devices::has_certificates;
use super::{Error, Operations, Target, check, secrets};

/// Authorities of a cluster: each certificate of a device is held against all of them.
const AUTHORITIES_MAX: usize = 100;

/// Bytes of an uploaded certificate.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// Days that a certificate made here is valid: ten years, and a day before now for clocks that are behind.
const VALID_DAYS: u64 = 3650;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// An authority of one's own to upload.
#[derive(Debug, Clone)]
pub struct NewAuthority {
    pub name: String,
    /// Whose devices it vouches for; `None`: those of every product.
    pub product_id: Option<String>,
    pub pem: String,
}

/// An authority that was made here: its certificate; the key stays in the registry.
#[derive(Debug, Clone)]
pub struct NewCa {
    pub authority: Arc<Authority>,
    pub certificate_pem: String,
}

/// A certificate of a device with its key; both are given out once and not kept.
#[derive(Debug, Clone)]
pub struct Issued {
    pub certificate_pem: String,
    pub key_pem: Secret,
    /// Of the authority that signed it.
    pub ca_pem: String,
    /// SHA-256, pinned to the device.
    pub fingerprint: Box<str>,
}

fn unmade(error: impl std::fmt::Display) -> Error {
    Error::Certificate(error.to_string())
}

/// DER as PEM.
fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<String> =
        text.as_bytes().chunks(64).map(|line| line.iter().map(|byte| char::from(*byte)).collect()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn lifetime(params: &mut CertificateParams, now_ms: u64) {
    let at = |ms: u64| std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    params.not_before = at(now_ms.saturating_sub(DAY_MS)).into();
    params.not_after = at(now_ms.saturating_add(VALID_DAYS * DAY_MS)).into();
}

fn authority_params(name: &str, now_ms: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    lifetime(&mut params, now_ms);
    params
}

impl Operations {
    fn room_for_authority(&self) -> Result<(), Error> {
        if self.read(|registry| registry.authorities().count()) >= AUTHORITIES_MAX {
            return Err(Error::Full);
        }
        Ok(())
    }

    fn known_product(&self, id: &str) -> Result<(), Error> {
        self.read(|registry| registry.product(id).map(|_| ())).ok_or_else(|| Error::missing(Kind::Product, id))
    }

    /// # Errors
    /// It is no certificate in PEM, is none of an authority, or the product is not there.
    pub async fn upload_authority(&self, new: &NewAuthority) -> Result<Arc<Authority>, Error> {
        const PARAMETER: &str = "certificate";
        check::text("name", &new.name, 1, 64)?;
        if new.pem.len() > CERTIFICATE_BYTES_MAX {
            return Err(Error::invalid(PARAMETER, format!("must have at most {CERTIFICATE_BYTES_MAX} bytes")));
        }
        let der = CertificateDer::from_pem_slice(new.pem.as_bytes())
            .map_err(|_| Error::invalid(PARAMETER, "must be a certificate in PEM"))?;
        webpki::anchor_from_trusted_cert(&der)
            .map_err(|error| Error::invalid(PARAMETER, format!("cannot be used as an authority: {error}")))?;
        if let Some(product) = &new.product_id {
            self.known_product(product)?;
        }
        self.room_for_authority()?;
        // The same certificate is the same authority.
        let id = hex::encode(Sha256::digest(&der)).chars().take(24).collect::<String>();
        let authority = Arc::new(Authority {
            id: id.as_str().into(),
            name: new.name.as_str().into(),
            product_id: new.product_id.as_deref().unwrap_or_default().into(),
            certificate_der: der.to_vec().into(),
            key_pem: None,
            created_ms: self.now_ms(),
        });
        self.create(Target { kind: Kind::Authority, id: &id }, Record::Authority(authority.clone())).await?;
        Ok(authority)
    }

    /// Makes an authority that vouches for the devices of one product, and can issue their certificates.
    ///
    /// # Errors
    /// The product is not there or has one already.
    pub async fn create_product_ca(&self, product: &str) -> Result<NewCa, Error> {
        self.known_product(product)?;
        self.room_for_authority()?;
        let now_ms = self.now_ms();
        let id = format!("ca-{product}");
        let name = format!("fulmar product {product} {}", secrets::hex(4));
        let key = KeyPair::generate().map_err(unmade)?;
        let params = authority_params(&name, now_ms);
        let certificate = params.self_signed(&key).map_err(unmade)?;
        let authority = Arc::new(Authority {
            id: id.as_str().into(),
            name: name.as_str().into(),
            product_id: product.into(),
            certificate_der: certificate.der().to_vec().into(),
            key_pem: Some(Secret::new(&key.serialize_pem())),
            created_ms: now_ms,
        });
        self.create(Target { kind: Kind::Authority, id: &id }, Record::Authority(authority.clone())).await?;
        Ok(NewCa { authority, certificate_pem: certificate.pem() })
    }

    /// Issues a certificate for a device and pins it; the device authenticates by certificate from here on. Certificate
    /// and key are in the answer, and nowhere else.
    ///
    /// # Errors
    /// The device is not there or its dialect knows no certificates, or its product has no authority that was made here.
    pub async fn issue_certificate(&self, device: &str) -> Result<Issued, Error> {
        let (authority, node_id, product) = self.read(|registry| {
            let (kept, _) = registry.device(device).ok_or_else(|| Error::missing(Kind::Device, device))?;
            if !registry.dialect_of(&kept.record).is_some_and(has_certificates) {
                return Err(Error::invalid("device_id", "names a device of a product without certificates"));
            }
            let product = kept.record.product_id.clone();
            let id = format!("ca-{product}");
            let authority = registry.authority(&id).ok_or_else(|| Error::missing(Kind::Authority, &id))?;
            Ok::<_, Error>((authority.record.clone(), kept.record.node_id.clone(), product))
        })?;
        let key_pem = authority.key_pem.as_ref().ok_or_else(|| Error::missing(Kind::Authority, &authority.id))?;
        let ca_key = KeyPair::from_pem(key_pem.expose()).map_err(unmade)?;
        let now_ms = self.now_ms();
        let issuer = Issuer::new(authority_params(&authority.name, authority.created_ms), ca_key);
        let mut params = CertificateParams::default();
        // As Tencent's certificates name a device: product and name in one.
        params.distinguished_name.push(DnType::CommonName, format!("{product}{node_id}"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        lifetime(&mut params, now_ms);
        let key = KeyPair::generate().map_err(unmade)?;
        let certificate = params.signed_by(&key, &issuer).map_err(unmade)?;
        let fingerprint: Box<str> = hex::encode(Sha256::digest(certificate.der())).into();
        self.change_device(device, |_, device| {
            device.auth.kind = AuthKind::Certificate;
            device.auth.fingerprint = Some(fingerprint.clone());
            Ok(())
        })
        .await?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            key_pem: Secret::new(&key.serialize_pem()),
            ca_pem: pem(&authority.certificate_der),
            fingerprint,
        })
    }
}
