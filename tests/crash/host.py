"""Takes a real host's inventory with virsh, ip, nft and ls, and compares it with the log's facts.

Part of the checker: neither the agent nor anything that it is made of is asked. Names follow from
the state directory and the ids as docs/crash-safety.md tells:

prefix      "cl" and 7 hex digits of SHA-256 of the directory's path: the host's network namespace
domain      <prefix>-<server id>
tap         "tap-" and the last 11 hex digits of the port's id; bridge the same with "br-" and 12
namespace   <prefix>-<last 12 hex digits of the network's id>: a network's DHCP and metadata
"""

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.crash.truth import Truth

COMMAND_S = 60.0
SOCKET_PATH_MAX = 100


@dataclass
class Inventory:
    """Things by kind: ``domain``, ``qemu``, ``disk``, ``tap``, ``bridge``, ``guarded``…"""

    things: dict[str, list[str]] = field(default_factory=dict)


def prefix_of(state_dir: Path) -> str:
    """Return what every name of this cloud on this host begins with."""
    return "cl" + hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:7]


def expected(truth: Truth, prefix: str, host_id: str) -> Inventory:
    """Return what the facts say should be on this host.

    A server that is off keeps its disk and its rules, and has no domain. One in ERROR has nothing.
    """
    here = {i: s for i, s in truth.servers.items() if s.host_id == host_id and s.status != "ERROR"}
    running = {i for i, s in here.items() if s.status != "SHUTOFF"}
    ports = {i: p for i, p in truth.ports.items() if p["device_id"] in here}
    live = [i for i, p in ports.items() if p["device_id"] in running]
    networks = {p["network_id"] for p in ports.values()}
    domains = [f"{prefix}-{i}" for i in running]
    return Inventory(
        {
            "domain": domains,
            "qemu": domains,
            "disk": list(here),
            "tap": [_link("tap-", i) for i in live],
            "guarded": [_link("tap-", i) for i in ports],
            "bridge": [_link("br-", i) for i in networks],
            "namespace": [f"{prefix}-{_hex(i)[-12:]}" for i in networks],
            "dnsmasq": [f"{prefix}-{_hex(i)[-12:]}" for i in networks],
        }
    )


def take(state_dir: Path, prefix: str) -> Inventory:
    """Return what is on this host.

    Raises:
        OSError: a program failed.
    """
    links = json.loads(_run("ip", "-n", prefix, "-json", "link", "show"))
    names = [link["ifname"] for link in links]
    spaces = [row["name"] for row in json.loads(_run("ip", "-json", "netns", "list") or "[]")]
    commands = _commands()
    return Inventory(
        {
            "domain": [d for d in _virsh(state_dir, "list", "--all", "--name").split() if d],
            "qemu": [g for c in commands if (g := _guest(c)) and g.startswith(f"{prefix}-")],
            "disk": _run("ls", str(state_dir / "host" / "servers")).split(),
            "tap": [n for n in names if n.startswith("tap-")],
            "guarded": _guarded(prefix),
            "bridge": [n for n in names if n.startswith("br-")],
            "namespace": [n for n in spaces if n.startswith(f"{prefix}-")],
            "dnsmasq": [n for c in commands if (n := _served(c, state_dir))],
        }
    )


def compare_host(wanted: Inventory, there: Inventory) -> list[tuple[str, str]]:
    """Return (kind of finding, what) for all that is too much, too often or too little."""
    found = []
    for kind, names in wanted.things.items():
        seen = there.things.get(kind, [])
        found += [("orphans", f"{kind} {name} on the host") for name in set(seen) - set(names)]
        found += [("missing", f"{kind} {name} on the host") for name in set(names) - set(seen)]
        twice = {name for name in seen if seen.count(name) > 1}
        found += [("orphans", f"{kind} {name} is there twice") for name in twice]
    return sorted(found)


def _hex(identifier: str) -> str:
    return identifier.replace("-", "")


def _link(prefix: str, identifier: str) -> str:
    return prefix + _hex(identifier)[len(prefix) - 15 :]


def _run(*command: str, fds: tuple[int, ...] = ()) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, pass_fds=fds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{' '.join(command)} does not end") from error
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _virsh(state_dir: Path, *arguments: str) -> str:
    run = state_dir / "host" / "libvirt" / "run"
    (name,) = [n for n in ("libvirt-sock", "virtqemud-sock") if (run / n).exists()] or ["none"]
    path, fds = run / name, tuple[int, ...]()
    if len(str(path)) > SOCKET_PATH_MAX:  # a socket's name has at most 108 bytes
        directory = os.open(run, os.O_PATH | os.O_DIRECTORY)
        path, fds = Path(f"/proc/self/fd/{directory}") / name, (directory,)
    try:
        uri = f"qemu+unix:///system?socket={quote(str(path))}"
        return _run("virsh", "-q", "-c", uri, *arguments, fds=fds)
    finally:
        for descriptor in fds:
            os.close(descriptor)


def _guarded(prefix: str) -> list[str]:
    inside = ("ip", "netns", "exec", prefix)
    if "table bridge cumulog" not in _run(*inside, "nft", "list", "tables"):
        return []
    told: dict[str, Any] = json.loads(
        _run(*inside, "nft", "-j", "list", "set", "bridge", "cumulog", "guarded")
    )
    return [e for row in told["nftables"] for e in row.get("set", {}).get("elem", ())]


def _commands() -> list[list[str]]:
    """Return the arguments of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        found.append(arguments)
    return found


def _guest(arguments: list[str]) -> str:
    if "-name" not in arguments[:-1]:
        return ""
    name = arguments[arguments.index("-name") + 1]
    return name.removeprefix("guest=").partition(",")[0] if name.startswith("guest=") else ""


def _served(arguments: list[str], state_dir: Path) -> str:
    begin = f"--conf-file={state_dir.resolve()}/host/network/"
    names = [a.removeprefix(begin).split("/")[0] for a in arguments if a.startswith(begin)]
    return names[0] if names else ""
