"""One POST to a receiver that nobody trusts: bounded in time and bytes, and never led elsewhere.

A connection is made to an address that was looked at (``addresses``), with the name that was asked
for in TLS and in the Host header, and is used again while it stays open. Redirects are answers like
any other. What the receiver says is not kept, but for its status and when to come again.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Sequence

import h11
from msgspec import Struct

from projections.courier.addresses import Address, Network, Target, addresses_of

CONNECT_S = 5.0
HEAD_BYTES_MAX = 16 * 1024
BODY_BYTES_MAX = 64 * 1024
READ_BYTES = 16 * 1024
KEPT_S = 30.0  # how long a connection is used again


class Failed(Exception):
    """Nothing was delivered; the text says why, in words that its owner may read."""


class Reply(Struct, frozen=True):
    """What a receiver answered. ``retry_after_s`` is what it asks for, if it does."""

    status: int
    retry_after_s: int | None = None


class Line:
    """The connection to one receiver, one request at a time."""

    def __init__(self, allow: Sequence[Network], tls: ssl.SSLContext) -> None:
        self._allow = allow
        self._tls = tls
        self._target: Target | None = None
        self._opened_at = 0.0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._http = h11.Connection(h11.CLIENT)

    async def post(
        self, target: Target, headers: Sequence[tuple[str, str]], body: bytes, *, timeout_s: float
    ) -> Reply:
        """Send a request and return the answer.

        Raises:
            AddressRefused: nothing may be sent there.
            Failed: there was no answer in time, or none that could be read.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._post(target, headers, body)
        except TimeoutError:
            await self.close()
            raise Failed(f"no answer in {timeout_s:g} s") from None
        except BaseException:
            await self.close()
            raise

    async def _post(self, target: Target, headers: Sequence[tuple[str, str]], body: bytes) -> Reply:
        if self._is_usable(target):
            with contextlib.suppress(_Stale):
                return await self._exchange(target, headers, body, fresh=False)
        await self._open(target)
        return await self._exchange(target, headers, body, fresh=True)

    def _is_usable(self, target: Target) -> bool:
        return (
            self._writer is not None
            and self._target == target
            and time.monotonic() - self._opened_at < KEPT_S
        )

    async def _open(self, target: Target) -> None:
        await self.close()
        why = ""
        for address in await addresses_of(target, self._allow):
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._connect(target, address)
            except ssl.SSLError as error:
                why = f"no TLS with {target.host}: {error.reason or 'handshake failed'}"
            except (OSError, TimeoutError):
                why = f"{target.host} does not answer on port {target.port}"
            else:
                return
        raise Failed(why)

    async def _connect(self, target: Target, address: Address) -> None:
        secure = target.scheme == "https"
        self._reader, self._writer = await asyncio.open_connection(
            str(address),
            target.port,
            ssl=self._tls if secure else None,
            server_hostname=target.host if secure else None,
        )
        self._target, self._opened_at = target, time.monotonic()
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)

    async def _exchange(
        self, target: Target, headers: Sequence[tuple[str, str]], body: bytes, *, fresh: bool
    ) -> Reply:
        """Send and read. A connection that its other end closed meanwhile is no failure of theirs.

        Raises:
            Failed: as ``post``.
            _Stale: it was not fresh, and closed before anything was answered.
        """
        writer = self._writer
        assert writer is not None, "opened before"
        request = h11.Request(
            method="POST",
            target=target.path,
            headers=[("Host", target.authority), *headers, ("Content-Length", str(len(body)))],
        )
        try:
            writer.write(self._http.send(request) or b"")
            writer.write(self._http.send(h11.Data(data=body)) or b"")
            writer.write(self._http.send(h11.EndOfMessage()) or b"")
            await writer.drain()
            reply = await self._read()
        except (OSError, EOFError) as error:
            await self.close()
            if not fresh:
                raise _Stale from error
            raise Failed("the connection was closed before an answer") from error
        except h11.RemoteProtocolError as error:
            raise Failed("the answer is not HTTP") from error
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            await self.close()
        return reply

    async def _read(self) -> Reply:
        reply: Reply | None = None
        size = 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                assert self._reader is not None
                data = await self._reader.read(READ_BYTES)
                if not data and reply is None:
                    raise EOFError
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                reply = Reply(event.status_code, _retry_after(event))
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > BODY_BYTES_MAX and reply is not None:
                    return reply  # enough: the connection is not in a state to be used again
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                assert reply is not None, "h11 lets no message end before it began"
                return reply

    async def close(self) -> None:
        """Close the connection, if one is open."""
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()


class _Stale(Exception):
    """A connection that was open had been closed by its other end."""


def _retry_after(response: h11.Response) -> int | None:
    for name, value in response.headers:
        if name == b"retry-after" and value.isdigit() and len(value) <= 6:
            return int(value)
    return None
