"""Replaying reads every message, in order, whatever the sizes, and survives a lost connection."""

import asyncio
import contextlib
import random
import socket
import threading

import pytest

from engine.bus.client import Bus
from engine.log import server
from engine.log.jetstream import JetStreamLog
from engine.log.port import LogUnavailable
from engine.log.replay import BATCH_BYTES_MAX, BATCH_MAX, ReplayRefused, replay
from engine.log.stream import ensure_log

CELL = "embedded"
STREAM = f"LOG-{CELL}-0001"
# The engine pulls from a consumer; edges and projectors ask by sequence, across accounts.
READERS = ("engine", "history")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    started = server.start(tmp_path_factory.mktemp("replay"), cell=CELL)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def written(running):
    """Fill a log with messages of all sizes, more than one batch of them."""
    sizes = random.Random(7)
    data = [b"%d:" % n + b"x" * sizes.choice([0, 1, 300, 1400]) for n in range(BATCH_MAX + 500)]
    data[100:103] = [b"y" * 3_000_000, b"", b"\r\nHMSG fake 1 2 3\r\n-ERR 'no'\r\n" * 20]
    data += [b"z" * 6_000_000] * (BATCH_BYTES_MAX // 6_000_000 + 2)
    asyncio.run(append(running, data))
    return data


async def append(running, data, *, after=0):
    bus = await Bus.connect(
        running.url, user="admin", password=running.credentials["admin"], name="t", cell=CELL
    )
    try:
        await ensure_log(bus)
        log = JetStreamLog(bus)
        for start in range(0, len(data), 200):
            some = data[start : start + 200]
            await asyncio.gather(
                *(log.append(d, expected_last=after + start + n) for n, d in enumerate(some))
            )
    finally:
        await bus.close()


def read(running, user, after_seq=0, **options):
    password = running.credentials[user]
    return replay(running.url, user, password, STREAM, after_seq, **options)


@pytest.mark.parametrize("user", READERS)
def test_everything_is_read_in_order(running, written, user):
    found = list(read(running, user))

    assert [seq for seq, _ in found] == list(range(1, len(written) + 1))
    assert [data for _, data in found] == written


@pytest.mark.parametrize("user", READERS)
def test_reading_begins_after_a_sequence(running, written, user):
    assert [seq for seq, _ in read(running, user, len(written) - 2)] == [
        len(written) - 1,
        len(written),
    ]


@pytest.mark.parametrize("user", READERS)
@pytest.mark.parametrize("beyond", [0, 1, 1000])
def test_at_the_end_there_is_nothing(running, written, user, beyond):
    assert list(read(running, user, len(written) + beyond)) == []


@pytest.mark.parametrize("user", READERS)
def test_an_empty_log_is_read_to_its_end(tmp_path, user):
    started = server.start(tmp_path, cell=CELL)
    asyncio.run(append(started, []))

    assert list(read(started, user)) == []

    started.stop()


@pytest.mark.parametrize("user", READERS)
def test_what_comes_later_is_left_for_later(tmp_path, user):
    started = server.start(tmp_path, cell=CELL)
    asyncio.run(append(started, [b"one", b"two"]))
    reading = read(started, user)

    first = next(reading)
    asyncio.run(append(started, [b"three"], after=2))

    assert [first, *reading] == [(1, b"one"), (2, b"two")]
    started.stop()


def test_a_wrong_password_is_told(running):
    with pytest.raises(ReplayRefused, match="Authorization"):
        list(replay(running.url, "engine", "wrong", STREAM))


def test_a_user_who_may_not_read_is_told(running, written):
    with pytest.raises(ReplayRefused, match="Permissions Violation"):
        list(read(running, "agent"))


def test_a_stream_that_is_not_there_is_told(running):
    with pytest.raises(ReplayRefused, match=r"Permissions Violation|not found"):
        list(replay(running.url, "engine", running.credentials["engine"], "NONE"))
    with pytest.raises(ReplayRefused, match="not found"):
        list(replay(running.url, "admin", running.credentials["admin"], "NONE"))


def test_where_nobody_listens_reading_ends_at_its_deadline():
    with pytest.raises(LogUnavailable):
        list(replay("nats://127.0.0.1:1", "u", "p", STREAM, lost_s=0.2))


def test_a_server_that_says_nothing_is_given_up_on():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"nats://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(LogUnavailable, match="timed out"):
            list(replay(url, "u", "p", STREAM, timeout_s=0.05, lost_s=0.1))


class Proxy:
    """Passes bytes on in small pieces, and drops each connection after some of them."""

    def __init__(self, port, *, drops, piece):
        self._port = port
        self._drops = list(drops)
        self._piece = piece
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self._listening.getsockname()[1]}"
        self.accepted = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.accepted += 1
            left = self._drops.pop(0) if self._drops else None
            with client, socket.create_connection(("127.0.0.1", self._port)) as upstream:
                passing = threading.Thread(target=self._pass_up, args=(client, upstream))
                passing.start()
                # Either end may be reset: by the reader, who has what it wanted, or by the broker,
                # who had more to send to it.
                with contextlib.suppress(OSError):
                    self._pass_down(upstream, client, left)
                for end in (client, upstream):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                passing.join()

    def _pass_down(self, upstream, client, left):
        while data := upstream.recv(self._piece):
            if left is not None:
                left -= len(data)
                if left < 0:
                    return
            client.sendall(data)

    @staticmethod
    def _pass_up(client, upstream):
        try:
            while data := client.recv(65536):
                upstream.sendall(data)
            upstream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(20)


@pytest.mark.parametrize("user", READERS)
def test_a_message_may_come_in_pieces_and_a_connection_may_be_lost(running, written, user):
    """Nothing is read twice or left out, wherever the bytes are cut."""
    count = 700
    proxy = Proxy(running.port, drops=[100, 1500, 3_000, 20_000, 1_000_000, 3_100_000], piece=997)
    try:
        found = []
        for item in replay(proxy.url, user, running.credentials[user], STREAM):
            found.append(item)
            if len(found) == count:
                break
    finally:
        proxy.close()

    assert found == list(enumerate(written[:count], start=1))
    assert proxy.accepted == 7
