"""A fresh profile with which a browser goes through the proxy, trusts it and is quiet.

`known/browser_settings.csv` has what is the same each time; here is what depends on the proxy.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import sqlite3
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from typing import NamedTuple

from .browsers import KNOWN
from .browsers import Browser
from .browsers import Kind
from .proxy import LaunchError
from .proxy import Ready

PROFILE = "profile"
"""The folder of the profile, in the private folder."""
FEATURES = "--disable-features"
"""Chromium heeds only the last one of its kind, so there must be one."""


class Start(NamedTuple):
    """How to start a browser."""

    arguments: Sequence[str]
    """All but the addresses to open."""
    environment: dict[str, str]
    """Variables that it needs."""


class Settings(NamedTuple):
    """What `known/browser_settings.csv` has for a kind of browser, name → value each."""

    argument: dict[str, str]
    feature: dict[str, str]
    """Those to be switched off."""
    preference: dict[str, Any]
    environment: dict[str, str]


def settings(kind: Kind) -> Settings:
    """What is known of a kind."""
    found = Settings({}, {}, {}, {})
    with (KNOWN / "browser_settings.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"] == kind:
                value = row["value"]
                known = getattr(found, row["what"])
                known[row["name"]] = json.loads(value) if row["what"] == "preference" else value
    return found


def prepare(browser: Browser, folder: Path, ready: Ready, own: Sequence[str]) -> Start:
    """Make the profile. `folder`: the private one; `own`: arguments of the user's for the browser.

    Raises: LaunchError, where one of them is one that has to be flowtally's, or where the
    certificate of the proxy cannot be read.
    """
    known = settings(browser.kind)
    profile = folder / PROFILE
    profile.mkdir()
    if browser.kind == "firefox":
        _refuse(own, ("profile", "p", "profilemanager"))
        preferences = known.preference | _proxy_preferences(ready)
        (profile / "user.js").write_text(user_js(preferences), encoding="utf-8")
        _write_certificates(profile / "cert9.db", _read(ready.ca))
        arguments = ["--no-remote", "--profile", str(profile)]
        if sys.platform == "win32":
            # There the program starts another, and would end before it.
            arguments.append("--wait-for-browser")
        return Start([*arguments, *own], known.environment)
    decided = {
        "--user-data-dir": str(profile),
        "--proxy-server": ready.url,
        # Loopback addresses go around a proxy unless this says otherwise.
        "--proxy-bypass-list": "<-loopback>",
        "--ignore-certificate-errors-spki-list": fingerprint(_read(ready.ca)),
    }
    _refuse(own, [name.lstrip("-") for name in decided])
    arguments = [f"{name}={value}" for name, value in decided.items()]
    return Start([*arguments, *chromium_arguments(own)], known.environment)


def chromium_arguments(own: Sequence[str] = ()) -> list[str]:
    """The arguments that keep Chromium quiet, and those of the user's."""
    known = settings("chromium")
    quiet = [f"{name}={value}" if value else name for name, value in known.argument.items()]
    switches = [argument for argument in own if not argument.startswith(f"{FEATURES}=")]
    off = [argument.partition("=")[2] for argument in own if argument not in switches]
    return [*quiet, f"{FEATURES}={','.join([*known.feature, *off])}", *switches]


def _refuse(own: Sequence[str], names: Sequence[str]) -> None:
    for argument in own:
        name = argument.lstrip("-").partition("=")[0].lower()
        if argument.startswith("-") and name in names:
            raise LaunchError(f"{argument.partition('=')[0]}: flowtally decides that itself")


def user_js(preferences: Mapping[str, Any]) -> str:
    """A profile's file with preferences (Firefox, modules/libpref/parser)."""
    return "".join(
        f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
        for name, value in preferences.items()
    )


def _proxy_preferences(ready: Ready) -> dict[str, Any]:
    return {
        f"network.proxy.{scheme}{end}": value
        for scheme in ("http", "ssl")
        for end, value in (("", ready.host), ("_port", ready.port))
    }


# --- trust ---


def _read(certificate: Path) -> bytes:
    try:
        return certificate.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise LaunchError(
            f"{certificate}: the proxy's certificate cannot be read: {reason}"
        ) from None


def fingerprint(pem: bytes) -> str:
    """What Chromium knows a certificate by: base64 of the SHA-256 of its key
    (SubjectPublicKeyInfo)."""
    from cryptography import x509  # loads while the proxy starts
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.hazmat.primitives.serialization import PublicFormat

    key = x509.load_pem_x509_certificate(pem).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode("ascii")


def certificate_objects(pem: bytes) -> list[dict[str, bytes]]:
    """The two PKCS #11 objects by which NSS trusts a CA, attribute → value: the certificate, and
    that it may vouch for servers.

    The attributes: PKCS #11 v2.40 §4.6 and NSS, lib/util/pkcs11n.h. Numbers have four bytes, the
    highest first.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    certificate = x509.load_pem_x509_certificate(pem)
    der = certificate.public_bytes(Encoding.DER)
    serial = certificate.serial_number
    digits = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    both = {
        "a1": b"\1",  # CKA_TOKEN
        "a2": b"\0",  # CKA_PRIVATE
        "a3": b"flowtally",  # CKA_LABEL
        "a81": certificate.issuer.public_bytes(),  # CKA_ISSUER
        "a82": b"\2" + bytes([len(digits)]) + digits,  # CKA_SERIAL_NUMBER, a DER INTEGER
        "a170": b"\1",  # CKA_MODIFIABLE
    }
    return [
        {
            "a0": _number(1),  # CKA_CLASS: CKO_CERTIFICATE
            "a11": der,  # CKA_VALUE
            "a80": _number(0),  # CKA_CERTIFICATE_TYPE: CKC_X_509
            "a101": certificate.subject.public_bytes(),  # CKA_SUBJECT
            "a102": hashlib.sha1(der).digest(),  # CKA_ID: any
            **both,
        },
        {
            "a0": _number(0xCE534353),  # CKO_NSS_TRUST
            "ace536358": _number(0xCE534352),  # CKA_TRUST_SERVER_AUTH: CKT_NSS_TRUSTED_DELEGATOR
            "ace536360": b"\0",  # CKA_TRUST_STEP_UP_APPROVED
            "ace5363b4": hashlib.sha1(der).digest(),  # CKA_CERT_SHA1_HASH
            "ace5363b5": hashlib.md5(der, usedforsecurity=False).digest(),  # CKA_CERT_MD5_HASH
            **both,
        },
    ]


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _write_certificates(path: Path, pem: bytes) -> None:
    """Make a profile's database of certificates, with which Firefox trusts that CA.

    NSS adds the columns that it knows and the file lacks. It checks signatures of what is trusted
    only where the profile has a database of keys (lib/softoken/sftkdb.c), which Firefox makes when
    it starts, with signatures of what it finds.
    """
    objects = certificate_objects(pem)
    columns = sorted({name for attributes in objects for name in attributes})
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            f"CREATE TABLE nssPublic "
            f"(id PRIMARY KEY UNIQUE ON CONFLICT ABORT, {', '.join(columns)})"
        )
        for number, attributes in enumerate(objects, 1):
            names, marks = ", ".join(attributes), ", ".join("?" for _ in attributes)
            database.execute(
                f"INSERT INTO nssPublic (id, {names}) VALUES (?, {marks})",
                (number, *attributes.values()),
            )
