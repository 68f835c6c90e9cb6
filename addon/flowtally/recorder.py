"""The end of the line: a flow and its tag → a mark in the flow, a record, a line in the log."""

from __future__ import annotations

from collections.abc import Callable

from mitmproxy import flow as mflow
from mitmproxy import flowfilter
from mitmproxy import http

from . import problem_log
from .classify import broken_flow
from .connections import Connections
from .defects import Defects
from .failures import Failure
from .mark import mark
from .open_flows import began
from .record import bare_record
from .record import event_record
from .record import flow_record
from .redaction import Urls
from .session import Session
from .vocabulary import Tag


class Recorder:
    """Records what the user wants to have counted; its attributes are the options' values."""

    def __init__(self, defects: Defects, connections: Connections) -> None:
        self.filter: flowfilter.TFilter | None = None
        """`flowtally_filter`; None: everything is counted."""
        self.marks = True
        """`flowtally_mark`: comment and marker are set too."""
        self.urls: Urls = "redacted"
        """`flowtally_urls`."""
        self.pretty = False
        """mitmproxy's `showhost`: hosts are named after the Host header."""
        self.test_of: Callable[[float], str] | None = None
        """A time, Unix time → the test that ran then, "" for none. None: this is no test run."""
        self._connections = connections
        self._problems = problem_log.ProblemLog()
        self._defects = defects

    def record_flow(self, session: Session, flow: mflow.Flow, kind: str, tag: Tag) -> None:
        """Record a flow that has ended, or that is open when the session ends."""
        opened = None
        try:
            # Before the filter, which may ask for the tag.
            mark(flow, tag, self.marks)
            # Before the filter, too: a request that is left out may have opened the connection.
            opened = self._connections.opened_by(flow) if isinstance(flow, http.HTTPFlow) else None
            if self.filter is not None and not flowfilter.match(self.filter, flow):
                return
        except Exception as problem:
            self._defects.tell("mark", problem)
        try:
            entry = flow_record(flow, kind, tag, session.id, self.urls, self.pretty, opened)
            if self.test_of is not None and (test := self.test_of(began(flow))):
                entry["test"] = test
            session.add(entry)
        except Exception as problem:  # a broken flow from a file is counted all the same
            self._defects.tell("flow_record", problem)
            entry = bare_record(flow, kind, tag, session.id, broken_flow())
            session.add(entry)
        if "error_code" in tag and problem_log.is_read():
            self._problems.tell(tag, entry, flow.client_conn.peername)

    def record_failure(self, session: Session, failure: Failure) -> None:
        """Record a failure that no flow tells, as an event."""
        if "error_code" not in failure.tag:
            return  # the client left before there was a flow, and nobody was at fault
        if self.filter is not None and not flowfilter.match(self.filter, failure.as_flow()):
            return
        tag, client = failure.tag, failure.client
        entry = event_record(tag, session.id, failure.time, client, failure.host, failure.port)
        if self.test_of is not None and (test := self.test_of(failure.time)):
            entry["test"] = test
        session.add(entry)
        if problem_log.is_read():
            self._problems.tell(tag, entry, client)
