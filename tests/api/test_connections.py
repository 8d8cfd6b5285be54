"""Connections that do nothing, or too many of them, do not keep others from being answered."""

import http.client
import socket
from pathlib import Path

import pytest

from api.connections import SPARE, Connection, Connections, _look
from api.forwarded import Proxies
from schemas.config import Config
from tests.api.conftest import Cloud
from tests.api.edges import EdgeProcess, held
from tests.cli.running import eventually

ASK = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
CONFIG = Config(
    state_dir="/nowhere", connections_address_max=3, head_s=10.0, keep_alive_s=30.0,
    trusted_proxies=("10.0.0.0/8",), connections_max=6,
)  # fmt: skip


def one(fd: int, address: str = "192.0.2.1", **known: float | bool) -> Connection:
    told = {"busy": False, "spoken": True, "unanswered_s": 1.0, "quiet_s": 1.0} | known
    return Connection(fd=fd, client=(address, str(fd)), **told)


def gone(*found: Connection) -> list[tuple[int, str]]:
    connections = Connections(CONFIG, Proxies(CONFIG.trusted_proxies), files_max=10_000)
    return sorted((connection.fd, why) for connection, why in connections.excess(found))


@pytest.mark.parametrize(
    ("connection", "why"),
    [
        (one(1, unanswered_s=29.0, quiet_s=29.0), ""),
        (one(1, unanswered_s=31.0, quiet_s=31.0), "idle"),
        (one(1, unanswered_s=31.0, quiet_s=0.2), ""),  # a request is on its way
        (one(1, unanswered_s=41.0, quiet_s=0.2), "slow"),
        (one(1, unanswered_s=900.0, quiet_s=900.0, busy=True), ""),
        (one(1, unanswered_s=9.0, quiet_s=9.0, spoken=False), ""),
        (one(1, unanswered_s=11.0, quiet_s=11.0, spoken=False), "silent"),
    ],
)
def test_how_long_a_connection_may_do_nothing(connection: Connection, why: str):
    assert gone(connection) == ([(1, why)] if why else [])


def test_of_too_many_connections_of_one_address_the_idlest_go():
    found = [one(n, quiet_s=n / 10, busy=n == 9) for n in range(5, 10)]

    assert gone(*found) == [(7, "address"), (8, "address")]
    assert gone(*(one(n, busy=True) for n in range(5))) != []  # answering excuses nobody
    assert gone(*(one(n, "10.1.1.1") for n in range(6))) == []  # a proxy speaks for many


def test_when_all_room_is_taken_who_has_most_gives_first():
    many = [one(n, "10.1.1.1", quiet_s=n / 100) for n in range(6)]
    few = [one(10 + n, f"192.0.2.{n}", quiet_s=20.0, unanswered_s=20.0) for n in range(3)]

    assert gone(*many, *few) == [(3, "full"), (4, "full"), (5, "full")]


def test_room_is_what_the_process_may_open():
    connections = Connections(CONFIG, Proxies(()), files_max=SPARE + 512 + 4)
    assert connections.most == 4


def test_requests_of_one_connection_are_counted():
    connections = Connections(CONFIG, Proxies(()), files_max=10_000)
    client = ("192.0.2.1", "1")
    connections.begin(client)
    connections.begin(client)
    connections.end(client)
    assert client in connections.busy
    connections.end(client)
    assert not connections.busy


def answered(edge: EdgeProcess) -> int:
    connection = http.client.HTTPConnection(*edge.address, timeout=60)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


def descriptors(edge: EdgeProcess) -> int:
    return len(list(Path(f"/proc/{edge.process.pid}/fd").iterdir()))


@pytest.mark.parametrize("first", [b"", ASK[:-2], ASK], ids=["silent", "half a head", "kept alive"])
def test_idle_connections_keep_nobody_out(cloud: Cloud, tmp_path, first: bytes):
    """More than the server takes: it closes the idlest, and answers who comes new."""
    settings = {"connections_max": 64, "head_s": 3600, "keep_alive_s": 3600}
    with (
        EdgeProcess(cloud, tmp_path, **settings) as edge,
        held(edge, 64 + SPARE + 200, first) as connections,
    ):
        assert answered(edge) == 200
        eventually(lambda: sum(c.closed() for c in connections) > SPARE, "the idlest are closed")
        assert all("full" in told for told in edge.events("connections_closed"))
        assert answered(edge) == 200


def test_one_address_has_so_many_connections(cloud: Cloud, tmp_path):
    settings = {"connections_address_max": 8, "trusted_proxies": [], "head_s": 3600}
    with EdgeProcess(cloud, tmp_path, **settings) as edge, held(edge, 30) as connections:
        eventually(lambda: sum(c.closed() for c in connections) >= 21, "those too many go")
        assert answered(edge) == 200


def test_idle_connections_end(cloud: Cloud, tmp_path):
    """Silent ones, ones with half a head and ones kept alive: all are let go, and cost nothing."""
    with EdgeProcess(cloud, tmp_path, head_s=0.5, keep_alive_s=1.0) as edge:
        assert answered(edge) == 200
        before = descriptors(edge)
        with held(edge, 3) as silent, held(edge, 3, ASK[:-2]) as half, held(edge, 3, ASK) as kept:
            for connection in kept:
                assert b" 200 " in connection.until(b'"ok"}')
            all_of_them = [*silent, *half, *kept]
            eventually(lambda: all(c.closed() for c in all_of_them), "all are closed")
            eventually(lambda: descriptors(edge) <= before, "no descriptor is left")


def test_a_client_that_does_not_read_its_answer_is_let_go(cloud: Cloud, tmp_path):
    ask = b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with EdgeProcess(cloud, tmp_path, unread_s=1.0) as edge, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(edge.address)
        connection.setblocking(False)

        def reset() -> bool:
            try:
                for _ in range(100):
                    connection.send(ask)
            except BlockingIOError:
                return False
            except (ConnectionResetError, BrokenPipeError):
                return True
            return False

        eventually(reset, "the connection is reset")
        assert answered(edge) == 200


def test_the_kernel_says_what_we_read_of_it():
    """The offsets in struct tcp_info are right: seen on a connection of our own."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
    ):
        server, address = listening.accept()
        with server:
            port = listening.getsockname()[1]
            key = (address[0], str(address[1]))
            unspoken = _look(server.fileno(), port, {})
            assert unspoken is not None
            assert not unspoken.spoken
            client.sendall(b"x")
            server.recv(1)
            found = _look(server.fileno(), port, {key: 1})
            assert found is not None
            assert (found.client, found.busy, found.spoken) == (key, True, True)
            assert _look(listening.fileno(), port, {}) is None
            assert _look(client.fileno(), port, {}) is None
