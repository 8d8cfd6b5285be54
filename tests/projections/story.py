"""Real histories for projections: the decider's own records, sealed into a chain as in the log."""

from pathlib import Path
from typing import Any

from engine.log.commit import GENESIS, seal_commit
from projections import files
from projections.models import apply_commit
from projections.reader import Reader
from projections.store import Writer
from schemas.billing import PriceRule, PublishPriceList
from schemas.compute import DeleteServer, RebootServer, StartServer, StopServer
from schemas.envelope import Actor, Record
from tests.engine.world import World

# What a test has opened; closed after it.
OPENED: list[Any] = []
PRICES = {
    "compute.vcpu": ("Core-Hours", "0.012"),
    "compute.memory": ("GiB-Hours", "0.0034"),
    "compute.disk": ("GiB-Hours", "0.000123"),
    "image.size": ("GiB-Hours", "0.00005"),
}


class Story(World):
    """A world whose commits are sealed; ``commits`` is the log as (sequence, message)."""

    def __init__(self, seed: int = 1) -> None:
        self.commits: list[tuple[int, bytes]] = []
        self._hash = GENESIS
        super().__init__(seed)

    def submit(self, actor: Actor, action: Any, **fields: Any) -> Record:
        first = self.cell.state.ordinal + 1
        record = super().submit(actor, action, **fields)
        data, self._hash = seal_commit(f"c-{first}", first, self._hash, 1, self.now, [record])
        self.commits.append((len(self.commits) + 1, data))
        return record

    def read(self, after_seq: int) -> list[tuple[int, bytes]]:
        return self.commits[after_seq:]

    def prices(self, factor: int = 1, **fields: Any) -> None:
        rules = tuple(
            PriceRule(sku=f"sku-{meter}", meter=meter, unit=unit, price=_times(price, factor))
            for meter, (unit, price) in PRICES.items()
        )
        self.ok(self.admin, PublishPriceList(currency="EUR", rules=rules, **fields))

    def later(self, micros: int) -> None:
        self.now += micros

    def stop(self, actor: Actor, server: str) -> None:
        self.report(self.ok(actor, StopServer(server_id=server))["operation_id"])

    def start(self, actor: Actor, server: str) -> None:
        self.report(self.ok(actor, StartServer(server_id=server))["operation_id"])

    def reboot(self, actor: Actor, server: str, *, hard: bool = False) -> None:
        reply = self.ok(actor, RebootServer(server_id=server, hard=hard))
        self.report(reply["operation_id"], running=True)

    def delete(self, actor: Actor, server: str) -> None:
        reply = self.ok(actor, DeleteServer(server_id=server))
        if "operation_id" in reply:
            self.report(reply["operation_id"])


def _times(price: str, factor: int) -> str:
    whole, _, fraction = price.partition(".")
    number = str(int(whole + fraction) * factor).rjust(len(fraction) + 1, "0")
    return f"{number[: -len(fraction)]}.{number[-len(fraction) :]}"


def a_small_story(seed: int = 1) -> Story:
    """A cloud with one host, two projects, servers in many states, and prices."""
    story = Story(seed)
    story.host()
    story.without_quotas()
    story.prices()
    demo, other = story.member("demo"), story.member("other")
    network = story.network(demo)
    story.network(other, "10.1.0.0/24")
    story.flavor()
    story.image()
    first = story.server(demo, name="web-1", metadata={"role": "web"})
    second = story.server(demo, name="web-2")
    story.server(other, name="db")
    story.later(1_800_000_000)
    story.stop(demo, first)
    story.reboot(demo, second)
    story.later(3_600_000_000)
    story.start(demo, first)
    story.delete(demo, second)
    story.server(demo, name="waits", build=False)
    story.server(demo, name="too-big", flavor_id=story.flavor(name="huge", vcpus=999), build=False)
    story.refused(other, DeleteServer(server_id=first))
    story.demo, story.other, story.net, story.first = demo, other, network, first
    story.second = second
    return story


def projected(story: Story, path: Path, batch: int = 1) -> Writer:
    """Lay out a read model at ``path`` and fold the story into it; return its writer."""
    files.open_next(path).db.close()
    files.switch_to_next(path)
    writer = files.open_current(path)
    assert writer is not None
    OPENED.append(writer.db)
    for number, (seq, data) in enumerate(story.commits, 1):
        apply_commit(writer, seq, data)
        if number % batch == 0:
            writer.commit()
    writer.commit()
    return writer


def reading(story: Story, path: Path) -> Reader:
    """Return a reader of the story's read model."""
    projected(story, path).db.close()
    reader = Reader(path)
    OPENED.append(reader)
    return reader
