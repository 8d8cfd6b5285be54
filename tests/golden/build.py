"""The log of this version: every action and every fact, the same bytes whenever it is made.

Requests go through the very decider, and its records into sealed commits of one to four, as the
engine's turns make them.
"""

import random
from typing import Any

from engine.decider import authenticate, decide, repeated, stamped
from engine.domain.fold import apply_record
from engine.log.commit import GENESIS, seal_commit
from schemas.compute import CreateKeypair, NetworkRequest
from schemas.envelope import Actor, Client, Record, Request
from schemas.identity import RevokeToken
from schemas.network import CreateNetwork
from schemas.units import HOUR
from tests.engine.history import everything
from tests.engine.world import World

SEED = 20_231_114
TOGETHER_MAX = 4


class Recorder(World):
    """A world whose log is sealed; ``messages`` are its commits."""

    def __init__(self) -> None:
        self._dice = random.Random(SEED)
        self._together: list[Record] = []
        self._room = 1
        self._hash = GENESIS
        super().__init__(SEED)

    def submit(self, actor: Actor, action: Any, **fields: Any) -> Record:
        """Decide and fold a request, in the commit that is open or in one of a later time."""
        request = stamped(
            Request(
                request_id=fields.pop("request_id", f"req-{self.new_id()}"),
                actor=actor,
                action=action,
                submitted_at=self.now - self._dice.randrange(5_000),
                client=Client(address="192.0.2.7", agent="golden", api="native", edge="node-1"),
                **fields,
            )
        )
        assert repeated(self.cell, request) is None
        if self._together and self.cell.state.at != self.now:
            self.close()
        record = decide(
            self.cell,
            request,
            now=self.now,
            new_id=self.new_id,
            roles=authenticate(self.cell, actor),
            salt=f"{self._dice.getrandbits(64):016x}",
        )
        self._first = self._first if self._together else self.cell.state.ordinal + 1
        self._together.append(record)
        apply_record(self.cell, record, self.now)
        if len(self._together) >= self._room:
            self.close()
        return record

    def close(self) -> None:
        """Seal what was decided together; the next commit is a little later."""
        if not self._together:
            return
        state = self.cell.state
        data, self._hash = seal_commit(
            commit_id=self.new_id(),
            first=self._first,
            prev=self._hash,
            epoch=state.epoch,
            at=state.at,
            records=self._together,
        )
        self.messages.append(data)
        self._together, self._room = [], self._dice.randrange(1, TOGETHER_MAX + 1)
        self.now = max(self.now, state.at) + self._dice.randrange(1, 50_000)

    _first = 1


def golden_log() -> list[bytes]:
    """Return the commits."""
    world = Recorder()
    for actor, action in everything(world):
        world.submit(actor, action)
    admin = world.admin
    world.ok(admin, CreateNetwork(name="keyed"), key="key-1", digest="d" * 64)
    world.now += 25 * HOUR
    world.ok(admin, CreateNetwork(name="a day later"))
    world.ok(admin, CreateNetwork(name="keyed"), key="key-1", digest="d" * 64)
    world.ok(admin, CreateNetwork(name="mine"), request_id="req-once")
    world.refused(admin, CreateNetwork(name="forged"), request_id="req-once")
    # Something of everything is there at the end.
    member = world.member("stays")
    network = NetworkRequest(network_id=world.network(member, "10.9.0.0/24"))
    world.server(member, name="runs", networks=(network,))
    world.server(member, name="builds", networks=(network,), build=False)
    world.ok(member, CreateKeypair(name="key", public_key="ssh-ed25519 AAAA"))
    world.ok(member, RevokeToken(audit_id="audit-1", expires_at=world.now + HOUR))
    world.close()
    return world.messages
