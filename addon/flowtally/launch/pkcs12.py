"""A trust store for Java: a PKCS #12 file (RFC 7292) of certificates without encryption; pure.

Java takes a certificate for a trusted one where its bag has an attribute of Java's own; libraries
that write PKCS #12 leave it out. A store without a MAC is opened with any password, and with none
(JDK, PKCS12KeyStore.engineLoad: the MAC is checked where there is one).
"""

from __future__ import annotations

from collections.abc import Iterable

_INTEGER, _OCTETS, _OID, _BMP_STRING, _SEQUENCE, _SET = 0x02, 0x04, 0x06, 0x1E, 0x30, 0x31
_EXPLICIT_0 = 0xA0


def trust_store(certificates: Iterable[bytes]) -> bytes:
    """The file. `certificates`: DER."""
    bags = [_bag(f"{number}", der) for number, der in enumerate(certificates)]
    contents = _data(_tlv(_SEQUENCE, *bags))
    return _tlv(_SEQUENCE, _tlv(_INTEGER, b"\3"), _data(_tlv(_SEQUENCE, contents)))


def _bag(alias: str, der: bytes) -> bytes:
    """A SafeBag with a CertBag (RFC 7292 §4.2.3) in it."""
    certificate = _tlv(_SEQUENCE, _oid(_X509_CERTIFICATE), _tlv(_EXPLICIT_0, _tlv(_OCTETS, der)))
    name = _tlv(_BMP_STRING, alias.encode("utf-16-be"))
    return _tlv(
        _SEQUENCE,
        _oid(_CERT_BAG),
        _tlv(_EXPLICIT_0, certificate),
        _tlv(_SET, _attribute(_FRIENDLY_NAME, name), _attribute(_TRUSTED_FOR, _oid(_ANY_USE))),
    )


def _data(content: bytes) -> bytes:
    """A ContentInfo of plain data (RFC 2315 §8)."""
    return _tlv(_SEQUENCE, _oid(_DATA), _tlv(_EXPLICIT_0, _tlv(_OCTETS, content)))


def _attribute(name: str, value: bytes) -> bytes:
    return _tlv(_SEQUENCE, _oid(name), _tlv(_SET, value))


def _tlv(tag: int, *parts: bytes) -> bytes:
    """Tag, length, value (X.690 §8.1)."""
    value = b"".join(parts)
    size = len(value)
    if size < 0x80:
        return bytes([tag, size]) + value
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + value


def _oid(name: str) -> bytes:
    """An object identifier (X.690 §8.19)."""
    first, second, *rest = map(int, name.split("."))
    value = b""
    for arc in (40 * first + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        value += bytes(reversed(groups))
    return _tlv(_OID, value)


_DATA = "1.2.840.113549.1.7.1"
_CERT_BAG = "1.2.840.113549.1.12.10.1.3"
_X509_CERTIFICATE = "1.2.840.113549.1.9.22.1"
_FRIENDLY_NAME = "1.2.840.113549.1.9.20"
_TRUSTED_FOR = "2.16.840.1.113894.746875.1.1"
"""Oracle's trustedKeyUsage (JDK, sun.security.util.KnownOIDs)."""
_ANY_USE = "2.5.29.37.0"
"""anyExtendedKeyUsage (RFC 5280 §4.2.1.12)."""
