//! What a client's certificate counts for. The handshake has proven that the key is its own; who vouches for it is looked
//! up here, at each CONNECT, because authorities come and go while the node runs.

use std::time::Duration;

use bytes::Bytes;
use fulmar_platform::Shown;
use fulmar_platform::registry::Authority;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, RevocationOptionsBuilder, UnknownStatusPolicy};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::tls::Authorities;

/// Judges a chain by `authorities`, those of the registry, and by those of the listener, whose revocation lists count for
/// both. `None` without a certificate, or with one that cannot be read.
pub(super) fn shown<'a>(
    chain: &[CertificateDer<'static>],
    listener: Option<&Authorities>,
    authorities: impl Iterator<Item = &'a Authority>,
    now_ms: u64,
) -> Option<Shown> {
    let (own, between) = chain.split_first()?;
    let certificate = EndEntityCert::try_from(own).ok()?;
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now_ms));
    let lists: Vec<_> = listener.map(|listener| listener.lists.iter().collect()).unwrap_or_default();
    let revoked = RevocationOptionsBuilder::new(&lists).ok(); // without a list there is nothing to ask
    let revoked = revoked.map(|options| options.with_status_policy(UnknownStatusPolicy::Allow).build());
    let vouched = |anchors: &[TrustAnchor<'_>]| {
        let usage = KeyUsage::client_auth();
        certificate.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, anchors, between, now, usage, revoked, None).is_ok()
    };
    let authorities = authorities.filter(|authority| {
        let der = CertificateDer::from(&*authority.certificate_der);
        in_its_time(authority, now_ms)
            && webpki::anchor_from_trusted_cert(&der).is_ok_and(|anchor| vouched(std::slice::from_ref(&anchor)))
    });
    Some(Shown {
        certificate: Bytes::copy_from_slice(own),
        authorities: authorities.map(|authority| authority.id.clone()).collect(),
        trusted: listener.is_some_and(|listener| vouched(&listener.roots.roots)),
    })
}

/// Of an anchor nothing but its name and key count in a chain.
fn in_its_time(authority: &Authority, now_ms: u64) -> bool {
    let now_s = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    X509Certificate::from_der(&authority.certificate_der).is_ok_and(|(_, certificate)| {
        let validity = certificate.validity();
        (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now_s)
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
        ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
    };
    use webpki::OwnedCertRevocationList;

    use std::sync::Arc;

    use super::*;

    /// 2030-01-01.
    const NOW_MS: u64 = 1_893_456_000_000;

    struct Signer {
        certificate: Certificate,
        issuer: Issuer<'static, KeyPair>,
    }

    fn params(name: &str, years: [i32; 2]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.not_before, params.not_after) = (date_time_ymd(years[0], 1, 1), date_time_ymd(years[1], 1, 1));
        params
    }

    /// An authority, signed by another one or by itself.
    fn signer(name: &str, years: [i32; 2], by: Option<&Signer>) -> Signer {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name, years);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = match by {
            Some(by) => params.signed_by(&key, &by.issuer),
            None => params.self_signed(&key),
        };
        Signer { certificate: certificate.unwrap(), issuer: Issuer::new(params, key) }
    }

    fn leaf(years: [i32; 2], usage: Option<ExtendedKeyUsagePurpose>, by: &Signer) -> CertificateDer<'static> {
        let mut params = params("device", years);
        params.extended_key_usages = usage.into_iter().collect();
        params.signed_by(&KeyPair::generate().unwrap(), &by.issuer).unwrap().der().clone()
    }

    fn authority(id: &str, signer: &Signer) -> Authority {
        Authority {
            id: id.into(),
            name: id.into(),
            product_id: "".into(),
            certificate_der: signer.certificate.der().as_ref().into(),
            key_pem: None,
            created_ms: 0,
        }
    }

    #[test]
    fn authorities_vouch_for_what_they_signed_in_its_time_and_use() {
        let years = [2020, 2040];
        let (good, other, old) = (signer("a", years, None), signer("b", years, None), signer("c", [2020, 2021], None));
        let middle = signer("m", years, Some(&good));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(other.certificate.der().clone()).unwrap();
        let roots = Authorities { roots: Arc::new(roots), lists: Vec::new(), lists_der: Vec::new() };
        let known = [authority("good", &good), authority("other", &other), authority("old", &old)];
        let middle_der = middle.certificate.der().clone();
        let server_only = Some(ExtendedKeyUsagePurpose::ServerAuth);
        let clients = Some(ExtendedKeyUsagePurpose::ClientAuth);
        for (what, chain, by, trusted) in [
            ("signed", vec![leaf(years, None, &good)], Some("good"), false),
            ("by the listener's too", vec![leaf(years, None, &other)], Some("other"), true),
            ("for clients", vec![leaf(years, clients, &good)], Some("good"), false),
            ("for servers", vec![leaf(years, server_only, &good)], None, false),
            ("expired", vec![leaf([2020, 2025], None, &good)], None, false),
            ("not yet", vec![leaf([2035, 2040], None, &good)], None, false),
            ("the authority has expired", vec![leaf(years, None, &old)], None, false),
            ("unknown", vec![leaf(years, None, &signer("x", years, None))], None, false),
            ("only its name is that of one", vec![leaf(years, None, &signer("a", years, None))], None, false),
            ("with what is between", vec![leaf(years, None, &middle), middle_der], Some("good"), false),
            ("without it", vec![leaf(years, None, &middle)], None, false),
        ] {
            let shown = shown(&chain, Some(&roots), known.iter(), NOW_MS).unwrap();
            let expected: Vec<Box<str>> = by.into_iter().map(Into::into).collect();
            assert_eq!((shown.authorities, shown.trusted), (expected, trusted), "{what}");
            assert_eq!(shown.certificate, &chain[0][..], "{what}");
        }
        assert_eq!(shown(&[], Some(&roots), known.iter(), NOW_MS), None);
        assert_eq!(shown(&[CertificateDer::from(vec![1, 2, 3])], None, known.iter(), NOW_MS), None);
    }

    #[test]
    fn a_list_of_the_listener_takes_certificates_back_for_all() {
        let years = [2020, 2040];
        let (good, other) = (signer("a", years, None), signer("b", years, None));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(good.certificate.der().clone()).unwrap();
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(7u64),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(2026, 1, 1), // that it is late takes nothing from it
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&good.issuer).unwrap().der().clone();
        let lists = vec![OwnedCertRevocationList::from_der(&list).unwrap().into()];
        let listener = Authorities { roots: Arc::new(roots), lists, lists_der: vec![list] };
        let known = [authority("good", &good), authority("other", &other)];
        for (serial, by, trusted, vouched) in
            [(7u64, &good, false, None), (8, &good, true, Some("good")), (7, &other, false, Some("other"))]
        {
            let mut params = params("device", years);
            params.serial_number = Some(SerialNumber::from(serial));
            let leaf = params.signed_by(&KeyPair::generate().unwrap(), &by.issuer).unwrap().der().clone();
            let shown = shown(&[leaf], Some(&listener), known.iter(), NOW_MS).unwrap();
            let vouched: Vec<Box<str>> = vouched.into_iter().map(Into::into).collect();
            assert_eq!((shown.trusted, shown.authorities), (trusted, vouched), "{serial}");
        }
    }
}
