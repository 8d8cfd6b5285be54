"""Histories as clouds have them, of any length, from a seed: the decider's own, in a real chain.

Run: ``python -m benchmarks.histories DIR --facts 1000000 --seed 7`` writes ``DIR/log.jsonl`` (a
commit a line) and ``DIR/timeline.sqlite`` (what a read model's timeline says of each ordinal).

People of many projects make servers, stop and start them, reboot, rename and delete them; hosts
report; now and then somebody asks for what is not theirs. There is more to do by day than by night
and at weekends; some projects are large and most are small. The same seed gives the same bytes.
"""

import argparse
import random
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from engine.decider import authenticate, decide, repeated, stamped
from engine.domain.fold import apply_record
from engine.domain.quota import DEFAULTS
from engine.domain.state import Cell
from engine.log.commit import GENESIS, seal_commit
from projections import timeline
from schemas.billing import PriceRule, PublishPriceList
from schemas.compute import (
    CreateFlavor,
    CreateServer,
    DeleteServer,
    RebootServer,
    RenameServer,
    StartServer,
    StopServer,
)
from schemas.envelope import Accepted, Action, Actor, Client, Request, encode
from schemas.host import Capacity, RegisterHost
from schemas.identity import Bootstrap, CreateProject, CreateUser, GrantRole
from schemas.image import CreateImage, UploadImage
from schemas.network import CreateNetwork, CreateSubnet
from schemas.operation import ReportOperation
from schemas.quota import UNLIMITED, SetQuotaClass
from schemas.sealed import Sealed
from schemas.units import HOUR, SECOND

SECRET = Sealed(key_id="k", wrapped_key="AA==", nonce="AA==", ciphertext="AA==")
SYSTEM = Actor(kind="system", user_id="system")
BEGAN = 1_735_689_600 * SECOND  # 2025-01-01
PROJECTS, HOSTS = 40, 200
LIVE = 1500  # servers that there are at once, more or less
FLAVORS = (("small", 1, 1024, 10), ("medium", 2, 4096, 40), ("large", 8, 16384, 160))
AGENTS = ("openstacksdk/4.8.0 keystoneauth1/5.11", "terraform-provider-openstack/3.0", "cumulog")
PRICES = (
    ("compute.vcpu", "Core-Hours", "0.012"),
    ("compute.memory", "GiB-Hours", "0.0034"),
    ("compute.disk", "GiB-Hours", "0.000123"),
    ("image.size", "GiB-Hours", "0.00005"),
)

type AboutRow = tuple[Any, ...]


class Years:
    """A cloud that somebody uses. ``commits`` yields its log, without end."""

    def __init__(self, seed: int = 1, *, per_hour: float = 400.0) -> None:
        """``per_hour`` is how many things people do in an hour of the day, on average."""
        self.cell = Cell()
        self.random = random.Random(seed)
        self.now = BEGAN
        self._pause = HOUR / per_hour
        self._hash = GENESIS
        self._sequence = 0
        self._first = 1
        self._records: list[bytes] = []
        self._about: list[AboutRow] = []
        self._ready: list[tuple[int, bytes, list[AboutRow]]] = []
        self._servers: list[tuple[str, Actor]] = []
        self._prepare()

    def commits(self) -> Iterator[tuple[int, bytes, list[AboutRow]]]:
        """Yield (sequence, commit, what the timeline says of its ordinals)."""
        while True:
            yield from self._ready
            self._ready = []
            self._live()

    def _prepare(self) -> None:
        reply = self._ask(SYSTEM, Bootstrap(admin_password=SECRET))
        self.admin = Actor(
            kind="user",
            user_id=reply["user_id"],
            project_id=reply["project_id"],
            issued_at=self.now,
        )
        self._ask(self.admin, SetQuotaClass(limits=dict.fromkeys(DEFAULTS, UNLIMITED)))
        rules = tuple(
            PriceRule(sku=f"sku-{meter}", meter=meter, unit=unit, price=price)
            for meter, unit, price in PRICES
        )
        self._ask(self.admin, PublishPriceList(currency="EUR", rules=rules))
        for number in range(HOSTS):
            self._ask(
                Actor(kind="agent", host_id=f"host-{number:03}"),
                RegisterHost(
                    capacity=Capacity(vcpus=512, memory_mib=2**21, disk_gib=10**5),
                    hypervisor="simulated",
                    accelerator="none",
                    executors=("hypervisor", "storage", "network"),
                ),
            )
        self.flavors = [
            self._ask(
                self.admin, CreateFlavor(name=name, vcpus=vcpus, memory_mib=memory, disk_gib=disk)
            )["flavor_id"]
            for name, vcpus, memory, disk in FLAVORS
        ]
        image = CreateImage(name="debian-13", disk_format="qcow2", visibility="public")
        self.image = self._ask(self.admin, image)["image_id"]
        upload = UploadImage(
            image_id=self.image, blob_id="b", size_bytes=10, md5="0" * 32, sha512="0" * 128
        )
        self._ask(self.admin, upload)
        self._report()
        self.people = [self._member(f"project-{number}") for number in range(PROJECTS)]

    def _member(self, name: str) -> Actor:
        project = self._ask(self.admin, CreateProject(name=name))["project_id"]
        user = self._ask(self.admin, CreateUser(name=name, password=SECRET))["user_id"]
        role = next(r.role_id for r in self.cell.state.roles.values() if r.name == "member")
        self._ask(self.admin, GrantRole(user_id=user, project_id=project, role_id=role))
        actor = Actor(kind="user", user_id=user, project_id=project, issued_at=self.now)
        network = self._ask(actor, CreateNetwork(name="net"))["network_id"]
        self._ask(actor, CreateSubnet(network_id=network, cidr="10.0.0.0/8"))
        return actor

    def _live(self) -> None:
        """Let somebody do something, and the hosts what follows."""
        chance = self.random
        self._pass()
        if len(self._servers) < LIVE * (0.5 + chance.random()):
            # A few projects have most: each has half as much as the one before, and a rest.
            who = self.people[min(int(chance.expovariate(0.25)), PROJECTS - 1)]
            wish = CreateServer(
                name=f"web-{chance.randrange(1000)}",
                flavor_id=chance.choices(self.flavors, (6, 3, 1))[0],
                image_id=self.image,
                metadata={"team": f"team-{chance.randrange(20)}"},
            )
            reply = self._ask(who, wish)
            self._pass(0.1)
            self._report()
            self._servers.append((str(reply["server_id"]), who))
        else:
            at = chance.randrange(len(self._servers))
            server, who = self._servers[at]
            kind = chance.random()
            if kind < 0.03:
                other = chance.choice(self.people)
                if other.project_id != who.project_id:
                    self._ask(other, DeleteServer(server_id=server), refused=True)
            elif kind < 0.45:
                self._ask(who, DeleteServer(server_id=server))
                self._servers[at] = self._servers[-1]
                self._servers.pop()
            elif kind < 0.5:
                self._ask(who, RenameServer(server_id=server, name=f"db-{chance.randrange(99)}"))
            elif self.cell.state.servers[server].status != "ACTIVE":
                self._ask(who, StartServer(server_id=server))
            elif kind < 0.85:
                self._ask(who, StopServer(server_id=server))
            else:
                self._ask(who, RebootServer(server_id=server))
            self._pass(0.05)
            self._report()
        self._flush()

    def _pass(self, share: float = 1.0) -> None:
        """Let some time pass: less by day than by night."""
        hour, day = (self.now // HOUR) % 24, (self.now // (24 * HOUR)) % 7
        busy = (1.6 if 7 <= hour < 19 else 0.4) * (0.5 if day in {2, 3} else 1.0)
        self.now += 1000 + int(self.random.expovariate(1) * self._pause * share / busy)

    def _report(self) -> None:
        for operation in list(self.cell.state.operations.values()):
            self._ask(
                Actor(kind="agent", host_id=operation.host_id),
                ReportOperation(
                    operation_id=operation.operation_id,
                    generation=operation.generation,
                    succeeded=True,
                    observed_at=self.now,
                    virtual_size_bytes=16 * 2**20,
                ),
            )

    def _id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def _request_id(self) -> str:
        number = (self.now // 1000) << 80 | self.random.getrandbits(76)
        return f"req-{uuid.UUID(int=number & ~(0xF << 76) | 7 << 76)}"

    def _ask(self, actor: Actor, action: Action, *, refused: bool = False) -> dict[str, Any]:
        client = Client()
        if actor.kind == "user":
            number = int(actor.user_id[:6], 16) if actor.user_id[:6].isalnum() else 1
            client = Client(
                address=f"192.0.2.{number % 250}",
                agent=AGENTS[number % len(AGENTS)],
                api="compute",
                edge="node-1",
            )
        request = stamped(
            Request(
                request_id=self._request_id(),
                actor=actor,
                action=action,
                submitted_at=self.now,
                client=client,
            )
        )
        repeated(self.cell, request)
        roles = authenticate(self.cell, actor)
        salt = f"{self.random.getrandbits(128):032x}"
        record = decide(self.cell, request, now=self.now, new_id=self._id, roles=roles, salt=salt)
        first = self.cell.state.ordinal + 1
        told = timeline.rows(
            self._find,
            request,
            record.verdict,
            b"",
            [timeline.Recorded(fact, msgspec.Raw(b"")) for fact in record.facts],
            first,
            self.now,
        )
        self._about += [(*row[:9], *row[10:12], row[13]) for row in told]
        self._records.append(encode(record))
        apply_record(self.cell, record, self.now)
        # Under load several requests share a commit.
        if self.random.random() < 0.7:
            self._flush()
        if refused:
            assert not isinstance(record.verdict, Accepted)
            return {}
        assert isinstance(record.verdict, Accepted), record.verdict
        return record.verdict.reply

    def _find(self, table: Any, key: str) -> Any:
        state = self.cell.state
        if table.name == "operations":
            operation = state.operations.get(key)
            return None if operation is None else SimpleNamespace(operation=operation)
        return getattr(state, table.name).get(key)

    def _flush(self) -> None:
        if not self._records:
            return
        self._sequence += 1
        commit = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        data, self._hash = seal_commit(commit, self._first, self._hash, 1, self.now, self._records)
        self._ready.append((self._sequence, data, self._about))
        self._first = self.cell.state.ordinal + 1
        self._records, self._about = [], []
        self.now += 1


TIMELINE = (
    "CREATE TABLE timeline (ordinal INTEGER PRIMARY KEY, kind TEXT, tag TEXT, resource_kind TEXT, "
    "resource_id TEXT, project_id TEXT, user_id TEXT, request_id TEXT, cause TEXT, outcome TEXT, "
    "code TEXT, address TEXT)"
)


def write(directory: Path, facts: int, seed: int) -> int:
    """Write a history of at least so many ordinals, if it is not there yet; return how many."""
    directory.mkdir(parents=True, exist_ok=True)
    done = directory / "done"
    if done.exists():
        return int(done.read_text())
    for name in ("log.jsonl", "timeline.sqlite"):
        (directory / name).unlink(missing_ok=True)
    db = sqlite3.connect(directory / "timeline.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("PRAGMA synchronous = OFF")
    db.execute(TIMELINE)
    db.execute("BEGIN")
    ordinals = 0
    with (directory / "log.jsonl").open("wb") as log:
        for _, data, about in Years(seed).commits():
            log.write(data + b"\n")
            db.executemany("INSERT INTO timeline VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", about)
            ordinals += len(about)
            if ordinals >= facts:
                break
    db.execute("COMMIT")
    db.close()
    done.write_text(str(ordinals))
    return ordinals


def read(directory: Path, after_seq: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield (sequence, commit) of what follows a sequence."""
    with (directory / "log.jsonl").open("rb") as log:
        for seq, line in enumerate(log, 1):
            if seq > after_seq:
                yield seq, line[:-1]


def main() -> None:
    """Write a history."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--facts", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    print(f"{write(options.directory, options.facts, options.seed)} ordinals")


if __name__ == "__main__":
    main()
