"""The floor the request path is divided by: the same HTTP server and broker, and nothing else.

A POST decodes its JSON body, publishes one message to a synced stream and answers after the ack. A
GET answers prepared bytes; ``/list`` decodes and encodes the body of the list it is compared with.
"""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

import msgspec

from benchmarks.accounting import cpu_s, descendants
from benchmarks.http import Load, load

HERE = Path(__file__).resolve().parent.parent


class Floor:
    """Runs the floor as a process of its own, with a broker of its own."""

    async def __aenter__(self) -> Self:
        self.directory = tempfile.TemporaryDirectory(prefix="cumulog-floor-")
        self.process = subprocess.Popen(  # noqa: ASYNC220  # starts at once
            [sys.executable, "-m", "benchmarks.floor", self.directory.name],
            cwd=HERE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        self.address = ("127.0.0.1", int(line))
        return self

    async def __aexit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGINT)  # so that it stops its broker as well
        self.process.wait(30)
        self.directory.cleanup()

    def _cpu_s(self) -> float:
        return cpu_s(descendants(self.process.pid))

    async def posts(self, clients: int, count: int) -> tuple[Load, float]:
        """Return the load and CPU ms per POST."""
        body = json.dumps({"server": {"name": "x", "flavorRef": "1", "networks": []}}).encode()
        before = self._cpu_s()
        result = await load(self.address, clients, count, lambda _: ("POST", "/", {}, body))
        return result, (self._cpu_s() - before) / count * 1000

    async def gets(self, count: int, path: str, clients: int = 1) -> tuple[Load, float]:
        """Return the load and CPU ms per GET."""
        before = self._cpu_s()
        result = await load(self.address, clients, count, lambda _: ("GET", path, {}, b""))
        return result, (self._cpu_s() - before) / count * 1000

    def prepare_list(self, body: bytes) -> None:
        """Give ``/list`` the body it shall encode."""
        (Path(self.directory.name) / "list.json").write_bytes(body)


async def serve(directory: Path) -> None:
    """Serve the floor until terminated."""
    import nats  # only the floor's own process needs these
    from granian.constants import Interfaces
    from granian.server.embed import Server

    from benchmarks.ports import free_port
    from engine.log import server as nats_server

    broker = await asyncio.to_thread(nats_server.start, directory / "nats")
    client = await nats.connect(
        broker.url, user="admin-store", password=broker.credentials["admin-store"]
    )
    stream = client.jetstream()
    await stream.add_stream(name="FLOOR", subjects=["floor"])
    listing: list[object] = []

    async def app(scope: dict, receive: object, send: object) -> None:  # type: ignore[type-arg]
        if scope["type"] != "http":
            return
        if scope["method"] == "POST":
            body = b""
            while True:
                part = await receive()  # type: ignore[operator]
                body += part.get("body", b"")
                if not part.get("more_body"):
                    break
            ack = await stream.publish("floor", msgspec.json.encode(msgspec.json.decode(body)))
            status, answer = 202, b'{"seq":%d}' % ack.seq
        elif scope["path"] == "/list":
            if not listing:
                text = await asyncio.to_thread((directory / "list.json").read_bytes)
                listing.append(msgspec.json.decode(text))
            status, answer = 200, msgspec.json.encode(listing[0])
        else:
            status, answer = 200, b'{"hello":"world"}'
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": headers})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": answer})  # type: ignore[operator]

    port = free_port()
    server = Server(app, address="127.0.0.1", port=port, interface=Interfaces.ASGI)
    print(port, flush=True)
    try:
        await server.serve()
    finally:
        broker.stop()


if __name__ == "__main__":
    import uvloop

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(Path(sys.argv[1])))
