"""nats-py's client, made to leave a server that says nothing.

A server that is paused, or whose machine is gone, keeps its connections. nats-py would wait for
what is buffered to be taken, and under TLS for a farewell, before it dials another server; neither
ever comes. Here a connection that is left is cut, and each attempt has a connection of its own.
"""

import asyncio
import time

from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.transport import TcpTransport


class CutTransport(TcpTransport):
    """A connection that is not waited for when it is closed. Flush before you close it."""

    def close(self) -> None:
        """Cut it."""
        if self._io_writer is not None:
            self._io_writer.transport.abort()


class Connection(Client):
    """A client that can always go on to the next server."""

    async def _connect_to_server(self, s: Srv) -> None:
        s.last_attempt = time.monotonic()
        if self._transport is not None:
            # That of an attempt which came to nothing.
            self._transport.close()  # type: ignore[no-untyped-call]
        self._transport = CutTransport()  # type: ignore[no-untyped-call]
        await self._transport.connect(
            s.uri,
            buffer_size=DEFAULT_BUFFER_SIZE,
            connect_timeout=self.options["connect_timeout"],
        )

    async def settle(self, timeout_s: float) -> None:
        """Wait until the server has taken everything that was sent. Raises what ``flush`` does."""
        # nats-py writes its PING past what waits to be sent, which has left by the second one.
        for _ in range(2):
            flushing = asyncio.ensure_future(
                self.flush(timeout=timeout_s)  # type: ignore[arg-type]  # of wait_for
            )
            # A PONG that finds its asker cancelled makes nats-py drop the connection.
            flushing.add_done_callback(_retrieve)
            await asyncio.shield(flushing)


def _retrieve(flushing: asyncio.Future[None]) -> None:
    """Look at how a flush ended whose asker may have gone: nobody else would."""
    if not flushing.cancelled():
        flushing.exception()
