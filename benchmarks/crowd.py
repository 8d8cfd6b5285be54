"""A cell of any size, made by the decider itself: hosts, servers that run, each with a port."""

import random
import time
import uuid
from collections.abc import Callable
from typing import Any

from engine.decider import authenticate, decide, repeated, stamped
from engine.domain.fold import apply_record
from engine.domain.quota import DEFAULTS
from engine.domain.state import Cell
from schemas.compute import CreateFlavor, CreateServer
from schemas.envelope import Accepted, Action, Actor, Record, Request, encode
from schemas.host import Capacity, RegisterHost
from schemas.identity import Bootstrap
from schemas.image import CreateImage, UploadImage
from schemas.network import CreateNetwork, CreateSubnet
from schemas.operation import ReportOperation
from schemas.quota import UNLIMITED, SetQuotaClass
from schemas.sealed import Sealed

SECRET = Sealed(key_id="k", wrapped_key="AA==", nonce="AA==", ciphertext="AA==")


class Crowd:
    """Decides and folds; keeps no log. ``took_s`` is the CPU of each part, by request."""

    def __init__(self, hosts: int, *, seed: int = 1) -> None:
        self.cell = Cell()
        self._random = random.Random(seed)
        self.now = 1_700_000_000_000_000
        self._number = 0
        reply = self.ask(Actor(kind="system", user_id="system"), Bootstrap(admin_password=SECRET))[
            0
        ]
        self.admin = Actor(
            kind="user",
            user_id=str(reply["user_id"]),
            project_id=str(reply["project_id"]),
            issued_at=self.now,
        )
        self.ask(self.admin, SetQuotaClass(limits=dict.fromkeys(DEFAULTS, UNLIMITED)))
        for number in range(hosts):
            self.ask(
                Actor(kind="agent", host_id=f"host-{number:05}"),
                RegisterHost(
                    capacity=Capacity(vcpus=10**6, memory_mib=2**30, disk_gib=10**6),
                    hypervisor="simulated",
                    accelerator="none",
                    executors=("hypervisor", "storage", "network"),
                ),
            )
        self._prepare()

    def _prepare(self) -> None:
        flavor = CreateFlavor(name="small", vcpus=1, memory_mib=128, disk_gib=1)
        self.flavor = str(self.ask(self.admin, flavor)[0]["flavor_id"])
        image = CreateImage(name="tiny", disk_format="qcow2", visibility="public")
        self.image = str(self.ask(self.admin, image)[0]["image_id"])
        upload = UploadImage(
            image_id=self.image, blob_id="b", size_bytes=10, md5="0" * 32, sha512="0" * 128
        )
        self.ask(self.admin, upload)
        self.report()
        network = str(self.ask(self.admin, CreateNetwork(name="net"))[0]["network_id"])
        self.ask(self.admin, CreateSubnet(network_id=network, cidr="10.0.0.0/8"))

    def _id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def ask(self, actor: Actor, action: Action) -> tuple[dict[str, Any], float, float]:
        """Decide and fold; return the reply and the CPU seconds of deciding and of folding."""
        self.now += 1000
        self._number += 1
        request = Request(
            request_id=f"req-{self._number:032}",
            actor=actor,
            action=action,
            submitted_at=self.now,
        )
        began = time.process_time()
        record = self._decide(request)
        decided = time.process_time()
        apply_record(self.cell, record, self.now)
        folded = time.process_time()
        assert isinstance(record.verdict, Accepted), record.verdict
        return record.verdict.reply, decided - began, folded - decided

    def _decide(self, request: Request) -> Record:
        request = stamped(request)
        repeated(self.cell, request)
        roles = authenticate(self.cell, request.actor)
        return decide(self.cell, request, now=self.now, new_id=self._id, roles=roles, salt="0" * 16)

    def create(self) -> tuple[float, float]:
        """Ask for a server; return the CPU seconds of deciding and of folding."""
        action = CreateServer(name="web", flavor_id=self.flavor, image_id=self.image)
        _, decided, folded = self.ask(self.admin, action)
        return decided, folded

    def report(self) -> None:
        """Let the host of each open operation report that it was carried out."""
        for operation in list(self.cell.state.operations.values()):
            self.ask(
                Actor(kind="agent", host_id=operation.host_id),
                ReportOperation(
                    operation_id=operation.operation_id,
                    generation=operation.generation,
                    succeeded=True,
                    observed_at=self.now,
                    virtual_size_bytes=16 * 2**20,
                ),
            )

    def grow(self, servers: int, progress: Callable[[int], None] = lambda _: None) -> None:
        """Go on until so many servers run."""
        while (count := len(self.cell.state.servers)) < servers:
            self.create()
            self.report()
            if count % 10_000 == 0:
                progress(count)

    def record(self) -> bytes:
        """Return the record of one more create, as it would lie in the log; nothing is folded."""
        action = CreateServer(name="web", flavor_id=self.flavor, image_id=self.image)
        request = Request(
            request_id="req-0", actor=self.admin, action=action, submitted_at=self.now
        )
        return encode(self._decide(request))
