"""A name server that answers with the response code that the name asks for."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

from dnslib import QTYPE
from dnslib import RCODE
from dnslib import RR
from dnslib import A
from dnslib import DNSRecord

from .servers import WAIT_TIMEOUT


class NameServer:
    """`noerror.test`, `nxdomain.test`, … get that response code; `silent.test` gets no answer."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.host = "127.0.0.1"
        self.port: int = self._socket.getsockname()[1]
        self.silent = threading.Event()
        """Set once a query was left unanswered."""
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=WAIT_TIMEOUT)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, address = self._socket.recvfrom(4096)
            if not data:
                return
            query = DNSRecord.parse(data)
            reply = query.reply()
            code = str(query.q.qname).split(".")[0].upper()
            if code == "SILENT":
                self.silent.set()
                continue
            reply.header.rcode = getattr(RCODE, code)
            if code == "NOERROR":
                reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A("192.0.2.1"), ttl=60))
            self._socket.sendto(reply.pack(), address)


class Babbler(NameServer):
    """Answers with what is no DNS message."""

    def _serve(self) -> None:
        while True:
            data, address = self._socket.recvfrom(4096)
            if not data:
                return
            self._socket.sendto(data[:5], address)


def query(name: str, port: int, *, answered: bool = True) -> str | None:
    """Asks the name server on `port`; returns the response code's name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(WAIT_TIMEOUT)
        client.sendto(DNSRecord.question(name).pack(), ("127.0.0.1", port))
        if not answered:
            return None
        reply = DNSRecord.parse(client.recv(4096))
    return str(RCODE[reply.header.rcode])
