"""Certificates that vouch for others: found, read and written. mitmproxy is not asked.

Certificates are DER here. What is no certificate, such as a torn entry in a bundle, is passed over:
one alone would make OpenSSL refuse the whole file.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..redaction import printable
from ..vocabulary import VARIABLES
from .proxy import LaunchError

_PEM = re.compile(
    # No dash in between: else a torn entry would take the next one with it, and each of many
    # without an end would be looked through to the end of the file.
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----([^-]*)-----END (?:X509 )?CERTIFICATE-----"
)
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")
"""The names under which OpenSSL looks for certificates in a folder (`openssl rehash`)."""
_JAVA_STORE = re.compile(r"-Djavax\.net\.ssl\.trustStore(|Password)=(\S+)")
_JAVA_PASSWORD = "FLOWTALLY_STOREPASS"
MAX_SECONDS = 10.0
"""How long Java's keytool may take."""
MAX_SIZE = 16 * 1024 * 1024
"""Bytes of a file that are read; the largest bundles have 0.3 MB."""

_SYSTEM_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where systems keep their roots (Go, crypto/x509/root_linux.go and root_bsd.go): for a Python
whose OpenSSL was built elsewhere and looks where nothing is."""
_KEYCHAINS = (
    "/System/Library/Keychains/SystemRootCertificates.keychain",
    "/Library/Keychains/System.keychain",
)


class Roots(NamedTuple):
    """Certificates that vouch for others, DER, each once."""

    system: list[bytes]
    """Whom the system trusts; where it has no list of its own, whom Mozilla trusts."""
    users: list[bytes]
    """Whom the user's environment names, in files and folders; some or all of the system's, too."""


def roots(environment: Mapping[str, str]) -> Roots:
    """Whom this system trusts, and whom the user's environment names."""
    users = _sound(_users(environment))
    known = set(users)
    system = unique(_system())
    # What is in both was looked at already: that takes longer than reading it.
    fresh = set(_sound(der for der in system if der not in known))
    return Roots([der for der in system if der in known or der in fresh] or _mozillas(), users)


def trusted(files: Sequence[Path]) -> list[bytes]:
    """The certificates in files that the user named for it. Raises: LaunchError, for one that
    cannot be read or has none."""
    found: list[bytes] = []
    for file in files:
        try:
            text = file.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise LaunchError(f"{printable(str(file))}: cannot be read: {reason}") from error
        read = certificates(text)
        if not read:
            raise LaunchError(f"{printable(str(file))}: no certificate in it (allowed is PEM)")
        found += read
    return unique(found)


def certificates(text: bytes) -> list[bytes]:
    """The certificates in PEM text, each once."""
    return _sound(_decoded(text))


def _system() -> Iterator[bytes]:
    if sys.platform == "win32":
        for store in ("ROOT", "CA"):
            for der, encoding, _ in ssl.enum_certificates(store):
                if encoding == "x509_asn":
                    yield der
        return
    if sys.platform == "darwin":
        # First: what OpenSSL has there lacks what a company installed.
        command = ["/usr/bin/security", "find-certificate", "-a", "-p", *_KEYCHAINS]
        try:
            yield from _decoded(subprocess.run(command, capture_output=True).stdout)
        except OSError:
            pass
    paths = ssl.get_default_verify_paths()
    # As built in: what the environment says instead is the user's, not the system's.
    for file in (paths.openssl_cafile, *_SYSTEM_FILES):
        if found := _decoded(read(Path(file))):
            yield from found
            return
    yield from _in_folder(Path(paths.openssl_capath))


def _mozillas() -> list[bytes]:
    import certifi  # mitmproxy brings it along; takes a while, and is hardly ever needed

    return certificates(read(Path(certifi.where())))


def _users(environment: Mapping[str, str]) -> Iterator[bytes]:
    # Most variables, if not all, name the same file.
    named: dict[Path, None] = {}
    for name, variable in VARIABLES.items():
        value = environment.get(name, "")
        if variable.value == "folders":
            named.update(dict.fromkeys(map(Path, filter(None, value.split(os.pathsep)))))
        elif variable.value in ("bundle", "extra") and value:
            named[Path(value)] = None
    for path in named:
        yield from _in_folder(path) if path.is_dir() else _decoded(read(path))
    yield from _javas(environment)


def _javas(environment: Mapping[str, str]) -> list[bytes]:
    """The certificates of a trust store that JAVA_TOOL_OPTIONS names, as Java's keytool reads it:
    there are several formats."""
    options = dict(_JAVA_STORE.findall(environment.get("JAVA_TOOL_OPTIONS", "").replace('"', "")))
    home = environment.get("JAVA_HOME")
    places = os.pathsep.join([*([f"{home}/bin"] if home else []), environment.get("PATH", "")])
    keytool = shutil.which("keytool", path=places)
    if "" not in options or keytool is None:
        return []
    command = [keytool, "-list", "-rfc", "-keystore", options[""]]
    # Not as an argument, which everybody can read.
    secret = {_JAVA_PASSWORD: options.get("Password", "changeit")}
    try:
        done = subprocess.run(
            [*command, "-storepass:env", _JAVA_PASSWORD],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=MAX_SECONDS,
            env={**environment, **secret},
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []
    return _decoded(done.stdout)


def _in_folder(folder: Path) -> list[bytes]:
    """The certificates that OpenSSL would find in a folder."""
    try:
        files = sorted(file for file in folder.iterdir() if _HASHED.fullmatch(file.name))
    except OSError:
        return []
    return [der for file in files for der in _decoded(read(file))]


def read(path: Path) -> bytes:
    """What a file holds; nothing where there is none to read."""
    try:
        # A pipe would never end.
        if not path.is_file() or path.stat().st_size > MAX_SIZE:
            return b""
        return path.read_bytes()
    except (OSError, ValueError):
        return b""


def _decoded(text: bytes) -> list[bytes]:
    """What stands in PEM text as certificates, sound or not."""
    found = []
    for match in _PEM.finditer(text):
        try:
            found.append(base64.b64decode(b"".join(match.group(1).split()), validate=True))
        except binascii.Error:
            pass
    return found


def _sound(found: Iterable[bytes]) -> list[bytes]:
    """Those that OpenSSL takes, each once. All at a time, as usually all are sound."""
    found = unique(found)
    return found if _takes(found) else [der for der in found if _takes([der])]


def _takes(found: Sequence[bytes]) -> bool:
    if not found:
        return True
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=b"".join(found))
    except (ssl.SSLError, ValueError):  # ValueError: nothing in it
        return False
    return True


def unique(found: Iterable[bytes]) -> list[bytes]:
    """Each certificate once, where it first came."""
    return list(dict.fromkeys(found))


def pem(found: Iterable[bytes]) -> bytes:
    """The certificates as PEM text."""
    return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode("ascii")


def write(path: Path, content: bytes) -> Path:
    """Write a file that nobody but its user can read. Raises: LaunchError."""
    try:
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
    except OSError as error:  # such as a full disk
        reason = error.strerror or error
        raise LaunchError(f"{printable(str(path))}: cannot be written: {reason}") from error
    return path
