"""The walk-through of a month: its commands run as printed, at the times that it tells."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
import uuid_utils
import yaml

from engine.bus.client import Bus
from engine.bus.service import submit
from schemas.config import Config
from schemas.envelope import Accepted, Actor, Outcome, Request
from schemas.samples import ReportSamples, Rollup
from schemas.units import SECOND
from tests.api.conftest import Api, Reply, credentials
from tests.cli.running import Up, clean_environment
from tests.clock import Clock

PAGE = Path(__file__).parents[2] / "docs" / "a-month.md"
HEADING = re.compile(r"^## (\d{4}-\d\d-\d\d \d\d:\d\d) (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
RECKONED = re.compile(r"^\| (\w+) \| .+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)

# By hand: hours x prices, as the page adds them up. Commands take their time, so to a few cents.
OWED = {
    "Aurora": Decimal("54.53"),
    "Borealis": Decimal("65.57"),
    "Cirrus": Decimal("23.50"),
}
OTHERWISE = {
    "Aurora": Decimal("50.40"),
    "Borealis": Decimal("62.73"),
    "Cirrus": Decimal("29.28"),
}
SOON = Decimal("0.05")
DISCOUNTED = {"Aurora": Decimal(1), "Borealis": Decimal("0.90"), "Cirrus": Decimal(1)}
TAXED = {"Aurora": Decimal("1.19"), "Borealis": Decimal("1.19"), "Cirrus": Decimal(1)}

RESIZED = datetime(2026, 10, 12, 9, 30, tzinfo=UTC)
CONFIRMED = datetime(2026, 10, 12, 11, 30, tzinfo=UTC)

AFTERWARDS = datetime(2026, 12, 3, 8, 0, tzinfo=UTC)
# As cell.json has it: whoever asks history hears of its end soon, and asks again.
CELL = {
    "cell": "embedded",
    "node": "node-1",
    "host_id": "host-1",
    "driver": "simulated",
    "listen": "nowhere:0",  # so that a free port is looked for
    "settings": {"history_silent_s": 4.0},
}
ISSUED = ["INV-2026-000004", "INV-2026-000005", "INV-2026-000006"]
NIGHT = datetime(2026, 10, 31, tzinfo=UTC)  # of which a host tells, early or late


def sections() -> Iterator[tuple[datetime, str, str]]:
    """Yield when, the heading, and the text of each section."""
    _, *parts = HEADING.split(PAGE.read_text())
    for at, title, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        yield datetime.fromisoformat(at).replace(tzinfo=UTC), title, text


class Shell:
    """One shell that stays, as a person's does."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment() | environment,
        )

    def run(self, commands: str) -> str:
        """Run commands, each of which must end well; return what they print."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"set -euo pipefail\n{commands}\nset +eu\necho done-$?\n")
        self._shell.stdin.flush()
        said = ""
        for line in self._shell.stdout:
            if line == "done-0\n":
                return said
            said += line
        pytest.fail(f"{commands}\nended with {self._shell.wait(10)}:\n{said}")

    def close(self) -> None:
        """End it."""
        self._shell.kill()
        self._shell.communicate()


class Host:
    """The cloud's host, as its agent speaks: over the bus, in the host's own name."""

    def __init__(self, state_dir: Path, shell: Shell) -> None:
        self._config = state_dir / "run" / "agent.config.json"
        self._shell = shell

    def told_in_time(self, now: datetime) -> None:
        """Batch-1's traffic of an hour, as the page tells it."""
        self._tell(now, "batch-1", hour=22, gigabytes=90, recorded=1)

    def told_late(self, now: datetime) -> None:
        """Batch-2's, after the month was closed: whatever it repeats counts once."""
        self._tell(now, "batch-2", hour=21, gigabytes=30, recorded=1)
        self._tell(now, "batch-2", hour=21, gigabytes=40, recorded=0)
        self._tell(now, "batch-1", hour=22, gigabytes=10, recorded=0)

    def _tell(
        self, now: datetime, server: str, *, hour: int, gigabytes: int, recorded: int
    ) -> None:
        shown = self._shell.run(f"as cirrus cirrus server show {server} -o json")
        sent = gigabytes * 10**9
        rollup = Rollup(
            server_id=json.loads(shown)["id"],
            monitor="network.egress",
            hour=round(NIGHT.replace(hour=hour).timestamp()) * SECOND,
            count=60,
            first=0,
            last=sent,
            minimum=0,
            maximum=sent,
            increase=sent,
            boots=(1,),
        )
        outcome = asyncio.run(self._report(ReportSamples(rollups=(rollup,)), now))
        assert isinstance(outcome.verdict, Accepted), outcome
        assert outcome.verdict.reply == {"recorded": recorded}

    async def _report(self, report: ReportSamples, now: datetime) -> Outcome:
        config = msgspec.json.decode(self._config.read_bytes(), type=Config)
        bus = await Bus.configured(config, "test")
        try:
            request = Request(
                request_id=f"req-{uuid_utils.uuid7()}",
                actor=Actor(kind="agent", host_id=config.host_id),
                action=report,
                submitted_at=round(now.timestamp()) * SECOND,
            )
            return await submit(bus, request, host=config.host_id)
        finally:
            await bus.close()


@pytest.mark.parametrize(
    ("title", "come_to", "taxed"),
    [("The month is over", OWED, True), ("What if?", OTHERWISE, False)],
)
def test_what_is_reckoned_by_hand_adds_up(title: str, come_to: dict[str, Decimal], taxed: bool):
    [text] = [text for _, each, text in sections() if each == title]
    sums = dict.fromkeys(come_to, Decimal(0))
    for customer, hours, price, amount in RECKONED.findall(text):
        product = Decimal(hours) * Decimal(price)
        assert round(product, 4) == Decimal(amount)
        sums[customer] += product
    for customer, net in sums.items():
        share = DISCOUNTED[customer] * (TAXED[customer] if taxed else 1)
        assert round(net * share, 2) == come_to[customer], customer
        assert str(come_to[customer]) in text


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_month_goes_by_as_told(tmp_path: Path):
    told = list(sections())
    clock = Clock(tmp_path, told[0][0])
    cloud = Up(tmp_path / "state", clock)
    cloud.state_dir.mkdir(mode=0o700)
    (cloud.state_dir / "cell.json").write_text(json.dumps(CELL))
    (tmp_path / "var").symlink_to(cloud.state_dir)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    shell = Shell(tmp_path, clock.environment)
    host = Host(cloud.state_dir, shell)
    # What happens by itself, before the commands of a section.
    happens: dict[str, Callable[[datetime], None]] = {
        "The month is over": host.told_in_time,
        "A report comes late": host.told_late,
    }
    try:
        cloud.start("--no-demo")
        for at, title, text in told:
            clock.set_to(at)
            if title in happens:
                happens.pop(title)(at)
            for block in BLOCK.findall(text):
                print(f"--- {at:%Y-%m-%d %H:%M} {title}\n{block}{shell.run(block)}")
        found = json.loads(shell.run("cumulog invoice list --month 2026-10 -o json"))
        owed = {each["customer_name"]: Decimal(each["total"]) for each in found}
        assert owed.keys() == OWED.keys()
        for customer, total in OWED.items():
            assert abs(owed[customer] - total) < SOON, customer
        assert not happens
        _grew_where_it_stood(
            json.loads(shell.run("cumulog invoice explain INV-2026-000001 3 -o json"))
        )
        names = {each["customer_id"]: each["customer_name"] for each in found}
        asked = "cumulog bill what-if --prices processors.yaml --month 2026-10 -o json"
        compared = json.loads(shell.run(asked))["customers"]
        otherwise = {names[each["customer_id"]]: Decimal(each["after"]) for each in compared}
        assert otherwise.keys() == OTHERWISE.keys()
        for customer, total in OTHERWISE.items():
            assert abs(otherwise[customer] - total) < SOON, customer
        _needs_correction(json.loads(shell.run("cumulog invoice show 2026-11.$cirrus -o json")))
        clock.set_to(AFTERWARDS)
        admin = _administrator(cloud)
        _closes_once(cloud, admin, "2026-11")
        _issues_once(cloud, admin, "2026-11")
    finally:
        shell.close()
        if cloud.process is not None:
            cloud.stop()
        clock.close()


def _grew_where_it_stood(line: dict) -> None:
    """Aurora's processors: one server, bigger from the resize on, and not from when it was kept."""
    assert line["description"] == "vcpu"
    small, big = line["held"]
    assert small["resource_id"] == big["resource_id"]
    assert small["end"] == big["start"]
    assert _micros(RESIZED) < big["start"] < _micros(CONFIRMED)
    assert small["ended_by"] == big["begun_by"]
    assert big["begun_by"]["fact"] == "compute.server.resized.v1"
    assert big["begun_by"]["action"] == "ResizeServer"
    assert big["ended_by"] is None


def _micros(at: datetime) -> int:
    return round(at.timestamp()) * SECOND


def _needs_correction(draft: dict) -> None:
    """What came late: 30 GB of the 100 are used earlier, so 20 of the 90 are to be paid."""
    said = [
        (line["description"], line["quantity"], Decimal(line["amount"]))
        for line in draft["lines"]
        if line.get("sku") == "traffic"
    ]
    assert [line[0] for line in said] == ["Reversal: traffic", "Corrected: traffic"]
    assert [Decimal(line[1]) for line in said] == [-90, 120]
    assert [line[2] for line in said] == [0, 1]


def _administrator(cloud: Up) -> Api:
    auth = yaml.safe_load((cloud.state_dir / "clouds.yaml").read_text())["clouds"]["cumulog"][
        "auth"
    ]
    anyone = Api(auth["auth_url"].removesuffix("/identity/v3"))
    asked = credentials(auth["username"], auth["password"], auth["project_name"])
    reply = anyone("POST", "/identity/v3/auth/tokens", asked)
    assert reply.status == 201, reply
    return Api(anyone.url, reply.headers["x-subject-token"])


def _until_done(post: Callable[[], Reply]) -> Reply:
    """Ask again for as long as nobody is there to answer, or whoever was asked is not any more."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (reply := post()).status not in {502, 503, 504}:
            return reply
    pytest.fail("nobody answers")


def _closes_once(cloud: Up, admin: Api, month: str) -> None:
    """Close a month three times at once, and kill whoever closes it."""
    path = f"/v1/billing/months/{month}/close"
    with ThreadPoolExecutor(3) as many:
        asked = [many.submit(_until_done, lambda: admin("POST", path, {})) for _ in range(3)]
        os.kill(cloud.pids()["archiver"], signal.SIGKILL)
        replies = [each.result() for each in asked]

    # Of a closing whose answer was lost, whoever asks again hears that the month is closed.
    assert {reply.status for reply in replies} <= {200, 409}, replies
    for refused in (reply for reply in replies if reply.status == 409):
        assert "is closed" in refused.body["detail"]
    story = admin("GET", f"/v1/why/{month}").body["events"]
    assert [e["tag"] for e in story if e["kind"] == "fact"].count("billing.period.closed.v1") == 1
    assert admin("POST", f"/v1/billing/months/{month}/verify", {}).body["verified"] is True


def _issues_once(cloud: Up, admin: Api, month: str) -> None:
    """Issue invoices at once, with one key and with none, and kill whoever gives the numbers."""
    found = admin("GET", f"/v1/invoices?month={month}&status=closed").body["invoices"]
    first, *others = [row["id"] for row in found]
    body = {"also": others}

    def issue(one: str, body: dict, key: str) -> Callable[[], Reply]:
        headers = {"Idempotency-Key": key} if key else {}
        return lambda: admin("POST", f"/v1/invoices/{one}/issue", body, headers=headers)

    together = issue(first, body, "of-november")
    alone = [issue(each, {}, "") for each in others]
    with ThreadPoolExecutor(6) as many:
        asked = [many.submit(_until_done, post) for post in (together, *alone, together, *alone)]
        os.kill(cloud.pids()["engine"], signal.SIGKILL)
        replies = [each.result() for each in asked]
    again = together()
    other = issue(first, {}, "of-november")()

    assert {reply.status for reply in replies} == {200}, replies
    told = {(row["invoice_id"], row["number"]) for r in replies for row in r.body["issued"]}
    assert sorted(number for _, number in told) == ISSUED
    assert again.body == replies[0].body
    assert (other.status, b"of-november" in other.raw) == (409, True), other
    listed = admin("GET", f"/v1/invoices?month={month}&status=issued").body["invoices"]
    assert {(row["id"], row["number"]) for row in listed} == told
