"""The hooks of connections: what mitmproxy tells of them that may be a failure without a flow."""

from __future__ import annotations

from abc import ABC
from abc import abstractmethod
from collections.abc import Callable

from mitmproxy import connection
from mitmproxy import http
from mitmproxy import tls
from mitmproxy.proxy import layer
from mitmproxy.proxy import server_hooks

from . import internals
from .defects import P
from .failures import Failure
from .failures import Failures
from .handshakes import HESITATION
from .live import LivePage
from .tagger import Tagger


class ConnectionHooks(ABC):
    """A part of the addon: passes what happens to connections on to `Failures`."""

    failures: Failures
    live: LivePage
    tagger: Tagger

    @abstractmethod
    def _record_events(
        self, happened: Callable[P, list[Failure]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Record what a method of `Failures` makes of something that happened."""

    def _watch_internals(self) -> list[internals.Undo]:
        """Listen to what no hook tells; returns how to stop."""
        record, failures, faults = self._record_events, self.failures, self.tagger.faults
        return [
            internals.watch_log(lambda *line: record(failures.log_line, *line)),
            internals.watch_errors(lambda *line: record(failures.error_line, *line)),
            internals.watch_error_responses(lambda *page: record(failures.error_response, *page)),
            internals.watch_streams(),
            internals.watch_faults(faults.broke, faults.closed),
        ]

    def client_connected(self, client: connection.Client) -> None:
        if client.error:
            self._record_events(self.failures.client_refused, client)

    def client_disconnected(self, client: connection.Client) -> None:
        if self.failures or client.peername in self.failures.handshakes:
            self._record_events(self.failures.client_gone, client.peername)
        left = client.timestamp_end or client.timestamp_start
        kept = left - client.timestamp_start >= HESITATION and client.transport_protocol == "tcp"
        if kept and client.peername:
            self.failures.handshakes.closed(client.peername, left)

    def next_layer(self, data: layer.NextLayer) -> None:
        handshakes = self.failures.handshakes
        if handshakes and (data.data_client() or data.data_server()):
            handshakes.spoke(data.context.client.peername)

    # --- TCP ---

    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        self.failures.connecting(data.client, data.server, handshake=False)

        def died(exception: BaseException) -> None:
            self._record_events(self.failures.task_died, data.client, data.server, exception)

        internals.watch_task(died)

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        self.failures.connected(data.server)

    def server_connect_error(self, data: server_hooks.ServerConnectionHookData) -> None:
        self._record_events(self.failures.server_failed, data.client, data.server)

    def server_disconnected(self, data: server_hooks.ServerConnectionHookData) -> None:
        self.failures.connected(data.server)

    def http_connect_upstream(self, flow: http.HTTPFlow) -> None:
        request = flow.request
        self.failures.tunnelling(flow.client_conn, flow.server_conn, request.host, request.port)

    # --- TLS ---

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        self.live.keep_from_server(data)
        client = data.context.client.peername
        self.failures.handshakes.hello(client, data.client_hello.cipher_suites)

    def tls_start_server(self, data: tls.TlsData) -> None:
        self.failures.connecting(data.context.client, data.conn, handshake=True)

    def tls_established_server(self, data: tls.TlsData) -> None:
        self.failures.connected(data.conn)

    def tls_failed_server(self, data: tls.TlsData) -> None:
        self._record_events(self.failures.server_failed, data.context.client, data.conn)

    def tls_established_client(self, data: tls.TlsData) -> None:
        self.failures.client_shook_hands(data.context.client, data.context.server)

    def tls_failed_client(self, data: tls.TlsData) -> None:
        client, failed = data.context.client, self.failures.client_handshake_failed
        self._record_events(failed, client, data.context.server, data.conn.error or "")
