"""Brings an embedded cloud from running processes to a cloud that can be used; then ends.

Run by the supervisor in a process of its own (``python -m cli.bootstrap DIR``), so that what it
needs is not kept in memory. Invariant: each step looks before it acts, so a kill at any point is
repaired by the next run; what a first run makes is not made again once all of it was there, even if
somebody has deleted some of it since.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cli.accounts import account, write_accounts
from cli.client import Client
from cli.compute import FLAVORS, HOSTS
from cli.identity import PROJECTS, ROLES, USERS
from cli.image import IMAGES, upload_image
from cli.problem import UNREACHABLE, Problem, run_to_exit
from cli.progress import poll
from cli.serve import follow_supervisor
from cli.state import State, write_private
from cli.steps import step
from cli.up import url

ENGINE_S = 600.0  # a long log is folded first
ANSWER_S = 120.0
ASK_AGAIN_S = 0.1
BUILD_S = 600.0
GUEST = "tiny-guest"
BUILDER = Path(__file__).parents[1] / "script" / "build-guest-image"

# name: (id, vCPUs, memory MiB, disk GiB); the numbers are those that OpenStack clouds began with.
SIZES: dict[str, tuple[str, int, int, int]] = {
    "m1.nano": ("42", 1, 128, 1),
    "m1.micro": ("84", 1, 256, 1),
    "m1.tiny": ("1", 1, 512, 1),
    "m1.small": ("2", 1, 2048, 20),
    "m1.medium": ("3", 2, 4096, 40),
    "m1.large": ("4", 4, 8192, 80),
    "m1.xlarge": ("5", 8, 16384, 160),
}
PRICES = {
    "name": "standard",
    "currency": "EUR",
    "rules": [
        {"sku": "vcpu", "meter": "compute.vcpu", "unit": "Core-Hours", "price": "0.0100"},
        {"sku": "memory", "meter": "compute.memory", "unit": "GiB-Hours", "price": "0.0050"},
        {"sku": "disk", "meter": "compute.disk", "unit": "GiB-Hours", "price": "0.0001"},
        {"sku": "image", "meter": "image.size", "unit": "GiB-Hours", "price": "0.0001"},
    ],
}


def main(state: State, image: str) -> None:
    """Do all that is left to do."""
    cell = state.cell()
    asyncio.run(_administrator(state, cell))
    asyncio.run(_others(state, cell))
    settings = json.loads(state.config_file("bootstrap").read_text())
    address = url(cell["listen"], settings)
    authority = settings.get("tls_authority", "")
    write_accounts(state, address, authority)
    with step("API") as current:
        client = _sign_in(Client(account(state, address, "cumulog", authority)))
        current.result = address
    with step("Host") as current:
        current.result = _wait_for_host(client, cell["host_id"])
    if cell.get("furnished"):
        return
    with step("Flavors") as current:
        current.result = f"{_make_flavors(client)} made"
    with step("Price list") as current:
        client.submit({**PRICES, "type": "PublishPriceList"}, key=f"first-{PRICES['name']}")
        current.result = f"{PRICES['name']}, {PRICES['currency']}"
    with step("Project demo") as current:
        _make_demo(client, state.credentials()["demo"]["password"])
        current.result = "with its member demo"
    _make_guest(client, state, Path(image) if image else None, real=cell["driver"] == "libvirt")
    write_private(state.cell_file, json.dumps(cell | {"furnished": True}, indent=1) + "\n")


@asynccontextmanager
async def _bus(state: State, cell: dict[str, Any]) -> AsyncIterator[Any]:
    """Connect to the broker as the administrator."""
    from engine.bus.client import Bus

    config = json.loads(state.config_file("bootstrap").read_text())
    bus = await Bus.connect(
        config["nats_url"],
        user=config["nats_user"],
        password=config["nats_password"],
        authority=config.get("nats_ca", ""),
        name="bootstrap",
        cell=cell["cell"],
    )
    try:
        yield bus
    finally:
        await bus.close()


async def _administrator(state: State, cell: dict[str, Any]) -> None:
    """Wait for the engine, and have it make the first administrator if it has none."""
    from engine.bus.service import ask_engine

    async with _bus(state, cell) as bus:
        with step("Engine") as current:
            status = json.loads(await ask_engine(bus, "status", timeout_s=ENGINE_S))
            current.result = f"epoch {status['epoch']}, ordinal {status['ordinal']}"
        if not status["bootstrapped"]:
            with step("Administrator"):
                await _make_administrator(bus, state)


async def _others(state: State, cell: dict[str, Any]) -> None:
    """Wait until the processes answer that the API asks in its turn."""
    from schemas.work import ConsoleAsk, encode

    async with _bus(state, cell) as bus:
        with step("Archiver"):
            await _answers(bus, bus.subjects.history("status"), b"")
        with step("Agent"):
            nobody = encode(ConsoleAsk(server_id="none"))
            await _answers(bus, bus.subjects.console(cell["host_id"]), nobody)


async def _answers(bus: Any, subject: str, question: bytes) -> None:
    """Ask until somebody answers, whatever the answer is.

    Raises:
        Problem: nobody did in time.
    """
    from engine.bus.client import BusError

    last: BusError | None = None
    for _ in range(round(ANSWER_S / ASK_AGAIN_S)):
        try:
            await bus.request(subject, question, timeout_s=5.0)
        except BusError as error:
            last = error
            await asyncio.sleep(ASK_AGAIN_S)
        else:
            return
    raise Problem(f"nobody answers on {subject}: {last}")


async def _make_administrator(bus: Any, state: State) -> None:
    import msgspec

    from api.passwords import Passwords
    from engine.bus.keys import Keys
    from engine.bus.service import ask_engine
    from engine.sealing import seal
    from schemas.envelope import Refused, decode_outcome
    from schemas.identity import Bootstrap

    keys = Keys(bus)
    hashed = await Passwords().hash(state.credentials()["admin"]["password"])
    # Fixed names: a run that was killed in between finds its keys again.
    user_key, project_key = "user-first-admin", "project-first-admin"
    password = seal(await keys.create_key(user_key), user_key, hashed.encode())
    await keys.create_key(project_key)
    action = Bootstrap(admin_password=password, project_key_id=project_key)
    outcome = decode_outcome(await ask_engine(bus, "bootstrap", msgspec.json.encode(action)))
    if isinstance(outcome.verdict, Refused):
        status = json.loads(await ask_engine(bus, "status"))
        if not status["bootstrapped"]:  # else an answer was lost, and this was the second try
            raise Problem(f"the engine refused the first administrator: {outcome.verdict.reason}")


def _sign_in(client: Client) -> Client:
    """Wait until the API answers and knows the administrator."""
    last: Problem | None = None
    for _ in poll(ANSWER_S):
        try:
            client.token()
        except Problem as problem:
            if problem.exit_code != UNREACHABLE and problem.status != 401:
                raise
            last = problem
        else:
            return client
    raise last or Problem("the API does not answer")


def _wait_for_host(client: Client, host_id: str) -> str:
    """Wait until this machine's agent has registered and is heard of."""
    for _ in poll(ANSWER_S):
        up = {h["host_id"]: h for h in client.get("/v1/status")["hosts"] if h["status"] == "up"}
        for host in HOSTS.list(client) if host_id in up else []:
            if host["name"] == host_id:
                how = {"kvm": " with KVM", "tcg": ", emulated (no KVM here)"}
                return (
                    f"{host_id}, {host['hypervisor_type']}"
                    f"{how.get(up[host_id]['accelerator'], '')}, {host['vcpus']} vCPUs, "
                    f"{host['memory_mb'] / 1024:.0f} GiB"
                )
    raise Problem(f"host {host_id} did not register", hint="log/agent.log says why.")


def _make_flavors(client: Client) -> int:
    known = {flavor["name"] for flavor in FLAVORS.list(client)}
    missing = {name: size for name, size in SIZES.items() if name not in known}
    for name, (identity, vcpus, memory_mib, disk_gib) in missing.items():
        body = {"id": identity, "name": name, "vcpus": vcpus, "ram": memory_mib, "disk": disk_gib}
        client.post(FLAVORS.path, {"flavor": body})
    return len(missing)


def _make_demo(client: Client, password: str) -> None:
    projects = {project["name"]: project for project in PROJECTS.list(client)}
    project = (
        projects.get("demo")
        or client.post(
            PROJECTS.path,
            {"project": {"name": "demo", "domain_id": "default", "description": "For trying out."}},
        )["project"]
    )
    users = {user["name"]: user for user in USERS.list(client)}
    body = {
        "name": "demo",
        "domain_id": "default",
        "password": password,
        "default_project_id": project["id"],
    }
    user = users.get("demo") or client.post(USERS.path, {"user": body})["user"]
    role = ROLES.identify(client, "member")
    client.request("PUT", f"{PROJECTS.path}/{project['id']}/users/{user['id']}/roles/{role}")


def _make_guest(client: Client, state: State, image: Path | None, *, real: bool) -> None:
    """Upload the tiny guest as a public image, building it if nobody has."""
    found = [row for row in IMAGES.list(client) if row["name"] == GUEST]
    if any(row["status"] == "active" for row in found):
        return
    file = image or state.guest_image
    if not file.exists():
        with step("Tiny guest") as current:
            current.result = _build(file) if real else _write_blank(file)
    with step(f"Image {GUEST}") as current:
        for row in found:  # an upload that was cut short
            client.delete(f"{IMAGES.path}/{row['id']}")
        disk_format = "qcow2" if real or image else "raw"
        body = {
            "name": GUEST,
            "disk_format": disk_format,
            "container_format": "bare",
            "visibility": "public",
        }
        made = upload_image(client, body, file, current.say)
        current.result = f"{made['size'] / 2**20:.0f} MiB"


def _build(file: Path) -> str:
    beside = file.with_name(file.name + ".new")
    done = subprocess.run(
        [sys.executable, str(BUILDER), str(beside)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    if done.returncode != 0:
        raise Problem(
            f"the guest image could not be built: {done.stderr.strip()[-400:]}",
            hint="`script/bootstrap` installs what it is built from; --image names one of yours.",
        )
    beside.rename(file)
    return f"built from this system's packages, {file.stat().st_size / 2**20:.0f} MiB"


def _write_blank(file: Path) -> str:
    """Write an empty raw disk: simulated servers boot nothing."""
    beside = file.with_name(file.name + ".new")
    with beside.open("wb") as blank:
        blank.truncate(2**20)
    beside.rename(file)  # a kill in between must not leave an empty one to be taken for it
    return "an empty disk, for simulated servers"


if __name__ == "__main__":
    follow_supervisor()
    run_to_exit(lambda: main(State.at(sys.argv[1]), sys.argv[2]))
