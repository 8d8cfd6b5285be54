"""What is kept of the fold gives what folding the whole log gives, whatever happens in between."""

import random
import sqlite3
from contextlib import closing
from itertools import pairwise

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from engine.log.commit import GENESIS, seal_commit
from projections import holdings as module
from projections.history import History
from projections.holdings import CHECKPOINT, Holdings
from projections.late import changed_since
from projections.metering import intervals, usage
from projections.timeline import STATEMENTS
from schemas import compute as c
from schemas import image as i
from schemas.compute import CreateServer
from schemas.envelope import Accepted, Actor, Record, Request
from schemas.metering import (
    BUILT_IN,
    MeterDefined,
    MeterDefinition,
    MeterDeleted,
    MeterRule,
    Source,
)
from tests.projections import by_hand
from tests.projections.test_metering import FLAVOR, IMAGE, a_server, histories

STARTS = MeterDefinition(
    key="ops.starts",
    resource_kind="server",
    aggregation="count",
    unit="Starts",
    base_unit="",
    base_per_unit=1,
    rules=(
        MeterRule(
            fact="compute.server.created.v1",
            effect="set",
            resource="server.server_id",
            project="server.project_id",
            dimensions={"flavor": "server.flavor.name"},
        ),
        MeterRule(fact="compute.server.started.v1", effect="add", resource="server_id"),
    ),
)
BOOTS = MeterDefinition(
    key="ops.highest_boot",
    resource_kind="server",
    aggregation="max",
    unit="Boots",
    base_unit="",
    base_per_unit=1,
    rules=(
        STARTS.rules[0],
        MeterRule(
            fact="compute.server.started.v1",
            effect="add",
            resource="server_id",
            value=(Source(path="boot"),),
        ),
    ),
)


class Log:
    """A log of facts, one a commit, and what may be read of it so far."""

    def __init__(self, facts):
        self.facts, self.commits, link = [], [], GENESIS
        for number, (at, fact) in enumerate(facts):
            first = 2 * number + 1
            request = Request(
                request_id=f"req-{first}",
                actor=Actor(kind="system"),
                action=CreateServer(name="s", flavor_id="f", image_id="i"),
                submitted_at=at,
            )
            record = Record(salt="", request=request, verdict=Accepted(), facts=(fact,))
            data, link = seal_commit(f"c-{first}", first, link, 1, at, [record])
            self.commits.append((number + 1, data))
            self.facts.append((first + 1, at, fact))
        self.end = len(self.commits)

    def read(self, after_seq):
        return self.commits[after_seq : self.end]

    def seal(self, history, commits):
        """Seal the next so many commits."""
        sealed = history.segments()
        last = sealed[-1] if sealed else None
        after, first = (last.last_seq, last.last + 1) if last else (0, 1)
        ordinals = range(first, 2 * len(self.commits) + 1)
        through = min(2 * (after + commits), 2 * self.end)
        with closing(sqlite3.connect(":memory:")) as timeline:
            timeline.execute(STATEMENTS[0])
            timeline.executemany(
                "INSERT INTO timeline VALUES (?, ?, ?, '', '', '', '', '', '', 0, '', '', '', '')",
                [(n, "request" if n % 2 else "fact", tag(self, n)) for n in ordinals],
            )
            commits = self.read(after)
            return history.seal(commits, timeline, ordinals_max=10_000, through=through)


def tag(log, ordinal):
    fact = log.facts[ordinal // 2 - 1][2]
    return str(fact.__struct_config__.tag) if ordinal % 2 == 0 else "CreateServer"


@st.composite
def logs(draw):
    """A random history in which meters are defined, redefined and deleted on the way."""
    facts = [(at, fact) for _, at, fact in draw(histories())]

    def put(fact_of, earliest):
        place = draw(st.integers(earliest, len(facts)))
        at = facts[place - 1][0] if place else 0
        facts.insert(place, (at, fact_of(at)))
        return place + 1

    put(lambda _: MeterDefined(meter=BOOTS), 0)
    place = put(lambda _: MeterDefined(meter=STARTS), 0)
    if draw(st.booleans()):
        other = MeterRule(fact="compute.server.rebooted.v1", effect="add", resource="server_id")
        rules = (*STARTS.rules, other)
        place = put(
            lambda at: MeterDefined(
                meter=msgspec.structs.replace(STARTS, version=2, valid_from=at, rules=rules)
            ),
            place,
        )
    if draw(st.booleans()):
        put(lambda _: MeterDeleted(key="ops.starts"), place)
    return Log(facts)


def whole(log):
    """All intervals, folded from the beginning with all the meters there are at the end."""
    versions = {key: (meter,) for key, meter in BUILT_IN.items()}
    facts = [fact for fact in log.facts if fact[0] <= 2 * log.end]
    for _, at, fact in facts:
        if isinstance(fact, MeterDefined):
            before = versions.get(fact.meter.key, ())
            versions[fact.meter.key] = module.with_version(before, fact.meter)
        elif isinstance(fact, MeterDeleted):
            versions[fact.key] = module.ended(versions[fact.key], at)
    return intervals(facts, [meter for each in versions.values() for meter in each])


def asked(holdings, start=0, end=2**53 - 1, **of):
    with holdings.look() as held:
        return list(usage(held.intervals(start, end, **of), start, end))


@settings(max_examples=25, deadline=None)
@given(logs(), st.randoms(use_true_random=False))
def test_kept_holdings_answer_as_a_fold_of_the_whole_log(tmp_path_factory, log, dice):
    """Asked, kept, killed, sealed and gone on with in any order: the same answers."""
    place = tmp_path_factory.mktemp("holdings")
    history = History(place / "history")
    log.end = 0
    holdings = Holdings(place / "metering", history, log.read, run_rows=dice.choice([1, 3, 1000]))
    while log.end < len(log.commits):
        log.end = min(len(log.commits), log.end + dice.randint(1, 8))
        for _ in range(dice.randint(0, 3)):
            match dice.choice(["ask", "keep", "kill", "seal"]):
                case "ask":
                    start, end = sorted(dice.choices(range(30_000), k=2))
                    assert asked(holdings, start, end) == list(usage(whole(log), start, end))
                case "keep":
                    holdings.advance()
                    holdings.keep()
                case "kill":
                    holdings = Holdings(place / "metering", history, log.read, run_rows=3)
                case "seal":
                    log.seal(history, dice.randint(1, 10))
    with holdings.look() as held:
        assert held.intervals(0, 2**53 - 1) == whole(log)
        assert held.as_of == 2 * log.end
        start, end = sorted(dice.choices(range(30_000), k=2))
        log.end = dice.randint(0, log.end)
        then = held.then(2 * log.end)
        assert then.intervals(0, 2**53 - 1) == whole(log)
        assert list(usage(then.intervals(start, end), start, end)) == list(
            usage(whole(log), start, end)
        )
        if held.versions == then.versions:
            now, was = by_resource(held, start, end), by_resource(then, start, end)
            differ = {each for each in now.keys() | was.keys() if now.get(each) != was.get(each)}
            assert differ <= changed_since(held, then.as_of, start, end)
        assert not changed_since(held, held.as_of, start, end)


def by_resource(held, start, end):
    found = {}
    for row in usage(held.intervals(start, end), start, end):
        found.setdefault(row.resource_id, []).append(row)
    return found


def a_log(steps=2000, seed=1):
    return Log(random_facts(steps, seed))


def random_facts(steps, seed=1):
    """Return (time, fact): servers that come, run, stop, fail and go; a few images."""
    dice = random.Random(seed)
    at, alive, facts = 0, [], []
    for number in range(3):
        image = msgspec.structs.replace(IMAGE, image_id=f"i{number}")
        facts += [
            (at, i.ImageCreated(image=image)),
            (at, i.ImageUploaded(image_id=f"i{number}", operation_id="o", blob_id="b",
                                 size_bytes=number, md5="", sha512="")),
            (at, i.ImageActivated(image_id=f"i{number}", virtual_size_bytes=number << 30)),
        ]  # fmt: skip
    for number in range(steps):
        at += dice.randrange(1000)
        seen = max(0, at - dice.randrange(500))
        if not alive or dice.random() < 0.2:
            flavor = msgspec.structs.replace(FLAVOR, vcpus=dice.randint(1, 8),
                                                    disk_gib=dice.choice([0, 5]))  # fmt: skip
            alive.append(f"s{number}")
            server = a_server(alive[-1], flavor, dice.choice(["i0", "i1", "i2", None]))
            facts.append((at, c.ServerCreated(server=server)))
            continue
        server = dice.choice(alive)
        kinds = ["start", "stop", "reboot", "task", "fail", "delete"]
        match dice.choices(kinds, [6, 5, 2, 1, 1, 2])[0]:
            case "start":
                fact = c.ServerStarted(server_id=server, boot=1, observed_at=seen)
            case "stop":
                fact = c.ServerStopped(server_id=server, boot=1, cause="guest", observed_at=seen)
            case "reboot":
                fact = c.ServerRebooted(server_id=server, boot=1, observed_at=seen)
            case "task":
                fact = c.ServerTaskFailed(server_id=server, running=dice.random() < 0.5, message="")
            case "fail":
                fact = c.ServerFailed(server_id=server, code=500, message="")
            case _:
                alive.remove(server)
                fact = c.ServerDeleted(server_id=server, observed_at=seen)
        facts.append((at, fact))
    return facts


def test_a_long_history_gives_what_meters_written_by_hand_give():
    """100,000 facts: the same intervals, and the same totals of any window to the last digit."""
    facts = [(n, at, fact) for n, (at, fact) in enumerate(random_facts(100_000), 1)]
    by_ours = [x for x in intervals(facts) if x.meter != "compute.instance"]
    naive = by_hand.intervals(facts)

    assert [
        (x.resource_id, x.meter, x.value, x.start, x.end, x.first_ordinal, x.last_ordinal)
        for x in by_ours
    ] == naive
    last = facts[-1][1]
    for start, end in [(0, last), (last // 3, last // 2), (last // 2, last // 2 + 1)]:
        totals: dict[str, int] = {}
        for row in usage(by_ours, start, end):
            totals[row.meter] = totals.get(row.meter, 0) + row.quantity
        expected: dict[str, int] = {}
        for _, meter, value, begun, ended, *_ in naive:
            held = min(end, last if ended is None else ended) - max(start, begun)
            expected[meter] = expected.get(meter, 0) + value * max(0, held)
        assert totals == {meter: total for meter, total in expected.items() if total}


@pytest.fixture(scope="module")
def long_log():
    return a_log()


@pytest.fixture
def kept(tmp_path, long_log):
    """Holdings of a long log in many files, and whose they are."""
    long_log.end = len(long_log.commits)
    holdings = Holdings(tmp_path / "metering", History(tmp_path / "history"), long_log.read,
                        run_rows=200)  # fmt: skip
    holdings.advance()
    holdings.keep()
    return holdings


def test_what_meters_written_by_hand_give(kept, long_log):
    with kept.look() as held:
        found = held.intervals(0, 2**53 - 1)

    assert [
        (x.resource_id, x.meter, x.value, x.start, x.end, x.first_ordinal, x.last_ordinal)
        for x in found
        if x.meter != "compute.instance"
    ] == by_hand.intervals(long_log.facts)


def test_questions_in_any_order_have_the_same_answers(kept):
    last = max(row.end for row in asked(kept, 0, 2**52))
    cuts = sorted(random.Random(2).sample(range(last), 7))
    windows = [(a, b) for a in cuts for b in cuts if a < b]
    first = {window: asked(kept, *window) for window in windows}

    random.Random(3).shuffle(windows)
    assert all(asked(kept, *window) == first[window] for window in windows)

    def totals(rows):
        found = {}
        for row in rows:
            key = row.resource_id, row.meter
            found[key] = found.get(key, 0) + row.quantity
        return {key: total for key, total in found.items() if total}

    parts = [row for a, b in pairwise(cuts) for row in first[a, b]]
    assert totals(parts) == totals(first[cuts[0], cuts[-1]])


def test_of_one_project_or_meter_only_that_is_read(kept):
    everything = asked(kept, 0, 2**52)
    vcpus = asked(kept, 0, 2**52, meter="compute.vcpu")

    assert vcpus == [row for row in everything if row.meter == "compute.vcpu"]
    assert asked(kept, 0, 2**52, project_id="p") == everything
    assert asked(kept, 0, 2**52, project_id="nobody") == []


def test_many_runs_are_merged_into_few(kept, tmp_path):
    runs = sorted((tmp_path / "metering").glob("*.parquet"))

    assert 1 <= len(runs) <= module.FAN_IN
    names = [run["name"] for run in checkpoint(tmp_path)["runs"]]
    assert names == [run.stem for run in runs]


def checkpoint(tmp_path):
    return msgspec.msgpack.decode((tmp_path / "metering" / CHECKPOINT).read_bytes()[32:])


@pytest.mark.parametrize("step", ["_write_run", "_checkpoint", "_clean"])
def test_a_kill_while_it_is_kept_loses_nothing(tmp_path, long_log, monkeypatch, step):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    long_log.end = 1500
    history = History(tmp_path / "history")
    holdings = Holdings(tmp_path / "metering", history, long_log.read)
    holdings.advance()
    holdings.keep()
    long_log.end = len(long_log.commits)
    holdings.advance()
    with monkeypatch.context() as patch:
        patch.setattr(Holdings, step, die)
        with pytest.raises(Killed):
            holdings.keep()

    again = Holdings(tmp_path / "metering", history, long_log.read)
    with again.look() as held:
        assert held.intervals(0, 2**53 - 1) == whole(long_log)
    again.keep()
    again._clean()
    names = {run["name"] for run in checkpoint(tmp_path)["runs"]}
    assert {path.name for path in (tmp_path / "metering").iterdir()} == {
        CHECKPOINT,
        *(f"{name}.parquet" for name in names),
    }


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    ["code", "cut", "a bit", "a run is gone", "a run's bit", "another log", "a cut log"],
)
def test_what_does_not_hold_is_made_anew(kept, tmp_path, long_log, monkeypatch, damage):
    path = tmp_path / "metering" / CHECKPOINT
    log = long_log
    match damage:
        case "code":
            monkeypatch.setattr(module, "fingerprint", lambda *_: "other")
        case "cut":
            path.write_bytes(path.read_bytes()[:-100])
        case "a bit":
            flip(path)
        case "a run's bit":
            flip(next((tmp_path / "metering").glob("*.parquet")))
        case "a run is gone":
            next((tmp_path / "metering").glob("*.parquet")).unlink()
        case "another log":
            log = a_log(steps=300, seed=2)
        case "a cut log":
            log = a_log()
            log.end = 100
    again = Holdings(tmp_path / "metering", History(tmp_path / "history"), log.read)

    with again.look() as held:
        assert held.intervals(0, 2**53 - 1) == whole(log)


def test_a_full_disk_keeps_nobody_from_asking(tmp_path, long_log, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Holdings, "_write_run", full)
    holdings = Holdings(tmp_path / "metering", History(tmp_path / "history"), long_log.read,
                        run_rows=200)  # fmt: skip

    with holdings.look() as held:
        assert held.intervals(0, 2**53 - 1) == whole(long_log)


def test_a_meter_over_all_of_history_is_not_gathered_in_memory(tmp_path):
    facts = random_facts(2000)
    log = Log([*facts, (facts[-1][0], MeterDefined(meter=STARTS))])
    holdings = Holdings(tmp_path / "metering", History(tmp_path / "history"), log.read,
                        run_rows=100)  # fmt: skip

    with holdings.look() as held:
        points = [each for each in held.loose if each.meter == "ops.starts"]
        assert len(points) < 100 < len(held.intervals(0, 2**53 - 1, meter="ops.starts"))
        assert held.intervals(0, 2**53 - 1) == whole(log)
    holdings.keep()
    again = Holdings(tmp_path / "metering", History(tmp_path / "history"), log.read)
    assert whole_of(again) == whole(log)


def test_what_lies_in_runs_is_written_in_checkpoints_seldom(tmp_path, long_log, monkeypatch):
    """Each holds all states, so that much must be new for the next; in between runs are enough."""
    monkeypatch.setattr(module, "KEEP_EVERY", 1)
    monkeypatch.setattr(module, "BYTES_AN_ORDINAL", 50)
    long_log.end = len(long_log.commits)
    kept_at, sizes = [0], [0]
    holdings = Holdings(tmp_path / "metering", History(tmp_path / "history"), long_log.read,
                        run_rows=10)  # fmt: skip
    checkpoint_ = Holdings._checkpoint

    def noted(self, runs):
        kept_at.append(self._position.ordinal)
        checkpoint_(self, runs)
        sizes.append((tmp_path / "metering" / CHECKPOINT).stat().st_size)

    monkeypatch.setattr(Holdings, "_checkpoint", noted)
    holdings.advance()

    new = [after - before for before, after in pairwise(kept_at)]
    assert len(new) > 3
    assert all(50 * ordinals >= size - 100 for ordinals, size in zip(new, sizes, strict=False))


def test_facts_that_the_rules_cannot_read_are_read_whole(tmp_path):
    """What a segment says of a fact in its columns is not what it is: the fact counts."""
    log = a_log(steps=300)
    log.end = len(log.commits)
    history = History(tmp_path / "history")
    told = c.ServerRenamed(server_id="s1", name="other")
    renamed = Log([*((at, fact) for _, at, fact in log.facts), (10**9, told)])
    renamed.facts[-1] = (*renamed.facts[-1][:2], c.ServerFailed(server_id="", code=0, message=""))
    renamed.seal(history, len(renamed.commits))
    assert history.segments()[-1].last == 2 * len(renamed.commits)

    holdings = Holdings(tmp_path / "metering", history, renamed.read)
    with capture_logs() as logged:
        assert whole_of(holdings) == whole(log)
    assert [each["event"] for each in logged] == ["facts_decoded_whole"]


def test_files_that_are_read_stay_until_they_were_read(tmp_path, long_log):
    long_log.end = 500
    holdings = Holdings(tmp_path / "metering", History(tmp_path / "history"), long_log.read,
                        run_rows=30)  # fmt: skip
    with holdings.look() as held:
        before = held.intervals(0, 2**53 - 1)
        long_log.end = len(long_log.commits)
        holdings.advance()  # which merges what is read here
        holdings.keep()
        assert {run["name"] for run in checkpoint(tmp_path)["runs"]}.isdisjoint(
            run.stem for run in held.runs
        )
        assert held.intervals(0, 2**53 - 1) == before
    holdings._clean()
    assert not any(run.exists() for run in held.runs)


def test_who_verifies_relies_on_nothing_that_is_kept(kept, tmp_path, long_log):
    """With other runs under the names of ours the log alone is folded, and nothing of it stays."""
    place = tmp_path / "metering"
    there = {path.name for path in place.iterdir()}
    lost = place / ".anew-of-a-killed-process"
    lost.mkdir()
    for run in kept._runs:
        duckdb.execute(
            f"COPY (SELECT * REPLACE (value + 1 AS value) FROM read_parquet('{place / run.name}"
            f".parquet')) TO '{place / 'other'}' (FORMAT parquet)"
        )
        (place / "other").replace(place / f"{run.name}.parquet")
    with kept.anew() as first, kept.anew() as second:
        assert not lost.exists()
        assert first.runs
        assert not {path.parent for path in (*first.runs, *second.runs)} & {place}
        assert first.intervals(0, 2**53 - 1) == second.intervals(0, 2**53 - 1) == whole(long_log)

    assert {path.name for path in place.iterdir()} == there


def test_any_program_reads_the_runs(kept, tmp_path):
    (sum_,) = duckdb.execute(
        "SELECT sum(value::HUGEINT * (end_at - start_at)) FROM read_parquet(?) "
        "WHERE meter = 'compute.vcpu' AND json_extract_string(dimensions, '$.flavor') = 'f'",
        [str(tmp_path / "metering" / "*.parquet")],
    ).fetchone()

    ended = [x for x in whole_of(kept) if x.meter == "compute.vcpu" and x.end is not None]
    assert sum_ == sum(x.value * (x.end - x.start) for x in ended)


def whole_of(kept):
    with kept.look() as held:
        return held.intervals(0, 2**53 - 1)
