"""Tokens that were tampered with, cut, made up or smuggled: none passes and none breaks a thing."""

import asyncio
import base64
import contextlib
import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.tokens import TOKEN_CHARS_MAX, Token, TokenRing
from tests.api.conftest import Cloud, Reply, credentials
from tests.api.edges import ANSWER_S, Raw, statuses
from tests.api.test_parts import Ring
from tests.cli.running import eventually

NOW = time.time_ns() // 1000
TOKEN = Token(user_id="u", audit_id="a", issued_at=NOW, expires_at=2 * NOW, methods=("password",))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="
PATHS = ("/compute/v2.1/servers", "/v1/events", "/identity/v3/auth/tokens", "/image/v2/images")

# The fixtures' things are only read.
shared = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300
)


def tampered(text: str) -> st.SearchStrategy[str]:
    """Texts that are near a token, and are not it."""
    places = st.integers(0, len(text) - 1)
    bits = st.builds(lambda at, bit: flipped(text, at, bit), places, st.integers(0, 7))
    cut = places.map(lambda at: text[:at])
    tail = places.map(lambda at: text[at:])
    swapped = st.builds(
        lambda at, letter: text[:at] + letter + text[at + 1 :], places, st.sampled_from(ALPHABET)
    )
    put_in = st.builds(
        lambda at, more: text[:at] + more + text[at:], places, st.text(min_size=1, max_size=8)
    )
    doubled = st.just(text + text)
    padded = st.integers(1, 4).map(lambda n: text + "=" * n)
    known = st.one_of(bits, cut, tail, swapped, put_in, doubled, padded)
    return known.filter(lambda made: made != text)


def flipped(text: str, at: int, bit: int) -> str:
    """Return a token of which one bit of what it encodes is another."""
    raw = bytearray(base64.urlsafe_b64decode(text))
    raw[at % len(raw)] ^= 1 << bit
    return base64.urlsafe_b64encode(bytes(raw)).decode()


@pytest.fixture(scope="module")
def ring() -> TokenRing:
    made = TokenRing(Ring())
    asyncio.run(made.refresh())
    return made


def test_what_was_sealed_opens(ring: TokenRing):
    assert asyncio.run(ring.open(ring.seal(TOKEN))) == TOKEN


@shared
@given(data=st.data())
def test_nothing_near_a_token_opens(ring: TokenRing, data: st.DataObject):
    """Not even in another spelling of the same bytes: a token has one form."""
    text = data.draw(tampered(ring.seal(TOKEN)))

    assert asyncio.run(ring.open(text)) is None


@shared
@given(text=st.one_of(st.text(), st.text(ALPHABET), st.binary().map(lambda b: b.decode("latin-1"))))
def test_nothing_made_up_opens(ring: TokenRing, text: str):
    assert asyncio.run(ring.open(text)) is None


@pytest.mark.parametrize("size", [TOKEN_CHARS_MAX, TOKEN_CHARS_MAX + 1, 1 << 20])
def test_a_long_text_is_not_looked_at(ring: TokenRing, size: int):
    assert asyncio.run(ring.open("A" * size)) is None


@pytest.fixture(scope="module")
def line(cloud: Cloud) -> "Line":
    return Line(cloud)


class Line:
    """Sends a token as bytes, whatever they are, each on a connection of its own."""

    def __init__(self, cloud: Cloud) -> None:
        host, _, port = cloud.url.removeprefix("http://").partition(":")
        self.address = (host, int(port))
        self.token = cloud.admin.token

    def answers(self, token: bytes, path: str) -> list[int]:
        """Return the statuses of all that comes back for one request with these bytes."""
        head = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Auth-Token: %s\r\n\r\n"
        with Raw(self.address) as raw:
            raw.socket.settimeout(ANSWER_S)
            # It may close before it has read all: what it said is read all the same.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                raw.send(head % (path.encode(), token))
            return statuses(raw.everything())


def test_the_line_works(line: Line):
    assert line.answers(line.token.encode(), PATHS[0]) == [200]


@settings(shared, max_examples=120)
@given(data=st.data(), path=st.sampled_from(PATHS))
def test_an_edge_lets_nothing_tampered_in(line: Line, data: st.DataObject, path: str):
    text = data.draw(tampered(line.token))
    sent = text.encode("utf-8", "surrogatepass").strip()

    told = line.answers(sent, path)

    if sent != line.token.encode():
        assert told
        assert all(400 <= status < 500 for status in told), (sent, told)


@settings(shared, max_examples=120)
@given(sent=st.binary(max_size=300), path=st.sampled_from(PATHS))
def test_an_edge_lets_no_bytes_in(line: Line, sent: bytes, path: str):
    told = line.answers(sent, path)

    assert all(400 <= status < 500 for status in told), (sent, told)


SMUGGLED = [
    b"x\r\nX-Auth-Token: %s",
    b"%s\r\nX-Auth-Token: x",
    b"x\r\n\r\nGET /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close",
    b"%s\r\nX-Auth-Token: %s",
    b"%s, %s",
    b"%s;%s",
    b'"%s"',
    b"Bearer %s",
    b"%s\x00",
    b"\xff%s",
    b"%s\xc3\xa9",
    b"A" * 8192,
    b"A" * (1 << 20),
]


@pytest.mark.parametrize("pattern", SMUGGLED, ids=lambda p: repr(p[:40]))
@pytest.mark.parametrize("path", PATHS[:2])
def test_an_edge_lets_nothing_smuggled_in(line: Line, pattern: bytes, path: str):
    told = line.answers(pattern.replace(b"%s", line.token.encode()), path)

    assert all(400 <= status < 500 for status in told), told


def checked(cloud: Cloud) -> int:
    """Return how many passwords the cloud's edge has checked."""
    found = re.search(rb"^cumulog_password_checks_total (\S+)", metrics(cloud), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def metrics(cloud: Cloud) -> bytes:
    return cloud.anyone("GET", "/metrics").raw


@pytest.mark.parametrize("user", ["cumulog-demo", "nobody of this name"])
def test_an_unknown_user_costs_as_many_checks_as_a_wrong_password(cloud: Cloud, user: str):
    """Counted, not timed: what a check costs does not depend on whose it is (test_parts.py)."""
    known = cloud.clouds[user]["auth"]["username"] if user in cloud.clouds else user
    before = checked(cloud)
    tries = 3

    told = [
        cloud.anyone("POST", PATHS[2], credentials(known, f"wrong {number}"))
        for number in range(tries)
    ]

    assert {reply.status for reply in told} == {401}
    assert len({shape(reply) for reply in told}) == 1
    eventually(lambda: checked(cloud) > before, "the checks are counted")
    assert checked(cloud) == before + tries


def shape(reply: Reply) -> str:
    return reply.raw.decode().replace(reply.headers["x-openstack-request-id"], "…")
