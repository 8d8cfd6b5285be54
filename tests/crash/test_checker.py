"""The checker must be able to fail: each fault that is planted is found, and told with evidence."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.log.commit import GENESIS, seal_commit
from tests.crash import host
from tests.crash.answers import Findings, compare_answers, read_record
from tests.crash.chain import digest, split, walk
from tests.crash.checker import check
from tests.crash.stream import Stored, load_log, save_log
from tests.crash.truth import fold

ROOT = Path(__file__).parents[2]
USER, PROJECT = "user-1", "project-1"
SERVER, PORT, NETWORK = (f"0000000{n}-0000-7000-8000-00000000000{n}" for n in (1, 2, 3))


def record(request_id: str, action: str, *facts: Any, key: str = "", **reply: str) -> dict:
    request = {
        "request_id": request_id,
        "actor": {"kind": "user", "user_id": USER, "project_id": PROJECT},
        "action": {"type": action},
    }
    if key:
        request["key"] = key
    verdict = {"verdict": "accepted", "reply": reply}
    return {"facts": list(facts), "request": request, "salt": "5", "verdict": verdict}


def refused(request_id: str, action: str, key: str) -> dict:
    made = record(request_id, action, key=key)
    return made | {"verdict": {"verdict": "refused", "code": "Forbidden", "status": 403}}


def fact(kind: str, **fields: Any) -> dict:
    return {"type": kind, **fields}


def began(operation_id: str) -> dict:
    operation = {"operation_id": operation_id, "kind": "build", "resource_id": SERVER}
    return fact("operation.operation.started.v1", operation=operation | {"request_id": "req-2"})


def ended(operation_id: str) -> dict:
    return fact("operation.operation.succeeded.v1", operation_id=operation_id, generation=1)


def server(name: str = "crash-server-c0-1", server_id: str = SERVER) -> dict:
    made = {"server_id": server_id, "name": name, "project_id": PROJECT}
    return fact("compute.server.created.v1", server=made)


ACCOUNTS = record(
    "req-1",
    "Bootstrap",
    fact("identity.user.created.v1", user={"name": "demo", "user_id": USER}),
    fact("identity.project.created.v1", project={"name": "demo", "project_id": PROJECT}),
)
CREATE = record("req-2", "CreateServer", server(), began("op-1"), key="c0-1-aa", server_id=SERVER)
REPORT = record("req-3", "ReportOperation", ended("op-1"))
ASKED = {
    "line": "asked",
    "id": "c0-1",
    "client": "c0",
    "key": "c0-1-aa",
    "user": "demo",
    "method": "POST",
    "path": "/v1/actions",
    "what": "CreateServer",
    "name": "crash-server-c0-1",
}
ANSWERED = {
    "line": "answered",
    "id": "c0-1",
    "attempts": 1,
    "status": 202,
    "resource": SERVER,
    "request_id": "req-2",
    "ordinal": 6,
}


def log_of(*commits: list[dict]) -> list[Stored]:
    """Seal commits by the documented format, with no code of the product."""
    log, prev, first = [], "0" * 64, 1
    for number, records in enumerate(commits, 1):
        raw = [
            json.dumps(r, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
            for r in records
        ]
        head = {"at": number, "commit": f"c{number}", "epoch": 1, "first": first, "prev": prev}
        prev = digest(head, raw)
        text = json.dumps(head | {"hash": prev}, sort_keys=True, separators=(",", ":"))
        data = text[:-1].encode() + b',"records":[' + b",".join(raw) + b"]}"
        log.append(Stored("LOG-t-0001", number, data))
        first += sum(1 + len(r["facts"]) for r in records)
    return log


def judge(
    tmp_path: Path, *commits: list[dict], lines: tuple[dict, ...] = (ASKED, ANSWERED)
) -> dict[str, Any]:
    path = tmp_path / "record.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return check(record=path, log=log_of(*commits))


def found(report: dict[str, Any]) -> set[str]:
    return set(report["evidence"])


def test_a_log_in_which_all_is_as_told_is_well(tmp_path):
    report = judge(tmp_path, [ACCOUNTS], [CREATE, REPORT])

    assert report["well"], report["evidence"]
    assert (report["sent"], report["acknowledged"], report["operations"]) == (1, 1, 1)
    assert report["ordinal"] == 8


def test_an_acknowledged_request_that_is_not_in_the_log_is_lost(tmp_path):
    report = judge(tmp_path, [ACCOUNTS])

    assert found(report) == {"lost"}
    assert "c0-1 CreateServer" in report["evidence"]["lost"][0]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"ordinal": 5}, "told ordinal 5, it has 6"),
        ({"request_id": "req-9"}, "told req-9, it has req-2"),
        ({"resource": NETWORK}, f"told {NETWORK}"),
    ],
)
def test_an_acknowledgement_of_something_else_is_lost(tmp_path, said, why):
    report = judge(tmp_path, [ACCOUNTS], [CREATE, REPORT], lines=(ASKED, ANSWERED | said))

    assert found(report) == {"lost"}
    assert why in report["evidence"]["lost"][0]


def test_an_acknowledged_request_that_the_log_refuses_is_lost(tmp_path):
    report = judge(tmp_path, [ACCOUNTS], [refused("req-2", "CreateServer", "c0-1-aa")])

    assert "lost" in found(report)


def test_a_key_carried_out_twice_is_doubled(tmp_path):
    twice = record("req-4", "CreateServer", server("crash-x", NETWORK), key="c0-1-aa")
    report = judge(tmp_path, [ACCOUNTS], [CREATE, REPORT], [twice])

    assert found(report) == {"doubled"}
    assert report["evidence"]["doubled"] == [
        "key c0-1-aa was carried out at ordinals 4 (req-2), 9 (req-4)"
    ]


def test_a_request_that_is_there_twice_is_doubled(tmp_path):
    report = judge(tmp_path, [ACCOUNTS], [CREATE, REPORT], [REPORT | {"facts": []}])

    assert found(report) == {"doubled"}


def test_one_name_made_under_two_keys_is_doubled(tmp_path):
    other = record("req-4", "CreateServer", server(server_id=NETWORK), key="c0-2")
    report = judge(tmp_path, [ACCOUNTS], [CREATE, REPORT], [other])

    assert report["evidence"] == {"doubled": ["server crash-server-c0-1 was made 2 times"]}


def test_two_answers_that_differ_are_doubled(tmp_path):
    again = ANSWERED | {"again": True, "resource": NETWORK}
    report = judge(tmp_path, [ACCOUNTS], [CREATE, REPORT], lines=(ASKED, ANSWERED, again))

    assert "doubled" in found(report)


def test_an_operation_without_an_end_is_unfinished_and_one_with_two_is_doubled(tmp_path):
    report = judge(tmp_path, [ACCOUNTS], [CREATE])
    assert found(report) == {"unfinished"}
    assert "op-1" in report["evidence"]["unfinished"][0]

    late = record("req-4", "ReportOperation", ended("op-1"))
    report = judge(tmp_path, [ACCOUNTS], [CREATE, REPORT], [late])
    assert found(report) == {"doubled"}


def test_a_refusal_of_what_was_done_is_told_unless_it_was_gone_when_asked_again(tmp_path):
    no = {"line": "answered", "id": "c0-1", "attempts": 1, "status": 409}
    report = judge(tmp_path, [ACCOUNTS], [CREATE, REPORT], lines=(ASKED, no))
    assert found(report) == {"contradicted"}

    delete = record("req-4", "DeleteKeypair", key="c0-1-aa")
    asked = ASKED | {"method": "DELETE", "what": "DeleteKeypair"}
    gone = no | {"status": 404, "attempts": 2}
    report = judge(tmp_path, [ACCOUNTS], [delete], lines=(asked, gone))
    assert report["well"], report["evidence"]
    assert report["gone_when_repeated"] == 1


def test_a_refusal_is_an_answer_that_the_log_has_too(tmp_path):
    no = {"line": "answered", "id": "c0-1", "attempts": 1, "status": 403}
    recorded = refused("req-2", "CreateServer", "c0-1-aa")
    assert judge(tmp_path, [ACCOUNTS], [recorded], lines=(ASKED, no))["well"]
    assert found(judge(tmp_path, [ACCOUNTS], lines=(ASKED, no))) == {"lost"}
    other = judge(tmp_path, [ACCOUNTS], [recorded], lines=(ASKED, no | {"status": 404}))
    assert found(other) == {"contradicted"}


def test_what_was_never_answered_may_be_there_or_not(tmp_path):
    gave_up = {"line": "gave_up", "id": "c0-1", "attempts": 9}
    for commits in ([[ACCOUNTS]], [[ACCOUNTS], [CREATE, REPORT]]):
        report = judge(tmp_path, *commits, lines=(ASKED, gave_up))
        assert report["well"], report["evidence"]
        assert report["unanswered"] == 1


def test_a_line_cut_short_was_never_told(tmp_path):
    path = tmp_path / "record.jsonl"
    path.write_text(json.dumps(ASKED) + "\n" + json.dumps(ANSWERED)[:40])
    findings = Findings()
    compare_answers(read_record(path), fold(walk(log_of([ACCOUNTS])).entries), findings)

    assert findings.well
    assert findings.counts["unanswered"] == 1


# The chain


def test_the_products_own_commits_hold_in_this_walk():
    log, prev, first = [], GENESIS, 1
    for number, count in enumerate((1, 2, 3, 5, 8, 64), 1):
        records = [
            json.dumps(record(f"req-{number}-{i}", "Ünïcode\n", fact("x.y.z.v1")), sort_keys=True)
            .replace(": ", ":").replace(", ", ",").encode()
            for i in range(count)
        ]  # fmt: skip
        data, prev = seal_commit(f"c{number}", first, prev, 1, 7, records)
        log.append(Stored("LOG-t-0001", number, data))
        first += 2 * count

    walked = walk(log)

    assert walked.broken == []
    assert (walked.head, walked.entries[-1].last) == (prev, first - 1)


def test_a_flipped_byte_anywhere_in_a_commit_breaks_the_chain():
    log = log_of([ACCOUNTS], [CREATE, REPORT])
    data = log[1].data
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1
        broken = walk([log[0], log[1]._replace(data=bytes(flipped))]).broken
        assert broken, f"byte {at}: {data[max(0, at - 20) : at + 20]!r}"
        assert broken[0].startswith("ordinal 4 ")


@pytest.mark.parametrize(
    ("altered", "ordinal"),
    [
        (lambda log: [log[0], log[2]], 4),
        (lambda log: [log[0], log[2], log[1]], 4),
        (lambda log: [log[0], log[0], *log[1:]], 4),
        (lambda log: log[1:], 1),
    ],
    ids=["removed", "exchanged", "put in", "begun later"],
)
def test_a_commit_removed_exchanged_or_put_in_breaks_the_chain(altered, ordinal):
    broken = walk(altered(log_of([ACCOUNTS], [CREATE], [REPORT]))).broken

    assert broken[0].startswith(f"ordinal {ordinal} ")


def test_a_commit_is_hashed_as_its_bytes_lie():
    (stored,) = log_of([ACCOUNTS])
    _, (raw,) = split(stored.data)
    assert raw in stored.data
    with pytest.raises(ValueError, match="Expecting"):
        split(stored.data.replace(b'"at":1', b'"at": 1'))
    with pytest.raises(ValueError, match="twice"):
        split(stored.data.replace(b'"at":1', b'"at":1,"at":1'))


# The host


def there_and_wanted() -> tuple[host.Inventory, host.Inventory]:
    port = {"port_id": PORT, "device_id": SERVER, "network_id": NETWORK, "project_id": PROJECT}
    log = log_of(
        [ACCOUNTS],
        [
            record(
                "req-2",
                "CreateServer",
                server(),
                fact("network.port.created.v1", port=port),
                fact("compute.server.placed.v1", server_id=SERVER, host_id="host-1"),
                fact("compute.server.started.v1", server_id=SERVER),
            )
        ],
    )
    wanted = host.expected(fold(walk(log).entries), "cl0123456", "host-1")
    return wanted, host.Inventory({kind: list(names) for kind, names in wanted.things.items()})


def test_a_host_that_has_what_the_facts_say_is_well():
    wanted, there = there_and_wanted()

    assert host.compare_host(wanted, there) == []
    assert wanted.things["domain"] == [f"cl0123456-{SERVER}"]
    assert wanted.things["tap"] == ["tap-00000000002"]
    assert wanted.things["bridge"] == ["br-000000000003"]
    assert wanted.things["namespace"] == ["cl0123456-000000000003"]


@pytest.mark.parametrize("kind", ["domain", "qemu", "disk", "tap", "guarded", "bridge", "dnsmasq"])
def test_an_orphan_a_gap_and_a_twin_on_the_host_are_found(kind):
    wanted, there = there_and_wanted()
    there.things[kind].append("stray")
    assert host.compare_host(wanted, there) == [("orphans", f"{kind} stray on the host")]

    there.things[kind] = []
    ((found_as, _),) = host.compare_host(wanted, there)
    assert found_as == "missing"

    there.things[kind] = wanted.things[kind] * 2
    ((found_as, text),) = host.compare_host(wanted, there)
    assert found_as == "orphans"
    assert text.endswith("is there twice")


def test_the_names_on_a_host_are_those_that_the_product_gives():
    from executors import layout

    of = layout.Layout.of(ROOT)
    assert host.prefix_of(ROOT) == of.prefix
    wanted, _ = there_and_wanted()
    assert wanted.things["tap"] == [layout.tap_name(PORT)]
    assert wanted.things["bridge"] == [layout.bridge_name(NETWORK)]
    name = of.network_namespace(NETWORK).removeprefix(of.prefix)
    assert wanted.things["namespace"] == [f"cl0123456{name}"]


# The program


def test_the_program_ends_with_1_and_tells_the_evidence(tmp_path):
    log, told = tmp_path / "log.jsonl", tmp_path / "record.jsonl"
    save_log(log_of([ACCOUNTS]), log)
    assert load_log(log) == log_of([ACCOUNTS])
    told.write_text(json.dumps(ASKED) + "\n" + json.dumps(ANSWERED) + "\n")

    done = run_checker("--record", str(told), "--log", str(log))

    assert done.returncode == 1, done.stderr
    assert "LOST: acknowledged, and not in the log with that outcome" in done.stdout
    assert "key c0-1-aa" in done.stdout


def run_checker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.crash.checker", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_program_imports_nothing_of_the_product():
    """Nor any library beyond Python's own: what it trusts is short."""
    code = (
        "import sys; before = set(sys.modules); import tests.crash.checker; "
        "print(*{m.split('.')[0] for m in set(sys.modules) - before})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())

    assert loaded - {"tests"} <= set(sys.stdlib_module_names)
