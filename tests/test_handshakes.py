"""Who left after the handshake because of it, and who had no need of the connection any more."""

from __future__ import annotations

import pytest
from flowtally import handshakes as module
from flowtally.handshakes import EXCUSES
from flowtally.handshakes import HESITATION
from flowtally.handshakes import PATIENCE
from flowtally.handshakes import TOGETHER
from flowtally.handshakes import Handshakes
from flowtally.handshakes import Silent

NOW = 1000.0
CLIENT = ("10.0.0.1", 1)
SAME, OTHER = ("10.0.0.1", 2), ("10.0.0.2", 1)


def leave(
    handshakes: Handshakes,
    client: tuple[str, int] = CLIENT,
    host: str = "host",
    after: float = 0.1,
) -> None:
    """A client finishes the handshake, and leaves that many seconds later, which is NOW."""
    handshakes.finished(client, host, 443, NOW - after)
    silent = handshakes.gone(client)
    assert silent is not None
    handshakes.suspect(silent, NOW)


def use(handshakes: Handshakes, client: tuple[str, int] = SAME, host: str = "host") -> None:
    handshakes.finished(client, host, 443, NOW)
    handshakes.spoke(client)


def test_it_is_told_after_a_while_and_once() -> None:
    handshakes = Handshakes()
    assert not handshakes
    leave(handshakes)
    assert handshakes.due(NOW + PATIENCE - 0.1) == []
    assert handshakes.due(NOW + PATIENCE) == [Silent(NOW - 0.1, CLIENT, "host", 443)]
    assert handshakes.due(NOW + 60) == []
    assert not handshakes


def test_what_was_not_told_is_told_at_the_end() -> None:
    handshakes = Handshakes()
    leave(handshakes)
    assert [silent.client for silent in handshakes.at_end()] == [CLIENT]
    assert handshakes.at_end() == []


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("client", "host", "told"),
    [(SAME, "host", 0), (SAME, "HOST", 0), (SAME, "other", 1), (OTHER, "host", 1)],
)
def test_another_connection_that_is_used_withdraws_it(
    first: bool, client: tuple[str, int], host: str, told: int
) -> None:
    handshakes = Handshakes()
    if first:
        use(handshakes, client, host)
    leave(handshakes)
    if not first:
        use(handshakes, client, host)
    assert len(handshakes.due(NOW + PATIENCE)) == told


@pytest.mark.parametrize(("after", "told"), [(HESITATION, 1), (HESITATION + 0.1, 0)])
def test_a_preconnect_that_stayed_is_none(after: float, told: int) -> None:
    handshakes = Handshakes()
    leave(handshakes, after=after)
    assert len(handshakes.due(NOW + PATIENCE)) == told


@pytest.mark.parametrize(
    ("client", "at", "together"),
    [
        (SAME, NOW, True),
        (SAME, NOW - TOGETHER, True),
        (SAME, NOW - TOGETHER - 0.1, False),
        (SAME, NOW + TOGETHER, True),
        (SAME, NOW + TOGETHER + 0.1, False),
        (OTHER, NOW, False),
    ],
)
def test_what_a_browser_closes_when_it_is_closed_is_none(
    client: tuple[str, int], at: float, together: bool
) -> None:
    handshakes = Handshakes()
    use(handshakes, SAME, "elsewhere")
    if at <= NOW:
        handshakes.closed(client, at)
    leave(handshakes)
    if at > NOW:
        handshakes.closed(client, at)
    assert len(handshakes.due(NOW + PATIENCE)) == (0 if together else 1)


def test_what_one_client_closes_says_nothing_of_another() -> None:
    handshakes = Handshakes()
    use(handshakes, OTHER, "elsewhere")
    leave(handshakes)
    handshakes.closed(OTHER, NOW)
    leave(handshakes, OTHER)  # together with what it closed
    assert [silent.client for silent in handshakes.due(NOW + PATIENCE)] == [CLIENT]


def test_those_that_were_used_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = [(f"10.0.0.{number}", 1) for number in range(3)]
    handshakes, others = Handshakes(), Handshakes()
    for client in (first, second, third):
        use(others, client, "elsewhere")
    monkeypatch.setattr(module, "MAX_NAMES", 2)
    for client in (first, second, first, third):
        use(handshakes, client)
        handshakes.closed(client, NOW - HESITATION)
    for client in (first, second, third):
        leave(handshakes, client)
    assert [silent.client for silent in handshakes.at_end()] == [second]
    handshakes = others
    for client in (first, second, first, third):
        handshakes.closed(client, NOW)
    for client in (first, second, third):
        leave(handshakes, client)
    assert [silent.client for silent in handshakes.at_end()] == [second]


def test_a_client_that_speaks_leaves_nothing() -> None:
    handshakes = Handshakes()
    handshakes.finished(CLIENT, "host", 443, NOW)
    assert handshakes
    assert CLIENT in handshakes
    handshakes.spoke(CLIENT)
    handshakes.spoke(OTHER)  # without a handshake
    assert not handshakes
    assert CLIENT not in handshakes
    assert handshakes.gone(CLIENT) is None


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_SILENT", "MAX_NAMES", "MAX_LEFT"):
        monkeypatch.setattr(module, name, 3)
    handshakes = Handshakes()
    for port in range(4):
        handshakes.finished(("10.0.0.1", port), "host", 443, NOW)
    assert [("10.0.0.1", port) in handshakes for port in range(4)] == [False, True, True, True]
    handshakes = Handshakes()
    for port in range(4):
        use(handshakes, (f"10.0.1.{port}", 1))
        leave(handshakes, (f"10.0.2.{port}", 1))
    # The oldest goes before its time.
    assert [silent.client[0] for silent in handshakes.due(NOW)] == ["10.0.2.0"]
    assert len(handshakes.at_end()) == 3
    for port in range(4):
        leave(handshakes, (f"10.0.1.{port}", 1))
    assert [silent.client[0] for silent in handshakes.at_end()] == ["10.0.1.0"]
    for port in range(1, 4):
        use(handshakes, (f"10.0.3.{port}", 1), "elsewhere")
    for port in range(4):
        handshakes.closed((f"10.0.3.{port}", 1), NOW)
    leave(handshakes, ("10.0.3.1", 2))
    assert handshakes.at_end() == []
    leave(handshakes, ("10.0.3.0", 2))
    assert len(handshakes.at_end()) == 1


@pytest.mark.parametrize("first", [True, False])
def test_who_never_speaks_tls_well_closes_for_that_reason(first: bool) -> None:
    handshakes = Handshakes()
    use(handshakes, OTHER)
    if first:
        handshakes.closed(SAME, NOW)
    leave(handshakes)
    if not first:
        handshakes.closed(SAME, NOW)
    assert len(handshakes.due(NOW + PATIENCE)) == 1


@pytest.mark.parametrize(
    ("suites", "is_browser"),
    [
        ([0x0A0A, 0x1301], True),
        ([0xFAFA, 0x1301], True),
        ([0x1301, 0x0A0A], False),  # a reserved value stands first
        ([0x1302], False),
        ([], False),
    ],
)
def test_a_browser_takes_back_what_it_had_not_sent(suites: list[int], is_browser: bool) -> None:
    handshakes = Handshakes()
    found = []
    for _ in range(EXCUSES + 1):
        handshakes.hello(CLIENT, suites)
        leave(handshakes)
        found.append(len(handshakes.due(NOW + PATIENCE)))
    assert found == ([0] * EXCUSES + [1] if is_browser else [1] * (EXCUSES + 1))


def test_a_client_is_a_browser_until_it_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SILENT", 2)
    handshakes = Handshakes()
    handshakes.hello(CLIENT, [0x0A0A])
    use(handshakes, CLIENT, "elsewhere")
    leave(handshakes)  # another client at the address and port that it had
    assert len(handshakes.at_end()) == 1
    clients = [(f"10.0.1.{number}", 1) for number in range(3)]
    for client in clients:
        handshakes.hello(client, [0x0A0A])
    for client in clients:
        leave(handshakes, client)
    assert [silent.client for silent in handshakes.at_end()] == clients[:1]


def test_a_coincidence_does_not_come_again_and_again() -> None:
    handshakes = Handshakes()
    use(handshakes, SAME, "elsewhere")
    found = []
    for _ in range(EXCUSES + 2):
        handshakes.closed(SAME, NOW)
        leave(handshakes)
        found.append(len(handshakes.due(NOW + PATIENCE)))
    assert found == [0] * EXCUSES + [1, 1]


# --- who says why it leaves ---

GREASE = 0x0A0A


def reject(handshakes: Handshakes, client: tuple[str, int] = CLIENT, suite: int = GREASE) -> bool:
    """A client's alert, NOW: whether it has to wait."""
    handshakes.hello(client, [suite, 0x1301])
    return handshakes.rejects(Silent(NOW, client, "host", 443, "alert"), NOW)


def test_a_browser_that_takes_any_certificate_rejects_each_once() -> None:
    handshakes = Handshakes()
    for again in range(2 * EXCUSES):
        assert reject(handshakes, ("10.0.0.1", 100 + again))
        use(handshakes)
        assert handshakes.at_end() == []


def test_one_that_does_not_come_back_is_told() -> None:
    handshakes = Handshakes()
    use(handshakes)  # another app of the same machine trusts the proxy
    assert reject(handshakes)
    use(handshakes, host="other")
    handshakes.closed(SAME, NOW)
    assert handshakes.due(NOW + PATIENCE - 0.1) == []
    assert [silent.message for silent in handshakes.due(NOW + PATIENCE)] == ["alert"]


def test_whoever_is_no_browser_need_not_wait() -> None:
    assert not reject(Handshakes(), suite=0x1302)
