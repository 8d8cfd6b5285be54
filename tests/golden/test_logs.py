"""Every log that was ever written is folded and projected to what it gave then.

``logs/VERSION.jsonl.gz`` is a log, one commit a line; ``VERSION.state.json.gz`` the state it gives;
``VERSION.json`` says how long it is and has the digests. ``CUMULOG_GOLDEN=write`` makes those of
this version and notes the digest of changed read models. It never changes what is there.
"""

import gzip
import hashlib
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from engine.domain.fold import fold
from engine.domain.state import digest
from engine.log.commit import GENESIS, check_commit
from projections import models, store
from schemas.envelope import Accepted, Refused, action_types, decode_commit, fact_types
from tests.golden.build import golden_log

LOGS = Path(__file__).parent / "logs"
WRITE = os.environ.get("CUMULOG_GOLDEN") == "write"
VERSION = importlib.metadata.version("cumulog")
BYTES_MAX = 200_000

_encode = msgspec.json.Encoder(order="sorted").encode


class ReadModel(Struct, frozen=True):
    """The digest of the read model with this layout."""

    layout: str
    digest: str


class Golden(Struct, frozen=True, kw_only=True):
    """What a log is and gives."""

    commits: int
    ordinals: int
    last_hash: str
    log_sha256: str
    state_digest: str
    read_models: tuple[ReadModel, ...]


def name(version: str, suffix: str) -> Path:
    return LOGS / f"{version}.{suffix}"


def described(version: str) -> Golden:
    return msgspec.json.decode(name(version, "json").read_bytes(), type=Golden)


def commits(version: str) -> list[bytes]:
    """Return a log's messages."""
    return gzip.decompress(name(version, "jsonl.gz").read_bytes()).splitlines()


def layout() -> str:
    """Return the SHA-256 (hex) of what the read model's tables are and what lies in them.

    Unlike ``models.layout`` it does not change with the words that describe a field.
    """

    def shape(value: Any) -> Any:
        match value:
            case dict():
                return {k: shape(v) for k, v in value.items() if k not in ("description", "title")}
            case list() | tuple():
                return [shape(item) for item in value]
            case _:
                return value

    _, bodies = msgspec.json.schema_components([table.of for table in models.TABLES])
    names = [(table.name, table.of.__name__) for table in models.TABLES]
    parts = (models.VERSIONS, models.STATEMENTS, names, shape(bodies))
    return hashlib.sha256(_encode(parts)).hexdigest()


def project(messages: list[bytes], path: Path) -> str:
    """Fold a log into a read model and return its digest."""
    db = store.open_file(path)
    try:
        store.create(db, models.made_by(), models.STATEMENTS)
        writer = store.Writer(db)
        for seq, data in enumerate(messages, 1):
            models.apply_commit(writer, seq, data)
        writer.commit()
        return store.digest(db)
    finally:
        db.close()


def as_it_was(value: Any, then: Any) -> Any:
    """Return a state without the fields that did not exist then. Things there are stay."""
    if isinstance(value, Struct):
        kind = value.__struct_config__
        known = {name: getattr(value, name) for name in value.__struct_fields__}
        if kind.tag_field is not None:
            known[kind.tag_field] = kind.tag
        return {name: as_it_was(known[name], old) for name, old in then.items()}
    if isinstance(value, dict) and isinstance(then, dict):
        return {key: as_it_was(item, then.get(key)) for key, item in value.items()}
    if isinstance(value, list | tuple) and isinstance(then, list) and len(value) == len(then):
        return [as_it_was(item, old) for item, old in zip(value, then, strict=True)]
    return value


def write(version: str, tmp_path: Path) -> None:
    """Make the golden log of this version."""
    messages = golden_log()
    cell = fold(messages)
    log = b"\n".join(messages) + b"\n"
    last = decode_commit(messages[-1])
    golden = Golden(
        commits=len(messages),
        ordinals=cell.state.ordinal,
        last_hash=last.hash,
        log_sha256=hashlib.sha256(log).hexdigest(),
        state_digest=digest(cell),
        read_models=(ReadModel(layout(), project(messages, tmp_path / "new.sqlite")),),
    )
    with name(version, "jsonl.gz").open("xb") as file:
        file.write(gzip.compress(log, mtime=0))
    with name(version, "state.json.gz").open("xb") as file:
        file.write(gzip.compress(_encode(cell.state), mtime=0))
    with name(version, "json").open("xb") as file:
        file.write(msgspec.json.format(_encode(golden), indent=2) + b"\n")


def written() -> list[str]:
    return sorted(path.name.removesuffix(".json") for path in LOGS.glob("*[0-9].json"))


def test_this_version_has_its_golden_log(tmp_path):
    if WRITE and VERSION not in written():
        write(VERSION, tmp_path)

    assert VERSION in written(), "CUMULOG_GOLDEN=write makes it; see docs/contributing.md"


@pytest.mark.parametrize("version", written())
def test_an_old_log_is_what_it_was(version):
    golden, messages = described(version), commits(version)

    prev, ordinal = GENESIS, 1
    for data in messages:
        head = check_commit(data, prev, ordinal)
        prev, ordinal = head.hash, head.next_first

    log = b"\n".join(messages) + b"\n"
    assert hashlib.sha256(log).hexdigest() == golden.log_sha256
    assert (len(messages), ordinal - 1, prev) == (golden.commits, golden.ordinals, golden.last_hash)


@pytest.mark.parametrize("version", written())
def test_an_old_log_gives_the_state_that_it_gave(version):
    golden = described(version)
    then = msgspec.json.decode(gzip.decompress(name(version, "state.json.gz").read_bytes()))

    state = fold(commits(version)).state

    now = as_it_was(state, then)
    assert msgspec.json.decode(_encode(now)) == then
    assert hashlib.sha256(_encode(now)).hexdigest() == golden.state_digest


@pytest.mark.parametrize("version", written())
def test_an_old_log_gives_the_read_model_that_it_gave(version, tmp_path):
    golden = described(version)
    found = project(commits(version), tmp_path / "n.sqlite")
    known = {model.layout: model.digest for model in golden.read_models}
    ours = layout()
    if WRITE and ours not in known:
        added = (*golden.read_models, ReadModel(ours, found))
        grown = msgspec.structs.replace(golden, read_models=added)
        name(version, "json").write_bytes(msgspec.json.format(_encode(grown), indent=2) + b"\n")
        known[ours] = found

    assert ours in known, "tables changed: CUMULOG_GOLDEN=write notes their digest"
    assert found == known[ours], "the rows changed: raise the VERSION of that read model"


def test_the_log_of_this_version_has_everything_there_is():
    """So that whatever is added is in the next one, and its tag for ever in a golden log."""
    messages = golden_log()
    records = [record for message in messages for record in decode_commit(message).records]

    for verdict in (Accepted, Refused):
        those = [r.request.action for r in records if isinstance(r.verdict, verdict)]
        never = {"RefuseRequest"} if verdict is Accepted else set()
        assert {type(action).__name__ for action in those} == action_types().keys() - never
    assert {type(f) for r in records for f in r.facts} == set(fact_types().values())
    refused = {r.verdict.code for r in records if isinstance(r.verdict, Refused)}
    assert refused >= {"ClockAhead", "IdReused", "NotFound", "Forbidden", "Conflict", "Duplicate"}
    assert len({len(decode_commit(message).records) for message in messages}) > 1
    assert messages == golden_log()


def test_a_golden_log_is_small():
    assert all(path.stat().st_size < BYTES_MAX for path in LOGS.iterdir())
