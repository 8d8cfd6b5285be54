"""People who ask for servers, and keep their own record of what they were told."""

import asyncio
import hashlib
from dataclasses import dataclass, field

import msgspec

from engine.bus import service
from engine.bus.client import BusError
from schemas.compute import (
    CreateServer,
    DeleteServer,
    RebootServer,
    RenameServer,
    StartServer,
    StopServer,
)
from schemas.engine import RollLog
from schemas.envelope import Accepted, Actor, Client, Request, encode
from schemas.errors import Unavailable
from schemas.ids import SYSTEM_USER

NOT_RECORDED = frozenset({"Unavailable", "Unauthorized", "KeyReused", "TooOld"})
TRIES_MAX = 400
KINDS = (StopServer, StartServer, RebootServer, DeleteServer, RenameServer)
LIKELY = {
    "ACTIVE": (StopServer, StopServer, RebootServer, RebootServer, DeleteServer),
    "SHUTOFF": (StartServer, StartServer, StartServer, RebootServer, DeleteServer),
    "ERROR": (DeleteServer, RebootServer),
}


@dataclass(kw_only=True)
class Intent:
    """Something a client wants once, however often it has to say so."""

    actor: object
    action: object
    key: str
    digest: str
    reuses: bool = False  # the key was this client's for something else
    request_ids: list = field(default_factory=list)
    told: list = field(default_factory=list)  # (request id that was asked under, outcome)

    @property
    def done(self):
        return any(outcome.verdict.__class__ is Accepted or outcome.verdict.code != "Unavailable"
                   for _, outcome in self.told)  # fmt: skip


class Person:
    """One client program: asks, retries, and remembers."""

    submit = staticmethod(service.submit)

    def __init__(self, world, number, chance):
        self.world = world
        self.chance = chance
        self.name = f"client-{number}"
        self.number = number
        self.actor = world.genesis.users[number % len(world.genesis.users)]
        self.servers = world.servers.setdefault(self.actor.user_id, [])
        self.intents = []
        self.bus = None
        self.finished = False

    async def run(self, asks):
        """Ask for this many things, one after another, some of them twice at once."""
        await asyncio.sleep(self.chance.random() * 2)
        for _ in range(asks):
            intent = self._wish()
            again = self.chance.random() < 0.1
            await asyncio.gather(*(self.insist(intent) for _ in range(1 + again)))
            await asyncio.sleep(self.chance.expovariate(1.0) * self.world.think_s)
        await self.world.healing.wait()
        await self.insist(self._wish())  # once more: a cell that is whole answers
        self.finished = True

    def _wish(self):
        chance = self.chance
        number = len(self.intents)
        reuses = number > 0 and chance.random() < 0.08
        if not self.servers or chance.random() < 0.25:
            action = CreateServer(
                name=f"{self.name}-{number}",
                flavor_id=self.world.genesis.flavor,
                image_id=self.world.genesis.image,
            )
        else:
            action = self._change(chance.choice(self.servers), number)
        key = f"{self.name}-key-{number}"
        if reuses:
            key = chance.choice(self.intents).key
        return self.intend(action, key, reuses=reuses)

    def _change(self, server_id, number):
        """Ask something of a server; mostly what its status, as read somewhere, allows."""
        chance = self.chance
        state = self.world.newest_state()
        server = None if state is None else state.servers.get(server_id)
        likely = LIKELY.get("" if server is None or chance.random() < 0.2 else server.status, KINDS)
        kind = chance.choice(likely)
        fields = {"server_id": server_id}
        if kind is StopServer:
            fields["grace_s"] = chance.choice((0, 5, 20))
        elif kind is RebootServer:
            fields["hard"] = chance.random() < 0.5
        elif kind is RenameServer:
            fields["name"] = f"renamed-{number}"
        return kind(**fields)

    def intend(self, action, key, *, reuses=False):
        digest = hashlib.sha256(encode(action)).hexdigest()
        intent = Intent(actor=self.actor, action=action, key=key, digest=digest, reuses=reuses)
        self.intents.append(intent)
        return intent

    async def insist(self, intent):
        """Ask until there is an answer that is one; with a new id each time, under the same key."""
        for _ in range(TRIES_MAX):
            request_id = f"req-{self.world.new_id()}"
            intent.request_ids.append(request_id)
            request = Request(
                request_id=request_id,
                actor=intent.actor,
                action=intent.action,
                submitted_at=self.world.wall(),
                client=Client(api="sim"),
                key=intent.key,
                digest=intent.digest,
            )
            try:
                outcome = await self.submit(
                    self.bus, request, timeout_s=self.chance.choice((2.0, 10.0))
                )
            except (BusError, Unavailable) as error:
                self.world.trace("unanswered", self.name, f"{request_id} {error}")
            else:
                self._heard(intent, request_id, outcome)
                if intent.done:
                    return
            await asyncio.sleep(self.chance.random() * 2)
        self.world.defect(f"{self.name} got no answer to {intent.action} in {TRIES_MAX} tries")

    def _heard(self, intent, request_id, outcome):
        intent.told.append((request_id, outcome))
        verdict = outcome.verdict
        said = "accepted" if isinstance(verdict, Accepted) else verdict.code
        name = type(intent.action).__name__
        self.world.trace("told", self.name, f"{name} {request_id} {outcome.ordinal} {said}")
        if isinstance(verdict, Accepted) and isinstance(intent.action, CreateServer):
            server_id = verdict.reply.get("server_id")
            if server_id is not None and server_id not in self.servers:
                self.servers.append(server_id)


class Operator(Person):
    """Whoever closes the log's stream now and then, so that the next one is begun."""

    submit = staticmethod(service.submit_as_admin)

    def __init__(self, world, chance):
        super().__init__(world, 0, chance)
        self.name = "operator"
        self.actor = Actor(kind="system", user_id=SYSTEM_USER)

    def _wish(self):
        state = self.world.newest_state()
        number = 2 if state is None else state.log_number + 1
        return self.intend(RollLog(number=number), f"roll-{len(self.intents)}")


def reply_of(outcome):
    """Return a verdict as bytes, for comparison."""
    return msgspec.json.encode(outcome.verdict, order="sorted")
