"""Certificates and TLS settings, good ones and faulty ones."""

from __future__ import annotations

import ssl
import tempfile
import warnings
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

# mitmproxy verifies this name, and it resolves to the loopback address everywhere.
HOST = "localhost"


@dataclass(frozen=True)
class Authority:
    """A CA that the proxies trust, and one that nobody trusts."""

    trusted: trustme.CA
    unknown: trustme.CA
    directory: Path

    @classmethod
    def create(cls, directory: Path) -> Authority:
        authority = cls(trustme.CA(), trustme.CA(), directory)
        authority.trusted.cert_pem.write_to_path(authority.bundle)
        return authority

    @property
    def bundle(self) -> Path:
        return self.directory / "trusted-ca.pem"

    def good(self) -> ssl.SSLContext:
        return _context(self.trusted.issue_cert(HOST))

    def expired(self) -> ssl.SSLContext:
        return _context(self.trusted.issue_cert(HOST, not_after=datetime(2020, 1, 1, tzinfo=UTC)))

    def not_yet_valid(self) -> ssl.SSLContext:
        begins = datetime.now(UTC) + timedelta(days=30)
        return _context(self.trusted.issue_cert(HOST, not_before=begins))

    def weak_key(self) -> ssl.SSLContext:
        """An RSA key of 1024 bits, which OpenSSL takes at security level 0 only."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        _load(context, _weak_pem(self.trusted))
        return context

    def wrong_host(self) -> ssl.SSLContext:
        return _context(self.trusted.issue_cert("elsewhere.example"))

    def unknown_issuer(self) -> ssl.SSLContext:
        return _context(self.unknown.issue_cert(HOST))

    def self_signed(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load(context, _self_signed_pem())
        return context

    def demands_client_certificate(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        """In TLS 1.2 the refusal is an alert in the handshake, in 1.3 one after it."""
        context = self.exactly(version)
        self.trusted.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def exactly(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        context = self.good()
        context.minimum_version = version
        context.maximum_version = version
        return context

    def outdated(self) -> ssl.SSLContext:
        """TLS 1.1 at most, which OpenSSL only speaks at security level 0."""
        context = self.good()
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings():
            # Python deprecates what this server is meant to be.
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        return context

    def http2(self) -> ssl.SSLContext:
        context = self.good()
        context.set_alpn_protocols(["h2"])
        return context


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    # A file of its own: several threads may make the same thing.
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)


def _weak_pem(issuer: trustme.CA) -> bytes:
    ca = x509.load_pem_x509_certificate(issuer.cert_pem.bytes())
    ca_key = serialization.load_pem_private_key(issuer.private_key_pem.bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = rsa.generate_private_key(65537, 1024)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def _self_signed_pem() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
