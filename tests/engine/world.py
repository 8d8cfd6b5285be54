"""A cell without a bus: requests go in, the state moves, and the log can be folded again."""

import random
import uuid
from typing import Any

from engine.decider import authenticate, decide, repeated, stamped
from engine.domain.fold import apply_record
from engine.domain.quota import DEFAULTS
from engine.domain.state import Cell
from schemas.compute import CreateFlavor, CreateServer
from schemas.envelope import Accepted, Actor, Commit, Record, Request, encode
from schemas.host import Capacity, RegisterHost
from schemas.identity import Bootstrap, CreateProject, CreateUser, GrantRole
from schemas.image import CreateImage, UploadImage
from schemas.network import CreateNetwork, CreateSubnet
from schemas.operation import ReportOperation
from schemas.quota import UNLIMITED, SetQuotaClass
from schemas.sealed import Sealed

SECRET = Sealed(key_id="k", wrapped_key="AA==", nonce="AA==", ciphertext="AA==")
SYSTEM = Actor(kind="system", user_id="system")


class World:
    """Runs the decider on a clock and ids that a seed sets."""

    def __init__(self, seed: int = 1) -> None:
        self.cell = Cell()
        self.random = random.Random(seed)
        self.now = 1_700_000_000_000_000
        self.messages: list[bytes] = []
        self.actors: dict[str, Actor] = {}  # by name, for histories that make them
        self.named: dict[str, str] = {}  # ids, likewise
        reply = self.ok(SYSTEM, Bootstrap(admin_password=SECRET))
        self.admin = Actor(
            kind="user",
            user_id=reply["user_id"],
            project_id=reply["project_id"],
            issued_at=self.now,
        )

    def new_id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def without_quotas(self) -> None:
        """Let everybody hold as much as they like, unless a project is given limits."""
        self.ok(self.admin, SetQuotaClass(limits=dict.fromkeys(DEFAULTS, UNLIMITED)))

    def submit(self, actor: Actor, action: Any, **fields: Any) -> Record:
        """Decide, fold, and keep the commit."""
        self.now += 1000
        request = stamped(
            Request(
                request_id=fields.pop("request_id", f"req-{self.new_id()}"),
                actor=actor,
                action=action,
                submitted_at=fields.pop("submitted_at", self.now),
                **fields,
            )
        )
        assert repeated(self.cell, request) is None
        roles = authenticate(self.cell, actor)
        record = decide(self.cell, request, now=self.now, new_id=self.new_id, roles=roles, salt="s")
        commit = Commit(
            commit="c",
            first=self.cell.state.ordinal + 1,
            prev="",
            hash="",
            epoch=1,
            at=self.now,
            records=(record,),
        )
        self.messages.append(encode(commit))
        apply_record(self.cell, record, self.now)
        return record

    def ok(self, actor: Actor, action: Any, **fields: Any) -> dict[str, Any]:
        """Submit what must be accepted; return its reply."""
        record = self.submit(actor, action, **fields)
        assert isinstance(record.verdict, Accepted), record.verdict
        return record.verdict.reply

    def refused(self, actor: Actor, action: Any, **fields: Any) -> Any:
        """Submit what must be refused; return the refusal."""
        record = self.submit(actor, action, **fields)
        assert not isinstance(record.verdict, Accepted), record.verdict
        assert record.facts == ()
        return record.verdict

    def agent(self, host: str = "host-1") -> Actor:
        return Actor(kind="agent", host_id=host)

    def host(
        self, host: str = "host-1", vcpus: int = 8, memory: int = 8192, disk: int = 100
    ) -> None:
        self.ok(
            self.agent(host),
            RegisterHost(
                capacity=Capacity(vcpus=vcpus, memory_mib=memory, disk_gib=disk),
                hypervisor="simulated",
                accelerator="none",
                executors=("hypervisor", "storage", "network"),
            ),
        )

    def member(self, name: str, role: str = "member") -> Actor:
        """Return a user with a role on a project of its own."""
        project = self.ok(self.admin, CreateProject(name=name))["project_id"]
        user = self.ok(self.admin, CreateUser(name=name, password=SECRET))["user_id"]
        role_id = next(r.role_id for r in self.cell.state.roles.values() if r.name == role)
        self.ok(self.admin, GrantRole(user_id=user, project_id=project, role_id=role_id))
        return Actor(kind="user", user_id=user, project_id=project, issued_at=self.now)

    def flavor(self, **fields: Any) -> str:
        action = CreateFlavor(
            **{"name": "small", "vcpus": 1, "memory_mib": 128, "disk_gib": 1, **fields}
        )
        return str(self.ok(self.admin, action)["flavor_id"])

    def image(self, actor: Actor | None = None, **fields: Any) -> str:
        """Return an image whose content has been checked."""
        owner = actor or self.admin
        visibility = "public" if actor is None else "shared"
        image = self.ok(
            owner, CreateImage(name="tiny", disk_format="qcow2", visibility=visibility, **fields)
        )["image_id"]
        upload = UploadImage(
            image_id=image, blob_id=f"blob-{image}", size_bytes=10, md5="0" * 32, sha512="0" * 128
        )
        operation = self.ok(owner, upload)["operation_id"]
        self.report(operation, virtual_size_bytes=16 * 2**20)
        return str(image)

    def network(self, actor: Actor, cidr: str = "10.0.0.0/24") -> str:
        network = self.ok(actor, CreateNetwork(name="net"))["network_id"]
        self.ok(actor, CreateSubnet(network_id=network, cidr=cidr))
        return str(network)

    def report(
        self, operation: str, *, succeeded: bool = True, host: str = "host-1", **fields: Any
    ) -> Record:
        request_id = fields.pop("request_id", None) or f"req-{self.new_id()}"
        return self.submit(
            self.agent(host),
            ReportOperation(
                operation_id=operation,
                generation=fields.pop("generation", 1),
                succeeded=succeeded,
                observed_at=fields.pop("observed_at", self.now),
                **fields,
            ),
            request_id=request_id,
        )

    def server(self, actor: Actor, *, build: bool = True, **fields: Any) -> str:
        """Return a server, running unless told otherwise."""
        flavor = next(iter(self.cell.state.flavors), None) or self.flavor()
        image = next(iter(self.cell.state.images), None) or self.image()
        action = CreateServer(**{"name": "web", "flavor_id": flavor, "image_id": image, **fields})
        reply = self.ok(actor, action)
        if build:
            self.report(reply["operation_id"])
        return str(reply["server_id"])
