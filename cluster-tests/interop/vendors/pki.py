"""Certificates: one authority of the interop run, uploaded to the registry, and device certificates signed by it."""

import datetime
import ipaddress
import os
import ssl
import tempfile
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness import Context
from vendors.rest import Rest

_LOCK = threading.Lock()
_AUTHORITY: list = []
_MADE: dict[str, tuple[bytes, bytes]] = {}


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed(subject: str, issuer: x509.Name, public, key, authority: bool, address: str = "") -> x509.Certificate:
    """`address`: of the server that it is for; without one it is a client's."""
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if address:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    elif not authority:
        usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(usage, critical=False)
    return builder.sign(key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def der(certificate_pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(certificate_pem).public_bytes(serialization.Encoding.DER)


def authority(rest: Rest):
    """Of all cases; uploaded when it is first needed."""
    with _LOCK:
        if not _AUTHORITY:
            key = ec.generate_private_key(ec.SECP256R1())
            name = "interop authority"
            certificate = _signed(name, _name(name), key.public_key(), key, True)
            rest.call("POST", "/certificates", {"name": name, "certificate": pem(certificate).decode()})
            _AUTHORITY.append((certificate, key))
        return _AUTHORITY[0]


def certificate_for(rest: Rest, common_name: str, address: str = "") -> tuple[bytes, bytes]:
    """A new certificate and its key, as PEM; of a server if there is an address."""
    issuer, issuer_key = authority(rest)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _signed(common_name, issuer.subject, key.public_key(), issuer_key, False, address)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem(certificate), private


def device_certificate(device) -> tuple[bytes, bytes]:
    """The device's own, the same each time. Its name is the one that Tencent binds a certificate to its device by."""
    with _LOCK:
        known = _MADE.get(device.id)
    if known is None:
        known = certificate_for(device.rest, f"{device.product}{device.name}")
        with _LOCK:
            _MADE[device.id] = known
    return known


def context_of(ctx: Context, pair: tuple[bytes, bytes]) -> ssl.SSLContext:
    """TLS with this certificate and key. ssl wants them as files."""
    context = ctx.endpoints.tls()
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("certificate", "key")]
        for path, content in zip(paths, pair):
            with open(path, "wb") as file:
                file.write(content)
        context.load_cert_chain(*paths)
    return context
