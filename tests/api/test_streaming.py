"""What is long goes through in pieces: as fast as both sides can, and in bounded memory."""

import asyncio
import http.client
import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from granian.constants import Interfaces

from api.app import Api
from api.connections import Connections
from api.cors import Cors
from api.errors import render_native
from api.exchange import Answer, Call
from api.forwarded import Proxies
from api.listening import SocketServer
from api.routing import PUBLIC, Routes, Service, Surface
from schemas.config import Config
from tests.api.conftest import Cloud, fresh
from tests.api.edges import EdgeProcess, Raw, statuses
from tests.api.test_microversions import _Edge as FakeEdge
from tests.cli.running import eventually

IMAGES = "/image/v2/images"
MIB = 2**20
LONG = 256 * MIB
BOUND = 64 * MIB  # of memory, and of what lies in buffers: a fraction of what is sent


def peak(edge: EdgeProcess) -> int:
    """Return the most memory that the process ever had, in bytes."""
    lines = Path(f"/proc/{edge.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def zeros(total: int) -> Iterator[bytes]:
    piece = bytes(4 * MIB)
    for _ in range(total // len(piece)):
        yield piece


def test_a_long_image_goes_through_in_bounded_memory(cloud: Cloud, tmp_path: Path):
    """Up in chunks, without a length; down to a client that takes it slowly, then leaves."""
    with EdgeProcess(cloud, tmp_path) as edge:
        demo = edge.as_demo()
        image = demo("POST", IMAGES, {"name": fresh("long"), "disk_format": "raw"} | _ANY).body
        path = f"{IMAGES}/{image['id']}/file"
        before = peak(edge)

        upload = demo("PUT", path, raw=zeros(LONG), headers=_OCTETS)

        assert upload.status == 204, upload
        assert peak(edge) - before < BOUND
        blobs = str(cloud.up.state_dir / "blobs")
        with edge.connect() as client:
            client.send(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {demo.token}\r\n\r\n".encode()
            ).until(b"\r\n\r\n")
            assert opened(edge, blobs)
            assert demo("GET", "/healthz").status == 200
        eventually(lambda: not opened(edge, blobs), "nobody reads for a client that is gone")
        assert peak(edge) - before < BOUND
        assert demo("DELETE", f"{IMAGES}/{image['id']}").status == 204


_OCTETS = {"Content-Type": "application/octet-stream"}
_ANY = {"container_format": "bare"}


def opened(edge: EdgeProcess, below: str) -> list[str]:
    """Return the files that the process has open below a directory."""
    found = []
    for entry in Path(f"/proc/{edge.process.pid}/fd").iterdir():
        try:
            name = str(entry.readlink())
        except FileNotFoundError:
            continue
        if name.startswith(below):
            found.append(name)
    return found


def test_a_client_that_takes_too_long_for_a_piece_is_let_go(cloud: Cloud, tmp_path: Path):
    with EdgeProcess(cloud, tmp_path, unread_s=1.0) as edge:
        demo = edge.as_demo()
        image = demo("POST", IMAGES, {"name": fresh("slow"), "disk_format": "raw"} | _ANY).body
        path = f"{IMAGES}/{image['id']}/file"
        assert demo("PUT", path, raw=zeros(64 * MIB), headers=_OCTETS).status == 204
        blobs = str(cloud.up.state_dir / "blobs")
        with edge.connect() as client:
            client.send(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {demo.token}\r\n\r\n".encode()
            ).until(b"\r\n\r\n")
            eventually(lambda: not opened(edge, blobs), "it is given up")
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
                raise_if_cut(client, 64 * MIB)
        assert demo("DELETE", f"{IMAGES}/{image['id']}").status == 204


def raise_if_cut(client: Raw, size: int) -> None:
    """Read to the end, as a client library does that knows how long it has to be."""
    got = 0
    while part := client.socket.recv(MIB):
        got += len(part)
    if got < size:
        raise http.client.IncompleteRead(b"", size - got)


def an_edge(routes: Routes, **settings: object) -> Api:
    """Return the application, with one service of the test's."""
    edge = FakeEdge()
    edge.config = Config(state_dir="/nowhere", listen="127.0.0.1:1", **settings)
    edge.connections = Connections(edge.config, Proxies(()), files_max=10_000)
    edge.decisions = edge.streams = None
    app = Api(route_handlers=[], openapi_config=None, logging_config=None)
    app.edge, app.cors = edge, Cors(())
    surface = Surface(name="things", prefix="/things", routes=routes, render=render_native)
    app.services = {"things": Service(edge, surface)}
    return app


@asynccontextmanager
async def serving(app: Api) -> AsyncIterator[tuple[str, int]]:
    """Serve an application under the real HTTP server, within this process."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = SocketServer(
            app, address="127.0.0.1", port=listening.getsockname()[1],
            interface=Interfaces.ASGI, websockets=False, log_enabled=False,
        )  # fmt: skip
        server.listening = listening
        task = asyncio.create_task(server.serve())
        try:
            yield listening.getsockname()
        finally:
            server.stop()
            await asyncio.wait_for(task, 30)


HEAD = b"POST /things/take HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def push(connection: Raw) -> int:
    """Send chunks until the other side takes no more; return how many bytes it took."""
    chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
    sent, left = 0, b""
    connection.socket.setblocking(False)
    while select.select([], [connection.socket], [], 3.0)[1]:
        left = left or chunk
        taken = connection.socket.send(left)
        sent, left = sent + taken, left[taken:]
        assert sent < LONG, "nothing holds the sender back"
    connection.socket.setblocking(True)
    connection.send(left + b"0\r\n\r\n")
    return sent


async def test_who_sends_faster_than_is_taken_is_held_back():
    """As long as nobody takes what has come, no more is taken from the network."""
    goes_on = asyncio.Event()
    taken = 0

    async def take(call: Call) -> Answer:
        nonlocal taken
        async for chunk in call.chunks(LONG):
            taken += len(chunk)
            await goes_on.wait()
        return Answer(200, b"%d" % taken)

    routes = Routes()
    routes.add("POST", "/take", take, PUBLIC)
    async with serving(an_edge(routes, sign_ins_per_address_min=0)) as address:
        with Raw(address) as connection:
            connection.send(HEAD)
            sent = await asyncio.to_thread(push, connection)
            assert taken < sent < BOUND
            goes_on.set()
            answer = await asyncio.to_thread(connection.until, b"\r\n\r\n")
            assert statuses(answer) == [200]
    assert taken > sent - MIB


async def test_an_error_within_a_long_answer_breaks_it_off(capsys: pytest.CaptureFixture[str]):
    """The client sees that it is not whole, and the log has the request id and the stack."""
    closed = asyncio.Event()

    async def pieces():
        try:
            yield b"x" * 100
            raise LookupError("the secret inside")
        finally:
            closed.set()

    async def long(call: Call) -> Answer:
        return Answer(200, stream=pieces())

    async def broken(call: Call) -> Answer:
        return Answer(200, headers=[(b"no name at all\r\n", b"x")])

    async def failing(call: Call) -> Answer:
        raise LookupError("the secret inside")

    routes = Routes()
    for name, handler in (("long", long), ("broken", broken), ("failing", failing)):
        routes.add("GET", f"/{name}", handler, PUBLIC)
    ask = "GET /things/{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with serving(an_edge(routes)) as address:
        answers = {}
        for name in ("long", "broken", "failing"):
            with Raw(address) as connection:
                connection.send(ask.format(name).encode())
                answers[name] = await asyncio.to_thread(connection.everything)
    assert closed.is_set()
    assert statuses(answers["long"]) == [200]
    assert b"x" * 100 in answers["long"]
    assert not answers["long"].endswith(b"0\r\n\r\n")
    told = capsys.readouterr().out
    for name in ("broken", "failing"):
        assert statuses(answers[name]) == [500], name
        head, _, body = answers[name].partition(b"\r\n\r\n")
        request_id = head.partition(b"x-openstack-request-id: ")[2].partition(b"\r\n")[0]
        assert request_id in body
        assert request_id.decode() in told
        assert b"secret" not in answers[name]
    assert "the secret inside" in told


async def test_a_body_in_dribs_and_drabs_is_refused(monkeypatch: pytest.MonkeyPatch):
    async def read(call: Call) -> Answer:
        return Answer(200, await call.body())

    routes = Routes()
    routes.add("POST", "/take", read, PUBLIC)
    monkeypatch.setattr("api.exchange.BODY_S", -1.0)  # it took longer before it began
    async with serving(an_edge(routes, sign_ins_per_address_min=0)) as address:
        for body, status in ((b"1\r\na\r\n", 200), (b"1\r\na\r\n1\r\nb\r\n", 408)):
            with Raw(address) as connection:
                connection.send(HEAD + body + b"0\r\n\r\n")
                answer = await asyncio.to_thread(connection.until, b"\r\n\r\n")
                assert statuses(answer) == [status]
