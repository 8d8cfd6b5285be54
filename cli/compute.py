"""Commands about servers, flavors, keypairs and hosts."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.image import IMAGES
from cli.network import NETWORKS, PORTS
from cli.output import Row
from cli.problem import USAGE, Problem
from cli.progress import Waiting, poll
from cli.resource import Reference, References, Resource, add_delete, add_reads
from cli.session import Session, command, group

COMPUTE = "/compute/v2.1"
# Long enough for an operation's own deadline to pass and be told.
WAIT_S = 900.0


def _addresses(server: Row) -> str:
    return "; ".join(
        f"{network}={', '.join(str(address['addr']) for address in addresses)}"
        for network, addresses in server.get("addresses", {}).items()
    )


def _flavor(server: Row) -> str:
    flavor = server.get("flavor", {})
    return str(flavor.get("original_name") or flavor.get("id", ""))


SERVERS = Resource(
    word="server",
    path=f"{COMPUTE}/servers",
    list_path=f"{COMPUTE}/servers/detail",
    key="server",
    keys="servers",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("STATUS", "status"),
        ("TASK", "OS-EXT-STS:task_state"),
        ("ADDRESSES", _addresses),
        ("FLAVOR", _flavor),
    ],
)
FLAVORS = Resource(
    word="flavor",
    path=f"{COMPUTE}/flavors",
    list_path=f"{COMPUTE}/flavors/detail",
    key="flavor",
    keys="flavors",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("VCPUS", "vcpus"),
        ("MEMORY MIB", "ram"),
        ("DISK GIB", "disk"),
    ],
)
KEYPAIRS = Resource(
    word="keypair",
    path=f"{COMPUTE}/os-keypairs",
    key="keypair",
    keys="keypairs",
    identity="name",
    view=lambda row: row.get("keypair", row),
    columns=[("NAME", "name"), ("TYPE", "type"), ("FINGERPRINT", "fingerprint")],
)
HOSTS = Resource(
    word="host",
    path=f"{COMPUTE}/os-hypervisors",
    list_path=f"{COMPUTE}/os-hypervisors/detail",
    key="hypervisor",
    keys="hypervisors",
    view=lambda row: {"name": row.get("hypervisor_hostname"), **row},
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("STATE", "state"),
        ("TYPE", "hypervisor_type"),
        ("VCPUS USED", lambda row: f"{row.get('vcpus_used')}/{row.get('vcpus')}"),
        ("MEMORY USED MIB", lambda row: f"{row.get('memory_mb_used')}/{row.get('memory_mb')}"),
        ("SERVERS", "running_vms"),
    ],
)

server_app = group("Virtual machines.")
flavor_app = group("Sizes that servers can have.")
keypair_app = group("SSH keys to put into servers.")
host_app = group("Machines that run servers.")
for app, resource in (
    (server_app, SERVERS),
    (flavor_app, FLAVORS),
    (keypair_app, KEYPAIRS),
    (host_app, HOSTS),
):
    add_reads(app, resource)
for app, resource in ((flavor_app, FLAVORS), (keypair_app, KEYPAIRS)):
    add_delete(app, resource)

SHUT_DOWN = 4  # of power_state
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is done.")]


def wait_for(session: Session, server_id: str, name: str, *, wanted: str | None) -> Row:
    """Follow a server until it has the status wanted and no task; None means until it is gone.

    Raises:
        Problem: it is in ERROR, or did not get there in time.
    """
    with Waiting(f"server {name}") as waiting:
        for _ in poll(WAIT_S):
            try:
                server = SERVERS.get(session.client, server_id)
            except Problem as problem:
                if wanted is None and problem.status == 404:
                    return {}
                raise
            status, task = server["status"], server.get("OS-EXT-STS:task_state")
            waiting.say(f"{status} {task or ''}".strip())
            if status == wanted and not task:
                return server
            if status == "ERROR" and not task:
                fault = server.get("fault", {}).get("message", "it failed")
                raise Problem(
                    f"server {name} is in ERROR: {fault}",
                    hint=f"`cumulog why {server_id}` shows how it came to that.",
                )
    raise Problem(
        f"server {name} did not become {wanted or 'deleted'} within {WAIT_S:.0f} s",
        hint=f"`cumulog why {server_id}` shows what it waits for.",
    )


def _key_value(pairs: list[str], option: str) -> dict[str, str]:
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Problem(f"{option} takes KEY=VALUE, not {pair!r}", exit_code=USAGE)
        values[key] = value
    return values


@command(server_app, "create")
def create_server(
    session: Session,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    *,
    flavor: Annotated[str, typer.Option(help="Its size: a flavor's name or id.")],
    image: Annotated[str, typer.Option(help="What it boots: an image's name or id.")],
    network: Annotated[list[str] | None, typer.Option(help="A network; repeat for more.")] = None,
    port: Annotated[list[str] | None, typer.Option(help="An existing port; repeatable.")] = None,
    key_name: Annotated[str | None, typer.Option(help="A keypair to put into it.")] = None,
    user_data: Annotated[Path | None, typer.Option(help="A file its first boot reads.")] = None,
    property_: Annotated[
        list[str] | None, typer.Option("--property", help="KEY=VALUE; repeatable.")
    ] = None,
    wait: Wait = False,
) -> None:
    """Make a server and start it.

    Example: cumulog server create web-1 --flavor m1.nano --image tiny-guest --network demo --wait
    """
    client = session.client
    body: dict[str, Any] = {
        "name": name,
        "flavorRef": FLAVORS.identify(client, flavor),
        "imageRef": IMAGES.identify(client, image),
    }
    plugs = [{"uuid": NETWORKS.identify(client, reference)} for reference in network or []]
    plugs += [{"port": PORTS.identify(client, reference)} for reference in port or []]
    if plugs:
        body["networks"] = plugs
    if key_name:
        body["key_name"] = key_name
    if property_:
        body["metadata"] = _key_value(property_, "--property")
    if user_data:
        import base64

        body["user_data"] = base64.b64encode(_content(user_data)).decode()
    made = client.post(SERVERS.path, {"server": body})["server"]
    if wait:
        session.show(wait_for(session, made["id"], name, wanted="ACTIVE"))
    else:
        session.show(SERVERS.get(client, made["id"]))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}", exit_code=USAGE) from error


def _act(session: Session, reference: str, action: dict[str, Any], wanted: str, wait: bool) -> None:
    server = SERVERS.find(session.client, reference)
    path = f"{SERVERS.path}/{server['id']}"
    session.client.post(f"{path}/action", action)
    if wait:
        server = wait_for(session, str(server["id"]), reference, wanted=wanted)
    else:
        server = SERVERS.get(session.client, str(server["id"]))
    session.say(
        f"server {reference}: {server['status']} "
        f"{server.get('OS-EXT-STS:task_state') or ''}".rstrip()
    )


@command(server_app, "start")
def start_server(session: Session, reference: Reference, *, wait: Wait = False) -> None:
    """Start a server that is SHUTOFF."""
    _act(session, reference, {"os-start": None}, "ACTIVE", wait)


@command(server_app, "stop")
def stop_server(session: Session, reference: Reference, *, wait: Wait = False) -> None:
    """Stop a server: power button first, power off when it does not react. Its disk stays."""
    _act(session, reference, {"os-stop": None}, "SHUTOFF", wait)


@command(server_app, "reboot")
def reboot_server(
    session: Session,
    reference: Reference,
    *,
    hard: Annotated[bool, typer.Option(help="Reset it, do not ask the guest.")] = False,
    wait: Wait = False,
) -> None:
    """Reboot a server."""
    action = {"reboot": {"type": "HARD" if hard else "SOFT"}}
    _act(session, reference, action, "ACTIVE", wait)


@command(server_app, "resize")
def resize_server(
    session: Session,
    reference: Reference,
    *,
    flavor: Annotated[str, typer.Option(help="Its new size: a flavor's name or id.")],
    wait: Wait = False,
) -> None:
    """Give a server another flavor; it restarts. Then confirm it, or revert it.

    Example: cumulog server resize web-1 --flavor m1.small --wait
    """
    action = {"resize": {"flavorRef": FLAVORS.identify(session.client, flavor)}}
    _act(session, reference, action, "VERIFY_RESIZE", wait)


@command(server_app, "resize-confirm")
def confirm_resize(session: Session, reference: Reference) -> None:
    """Keep a server's new flavor: the way back is given up."""
    _act(session, reference, {"confirmResize": None}, "", wait=False)


@command(server_app, "resize-revert")
def revert_resize(session: Session, reference: Reference, *, wait: Wait = False) -> None:
    """Give a server its old flavor back, and its disk as it was before the resize."""
    server = SERVERS.find(session.client, reference)
    off = server.get("OS-EXT-STS:power_state") == SHUT_DOWN
    _act(session, reference, {"revertResize": None}, "SHUTOFF" if off else "ACTIVE", wait)


@command(server_app, "delete")
def delete_server(session: Session, references: References, *, wait: Wait = False) -> None:
    """Delete servers, in whatever state they are."""
    found = [(text, SERVERS.identify(session.client, text)) for text in references]
    for _, identity in found:
        session.client.delete(f"{SERVERS.path}/{identity}")
    for reference, identity in found:
        if wait:
            wait_for(session, identity, reference, wanted=None)
        session.say(f"server {reference}: {'deleted' if wait else 'being deleted'}")


@command(server_app, "console")
def console(
    session: Session,
    reference: Reference,
    *,
    lines: Annotated[int | None, typer.Option(min=1, help="Only the last lines.")] = None,
) -> None:
    """Print what a server has written to its console."""
    identity = SERVERS.identify(session.client, reference)
    asked = {"os-getConsoleOutput": {} if lines is None else {"length": lines}}
    text = session.client.post(f"{SERVERS.path}/{identity}/action", asked)["output"]
    print(text, end="" if text.endswith("\n") else "\n")


@command(flavor_app, "create")
def create_flavor(
    session: Session,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    *,
    vcpus: Annotated[int, typer.Option(min=1, help="Virtual processors.")] = 1,
    memory_mib: Annotated[int, typer.Option("--memory-mib", "--ram", min=1, help="MiB.")] = 512,
    disk_gib: Annotated[
        int, typer.Option("--disk-gib", "--disk", min=0, help="Root disk, GiB; 0: as the image.")
    ] = 0,
    flavor_id: Annotated[str, typer.Option("--id", help="Its id.")] = "auto",
) -> None:
    """Make a flavor (administrators)."""
    body = {"name": name, "vcpus": vcpus, "ram": memory_mib, "disk": disk_gib, "id": flavor_id}
    session.show(session.client.post(FLAVORS.path, {"flavor": body})["flavor"])


@command(keypair_app, "create")
def create_keypair(
    session: Session,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    *,
    public_key: Annotated[
        Path | None, typer.Option(help="A file with the public key; none: make a pair.")
    ] = None,
) -> None:
    """Store a public key, or make a pair and print the private key once."""
    body = {"name": name}
    if public_key:
        body["public_key"] = _content(public_key).decode(errors="replace").strip()
    made = session.client.post(KEYPAIRS.path, {"keypair": body})["keypair"]
    if not public_key and "private_key" in made and session.output == "table":
        print(made["private_key"], end="")
        return
    session.show(made)
