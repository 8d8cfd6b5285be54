"""Reads the log out of the broker: the NATS client protocol and JetStream's API, by hand.

Part of the checker, so nothing of Cumulog is imported. Reads through the stream's leader
(``STREAM.MSG.GET``), never from a copy, as the administrator of the streams. Source: docs.nats.io,
"Client Protocol" and "JetStream API reference".
"""

import base64
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

USER = "admin-store"
INBOX = f"_INBOX_{USER}.checker"
IN_FLIGHT = 128
ANSWER_S = 20.0
RETRY_S = 0.2


class Stored(NamedTuple):
    """A message of the log, and where it lay. ``data`` is a commit as it was published."""

    stream: str
    sequence: int
    data: bytes


class StreamError(Exception):
    """The broker refused, or said something that cannot be understood."""


def read_log(state_dir: Path, *, patience_s: float = 60.0) -> list[Stored]:
    """Return every message of the cell's log, over all its numbered streams, in order.

    A broker that is away is waited for, up to ``patience_s``.

    Raises:
        StreamError: a stream has a gap, or the broker refuses.
        OSError: the broker cannot be reached in time.
    """
    nats = state_dir / "nats"
    password = json.loads((nats / "credentials.json").read_text())[USER]
    cell = json.loads((state_dir / "cell.json").read_text())["cell"]
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with _Broker(int((nats / "port").read_text()), password) as broker:
                return list(_messages(broker, f"LOG-{cell}-"))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)


def load_log(path: Path) -> list[Stored]:
    """Return a log that ``save_log`` wrote."""
    rows = (json.loads(line) for line in path.read_text().splitlines())
    return [Stored(r["stream"], r["sequence"], base64.b64decode(r["data"])) for r in rows]


def save_log(log: list[Stored], path: Path) -> None:
    """Write a log to a file, a line for each message."""
    with path.open("w") as file:
        for stored in log:
            data = base64.b64encode(stored.data).decode()
            row = {"stream": stored.stream, "sequence": stored.sequence, "data": data}
            file.write(json.dumps(row) + "\n")


def _messages(broker: "_Broker", prefix: str) -> Iterator[Stored]:
    names = broker.call("$JS.API.STREAM.NAMES", {}).get("streams") or []
    for name in sorted(n for n in names if n.startswith(prefix)):
        state = broker.call(f"$JS.API.STREAM.INFO.{name}", {})["state"]
        first, last = state["first_seq"], state["last_seq"]
        if state["messages"] != last - first + 1:
            raise StreamError(f"{name} has {state['messages']} messages from {first} to {last}")
        subject = f"$JS.API.STREAM.MSG.GET.{name}"
        for begin in range(first, last + 1, IN_FLIGHT):
            sequences = range(begin, min(begin + IN_FLIGHT, last + 1))
            answers = broker.ask(subject, [{"seq": seq} for seq in sequences])
            for seq, answer in zip(sequences, answers, strict=True):
                if "message" not in answer:
                    raise StreamError(f"{name} does not have {seq}: {answer.get('error')}")
                yield Stored(name, seq, base64.b64decode(answer["message"].get("data", "")))


class _Broker:
    """One connection. After an error it is of no more use."""

    def __init__(self, port: int, password: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), ANSWER_S)
        self._lines = self._socket.makefile("rb")
        self._lines.readline()  # INFO
        login = {"user": USER, "pass": password, "verbose": False, "pedantic": False}
        login |= {"headers": True, "no_responders": True, "lang": "checker", "version": "1"}
        self._send(f"CONNECT {json.dumps(login)}\r\nSUB {INBOX}.* 1\r\nPING\r\n".encode())
        while (line := self._line()) != b"PONG":
            self._mind(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def call(self, subject: str, body: Any) -> dict[str, Any]:
        """Ask once. StreamError if the answer is one."""
        (answer,) = self.ask(subject, [body])
        if "error" in answer:
            raise StreamError(f"{subject}: {answer['error']}")
        return answer

    def ask(self, subject: str, bodies: list[Any]) -> list[dict[str, Any]]:
        """Ask several things at once; return the answers in the order of the questions."""
        asked = bytearray()
        for number, body in enumerate(bodies):
            payload = json.dumps(body).encode()
            head = f"PUB {subject} {INBOX}.{number} {len(payload)}\r\n".encode()
            asked += head + payload + b"\r\n"
        self._send(bytes(asked))
        answers: dict[int, dict[str, Any]] = {}
        while len(answers) < len(bodies):
            line = self._line()
            if line.startswith((b"MSG ", b"HMSG ")):
                words = line.split()
                payload = self._lines.read(int(words[-1]) + 2)[:-2]
                if line.startswith(b"HMSG "):
                    status = payload[: int(words[-2])].split(b"\r\n")[0]
                    raise ConnectionRefusedError(f"{subject}: {status.decode()}")  # not up yet
                answers[int(words[1].rpartition(b".")[2])] = json.loads(payload)
            else:
                self._mind(line)
        return [answers[number] for number in range(len(bodies))]

    def _line(self) -> bytes:
        line = self._lines.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the broker closed the connection")
        return line[:-2]

    def _mind(self, line: bytes) -> None:
        if line == b"PING":
            self._send(b"PONG\r\n")
        elif line.startswith(b"-ERR"):
            raise StreamError(line.decode())

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)
