"""Keys that sign tokens are rotated while edges serve; what no key opens is nobody's."""

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path

from cryptography.fernet import Fernet

from api.tokens import TokenRing
from engine.bus.keys import TokenKeys
from tests.api.conftest import Api, Cloud, credentials
from tests.api.edges import EdgeProcess
from tests.cli.running import eventually, run

SERVERS = "/compute/v2.1/servers"


def keys(cloud: Cloud, *arguments: str) -> list[dict]:
    done = run(
        "admin", "token-keys", *arguments, "--state-dir", str(cloud.up.state_dir), "-o", "json"
    )
    assert done.code == 0, done.errors
    return json.loads(done.output)


def taken_up(edge: EdgeProcess, ring: list[dict]) -> None:
    wanted = ring[0]["ring"]
    eventually(
        lambda: wanted in [told["ring"] for told in edge.events("token_keys_changed")],
        "the edge takes up the ring",
    )


def works(edge: EdgeProcess, token: str) -> bool:
    return Api(edge.url, token)("GET", SERVERS).status == 200


def test_edges_take_up_a_rotated_ring(cloud: Cloud, tmp_path: Path):
    """Of two edges, each with its own memory: what one signs, the other opens."""
    auth = cloud.clouds["cumulog-demo"]["auth"]
    with EdgeProcess(cloud, tmp_path) as one, EdgeProcess(cloud, tmp_path) as other:
        before = keys(cloud, "list")
        assert [key["use"] for key in before][:: len(before) - 1] == ["signs", "next"]
        first = sign_in(one, auth)

        rotated = keys(cloud, "rotate")
        assert rotated[0]["key"] == before[-1]["key"], "the next one signs now"
        # Whichever ring an edge goes by, it opens what the other signs.
        for signer, opener in ((one, other), (other, one)):
            assert works(opener, sign_in(signer, auth))
        taken_up(one, rotated)
        taken_up(other, rotated)
        second = sign_in(one, auth)
        assert works(other, first)
        assert works(other, second)

        ended = keys(cloud, "rotate", "--end-tokens")
        taken_up(one, ended)
        taken_up(other, ended)
        for edge in (one, other):
            assert not works(edge, first)
            assert not works(edge, second)
            assert works(edge, sign_in(edge, auth))
    eventually(lambda: renewed(cloud), "the cloud's own edge takes it up")


def renewed(cloud: Cloud) -> bool:
    """Sign the shared accounts in again: their tokens have ended."""
    for name, api in (("cumulog", cloud.admin), ("cumulog-demo", cloud.demo)):
        api.token = cloud.sign_in(name).token
        if api("GET", SERVERS).status != 200:
            return False
    return True


def sign_in(edge: EdgeProcess, auth: dict) -> str:
    body = credentials(auth["username"], auth["password"], auth["project_name"])
    reply = Api(edge.url)("POST", "/identity/v3/auth/tokens", body)
    assert reply.status == 201, reply
    return reply.headers["x-subject-token"]


class Source:
    """A ring that counts how often it is asked for."""

    def __init__(self, ring) -> None:
        self.ring = ring
        self.asked = 0

    async def __call__(self):
        self.asked += 1
        return self.ring


async def test_forged_tokens_do_not_reach_the_broker():
    source = Source(TokenKeys(keys=(Fernet.generate_key(),), seq=1, made_at=datetime.now(UTC)))
    ring = TokenRing(source)
    await ring.refresh()
    foreign = Fernet(Fernet.generate_key())

    for _ in range(200):
        assert await ring.open(foreign.encrypt(b"{}").decode()) is None
        assert await ring.open(secrets.token_urlsafe(200)) is None

    assert source.asked == 1
