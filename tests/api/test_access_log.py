"""What an edge tells of who asked: counted by the second, bounded, and its gaps known."""

import asyncio
from types import SimpleNamespace

import pytest_asyncio

from api import access
from api.access import AccessLog
from api.exchange import Call
from api.forwarded import Proxies
from api.routing import Route
from engine.bus.access import append_access, ensure_access_stream, first_access, read_access
from engine.log.stream import call as ask_stream
from schemas.access import AccessBatch, decode
from schemas.config import Config

NOW = 1_900_000_000_000_000


class Reader:
    """Reads what is in the stream, and waits for more."""

    def __init__(self, bus):
        self.bus = bus
        self.seq = 0

    async def batches(self, at_least: int) -> list[AccessBatch]:
        found: list[AccessBatch] = []
        async with asyncio.timeout(20):
            while len(found) < at_least:
                for seq, data in await read_access(self.bus, self.seq):
                    found.append(decode(data))
                    self.seq = seq
        return found


@pytest_asyncio.fixture
async def stream(nats):
    bus = await nats.connect()
    await ensure_access_stream(bus)
    yield Reader(bus)
    await ask_stream(bus, f"STREAM.DELETE.{bus.subjects.access_stream}")


async def handler(call):
    raise AssertionError("never called here")


ROUTE = Route(handler=handler, path="/v2.1/servers/{}", actions=("compute:servers:read",))


def a_call(address="10.0.0.1", agent="curl/8", *, user="", project="", about=("s-1",), route=ROUTE):
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/compute/v2.1/servers/s-1",
        "query_string": b"",
        "scheme": "http",
        "client": (address, 1),
        "headers": [(b"user-agent", agent.encode())],
    }
    edge = SimpleNamespace(config=Config(state_dir="/nowhere"), proxies=Proxies(()))
    call = Call(edge, "compute", scope, None)
    call.route, call.args = route, about
    if user:
        call.principal = SimpleNamespace(user_id=user, project_id=project, roles=("member",))
        call.rule = "compute:servers:read: reader in project"
    return call


async def test_what_is_alike_within_a_second_is_one_entry(stream):
    log = AccessLog(stream.bus, "edge-1", clock=lambda: NOW)
    first = a_call(user="u", project="p")
    for call, seconds in ((first, 0.001), (a_call(user="u", project="p"), 0.004)):
        log.note(call, 200, seconds)
    log.note(a_call(user="u", project="p", about=("s-2",)), 200, 0.001)
    log.note(a_call(user="u", project="p"), 404, 0.001)
    log.start()
    await log.close()

    began, last = await stream.batches(2)

    assert (began.number, last.number, last.last) == (1, 2, True)
    assert (began.boot, began.edge) == (last.boot, "edge-1")
    entry, *others = began.entries
    assert (entry.count, entry.total_us, entry.max_us) == (2, 5000, 4000)
    assert (entry.request_id, entry.about, entry.route) == (
        first.request_id,
        ("s-1",),
        "/v2.1/servers/{}",
    )
    assert (entry.user_id, entry.project_id, entry.roles) == ("u", "p", ("member",))
    assert (entry.address, entry.agent, entry.rule) == (
        "10.0.0.1",
        "curl/8",
        "compute:servers:read: reader in project",
    )
    assert [(other.count, other.status) for other in others] == [(1, 200), (1, 404)]


async def test_each_second_has_a_message_and_silence_has_none(stream, monkeypatch):
    monkeypatch.setattr(access, "TICK_S", 0.01)
    log = AccessLog(stream.bus, "edge-1", clock=lambda: NOW)
    log.start()
    (began,) = await stream.batches(1)
    log.note(a_call(user="u"), 200, 0.001)
    (told,) = await stream.batches(1)
    await log.close()

    (last,) = await stream.batches(1)

    assert [batch.number for batch in (began, told, last)] == [1, 2, 3]
    assert [len(batch.entries) for batch in (began, told, last)] == [0, 1, 0]


async def test_a_flood_of_strangers_stays_bounded_and_takes_nobodys_place(stream):
    log = AccessLog(stream.bus, "edge-1", clock=lambda: NOW)
    for n in range(20_000):
        call = a_call("10.6.6.6", f"agent-{n}" * 40, route=None, about=())
        call.reason = "the token is not valid"
        log.note(call, 401, 0.001)
    for n in range(3_000):
        log.note(a_call(f"10.1.{n // 256}.{n % 256}", "x" * 255, route=None, about=()), 401, 0.001)
    log.note(a_call("10.0.0.9", user="u", project="p"), 200, 0.001)
    log.start()
    await log.close()

    flood, _ = await stream.batches(2)

    assert sum(e.count for e in flood.entries) == 23_001
    assert [e.user_id for e in flood.entries if e.user_id] == ["u"]
    of_address = [e for e in flood.entries if e.address == "10.6.6.6"]
    assert len(of_address) == access.OF_ADDRESS_MAX + 1
    (gathered,) = [e for e in of_address if e.gathered]
    assert (gathered.gathered, gathered.status) == ("owner", 401)
    assert gathered.count == 20_000 - access.OF_ADDRESS_MAX
    assert len(flood.entries) <= access.NOBODY_MAX + access.GATHERED_MAX + 2
    (seq, data), *_ = await read_access(stream.bus, 0)
    assert seq == 1
    assert len(data) < 2 * access.ALLOWANCE_MAX


async def test_strangers_use_up_their_allowance_and_then_are_only_counted(stream, monkeypatch):
    monkeypatch.setattr(access, "ALLOWANCE_MAX", 2000)
    log = AccessLog(stream.bus, "edge-1", clock=lambda: NOW)
    for n in range(100):
        log.note(a_call(f"10.1.0.{n}", route=None, about=()), 401, 0.001)
    log.note(a_call(user="u"), 200, 0.001)
    log.start()
    await log.close()

    told, _ = await stream.batches(2)

    (rest,) = [e for e in told.entries if e.gathered == "nobody"]
    single = [e for e in told.entries if not e.gathered and not e.user_id]
    assert 0 < len(single) < 10
    assert (rest.count, rest.address) == (100 - len(single), "")
    assert [e.count for e in told.entries if e.user_id] == [1]


async def test_a_busy_user_takes_no_other_users_place(stream):
    log = AccessLog(stream.bus, "edge-1", clock=lambda: NOW)
    for n in range(5000):
        log.note(a_call(user="busy", project="p", about=(f"s-{n}",)), 200, 0.001)
    log.note(a_call(user="quiet", project="q"), 200, 0.001)
    log.start()
    await log.close()

    told, _ = await stream.batches(2)

    busy = [e for e in told.entries if e.user_id == "busy"]
    assert len(busy) == access.OF_USER_MAX + 1
    assert sum(e.count for e in busy) == 5000
    assert [e.gathered for e in told.entries if e.user_id == "quiet"] == [""]


async def test_what_finds_no_room_while_the_broker_is_away_is_counted_and_told(stream, monkeypatch):
    monkeypatch.setattr(access, "TICK_S", 0.01)
    monkeypatch.setattr(access, "WAITING_BYTES_MAX", 1000)
    log = AccessLog(stream.bus, "edge-1", clock=lambda: NOW)
    name = stream.bus.subjects.access_stream
    kept = (await ask_stream(stream.bus, f"STREAM.INFO.{name}"))["config"]
    await ask_stream(stream.bus, f"STREAM.DELETE.{name}")
    log.start()
    noted = 0
    async with asyncio.timeout(20):
        while log.lost < 3:
            log.note(a_call(user="u"), 200, 0.001)
            noted += 1
            await asyncio.sleep(0.01)
    await ask_stream(stream.bus, f"STREAM.CREATE.{name}", kept)
    told: list[AccessBatch] = []
    async with asyncio.timeout(20):
        while not any(batch.lost for batch in told):
            told += await stream.batches(1)
    await log.close()
    told += await stream.batches(1)

    assert [batch.number for batch in told] == list(range(1, len(told) + 1))
    (gap,) = [batch for batch in told if batch.lost]
    assert gap.lost == log.lost_total >= 3
    assert gap.lost_since == NOW
    assert sum(e.count for b in told for e in b.entries) + gap.lost == noted


async def test_a_message_that_is_sent_again_is_stored_once(stream):
    for _ in range(2):
        assert await append_access(stream.bus, "edge-1", "edge-1.b.1", b"{}") == 1

    assert await first_access(stream.bus) == 1
    assert await read_access(stream.bus, 0) == [(1, b"{}")]


async def test_an_operators_limits_are_kept_and_what_else_was_altered_is_set_right(stream):
    bus, name = stream.bus, stream.bus.subjects.access_stream
    config = (await ask_stream(bus, f"STREAM.INFO.{name}"))["config"]
    altered = config | {"max_bytes": 2**26, "duplicate_window": 10**9}
    await ask_stream(bus, f"STREAM.UPDATE.{name}", altered)

    await ensure_access_stream(bus)

    found = (await ask_stream(bus, f"STREAM.INFO.{name}"))["config"]
    assert found == config | {"max_bytes": 2**26}
    assert (config["discard"], config["deny_delete"]) == ("old", True)
