"""One POST to a receiver: by name in TLS and Host, to the address that was looked at, bounded."""

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime

import pytest

from engine.log.certificates import make_authority, make_server
from projections.courier.addresses import AddressRefused, networks, target_of
from projections.courier.post import Failed, Line

LOOPBACK = networks(["127.0.0.0/8"])
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class Peer:
    """A receiver that answers each request with the next of its answers; b"" hangs up."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.heads = []
        self.connections = 0

    async def serve(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
                self.heads.append(head)
                answer = self.answers.pop(0)
                if not answer:
                    break
                writer.write(answer)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def peer(*answers, tls=None):
    one = Peer(*answers)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()


@pytest.fixture
async def line():
    one = Line(LOOPBACK, ssl.create_default_context())
    yield one
    await one.close()


async def post(line, url, body=b"{}", timeout_s=5.0):
    headers = [("Content-Type", "application/json")]
    return await line.post(target_of(url), headers, body, timeout_s=timeout_s)


async def test_a_connection_is_used_again(line):
    async with peer(OK, OK, OK) as other:
        for _ in range(3):
            assert (await post(line, f"http://127.0.0.1:{other.port}/hook?a=b")).status == 204
        assert other.connections == 1
        assert all(head.startswith(b"POST /hook?a=b HTTP/1.1\r\n") for head in other.heads)
        assert all(f"Host: 127.0.0.1:{other.port}\r\n".encode() in h for h in other.heads)


async def test_one_that_was_closed_meanwhile_is_no_failure(line):
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with peer(closing, b"", OK) as other:
        url = f"http://127.0.0.1:{other.port}/"
        assert (await post(line, url)).status == 200
        # The peer hangs up on the second request; it is sent once more, on a connection of its own.
        assert (await post(line, url)).status == 204
        assert other.connections == 2


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "closed before an answer"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "no answer in"),
    ],
)
async def test_what_is_no_answer_fails(line, answer, why):
    async with peer(answer, b"") as other:
        with pytest.raises(Failed, match=why):
            await post(line, f"http://127.0.0.1:{other.port}/", timeout_s=0.5)


async def test_a_body_without_end_is_not_read_to_its_end(line):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
    async with peer(head + b"x" * 200_000, b"") as other:
        assert (await post(line, f"http://127.0.0.1:{other.port}/")).status == 200


async def test_an_interim_answer_is_passed_over(line):
    async with peer(b"HTTP/1.1 102 Processing\r\n\r\n" + OK) as other:
        assert (await post(line, f"http://127.0.0.1:{other.port}/")).status == 204


async def test_when_to_come_again_is_read(line):
    later = b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    async with peer(later) as other:
        assert (await post(line, f"http://127.0.0.1:{other.port}/")).retry_after_s == 7


async def test_nothing_is_sent_to_where_it_must_not_go():
    """A name that led elsewhere when it was given is looked at for each connection."""
    line = Line((), ssl.create_default_context())
    async with peer(OK) as other:
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(AddressRefused):
                await post(line, f"http://{host}:{other.port}/")
        assert other.connections == 0


async def test_nobody_there_fails(line):
    async with peer() as other:
        port = other.port
    with pytest.raises(Failed, match="does not answer"):
        await post(line, f"http://127.0.0.1:{port}/")


@pytest.fixture
def authority():
    return make_authority("test", datetime.now(UTC))


def server_tls(authority, name, tmp_path):
    pair = make_server(authority, name, name, datetime.now(UTC), 30)
    (tmp_path / "cert.pem").write_text(pair.certificate)
    (tmp_path / "key.pem").write_text(pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context


async def test_tls_is_for_the_name_that_was_asked_for(authority, tmp_path):
    context = server_tls(authority, "localhost", tmp_path)
    named = []
    context.sni_callback = lambda _socket, name, _context: named.append(name)
    line = Line(LOOPBACK, ssl.create_default_context(cadata=authority.certificate))
    async with peer(OK, tls=context) as other:
        assert (await post(line, f"https://localhost:{other.port}/")).status == 204
        assert named == ["localhost"]
        # The same machine under a name that its certificate does not have.
        with pytest.raises(Failed, match="no TLS"):
            await post(line, f"https://127.0.0.1:{other.port}/")
    await line.close()


async def test_a_certificate_that_nobody_vouches_for_is_refused(line, authority, tmp_path):
    async with peer(OK, tls=server_tls(authority, "localhost", tmp_path)) as other:
        with pytest.raises(Failed, match="no TLS"):
            await post(line, f"https://localhost:{other.port}/")
        assert other.heads == []
