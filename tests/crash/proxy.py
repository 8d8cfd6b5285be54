"""Stands between Cumulog and its broker, and can hold back the answer to a commit.

A process of its own. It reads just enough of the NATS client protocol (docs.nats.io) to see
publishes to the log's subject and the broker's answers to them. Told to hold, it lets the next
commit of a user's request through, waits until the broker says that it is stored, and then delivers
neither that answer nor anything after it on that connection: what was committed is durable, and who
committed it does not know. Everything else passes as it comes.

Told to block, it keeps the commit itself: who made it believes it sent, the broker never sees it.

Commands are lines on standard input (``hold``, ``block``, ``release``), events are JSON lines on
standard output: ``{"event": "held", "port": P, "seq": N}``, P being the held client's own port, and
N 0 for what was blocked.
"""

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Callable

CHUNK_BYTES = 1 << 18
OF_A_USER = b'"kind":"user"'


class Held:
    """Whether to hold, and who is held."""

    def __init__(self) -> None:
        self.wanted = False  # the answer to a commit
        self.blocking = False  # a commit
        self.holding = False
        self.dropping = False  # what was held is never delivered
        self.released = asyncio.Event()

    def hold(self) -> None:
        """Hold the answer to the next commit of a user's request."""
        self.wanted, self.holding, self.dropping = True, False, False
        self.released.clear()

    def block(self) -> None:
        """Hold the next commit of a user's request."""
        self.blocking, self.holding, self.dropping = True, False, True
        self.released.clear()

    def release(self) -> None:
        """Let go of what is held, and hold nothing more."""
        self.wanted = self.blocking = self.holding = False
        self.released.set()


class Frames:
    """Takes a stream of the protocol apart; ``on`` sees each message's line and payload."""

    def __init__(self, verbs: tuple[bytes, ...], on: Callable[[list[bytes], bytes], bool]) -> None:
        self._verbs = verbs
        self._on = on
        self._buffer = bytearray()

    def cut(self, data: bytes) -> int | None:
        """Take in bytes; return how many of them to pass on, None for all.

        ``on`` returns True to keep a message back: what comes before it still passes.
        """
        before = len(self._buffer)
        self._buffer += data
        at = 0
        while (end := self._buffer.find(b"\r\n", at)) >= 0:
            words = self._buffer[at:end].split()
            begin, stop = at, end + 2
            if words and bytes(words[0]).upper() in self._verbs:
                size = int(words[-1])
                if len(self._buffer) < end + 2 + size + 2:
                    break
                stop = end + 2 + size + 2
                payload = bytes(self._buffer[end + 2 : end + 2 + size])
                if self._on([bytes(w) for w in words], payload):
                    del self._buffer[:at]
                    return max(0, begin - before)
            at = stop
        del self._buffer[:at]
        return None


class Link:
    """One client's connection and the one to the broker that goes with it."""

    def __init__(self, subject: str, held: Held, port: int) -> None:
        self._subject = subject.encode()
        self._held = held
        self._port = port
        self._awaited: set[bytes] = set()
        self.up = Frames((b"PUB", b"HPUB"), self._published)
        self.down = Frames((b"MSG", b"HMSG"), self._answered)

    def _published(self, words: list[bytes], payload: bytes) -> bool:
        subject = words[1]
        headers = words[0].upper() == b"HPUB"
        reply = words[2] if len(words) == (5 if headers else 4) else b""
        of_log = subject == self._subject or subject.startswith(self._subject + b".")
        if not of_log or OF_A_USER not in payload:
            return False
        if reply and self._held.wanted:
            self._awaited.add(reply)
        if self._held.blocking:
            self._held.blocking, self._held.holding = False, True
            tell({"event": "held", "port": self._port, "seq": 0})
            return True
        return False

    def _answered(self, words: list[bytes], payload: bytes) -> bool:
        if words[1] not in self._awaited:
            return False
        self._awaited.discard(words[1])
        if not self._held.wanted or self._held.holding:
            return False
        body = payload[int(words[-2]) :] if words[0] == b"HMSG" else payload
        with contextlib.suppress(ValueError):
            answer = json.loads(body)
            if answer.get("seq") and "error" not in answer:
                self._held.holding, self._held.wanted = True, False
                tell({"event": "held", "port": self._port, "seq": answer["seq"]})
                return True
        return False


def tell(event: dict[str, object]) -> None:
    """Write an event."""
    print(json.dumps(event), flush=True)


async def serve(listen: int, broker: int, subject: str) -> None:
    """Pass on until standard input ends."""
    held = Held()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(
                "127.0.0.1", broker, limit=CHUNK_BYTES
            )
        except OSError:
            writer.transport.abort()
            return
        link = Link(subject, held, writer.get_extra_info("peername")[1])
        passing = {
            asyncio.create_task(_pass(reader, far_writer, link.up, held)),
            asyncio.create_task(_pass(far_reader, writer, link.down, held)),
        }
        await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
        # Whoever loses one side loses the other, as without us.
        writer.transport.abort()
        far_writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", listen, limit=CHUNK_BYTES)
    tell({"event": "listening", "port": server.sockets[0].getsockname()[1]})
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    while command := await commands.readline():
        match command.strip():
            case b"hold":
                held.hold()
            case b"block":
                held.block()
            case b"release":
                held.release()
            case other:
                raise ValueError(f"no command {other!r}")


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, frames: Frames, held: Held
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            passed = frames.cut(data)
            if passed is not None:
                writer.write(data[:passed])
                await held.released.wait()
                if held.dropping:
                    return
                data = data[passed:]
            writer.write(data)
            await writer.drain()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Stand between a broker and its clients.")
    parser.add_argument("--listen", type=int, default=0)
    parser.add_argument("--broker", type=int, required=True)
    parser.add_argument("--subject", required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.listen, options.broker, options.subject))
