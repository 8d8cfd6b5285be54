"""Sealed history: the log for ever, whatever interrupts the sealing; any change to it is seen."""

import sqlite3
from contextlib import closing

import duckdb
import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from engine.log.commit import ChainBroken
from projections import history as module
from projections import segment as segment_module
from projections.archive import Archive, Window
from projections.history import History
from projections.segment import (
    HistoryBroken,
    NotProjected,
    SegmentWriter,
    file_sha256,
    read_facts,
)
from schemas.errors import InvalidInput, NotFound
from schemas.units import HOUR
from tests.projections.story import Story, a_small_story, reading

FACTS = pa.schema(
    [("ordinal", pa.int64()), ("ts", pa.int64()), ("tag", pa.string()), ("body", pa.string())]
)


class Sealed:
    """A story with its read model and archive."""

    def __init__(self, story, directory):
        self.story = story
        self.reader = reading(story, directory / "read" / "n.sqlite")
        self.history = History(directory / "history")
        self.archive = Archive(self.history, story.read, self.reader)

    @property
    def head(self):
        return self.story.cell.state.ordinal

    def seal(self, ordinals_max=10_000, through=None):
        return self.archive.seal(ordinals_max, self.head if through is None else through)


@pytest.fixture
def sealed(tmp_path):
    return Sealed(a_small_story(), tmp_path)


def test_a_segment_holds_the_log_byte_for_byte(sealed):
    (segment,) = sealed.seal()

    assert list(sealed.history.commits(segment)) == sealed.story.commits
    assert (segment.first, segment.last) == (1, sealed.head)
    assert segment.name == f"{1:020d}-{sealed.head:020d}"
    assert sealed.history.verify() == [segment]


def test_segments_follow_each_other(sealed):
    segments = sealed.seal(ordinals_max=10)

    assert len(segments) > 5
    assert segments == sealed.history.segments() == sealed.history.verify()
    assert [s.first for s in segments[1:]] == [s.last + 1 for s in segments[:-1]]
    assert all(s.last - s.first < 10 or s.commits == 1 for s in segments)
    joined = [commit for s in segments for commit in sealed.history.commits(s)]
    assert joined == sealed.story.commits


def test_sealing_again_seals_nothing(sealed):
    sealed.seal()

    assert sealed.seal() == []


def test_sealing_stops_at_whole_commits(sealed):
    ordinals = [e.ordinal for e in sealed.reader.events(limit=1000) if e.kind == "request"]

    (segment,) = sealed.seal(through=ordinals[3])  # the fourth commit has facts behind its request

    assert segment.last == ordinals[3] - 1


def test_columns_say_what_each_ordinal_is_about(sealed):
    (segment,) = sealed.seal()

    rows = duckdb.execute(
        "SELECT kind, resource_kind, project_id, verdict, json_extract_string(body, '$.type') "
        f"FROM '{sealed.history.path(segment)}' WHERE resource_id = ? ORDER BY ordinal",
        [sealed.story.first],
    ).fetchall()

    assert rows[0] == ("request", "server", sealed.story.demo.project_id, "accepted", None)
    assert rows[1][4] == "compute.server.created.v1"


ODD = ['"', '","', "\\", "a\nb", "é漢\U0001f600", "\x1f", "\\u0022", "]", ""]


@pytest.mark.parametrize("rows", [1, 3, 7, 2048])
def test_columns_say_what_the_timeline_says_whatever_that_is(sealed, monkeypatch, rows):
    """Texts with quotes, backslashes and line feeds in them too, however many are read at once."""
    monkeypatch.setattr(segment_module, "TOLD_ROWS", rows)
    with closing(sqlite3.connect(":memory:")) as timeline:
        sealed.reader.db().backup(timeline)
        timeline.execute("DROP TRIGGER timeline_request_again")
        alone = ("outcome", "code", "address")
        told = (*segment_module.EACH, *segment_module.COMMON, *alone)
        for number, name in enumerate(told):
            for at, odd in enumerate(ODD):
                timeline.execute(
                    f"UPDATE timeline SET {name} = ? WHERE ordinal % 50 = ?", [odd, number + 3 * at]
                )

        segment = sealed.history.seal(
            sealed.story.commits, timeline, ordinals_max=10_000, through=10_000
        )
        path = sealed.history.path(segment)
        found = duckdb.execute(
            f"SELECT ordinal, kind, {', '.join(told)} FROM (FROM '{path}' "
            "SELECT *, verdict AS outcome) ORDER BY ordinal"
        ).fetchall()
        expected = []
        for ordinal, kind, *row in timeline.execute(
            f"SELECT ordinal, kind, {', '.join(told)} FROM timeline ORDER BY ordinal"
        ):
            if kind == "request":
                common = row[4:7]
            row[4:] = (*common, *(row[7:] if kind == "request" else ("", "", "")))
            expected.append((ordinal, kind, *row))
    assert found == expected
    assert list(sealed.history.commits(segment)) == sealed.story.commits


def as_older(sealed, segment):
    """Write a segment as it was written before there was format 2."""
    path = sealed.history.path(segment)
    duckdb.execute(
        f"COPY (SELECT * EXCLUDE (address, committed_at, day) FROM '{path}') "
        f"TO '{path}.old' (FORMAT parquet)"
    )
    path.with_name(f"{path.name}.old").replace(path)
    older = msgspec.structs.replace(segment, format=1, sha256=file_sha256(path))
    manifest = sealed.history.directory / f"{segment.name}.json"
    manifest.write_bytes(msgspec.json.encode(older))


def test_segments_of_the_first_format_are_read_and_merged(sealed):
    segments = sealed.seal(ordinals_max=60)
    columns = "SELECT ordinal, address, committed_at, day, kind FROM '{}*.parquet' ORDER BY 1"
    columns = columns.format(sealed.history.directory / "0")
    expected = duckdb.execute(columns).fetchall()
    for segment in segments[::2]:
        as_older(sealed, segment)

    found = sealed.history.verify()
    merged = sealed.history.merge(found)

    assert [segment.format for segment in found[:2]] == [1, 2]
    assert merged.format == 2
    assert sealed.history.verify() == [merged]
    assert list(sealed.history.commits(merged)) == sealed.story.commits
    assert duckdb.execute(columns).fetchall() == expected
    assert {kind for *_, kind in expected} == {"request", "fact"}


@pytest.mark.parametrize("step", ["COPY", "data sync", "data rename", "manifest sync", "manifest"])
def test_a_kill_at_any_step_leaves_no_half_segment(sealed, monkeypatch, step):
    """Whatever was done when it died, the next attempt seals the same, and nothing is left over."""

    class Killed(BaseException):
        pass

    syncs = []

    def sync(path):
        syncs.append(path)
        if (step, len(syncs)) in {("data sync", 1), ("manifest sync", 2)}:
            raise Killed

    rename = module.Path.replace

    def replace(path, target):
        if step == "data rename" and target.suffix == ".parquet":
            raise Killed
        if step == "manifest" and target.suffix == ".json":
            raise Killed
        rename(path, target)

    def write(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "_sync", sync)
        patch.setattr(module.Path, "replace", replace)
        if step == "COPY":
            patch.setattr(SegmentWriter, "write", write)
        with pytest.raises(Killed):
            sealed.seal()
    assert sealed.history.segments() == []

    (segment,) = sealed.seal()

    assert sorted(p.name for p in sealed.history.directory.iterdir()) == [
        f"{segment.name}.json",
        f"{segment.name}.parquet",
    ]
    assert sealed.history.verify() == [segment]


def test_a_flipped_byte_is_seen(sealed):
    first, second, *_ = sealed.seal(ordinals_max=40)
    path = sealed.history.path(second)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(HistoryBroken, match=second.name):
        sealed.history.verify()
    assert first.sha256 != second.sha256


def test_a_forged_row_is_seen_although_its_checksum_fits(sealed):
    """Somebody who rewrites a segment and its manifest still cannot rewrite the hash chain."""
    (segment,) = sealed.seal()
    path = sealed.history.path(segment)
    duckdb.execute(
        f"COPY (SELECT * REPLACE (replace(body, 'web-1', 'web-9') AS body) FROM '{path}' "
        f"ORDER BY ordinal) TO '{path}.new' (FORMAT parquet)"
    )
    path.with_name(f"{path.name}.new").replace(path)
    forged = msgspec.structs.replace(segment, sha256=file_sha256(path))
    manifest = sealed.history.directory / f"{segment.name}.json"
    manifest.write_bytes(msgspec.json.encode(forged))

    with pytest.raises(HistoryBroken, match="has hash"):
        sealed.history.verify()


def test_a_missing_segment_is_seen(sealed):
    segments = sealed.seal(ordinals_max=40)
    (sealed.history.directory / f"{segments[1].name}.json").unlink()

    with pytest.raises(HistoryBroken):
        sealed.history.segments()


def test_a_broken_log_is_not_sealed(sealed):
    seq, data = sealed.story.commits[5]
    sealed.story.commits[5] = seq, data.replace(b'"at":17', b'"at":18', 1)

    with pytest.raises(ChainBroken):
        sealed.seal()

    assert sealed.history.segments() == []


def test_what_is_not_projected_yet_is_not_sealed(sealed):
    story = sealed.story
    story.network(story.other, "10.7.0.0/24")

    with pytest.raises(NotProjected):
        sealed.seal()

    assert sealed.history.segments() == []


@pytest.mark.parametrize("ordinals_max", [None, 1, 17, 50, 10_000])
def test_bills_do_not_depend_on_what_is_sealed(tmp_path, ordinals_max):
    """Sealed, half sealed or not at all: the same bill to the byte, up to the last ordinal."""
    sealed = Sealed(a_small_story(), tmp_path)
    window = Window(project=sealed.story.demo.project_id)
    now = sealed.story.now + HOUR
    expected = Archive(History(tmp_path / "none"), sealed.story.read, sealed.reader).bill(
        window, now
    )

    if ordinals_max:
        sealed.seal(ordinals_max, through=sealed.head if ordinals_max != 17 else sealed.head // 2)
    answer = sealed.archive.bill(window, now)

    assert msgspec.json.encode(answer) == msgspec.json.encode(expected)
    assert answer.as_of == sealed.head
    assert answer.bills[0].lines


def test_usage_of_one_project_and_of_all(sealed):
    story = sealed.story
    now = story.now + HOUR

    everything = sealed.archive.usage(Window(), now)
    demo = sealed.archive.usage(Window(project=story.demo.project_id), now)

    assert {row.project_id for row in demo.usage} == {story.demo.project_id}
    assert all(row in everything.usage for row in demo.usage)
    assert len(demo.usage) < len(everything.usage)
    totals = {total.meter: int(total.base_quantity) for total in demo.totals}
    assert totals["compute.vcpu"] == sum(
        int(row.base_quantity) for row in demo.usage if row.meter == "compute.vcpu"
    )


def test_the_future_is_not_charged(sealed):
    now = sealed.story.now

    answer = sealed.archive.usage(Window(end=now + 10 * HOUR), now)

    assert answer.end == now
    assert max(row.end for row in answer.usage) == now


def test_a_bill_of_everybody_has_one_for_each(sealed):
    story = sealed.story

    answer = sealed.archive.bill(Window(), story.now)

    projects = [bill.project_id for bill in answer.bills]
    assert projects == sorted(
        {story.admin.project_id, story.demo.project_id, story.other.project_id}
    )


def test_a_project_without_usage_owes_nothing(sealed):
    (bill,) = sealed.archive.bill(Window(project="nobody"), sealed.story.now).bills

    assert (bill.total, bill.lines) == ("0.00", ())


def test_questions_that_make_no_sense(sealed):
    with pytest.raises(InvalidInput):
        sealed.archive.usage(Window(start=5, end=5), sealed.story.now)
    with pytest.raises(NotFound):
        sealed.archive.bill(Window(price_list="none"), sealed.story.now)


def test_what_is_sealed_was_read_back(sealed, monkeypatch):
    """Rows that went wrong on their way into the file are seen before anything is published."""
    body = segment_module.request_body
    monkeypatch.setattr(segment_module, "request_body", lambda *of: body(*of).replace(b"net", b"n"))

    with pytest.raises(HistoryBroken, match="written wrongly"):
        sealed.seal()

    assert list(sealed.history.directory.glob("[0-9]*")) == []
    monkeypatch.undo()
    assert sealed.seal() == sealed.history.verify()


@pytest.mark.parametrize("column", ["body", "salt", "hash", "ts", "ordinal"])
def test_what_a_disk_changes_on_its_way_is_not_published(sealed, monkeypatch, column):
    """Between the writing and the reading back one value becomes another."""
    changed = {"ts": "ts + 1", "ordinal": "ordinal + 1"}.get(column, f"{column} || 'x'")
    sync = module._sync

    def alter(path):
        sync(path)
        if path.suffix == ".parquet":
            duckdb.execute(
                f"COPY (SELECT * REPLACE ({changed} AS {column}) FROM '{path}') "
                f"TO '{path}.new' (FORMAT parquet)"
            )
            path.with_name(f"{path.name}.new").replace(path)

    monkeypatch.setattr(module, "_sync", alter)

    with pytest.raises(HistoryBroken, match="written wrongly"):
        sealed.seal()

    assert list(sealed.history.directory.glob("[0-9]*")) == []


def test_a_file_that_was_cut_on_its_way_is_not_published(sealed, monkeypatch):
    sync = module._sync

    def cut(path):
        if path.suffix == ".parquet":
            path.write_bytes(path.read_bytes()[:-100])
        sync(path)

    monkeypatch.setattr(module, "_sync", cut)

    with pytest.raises(HistoryBroken, match="written wrongly"):
        sealed.seal()


def test_nobody_is_billed_from_an_altered_segment(sealed):
    (segment,) = sealed.seal()
    sealed.archive.bill(Window(), sealed.story.now)
    path = sealed.history.path(segment)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(HistoryBroken, match=segment.name):
        sealed.archive.bill(Window(), sealed.story.now)

    path.unlink()
    with pytest.raises(HistoryBroken, match=segment.name):
        sealed.archive.usage(Window(), sealed.story.now)


def test_a_manifest_that_cannot_be_read_is_named(sealed):
    (segment,) = sealed.seal()
    (sealed.history.directory / f"{segment.name}.json").write_text("{")

    assert segment.name in sealed.archive.verify().why


def test_a_log_that_lost_its_end_is_seen(sealed):
    """What is left of it is a chain that holds: only what was read of it says that it is cut."""
    seq, data = sealed.story.commits.pop()

    broken = sealed.archive.verify()

    assert (broken.intact, broken.ordinal) == (False, msgspec.json.decode(data)["first"])
    sealed.story.commits.append((seq, data))
    assert sealed.archive.verify().intact


def test_a_log_rewritten_as_a_whole_is_not_the_sealed_one(sealed):
    sealed.seal(ordinals_max=50)
    sealed.story.commits[:] = a_small_story(seed=2).commits

    broken = sealed.archive.verify()

    assert (broken.intact, broken.ordinal) == (False, 1)


def test_verification_covers_log_and_segments(sealed):
    sealed.seal(ordinals_max=50)

    intact = sealed.archive.verify()

    assert (intact.intact, intact.ordinals) == (True, sealed.head)
    assert intact.segments == len(sealed.history.segments())
    seq, data = sealed.story.commits[5]
    sealed.story.commits[5] = seq, data.replace(b'"at":17', b'"at":18', 1)
    broken = sealed.archive.verify()
    assert (broken.intact, broken.ordinal) == (False, msgspec.json.decode(data)["first"])


def test_a_replay_reaches_the_engines_digest(sealed):
    from engine.domain.state import digest

    answer = sealed.archive.replay((sealed.head, digest(sealed.story.cell)))

    assert answer.matches is True
    assert answer.commits == len(sealed.story.commits)
    assert sealed.archive.replay((sealed.head, "other")).matches is False
    assert sealed.archive.replay(None).matches is None


def test_status_says_how_far_history_reaches(sealed):
    (first, *_) = sealed.seal(ordinals_max=30, through=40)

    status = sealed.archive.status()

    assert status.sealed >= first.last
    assert (status.projected, status.head) == (sealed.head, sealed.head)
    assert status.bytes > 0


def test_an_empty_log_has_no_history(tmp_path):
    story = Story()
    story.commits.clear()
    archive = Archive(
        History(tmp_path / "history"), story.read, reading(story, tmp_path / "n.sqlite")
    )

    assert archive.seal(100, 0) == []
    assert archive.status().head == 0
    assert archive.verify().intact
    assert archive.usage(Window(), HOUR).usage == ()


def test_facts_come_in_the_order_of_the_log_however_a_segment_is_cut(tmp_path):
    """With many tags, DuckDB gives what a filter leaves of a small piece after all the rest."""
    path = tmp_path / "s.parquet"
    ordinals, first = [], 1
    with parquet.ParquetWriter(path, FACTS) as file:
        for rows in (2050, 4096, 2049):
            of = list(range(first, first + rows))
            tags = ["other" if o % 1000 == 0 else ("begun", "ended")[o % 2] for o in of]
            file.write_table(pa.table([of, of, tags, tags], schema=FACTS))
            ordinals += [o for o in of if o % 1000]
            first += rows

    many = ["begun", "ended", *(f"not there {number}" for number in range(12))]
    assert [found[0] for found in read_facts(path, many)] == ordinals
    assert [found[0] for found in read_facts(path, ["other"])] == list(range(1000, first, 1000))
