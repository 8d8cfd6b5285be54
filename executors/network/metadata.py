"""The metadata service's ear in each network: HTTP at 169.254.169.254, port 80.

It knows nothing by itself. Each request is passed on with the network it came from and the address
it came from, which anti-spoofing vouches for; nothing that the guest says about itself is believed.
Guests are strangers: sizes, times and the number of connections are bounded.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from http import HTTPStatus

import h11
import structlog

from executors.network.port import AskMetadata
from executors.network.rules import METADATA_ADDRESS
from schemas.work import MetadataAsk, MetadataReply

log = structlog.get_logger(__name__)

_PORT = 80
_BACKLOG = 64
_CONNECTIONS_MOST = 64
_IDLE_S = 15.0
_READ_BYTES = 16 * 1024
_HEAD_MOST_BYTES = 16 * 1024
_BODY_MOST_BYTES = 64 * 1024
_PATH_MOST = 2048


def open_socket() -> socket.socket:
    """Return a listening socket in the thread's namespace. OSError if the address is not there."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((METADATA_ADDRESS, _PORT))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class MetadataListener:
    """Serves one network's guests until closed."""

    def __init__(self, network_id: str, ask: AskMetadata) -> None:
        self._network_id = network_id
        self._ask = ask
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()

    async def start(self, listener: socket.socket) -> None:
        """Accept connections on a socket that is listening already."""
        self._server = await asyncio.start_server(self._accept, sock=listener)

    async def close(self) -> None:
        """Stop, and drop the connections that are open."""
        if self._server is not None:
            self._server.close()
        for task in self._handlers:
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._handlers) >= _CONNECTIONS_MOST:
            writer.close()
            return
        self._handlers.add(task)
        try:
            await self._converse(reader, writer)
        except (h11.RemoteProtocolError, TimeoutError, OSError) as error:
            log.debug("metadata.dropped", network=self._network_id, why=str(error))
        except asyncio.CancelledError:
            pass  # We are closing.
        finally:
            self._handlers.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str(writer.get_extra_info("peername")[0])
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_MOST_BYTES)
        while True:
            request = await _read_request(connection, reader)
            if request is None:
                return
            reply = await self._reply(request, address)
            _write(connection, writer, request, reply)
            await asyncio.wait_for(writer.drain(), _IDLE_S)
            if connection.our_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()

    async def _reply(self, request: h11.Request, address: str) -> MetadataReply:
        if len(request.target) > _PATH_MOST:
            return MetadataReply(status=HTTPStatus.REQUEST_URI_TOO_LONG)
        method = request.method.decode("ascii")
        ask = MetadataAsk(
            network_id=self._network_id,
            address=address,
            path=request.target.decode("latin-1"),
            method="GET" if method == "HEAD" else method,
        )
        try:
            return await self._ask(ask)
        except Exception:
            log.exception("metadata.broke", network=self._network_id, path=ask.path)
            return MetadataReply(status=HTTPStatus.INTERNAL_SERVER_ERROR)


async def _read_request(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> h11.Request | None:
    """Return the next request, its body read and dropped; None when the guest is done.

    Raises:
        h11.RemoteProtocolError: that was not HTTP, or too much of it.
        TimeoutError: the guest says nothing any more.
    """
    request: h11.Request | None = None
    body_bytes = 0
    async for event in _events(connection, reader):
        match event:
            case h11.Request():
                request = event
            case h11.Data():
                body_bytes += len(event.data)
                if body_bytes > _BODY_MOST_BYTES:
                    raise h11.RemoteProtocolError("the body is too large")
            case h11.EndOfMessage():
                return request
            case _:
                return None
    return None


async def _events(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> AsyncIterator[object]:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await asyncio.wait_for(reader.read(_READ_BYTES), _IDLE_S))
        else:
            yield event


def _write(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    request: h11.Request,
    reply: MetadataReply,
) -> None:
    head = h11.Response(
        status_code=reply.status,
        headers=[
            ("content-type", reply.content_type),
            ("content-length", str(len(reply.body))),
        ],
        reason=_phrase(reply.status),
    )
    parts = [connection.send(head)]
    if request.method != b"HEAD":
        parts.append(connection.send(h11.Data(data=reply.body)))
    parts.append(connection.send(h11.EndOfMessage()))
    writer.write(b"".join(part for part in parts if part))


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
