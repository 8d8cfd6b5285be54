"""A start from a snapshot is a start from the log, only sooner; and a bad snapshot is none."""

import hashlib
import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import structlog

import engine
from engine import snapshot
from engine.domain.fold import apply_commit, decode_for_fold, fold
from engine.domain.index import index_of
from engine.domain.state import Cell, digest, state_digest
from engine.fingerprint import fingerprint
from engine.folded import Folded
from engine.log.commit import GENESIS, seal_commit
from engine.snapshot import HEADER_BYTES, copy_cell, load_newest, read_header, stands_on, write
from schemas.envelope import decode_commit
from tests.engine.stories import Story, a_story, assert_equal
from tests.engine.world import World

SEEDS = range(12)
CUTS = 4


def through_a_file(directory: Path, cell: Cell) -> Cell:
    write(directory, "c", copy_cell(cell, "hash", 7))
    folded = load_newest(directory, "c")
    assert folded is not None
    return folded.cell


def went_on(world: World, cell: Cell) -> list[bytes]:
    """Return what a cell decides next, with the same ids, clock and requests."""
    twin = World.__new__(World)
    twin.cell, twin.admin, twin.now, twin.messages = cell, world.admin, world.now, []
    twin.random = random.Random(5)
    Story(twin, 77).play(60)
    return twin.messages


@pytest.mark.parametrize("seed", SEEDS)
def test_snapshot_and_tail_are_the_whole_fold(tmp_path, seed):
    world = a_story(seed)
    cuts = random.Random(seed).sample(range(len(world.messages) + 1), CUTS)
    whole = fold(world.messages)
    then = went_on(world, fold(world.messages))

    for cut in cuts:
        cell = through_a_file(tmp_path / str(cut), fold_into(tmp_path / str(cut), world, cut))
        for data in world.messages[cut:]:
            apply_commit(cell, decode_for_fold(data))
        assert_equal(cell, whole)
        assert went_on(world, cell) == then


def fold_into(directory: Path, world: World, cut: int) -> Cell:
    directory.mkdir()
    return fold(world.messages[:cut])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_digest_is_of_the_whole_state_as_canonical_json(seed):
    """It is taken piece by piece, of a copy as of the cell itself."""
    cell = a_story(seed).cell
    text = msgspec.json.Encoder(order="sorted").encode(cell.state)

    assert digest(cell) == hashlib.sha256(text).hexdigest()
    assert state_digest(copy_cell(cell, "", 0).state()) == digest(cell)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_snapshot_of_the_decider_itself_decides_as_it_does(tmp_path, seed):
    """What decided holds objects of its own; what was read from the log, decoded ones."""
    world = a_story(seed)

    cell = through_a_file(tmp_path, world.cell)

    assert_equal(cell, fold(world.messages))
    assert cell.index == world.cell.index
    assert went_on(world, cell) == went_on(world, world.cell)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_index_follows_from_the_state_at_every_commit(seed):
    world = a_story(seed)
    cell = Cell()
    for data in world.messages:
        apply_commit(cell, decode_for_fold(data))
        assert index_of(cell.state) == cell.index


def test_stories_reach_what_makes_the_difference():
    """An address that is free again, but was the last given; names that came and went."""
    reached = set()
    for seed in SEEDS:
        world = a_story(seed)
        state, index = world.cell.state, world.cell.index
        for subnet, hint in state.subnet_hint.items():
            if hint - 1 not in index.subnet_used.get(subnet, {}):
                reached.add("hint")
        for name in NAMES:
            if getattr(state, name):
                reached.add(name)
        if any(s.status == "ERROR" for s in state.servers.values()):
            reached.add("error")
    assert reached >= {
        "hint", "error", *NAMES,
    }  # fmt: skip


NAMES = (
    "servers", "ports", "images", "grants", "keypairs", "operations", "keyed", "groups",
    "memberships", "inherited_grants", "implied_roles", "application_credentials", "credentials",
    "trusts", "endpoints", "regions",
)  # fmt: skip


def test_a_copy_stays_as_it_was():
    world = a_story(3, steps=60)
    copied = copy_cell(world.cell, "hash", 7)
    before = {name: msgspec.json.encode(part) for name, part in parts_of(copied).items()}

    Story(world, 8).play(100)

    assert {name: msgspec.json.encode(part) for name, part in parts_of(copied).items()} == before


def parts_of(copied):
    return {
        name: list(part) if name.endswith("queue") else part for name, part in copied.parts.items()
    }


# Which snapshot is used


@pytest.fixture
def world():
    return a_story(1, steps=40)


@pytest.fixture
def written(tmp_path, world):
    return write(tmp_path, "c", copy_cell(world.cell, "hash", 7))


def ignored(directory: Path, cell_name: str = "c") -> list[str]:
    """Return why snapshots were ignored; assert that none was used."""
    with structlog.testing.capture_logs() as logs:
        assert load_newest(directory, cell_name) is None
    assert {entry["event"] for entry in logs} <= {"snapshot_ignored"}
    return [entry["why"] for entry in logs]


def test_a_snapshot_says_what_it_is(written, world):
    header = read_header(written.read_bytes())

    assert written.name == f"{world.cell.state.ordinal:020d}.snapshot"
    assert (header.cell, header.hash, header.sequence) == ("c", "hash", 7)
    assert (header.ordinal, header.at) == (world.cell.state.ordinal, world.cell.state.at)
    assert header.bytes == written.stat().st_size - HEADER_BYTES
    assert written.read_bytes()[:HEADER_BYTES].startswith(b'{"format":"cumulog-snapshot-1"')


def test_it_is_for_its_user_alone(written):
    assert stat.S_IMODE(written.stat().st_mode) == 0o600


def test_where_it_stands_comes_back(written, tmp_path):
    folded = load_newest(tmp_path, "c")
    assert isinstance(folded, Folded)
    assert (folded.prev, folded.sequence) == ("hash", 7)


def test_there_is_none(tmp_path):
    assert load_newest(tmp_path / "nowhere", "c") is None


def test_another_cell_s_is_ignored(written, tmp_path):
    assert ignored(tmp_path, "d") == ["its cell is c, not d"]


def test_one_of_other_code_is_ignored(written, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "fold_version", lambda: "other")
    (why,) = ignored(tmp_path)
    assert "version of the fold" in why


def test_one_cut_anywhere_is_ignored(written, tmp_path):
    data = written.read_bytes()
    dice = random.Random(2)
    lengths = [0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, len(data) - 1]
    for length in [*lengths, *(dice.randrange(len(data)) for _ in range(40))]:
        written.write_bytes(data[:length])
        assert len(ignored(tmp_path)) == 1, length
    written.write_bytes(data + b"\0")
    assert "length" in ignored(tmp_path)[0]


def test_one_with_a_flipped_bit_is_ignored(written, tmp_path):
    data = written.read_bytes()
    dice = random.Random(3)
    end_of_header = data.index(b"}") + 1
    places = [dice.randrange(HEADER_BYTES, len(data)) for _ in range(60)]
    for at in [*places, *(dice.randrange(end_of_header) for _ in range(60))]:
        flipped = bytearray(data)
        flipped[at] ^= 1 << dice.randrange(8)
        written.write_bytes(flipped)
        assert len(ignored(tmp_path)) == 1, at


def test_one_whose_body_makes_no_sense_is_ignored(written, tmp_path):
    """A hash that fits what should never have been written."""
    for body in (b"", b"junk", b"\0\0\0\0\0\1\x80", b"\0\0\0\0\xff\xff\x80", b"\0\xff\0\0\0\1\x80"):
        header = read_header(written.read_bytes())
        header = msgspec.structs.replace(header, bytes=len(body))
        changed = snapshot.sealed(header, hashlib.sha256(body))
        line = msgspec.json.encode(changed).ljust(HEADER_BYTES - 1) + b"\n"
        written.write_bytes(line + body)
        assert len(ignored(tmp_path)) == 1


def test_an_older_whole_one_is_used_instead(tmp_path, world):
    ordinal = world.cell.state.ordinal
    write(tmp_path, "c", copy_cell(world.cell, "one", 7))
    Story(world, 9).play(10)
    newest = write(tmp_path, "c", copy_cell(world.cell, "two", 8))
    newest.write_bytes(newest.read_bytes()[:-1])

    with structlog.testing.capture_logs() as logs:
        folded = load_newest(tmp_path, "c")

    assert folded is not None
    assert (folded.prev, folded.cell.state.ordinal) == ("one", ordinal)
    assert [entry["event"] for entry in logs] == ["snapshot_ignored", "snapshot_loaded"]


def test_what_was_left_half_written_is_no_snapshot(tmp_path, written):
    written.rename(written.with_name(f".{written.name}.next"))
    assert ignored(tmp_path) == []


def test_the_last_two_are_kept(tmp_path, world):
    paths = []
    for number in range(4):
        world.flavor(name=f"another-{number}")
        paths.append(write(tmp_path, "c", copy_cell(world.cell, "hash", number)))
    assert sorted(tmp_path.glob("*.snapshot")) == paths[-2:]


def test_one_of_a_log_that_was_cut_goes(tmp_path, world):
    ahead = tmp_path / f"{10**9:020d}.snapshot"
    ahead.write_bytes(b"of a log that reached further")
    written = write(tmp_path, "c", copy_cell(world.cell, "hash", 7))
    assert list(tmp_path.glob("*.snapshot")) == [written]


def test_it_stands_on_the_commit_it_ends_with(world):
    folded, datas, prev = Folded(), [], GENESIS
    for number, message in enumerate(world.messages, 1):
        commit = decode_commit(message)
        data, prev = seal_commit(
            f"c{number}", commit.first, prev, 1, commit.at, list(commit.records)
        )
        datas.append(data)
        folded.take(number, data)

    assert stands_on(folded, datas[-1])
    assert not stands_on(folded, datas[-2])
    assert not stands_on(folded, datas[-1].replace(b'"verdict":"', b'"verdict":"not-'))
    assert not stands_on(folded, b"no commit")


# Which code it is


def test_the_version_of_the_fold_is_that_of_the_code(tmp_path):
    """Any change of the domain's or the schemas' source is another version, wherever it lies."""
    root = Path(engine.__file__).parents[1]
    for package in ("engine", "schemas"):
        shutil.copytree(
            root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )

    def version(place: Path = tmp_path) -> str:
        return subprocess.run(
            [sys.executable, "-c", "from engine import snapshot; print(snapshot.fold_version())"],
            cwd="/",
            env={"PYTHONPATH": str(place), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    versions = [version()]
    assert versions[0].strip() == snapshot.fold_version()
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path)
    assert version(Path(archive)) == versions[0]
    for changed in ("engine/domain/network/plug.py", "schemas/host.py", "engine/snapshot.py"):
        with (tmp_path / changed).open("a") as file:
            file.write("# changed\n")
        versions.append(version())
    (tmp_path / "engine/domain/new.py").write_text("")
    versions.append(version())
    with (tmp_path / "engine/shell.py").open("a") as file:
        file.write("# changed\n")
    assert version() == versions[-1]
    assert len(set(versions)) == 5


def test_code_without_source_has_no_version():
    with pytest.raises(ModuleNotFoundError):
        fingerprint("no_such_module")
    with pytest.raises(ModuleNotFoundError):
        fingerprint("sys")
