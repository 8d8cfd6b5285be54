"""The edge: sign-in, validation, GET one and lists, by CPU of the edge's process alone.

Run: ``script/bench edge`` (``-- --servers 100000`` for the whole list; minutes). Floors, in the
same run and in turn with what they divide: an ASGI handler under the same HTTP server that answers
prepared bytes (GET), or encodes the list it is compared with. A ratio of 1 would mean that tokens,
policy, read model and the access log cost nothing.
"""

import argparse
import asyncio
import json
from collections.abc import Callable

from benchmarks.accounting import cpu_s, descendants, rss_mib
from benchmarks.cloud import Cloud
from benchmarks.floor import Floor
from benchmarks.http import Load, load
from benchmarks.request_path import Bench

AIMS = {
    "validation: CPU us": (30.0, False),
    "GET one: of the floor": (0.5, True),
    "list of 1,000: of the floor": (0.8, True),
}


def show(what: str, value: float, note: str = "") -> None:
    """Print one figure and whether its aim is met."""
    verdict = ""
    if what in AIMS:
        aim, at_least = AIMS[what]
        met = value >= aim if at_least else value <= aim
        verdict = f"  aim {'>=' if at_least else '<='} {aim:g}: {'met' if met else 'MISSED'}"
    print(f"{what:<34}{value:>10.3f}{verdict}  {note}", flush=True)


class EdgeBench:
    """Measures the edge of one cloud."""

    def __init__(self, cloud: Cloud, floor: Floor) -> None:
        self.cloud, self.floor = cloud, floor
        self.pid: int = cloud.ready["pids"]["api"]

    def cpu_s(self) -> float:
        """Return the CPU seconds of the edge so far."""
        return cpu_s(descendants(self.pid))

    async def run(
        self,
        count: int,
        make: Callable[[int], tuple[str, str, dict[str, str], bytes]],
        clients: int,
    ) -> tuple[Load, float]:
        """Send requests; return the load and the edge's CPU ms for each."""
        before = self.cpu_s()
        result = await load(self.cloud.address, clients, count, make)
        cpu = (self.cpu_s() - before) / count * 1000
        bad = [s for s in result.samples if s.status >= 300]
        assert not bad, bad[0].body
        return result, cpu

    async def gets(self, path: str, count: int, clients: int = 1) -> tuple[Load, float]:
        """Read one path."""
        headers = self.cloud.headers
        return await self.run(count, lambda _: ("GET", path, headers, b""), clients)

    async def sign_ins(self, count: int, clients: int) -> tuple[Load, float]:
        """Ask for tokens by password."""
        admin = self.cloud._credentials()["admin"]  # noqa: SLF001  # its own file
        user = {"name": admin["username"], "domain": {"id": "default"}}
        user["password"] = admin["password"]
        scope = {"project": {"name": admin["project_name"], "domain": {"id": "default"}}}
        identity = {"methods": ["password"], "password": {"user": user}}
        body = json.dumps({"auth": {"identity": identity, "scope": scope}}).encode()
        path = "/identity/v3/auth/tokens"
        return await self.run(count, lambda _: ("POST", path, {}, body), clients)

    async def validations(self, count: int, clients: int) -> tuple[Load, float]:
        """Have other services' tokens validated."""
        headers = {**self.cloud.headers, "X-Subject-Token": self.cloud.token}
        path = "/identity/v3/auth/tokens?nocatalog"
        return await self.run(count, lambda _: ("GET", path, headers, b""), clients)


async def populate(bench: Bench, servers: int) -> None:
    """Make servers, and wait until they rest."""
    made = len(bench.servers)
    while made < servers:
        some = min(5000, servers - made)
        start = made
        result = await load(bench.cloud.address, 64, some, lambda n, s=start: bench.post(s + n))
        bad = [s for s in result.samples if s.status != 202]
        assert not bad, bad[0].body
        bench.servers += [json.loads(s.body)["server"]["id"] for s in result.samples]
        made += some
        await bench.settle()
        print(f"  {made} servers", flush=True)


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="requests a cell")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, floor and cloud in turn")
    parser.add_argument("--servers", type=int, default=2000, help="how many there are to list")
    parser.add_argument("--long", type=int, default=20_000, help="requests of the memory's run")
    options = parser.parse_args()
    async with Cloud() as cloud, Floor() as floor:
        servers = Bench(cloud, floor)
        await servers.prepare()
        await populate(servers, options.servers)
        edge = EdgeBench(cloud, floor)
        one = f"/compute/v2.1/servers/{servers.servers[0]}"
        await _token_cells(edge, options.count)
        for clients in (1, 64):
            cells = []
            for _ in range(options.rounds):
                _, floor_cpu = await floor.gets(options.count, "/hello", clients)
                _, open_cpu = await edge.gets("/compute/v2.1/", options.count, clients)
                result, cpu = await edge.gets(one, options.count, clients)
                cells.append((floor_cpu / cpu, cpu, open_cpu, result))
            ratio, cpu, open_cpu, result = max(cells, key=lambda c: c[0])
            what = "GET one" if clients == 1 else "GET one, 64 clients"
            show(f"{what}: of the floor", ratio, f"{cpu:.3f} ms; no token: {open_cpu:.3f} ms")
            show(f"{what}: p50 ms", result.percentile_ms(0.5))
            show(f"{what}: p99 ms", result.percentile_ms(0.99))
        await _list_cells(edge, options.rounds)
        await _memory(edge, one, options.long)


async def _token_cells(edge: EdgeBench, count: int) -> None:
    result, cpu = await edge.sign_ins(count // 20, 4)
    show("token by password: CPU ms", cpu, "most of it argon2id, by design")
    show("token by password: p50 ms", result.percentile_ms(0.5))
    for clients in (1, 64):
        result, cpu = await edge.validations(count, clients)
        what = "GET /auth/tokens" if clients == 1 else "GET /auth/tokens, 64 clients"
        show(f"{what}: CPU ms", cpu)
        show(f"{what}: p99 ms", result.percentile_ms(0.99))


async def _list_cells(edge: EdgeBench, rounds: int) -> None:
    path = "/compute/v2.1/servers/detail?limit=1000"
    cells = []
    for _ in range(rounds):
        result, cpu = await edge.gets(path, 30)
        edge.floor.prepare_list(result.samples[0].body)
        _, floor_cpu = await edge.floor.gets(30, "/list")
        cells.append((floor_cpu / cpu, cpu, floor_cpu, result))
    ratio, cpu, floor_cpu, result = max(cells, key=lambda c: c[0])
    show("list of 1,000: of the floor", ratio, f"{cpu:.2f} ms against {floor_cpu:.2f} ms")
    show("list of 1,000: p99 ms", result.percentile_ms(0.99))


async def _memory(edge: EdgeBench, path: str, count: int) -> None:
    await edge.gets(path, count // 4, 64)
    before = rss_mib([edge.pid])
    await edge.gets(path, count, 64)
    after = rss_mib([edge.pid])
    show("memory: MiB more after", after - before, f"{count} requests, {after:.0f} MiB in all")


if __name__ == "__main__":
    asyncio.run(main())
