"""The first server, and what happened: what `cumulog up --demo` shows.

Run by the supervisor in a process of its own once the cloud is up. Everything goes through the
public API as the account ``cumulog-demo``; only the ping is made on the host itself, from the
network's own namespace. Repeating it finds the server that is there.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli.billing import summary
from cli.bootstrap import GUEST
from cli.client import Client
from cli.compute import FLAVORS, SERVERS
from cli.credentials import find_cloud
from cli.image import IMAGES
from cli.network import NETWORKS, SUBNETS
from cli.output import Row, table, when
from cli.problem import Problem, run_to_exit
from cli.progress import poll
from cli.serve import follow_supervisor
from cli.state import State
from cli.steps import Step, line, step

NAME = "first"
RANGE = "10.10.0.0/24"
FLAVOR = "m1.nano"
ACTIVE_S = 300.0
READY_S = 180.0
PING_S = 60.0
CONSOLE_LINES = 8
READY_SIGN = "@@ ready"  # the tiny guest says so on its console


def main(state: State, here: Path) -> None:
    """Boot the first server and show what happened to a person who is in the folder ``here``."""
    cell = state.cell()
    real = cell["driver"] == "libvirt"
    client = Client(find_cloud("cumulog-demo", str(state.root)))
    with step(f"Network {NAME}") as current:
        network = _network(client)
        current.result = RANGE
    with step(f"Server {NAME}") as current:
        server = _server(client, network["id"], current)
        address = next(a["addr"] for found in server["addresses"].values() for a in found)
        current.result = f"{server['status']}, {address}"
    if real:
        with step("Its guest boots") as current:
            current.result = _wait_until_ready(client, server)
        with step(f"Ping {address} from its network's namespace") as current:
            current.result = _ping(state, network["id"], address)
        line(f"\nThe last lines of its console (cumulog server console {NAME}):\n")
        for text in _console(client, server).splitlines()[-CONSOLE_LINES:]:
            line(f"    {text}")
    _show_journey(client, server)
    _show_cost(client)
    _show_next(state, here)


def _network(client: Client) -> Row:
    found = [row for row in NETWORKS.list(client, name=NAME) if row["name"] == NAME]
    network = (
        found[0] if found else client.post(NETWORKS.path, {"network": {"name": NAME}})["network"]
    )
    if not NETWORKS.get(client, network["id"])["subnets"]:
        subnet = {"name": NAME, "network_id": network["id"], "cidr": RANGE, "ip_version": 4}
        client.post(SUBNETS.path, {"subnet": subnet})
    return dict(network)


def _server(client: Client, network_id: str, current: Step) -> Row:
    found = [row for row in SERVERS.list(client) if row["name"] == NAME]
    if found:
        server_id = found[0]["id"]
    else:
        body = {
            "name": NAME,
            "flavorRef": FLAVORS.identify(client, FLAVOR),
            "imageRef": IMAGES.identify(client, GUEST),
            "networks": [{"uuid": network_id}],
        }
        server_id = client.post(SERVERS.path, {"server": body})["server"]["id"]
    for _ in poll(ACTIVE_S):
        server = SERVERS.get(client, server_id)
        current.say(str(server["status"]))
        if server["status"] == "ERROR":
            raise Problem(f"server {NAME} is in ERROR: {server.get('fault', {}).get('message')}")
        if server["status"] in {"ACTIVE", "SHUTOFF"} and not server["OS-EXT-STS:task_state"]:
            return server
    raise Problem(f"server {NAME} did not become ACTIVE", hint=f"`cumulog why {NAME}` says more.")


def _console(client: Client, server: Row) -> str:
    path = f"{SERVERS.path}/{server['id']}/action"
    return str(client.post(path, {"os-getConsoleOutput": {}})["output"]).replace("\r", "")


def _wait_until_ready(client: Client, server: Row) -> str:
    if server["status"] != "ACTIVE":
        return "it is off; cumulog server start first"
    for _ in poll(READY_S):
        if READY_SIGN in (text := _console(client, server)):
            found = re.findall(rf"{READY_SIGN} up=([\d.]+)", text)
            return f"ready {found[-1]} s after its kernel started" if found else "ready"
    return "it has not said yet that it is ready"


def _ping(state: State, network_id: str, address: str) -> str:
    from executors.layout import Layout

    namespace = Layout.of(state.root).network_namespace(network_id)
    enter = ["ip", "netns", "exec", namespace]
    done = subprocess.run(
        [*enter, "ping", "-c", "3", "-i", "0.2", "-W", "5", address],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PING_S,
        check=False,
    )
    found = re.search(r"(\d+) received.*?(?:= [\d.]+/([\d.]+)/|$)", done.stdout, re.DOTALL)
    if found is None:
        return f"failed: {done.stderr.strip() or done.stdout.strip()}"
    return f"{found[1]} of 3 came back" + (f", {found[2]} ms on average" if found[2] else "")


def _show_journey(client: Client, server: Row) -> None:
    """Print the hops of the request that made the server."""
    told = client.get(f"/v1/why/{server['id']}")["events"]
    request_id = next(event["request_id"] for event in told if event["tag"] == "CreateServer")
    rows = hops(client.get(f"/v1/audit/{request_id}")["events"])
    line(f"\nThe way of its request through the log (cumulog audit show {request_id}):\n")
    cells = [
        [f"{row['ms']:.1f}", row["hop"], str(row["ordinals"]), when(row["at"])] for row in rows
    ]
    for text in table(["AFTER MS", "WHAT", "ORDINALS", "AT"], cells).splitlines():
        line(f"    {text}")


def hops(events: list[Row]) -> list[dict[str, Any]]:
    """Return the hops of a CreateServer: asked, committed, running on the host, reported."""
    request = next(event for event in events if event["kind"] == "request")
    start = request["body"]["request"]["submitted_at"]
    rows: list[dict[str, Any]] = [{"at": start, "hop": "submitted to the engine", "ordinals": ""}]
    commits: dict[int, list[Row]] = {}
    for event in events:
        commits.setdefault(event["at"], []).append(event)
    for at, together in commits.items():
        ordinals = f"{together[0]['ordinal']}…{together[-1]['ordinal']}"
        started = next((e for e in together if e["tag"] == "compute.server.started.v1"), None)
        if started is not None:
            seen = started["body"]["observed_at"]
            rows.append({"at": seen, "hop": "its domain runs on the host", "ordinals": ""})
        hop = "decided and committed; work sent to the host"
        if started is not None:
            hop = "the host's report committed: ACTIVE"
        elif together[0] is not request:
            hop = f"{together[0]['tag']} committed"
        rows.append({"at": at, "hop": hop, "ordinals": ordinals})
    return [{**row, "ms": (row["at"] - start) / 1000} for row in rows]


def _show_cost(client: Client) -> None:
    try:
        told = client.get("/v1/bill")
    except Problem as problem:
        line(f"\nWhat it costs cannot be said now: {problem.line()}")
        return
    line(f"\nWhat it costs so far (cumulog bill): {summary(told)}")


def _show_next(state: State, here: Path) -> None:
    folder = Path(sys.executable).parent
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    clouds = shlex.quote(str(state.clouds_file))
    cumulog = shlex.quote(str(shown / "cumulog"))
    line(
        "\nThree commands to try next, in another terminal:\n\n"
        f"    export OS_CLIENT_CONFIG_FILE={clouds} OS_CLOUD=cumulog-demo\n\n"
        f"    {cumulog} server list\n"
        f"    {cumulog} why {NAME}\n"
        f"    {cumulog} events tail --follow\n\n"
        "Ctrl-C here stops the control plane; servers keep running.\n"
    )


if __name__ == "__main__":
    follow_supervisor()
    run_to_exit(lambda: main(State.at(sys.argv[1]), Path(sys.argv[2])))
