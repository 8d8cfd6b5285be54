"""What the access log costs an edge: the time to note one request, and to tell of a second.

Run: ``script/bench access``. No broker: it is never waited for. Requests are made beforehand, with
headers that were looked at already, as they have been when an edge notes them.
"""

import argparse
import time
from types import SimpleNamespace
from typing import Any

from api.access import AccessLog
from api.exchange import Call
from api.forwarded import Proxies
from api.routing import Route
from schemas.access import decode
from schemas.config import Config

AIM_US = 5.0
RULE = "compute:servers:read: reader in project"


async def _never(_call: Call) -> Any:
    raise AssertionError("only its declaration is used")


ROUTE = Route(handler=_never, path="/v2.1/servers/{}", actions=("compute:servers:read",))


NOWHERE: Any = None  # a broker: nothing is sent here


def request(edge: Any, user: str, server: str, address: str, agent: str) -> Call:
    """Return a request that was answered; ``user`` "" was not let in."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/compute/v2.1/servers/x",
        "query_string": b"",
        "scheme": "http",
        "client": (address, 1),
        "headers": [(b"user-agent", agent.encode())],
    }
    call = Call(edge, "compute", scope, _never)  # type: ignore[arg-type]  # nothing is received
    call.route, call.args = ROUTE, (server,)
    if user:
        principal: Any = SimpleNamespace(user_id=user, project_id="p", roles=("member", "reader"))
        call.principal, call.rule = principal, RULE
    else:
        call.reason = "the token is not valid"
    assert call.address
    return call


def main() -> None:
    """Print each figure beside its aim."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    edge = SimpleNamespace(config=Config(state_dir="/nowhere"), proxies=Proxies(()))
    users = [f"user-{n % 20}" for n in range(2000)]
    kinds = {
        "alike": [request(edge, "u", "s", "10.0.0.1", "curl/8")] * 2000,
        "each another": [
            request(edge, user, f"s-{n}", "10.0.0.1", "curl/8") for n, user in enumerate(users)
        ],
        "strangers, each another": [
            request(edge, "", f"s-{n}", f"10.1.{n % 8}.{n % 250}", f"agent-{n}")
            for n in range(2000)
        ],
    }
    for name, calls in kinds.items():
        cost_us, told_ms, data = 0.0, 0.0, b""
        for _ in range(rounds):
            log = AccessLog(NOWHERE, "edge", clock=lambda: time.time_ns() // 1000)
            began = time.process_time()
            for call in calls:
                log.note(call, 200, 0.001)
            noted = time.process_time()
            log._tell()  # noqa: SLF001  # what it does each second
            told_ms += (time.process_time() - noted) * 1000 / rounds
            cost_us += (noted - began) * 1e6 / rounds / len(calls)
            data = log._waiting[-1][1]  # noqa: SLF001  # as above
        verdict = "met" if cost_us <= AIM_US else "MISSED"
        print(
            f"{name:<26}{cost_us:>7.2f} us  aim <= {AIM_US:g}: {verdict}   "
            f"a second of {len(calls)}: {told_ms:.2f} ms, "
            f"{len(decode(data).entries)} entries, {len(data)} bytes"
        )


if __name__ == "__main__":
    main()
