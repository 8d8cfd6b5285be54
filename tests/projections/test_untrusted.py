"""Segments as somebody may have left them: each is told by name, none gives a wrong bill."""

import hashlib

import msgspec
import pyarrow as pa
import pytest
from msgspec.structs import replace
from pyarrow import compute as pc
from pyarrow import parquet

from projections.archive import Window
from projections.history import History
from projections.segment import HistoryBroken, require_tags
from tests.engine.history import everything
from tests.projections.story import Story, a_small_story
from tests.projections.test_history import Sealed


@pytest.fixture
def sealed(tmp_path):
    sealed = Sealed(a_small_story(), tmp_path)
    sealed.seal()
    return sealed


def rewritten(sealed, change, **manifest):
    """Change a segment's table, and its manifest with it, as who has the files can."""
    history = sealed.history
    (segment,) = history.segments()
    path = history.path(segment)
    parquet.write_table(change(parquet.read_table(path)), path, compression="zstd")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    changed = replace(segment, bytes=path.stat().st_size, sha256=digest, **manifest)
    (history.directory / f"{segment.name}.json").write_bytes(msgspec.json.encode(changed))
    return segment


def column(name, make):
    def change(table):
        at = table.schema.get_field_index(name)
        return table.set_column(at, name, make(table[name]))

    return change


def untagged(values):
    """Name one kind of fact otherwise, so that no meter would find it."""
    return pc.replace_substring(values, "compute.server.started.v1", "compute.server.stopped.v1")


CHANGES = {
    "tag": (column("tag", untagged), "not tagged"),
    "type": (column("ordinal", lambda c: pc.cast(c, pa.string())), "ordinal is string, not int64"),
    "bytes": (column("body", lambda c: pc.cast(c, pa.binary())), "body is binary, not string"),
    "null": (column("body", lambda c: pa.nulls(len(c), pa.string())), "lacks values"),
    "missing": (lambda table: table.drop_columns(["seq"]), "seq is missing"),
    "kind": (column("kind", lambda c: pa.array(["fact"] * len(c))), "no record"),
    "more": (lambda table: pa.concat_tables([table, table]), "rows"),
    "fewer": (lambda table: table.slice(0, len(table) - 1), "rows"),
    "order": (lambda table: table.take(pa.array([1, 0, *range(2, len(table))])), "comes after"),
    "time": (column("ts", lambda c: pc.add(c, 1)), "has hash"),
    "body": (column("body", lambda c: pc.replace_substring(c, '"vcpus":', '"vcpuz":')), "has hash"),
}


def test_nothing_there_is_is_taken_for_changed(tmp_path):
    """Every action and fact, those that an edge refused too."""
    story = Story(3)
    for actor, action in everything(story):
        story.submit(actor, action)
    sealed = Sealed(story, tmp_path)
    sealed.seal()

    assert sealed.archive.verify().intact
    for segment in sealed.history.segments():
        path = sealed.history.path(segment)
        table = parquet.read_table(path)
        refused = pc.match_substring(table["body"], '"type":"RefuseRequest"')
        names = pc.if_else(refused, "RefuseRequest", table["tag"])
        at = table.schema.get_field_index("tag")
        parquet.write_table(table.set_column(at, "tag", names), path)
        require_tags(path)  # as it was tagged once


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_is_changed_is_told(sealed, name):
    change, why = CHANGES[name]
    rewritten(sealed, change)

    with pytest.raises(HistoryBroken, match=why):
        sealed.history.verify()
    told = sealed.archive.verify()
    assert (told.intact, why in told.why) == (False, True), told.why


@pytest.mark.parametrize("name", ["type", "bytes", "missing"])
def test_no_bill_is_made_of_other_columns(sealed, name):
    rewritten(sealed, CHANGES[name][0])
    (segment,) = sealed.history.segments()

    with pytest.raises(HistoryBroken):
        list(sealed.history.commits(segment))
    if name != "missing":  # a bill does not need it
        with pytest.raises(HistoryBroken):
            sealed.archive.bill(Window(), sealed.story.now)


def test_what_is_no_parquet_is_told(sealed):
    (segment,) = sealed.history.segments()
    path = sealed.history.path(segment)
    for data in (b"", b"PAR1", b"PAR1" + bytes(1000) + b"PAR1", path.read_bytes()[:-8]):
        path.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        manifest = sealed.history.directory / f"{segment.name}.json"
        manifest.write_bytes(msgspec.json.encode(replace(segment, sha256=digest)))

        assert segment.name in sealed.archive.verify().why


def test_a_manifest_names_no_file_but_its_own(sealed, tmp_path):
    (segment,) = sealed.history.segments()
    manifest = sealed.history.directory / f"{segment.name}.json"
    for field, value in (("first", "../../x"), ("last", -1), ("first", 2**60), ("sha256", None)):
        told = msgspec.json.decode(msgspec.json.encode(segment)) | {field: value}
        manifest.write_bytes(msgspec.json.encode(told))

        with pytest.raises(HistoryBroken, match="cannot be read"):
            History(sealed.history.directory).segments()
