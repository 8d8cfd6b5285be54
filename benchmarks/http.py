"""A load generator that costs little itself: HTTP/1.1 on keep-alive asyncio streams."""

import asyncio
import time
from collections.abc import Callable

from msgspec import Struct, field


class Sample(Struct):
    """What one request took, and what it answered."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


class Load(Struct):
    """Requests of one measurement."""

    samples: list[Sample] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.samples) / self.wall_s

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(s.seconds for s in self.samples)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


class Connection:
    """One keep-alive connection."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(
        self, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> Sample:
        """Send a request and read its answer."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        assert self._reader is not None
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        lines += [f"{k}: {v}" for k, v in headers.items()]
        if body or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body)}")
        began = time.perf_counter()
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status_line, *rest = head.decode("latin-1").split("\r\n")
        answered = {}
        for line in rest:
            key, _, value = line.partition(":")
            answered[key.strip().lower()] = value.strip()
        if answered.get("transfer-encoding", "").lower() == "chunked":
            content = await self._chunks()
        else:
            content = await self._reader.readexactly(int(answered.get("content-length", "0")))
        seconds = time.perf_counter() - began
        return Sample(
            status=int(status_line.split()[1]), headers=answered, body=content, seconds=seconds
        )

    async def _chunks(self) -> bytes:
        assert self._reader is not None
        parts = []
        while size := int((await self._reader.readline()).strip() or b"0", 16):
            parts.append(await self._reader.readexactly(size))
            await self._reader.readline()
        await self._reader.readline()
        return b"".join(parts)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


async def load(
    address: tuple[str, int],
    clients: int,
    count: int,
    make: Callable[[int], tuple[str, str, dict[str, str], bytes]],
) -> Load:
    """Send ``count`` requests over ``clients`` connections, each waiting for its answer."""
    result = Load()
    numbers = iter(range(count))

    async def client() -> None:
        connection = Connection(*address)
        for number in numbers:
            result.samples.append(await connection.request(*make(number)))
        connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    result.wall_s = time.perf_counter() - began
    return result
