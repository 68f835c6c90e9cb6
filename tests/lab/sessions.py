"""Records of a session in which everything happened that a report can show."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from .cli import Record
from .cli import answer
from .cli import answered
from .cli import cancelled
from .cli import event
from .cli import failed
from .cli import start

SECONDS = 600
"""How long the session lasted."""
STATUSES = (200,) * 40 + (201, 204, 301, 302, 304, 304, 400, 401, 404, 404, 429, 500, 503, 504)
HOSTS = ("shop.example", "api.shop.example", "cdn.example", "id.example", "ads.example")
PATHS = {
    "/": "text/html",
    "/cart/17": "text/html",
    "/users/{}": "application/json",
    "/orders/{}/lines": "application/json",
    "/search?q=": "",
    "/assets/app.js": "text/javascript",
}
"""Path → media type of the answer; "": it has none."""
CAUSES = (
    "connection_refused",
    "dns_error",
    "tls_certificate_error",
    "http_response_incomplete",
    "connection_terminated",
    "http_response_timeout",
    "connection_timeout",
    "destination_not_found",
)


def everything(flows: int = 300, session: str = "00000001") -> list[Record]:
    """A session with all bands, all error codes, events, every kind of flow, what is no problem of
    anybody's, and traffic over ten minutes; the same each time."""
    random = Random(flows)
    found = [start(session)]
    found += (_ordinary(random, number, flows) for number in range(flows))
    found += _special()
    found += _apart()
    found += _background()
    return [{**record, "session": session} for record in found]


def _ordinary(random: Random, number: int, flows: int) -> Record:
    status = random.choice(STATUSES)
    host = random.choices(HOSTS, (40, 30, 15, 10, 5))[0]
    pattern = random.choice(tuple(PATHS))
    path = pattern.format(random.randrange(1000))
    media_type = {"media_type": PATHS[pattern]} if PATHS[pattern] else {}
    wait = round(random.lognormvariate(4, 1), 1)
    return answered(
        status,
        SECONDS * number / flows,
        flow=f"flow {number}",
        host=host,
        method=random.choice(("GET", "GET", "GET", "POST")),
        url=f"http://{host}{path}",
        wait_ms=wait,
        duration_ms=round(wait + random.lognormvariate(3, 1), 1),
        request_bytes=random.randrange(2000),
        response_bytes=random.randrange(200_000),
        **media_type,
    )


def _special() -> Iterator[Record]:
    yield answered(101, 20, kind="websocket", close_code=1000, duration_ms=61_000.0, flow="ws 1")
    yield failed("connection_terminated", 30, kind="websocket", close_code=1006, flow="ws 2")
    for number, cause in enumerate(CAUSES):
        for again in range(number + 1):
            yield failed(
                cause,
                100 + 20 * number + again,
                flow=f"{cause} {again}",
                host=HOSTS[again % len(HOSTS)],
                port=8443,
                url=f"https://{HOSTS[again % len(HOSTS)]}:8443/broken/{again}",
                detail="[Errno 111] what the machine said of it",
            )
    tag = {"error_code": -5, "error_name": "TooManyRedirects", "cause": "redirect_loop"}
    for again in range(3):
        yield answered(302, 300 + again, flow=f"loop {again}", side="server", **tag)
    yield answered(
        200,
        310,
        url="http://api.shop.example/shop.Cart/Add",
        flow="grpc",
        **{**_fields(failed("grpc_error")), "reason": "unavailable", "detail": "no cart today"},
    )
    yield answered(200, 311, flow="cors", **_fields(failed("cors_blocked")))
    for reason in ("reset", "reset", "out of the blue"):
        yield failed("connection_terminated", 320, reason=reason, flow=f"broken {reason}")
    yield failed("http_protocol_error", 321, flow="stream 1", host="h2.example")
    for again in range(4):
        fields = {"reason": "collateral", "host": "h2.example", "flow": f"stream {again + 3}"}
        yield failed("http_protocol_error", 321, url="https://h2.example/img", **fields)
    for again in range(2):
        yield event(second=400 + again, client_port=50_000 + again, detail="unknown ca")
    bad_url = event("invalid_url", 410, detail="http:///foo")
    yield {name: value for name, value in bad_url.items() if name not in ("host", "port")}
    yield answered(799, 420, flow="invalid")
    for number, (kind, fields) in enumerate(_KINDS):
        yield _other(kind, 430 + number, **fields)
    yield {**_other("tcp", 440), "outcome": "error", **_fields(failed("connection_terminated"))}
    for again in range(2):
        open_flow = answered(200, 590 + again, flow=f"open {again}", url="http://cdn.example/video")
        for name in ("status", "band", "description", "duration_ms", "wait_ms"):
            del open_flow[name]
        yield {**open_flow, "outcome": "unfinished"}


def _apart() -> Iterator[Record]:
    """What is no problem: cancelled, asked for a login, endless."""
    for again in range(6):
        host = HOSTS[again % 3]
        url = f"http://{host}/download/{again}"
        yield cancelled(330 + again, flow=f"cancelled {again}", host=host, url=url)
    yield cancelled(337, flow="upload", reason="left_upload", host="id.example")
    partly = answered(200, 338, flow="video", url="http://cdn.example/video", response_bytes=10**6)
    yield {**partly, **_fields(cancelled()), "outcome": "cancelled"}
    for again in range(3):
        login: dict[str, Any] = {
            "host": "id.example",
            "url": "http://id.example/login",
            "method": "POST",
        }
        yield answered(401, 340 + again, flow=f"asked {again}", **login)
        if again:
            asked = f"asked {again}"
            yield answer(345 + again, flow=f"login {again}", answers=asked, **login)
    yield answered(
        200,
        350,
        flow="events",
        url="http://api.shop.example/events",
        media_type="text/event-stream",
        stream=True,
        duration_ms=240_000.0,
    )


def _background() -> Iterator[Record]:
    """What nobody of these people asked for."""
    fields = {"host": "update.example", "url": "http://update.example/check"}
    for again in range(3):
        yield answered(204, 360 + again, flow=f"update {again}", background="Chromium", **fields)
    yield failed("dns_error", 365, flow="portal", background="Windows", **fields)
    yield cancelled(366, flow="update 4", background="Chromium", **fields)
    yield event(second=367, background="Windows", host="telemetry.example")


_KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("dns", {"method": "A", "host": "shop.example"}),
    ("dns", {"method": "AAAA", "host": "shop.example"}),
    ("tcp", {"host": "mail.example", "port": 993}),
    ("udp", {"host": "time.example", "port": 123}),
)


def _other(kind: str, second: float, **fields: Any) -> Record:
    """A flow that is not HTTP and went well."""
    record = answered(200, second, kind=kind, flow=f"{kind} {second}", outcome="ok", **fields)
    for name in ("status", "band", "description", "url", "wait_ms"):
        del record[name]
    if "method" not in fields:
        del record["method"]
    return record


def _fields(record: Record) -> Record:
    """What says how a flow failed, or that it was cancelled."""
    names = ("error_code", "error_name", "cause", "side")
    return {name: record[name] for name in names if name in record}
