"""HARs as browsers write them: Chromium's own events, told in the manner of its developer tools."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import BinaryIO

from flowtally.captures.convert import as_logs
from flowtally.captures.lacking import Lacking
from jsonschema import Draft202012Validator

from .proxy import SCHEMA

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession

Json = dict[str, Any]

_validator = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def har_of(*entries: Any, creator: str = "WebInspector") -> bytes:
    """A HAR with these entries."""
    log = {"version": "1.2", "creator": {"name": creator, "version": "1"}, "entries": entries}
    return json.dumps({"log": log}).encode()


def told(content: bytes) -> tuple[list[Json], Lacking]:
    """The flows and events that a capture holds, each checked against the schema, and what could
    not be used."""
    lacking = Lacking()
    with ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile())
        file.write(content)
        ((_, log),) = as_logs([("har", file)], stack, lacking, lambda _: None)
        lines = log.read_bytes() if isinstance(log, Path) else _all_of(log)
        records = [json.loads(line) for line in lines.splitlines()]
    is_made = isinstance(log, Path) and log.name == "capture.jsonl"  # else it is the given log
    for record in records if is_made else ():
        problems = [error.message for error in _validator.iter_errors(record)]
        assert not problems, f"record breaks the schema: {problems}\n{record}"
    return [record for record in records if record["type"] in ("flow", "event")], lacking


def _all_of(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


class DevTools:
    """Listens to the network of a page, and exports it as Chromium's Network panel does.

    The events are those of the DevTools protocol (domain Network); the fields are those of HAR 1.2
    and Chromium's own, which begin with an underscore.
    """

    def __init__(self, session: CDPSession) -> None:
        self._entries: list[Json] = []
        self._open: dict[str, Json] = {}
        """Request id → its entry, the one that has not ended."""
        self._last: dict[str, Json] = {}
        """The same, also of those that have ended: what else the browser tells may come later."""
        for event in (
            *("requestWillBeSent", "requestWillBeSentExtraInfo", "responseReceived"),
            *("responseReceivedExtraInfo", "loadingFinished", "loadingFailed"),
            *("webSocketCreated", "webSocketWillSendHandshakeRequest"),
            *("webSocketHandshakeResponseReceived", "webSocketFrameSent"),
            *("webSocketFrameReceived", "webSocketFrameError", "webSocketClosed"),
        ):
            session.on(f"Network.{event}", getattr(self, f"_{event}"))
        session.send("Network.enable")

    @property
    def is_complete(self) -> bool:
        """Whether all came that is to be expected of what has ended."""
        to_come = (entry for entry in self._entries if entry.get("~answer to come"))
        return all(entry["response"]["status"] for entry in to_come)

    def har(self) -> Json:
        """All that was recorded so far."""
        entries = [
            {name: value for name, value in entry.items() if not name.startswith("~")}
            for entry in self._entries
        ]
        creator = {"name": "WebInspector", "version": "537.36"}
        return {"log": {"version": "1.2", "creator": creator, "pages": [], "entries": entries}}

    def _begin(self, id: str, method: str, url: str, kind: str) -> Json:
        entry: Json = {
            "_resourceType": kind,
            "cache": {},
            "request": {
                "method": method,
                "url": url.split("#")[0],
                "httpVersion": "http/1.1",
                "headers": [],
                "queryString": [],
                "cookies": [],
                "headersSize": -1,
                "bodySize": 0,
            },
            "response": {
                "status": 0,
                "statusText": "",
                "httpVersion": "",
                "headers": [],
                "cookies": [],
                "content": {"size": 0, "mimeType": "x-unknown"},
                "redirectURL": "",
                "headersSize": -1,
                "bodySize": -1,
                "_transferSize": 0,
                "_error": None,
            },
            "serverIPAddress": "",
            "startedDateTime": "",
            "time": 0,
            "timings": {},
            "~id": id,
        }
        self._entries.append(entry)
        self._open[id] = self._last[id] = entry
        return entry

    def _requestWillBeSent(self, event: Json) -> None:  # noqa: N802
        id = event["requestId"]
        if "redirectResponse" in event:
            self._answer(self._open[id], event["redirectResponse"])
            self._end(id, event["timestamp"])
        request = event["request"]
        entry = self._begin(id, request["method"], request["url"], event.get("type", "").lower())
        entry["startedDateTime"] = _date(event["wallTime"])
        entry["~began"] = event["timestamp"]
        entry["request"]["headers"] = _headers(request["headers"])
        if text := request.get("postData"):
            entry["request"]["postData"] = {"mimeType": "", "text": text}
            entry["request"]["bodySize"] = len(text.encode())

    def _requestWillBeSentExtraInfo(self, event: Json) -> None:  # noqa: N802
        if entry := self._last.get(event["requestId"]):
            entry["request"]["headers"] = _headers(event["headers"])

    def _responseReceived(self, event: Json) -> None:  # noqa: N802
        self._answer(self._open[event["requestId"]], event["response"])

    def _responseReceivedExtraInfo(self, event: Json) -> None:  # noqa: N802
        if entry := self._last.get(event["requestId"]):
            entry["response"]["headers"] = _headers(event["headers"])
            entry["response"]["status"] = event["statusCode"]

    def _answer(self, entry: Json, response: Json) -> None:
        headers = response["headers"]
        entry["response"] |= {
            "status": response["status"],
            "statusText": response["statusText"],
            "httpVersion": response.get("protocol", ""),
            "headers": entry["response"]["headers"] or _headers(headers),
            "redirectURL": next((v for n, v in headers.items() if n.lower() == "location"), ""),
            "_transferSize": response["encodedDataLength"],
        }
        entry["response"]["content"]["mimeType"] = response["mimeType"] or "x-unknown"
        entry["request"]["httpVersion"] = response.get("protocol", "")
        entry["serverIPAddress"] = response.get("remoteIPAddress", "")
        if response.get("connectionId"):
            entry["connection"] = str(response["connectionId"])
        if response.get("fromDiskCache"):
            entry["_fromCache"] = "disk"
        entry["~timing"] = response.get("timing")
        entry["~answered"] = True

    def _loadingFinished(self, event: Json) -> None:  # noqa: N802
        if entry := self._open.get(event["requestId"]):
            entry["response"]["_transferSize"] = event["encodedDataLength"]
        self._end(event["requestId"], event["timestamp"])

    def _loadingFailed(self, event: Json) -> None:  # noqa: N802
        if entry := self._open.get(event["requestId"]):
            entry["response"]["_error"] = event["errorText"]
            # What was kept from the page has an answer, of which the browser tells when it likes.
            entry["~answer to come"] = "corsErrorStatus" in event
        self._end(event["requestId"], event["timestamp"])

    def _end(self, id: str, ended: float) -> None:
        entry = self._open.pop(id, None)
        if entry is None or "~began" not in entry:
            return
        whole = 1000 * (ended - entry["~began"])
        timings = _timings(entry.get("~timing"), entry["~began"], ended)
        entry["timings"] = timings or {
            **dict.fromkeys(("dns", "ssl", "connect"), -1),
            **dict.fromkeys(("send", "wait", "receive"), 0),
            "blocked": whole,
        }
        names = ("blocked", "dns", "connect", "send", "wait", "receive")
        entry["time"] = sum(max(0, entry["timings"][name]) for name in names)

    # --- WebSocket ---

    def _webSocketCreated(self, event: Json) -> None:  # noqa: N802
        entry = self._begin(event["requestId"], "GET", event["url"], "websocket")
        entry["_webSocketMessages"] = []

    def _webSocketWillSendHandshakeRequest(self, event: Json) -> None:  # noqa: N802
        entry = self._open[event["requestId"]]
        entry["startedDateTime"] = _date(event["wallTime"])
        entry["~began"] = event["timestamp"]
        entry["request"]["headers"] = _headers(event["request"]["headers"])

    def _webSocketHandshakeResponseReceived(self, event: Json) -> None:  # noqa: N802
        response = self._open[event["requestId"]]["response"]
        response["status"] = event["response"]["status"]
        response["statusText"] = event["response"]["statusText"]
        response["headers"] = _headers(event["response"]["headers"])

    def _webSocketFrameSent(self, event: Json) -> None:  # noqa: N802
        self._message(event, "send")

    def _webSocketFrameReceived(self, event: Json) -> None:  # noqa: N802
        self._message(event, "receive")

    def _webSocketFrameError(self, event: Json) -> None:  # noqa: N802
        entry = self._open[event["requestId"]]
        message = {"type": "error", "time": event["timestamp"], "opcode": -1}
        entry["_webSocketMessages"].append({**message, "data": event["errorMessage"]})

    def _message(self, event: Json, way: str) -> None:
        frame = event["response"]
        message = {"type": way, "time": event["timestamp"], "opcode": frame["opcode"]}
        entry = self._open[event["requestId"]]
        entry["_webSocketMessages"].append({**message, "data": frame["payloadData"]})

    def _webSocketClosed(self, event: Json) -> None:  # noqa: N802
        entry = self._open[event["requestId"]]
        entry.setdefault("~began", event["timestamp"])
        if not entry["startedDateTime"]:  # it never came to a handshake
            entry["startedDateTime"] = _date(datetime.now(UTC).timestamp())
        self._end(event["requestId"], event["timestamp"])


def _date(seconds: float) -> str:
    date = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return date.replace("+00:00", "Z")


def _headers(headers: Json) -> list[Json]:
    return [{"name": name, "value": value} for name, value in headers.items()]


def _timings(timing: Json | None, began: float, ended: float) -> Json | None:
    """Milliseconds of each phase; -1 of what there was not. `ssl` is a part of `connect`."""
    if not timing:
        return None
    queued = max(0.0, 1000 * (timing["requestTime"] - began))
    first = min(
        (timing[name] for name in ("dnsStart", "connectStart", "sendStart") if timing[name] >= 0),
        default=0.0,
    )
    dns = timing["dnsEnd"] - timing["dnsStart"] if timing["dnsEnd"] >= 0 else -1
    connect = timing["connectEnd"] - timing["connectStart"] if timing["connectEnd"] >= 0 else -1
    ssl = timing["sslEnd"] - timing["sslStart"] if timing["sslEnd"] > 0 else -1
    whole = 1000 * (ended - timing["requestTime"])
    return {
        "blocked": queued + first,
        "dns": dns,
        "connect": connect,
        "ssl": ssl,
        "send": timing["sendEnd"] - timing["sendStart"],
        "wait": timing["receiveHeadersEnd"] - timing["sendEnd"],
        "receive": max(0.0, whole - timing["receiveHeadersEnd"]),
    }
