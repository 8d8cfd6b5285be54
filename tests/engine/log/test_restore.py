"""A broken log is put back byte for byte, on a real broker, whatever was done to its files."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.bus.client import Bus
from engine.log import salvage, server
from engine.log.jetstream import JetStreamLog
from engine.log.loss import End, accept, lost_after, marks
from engine.log.replay import replay
from engine.log.restore import Restore
from engine.log.stream import ensure_log
from engine.log.witness import Witness
from schemas.subjects import Subjects
from tests.engine.log.test_export import a_checkpoint
from tests.engine.log.test_verify import a_log

SIZES = ((1,), (0, 2), (3,), (1, 1), (2,), (0,), (4,), (1,), (1, 0), (2,))
MESSAGES, FIRSTS = a_log(SIZES)
END = a_checkpoint(*MESSAGES[-1])
SEALED = 6  # commits of which there is a second copy


class Place:
    """A state directory with a broker's store."""

    def __init__(self, root):
        self.root = root
        self.nats = root / "nats"

    def block(self):
        (stream,) = salvage.streams(self.nats, "LOG-c-")
        return next((stream / "msgs").glob("*.blk"))

    def restore(self, sealed=SEALED, **options):
        known = options.pop("known", ())
        done = Restore(self, "c", "h", lambda: iter(MESSAGES[:sealed]), known=known, stamp="aside")
        return done.run(**options)

    def served(self):
        nats = server.start(self.nats, cell="c", host="h")
        try:
            password = nats.credentials["admin"]
            return list(replay(nats.url, "admin", password, Subjects(cell="c").log_stream))
        finally:
            nats.stop()


async def append(nats, messages):
    bus = await Bus.connect(
        nats.url, user="admin", password=nats.credentials["admin"], name="t", cell="c"
    )
    try:
        await ensure_log(bus)
        log = JetStreamLog(bus)
        for seq, data in messages:
            await log.append(data, expected_last=seq - 1)
    finally:
        await bus.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("made"))
    nats = server.start(place.nats, cell="c", host="h")
    try:
        asyncio.run(append(nats, MESSAGES))
    finally:
        nats.stop()
    return place


@pytest.fixture
def place(made, tmp_path):
    shutil.copytree(made.root, tmp_path / "state")
    (tmp_path / "state" / "nats" / "port").unlink()
    return Place(tmp_path / "state")


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def inside(place, number, offset=30):
    """Where in the block a byte of this commit lies; below 0, of what stands before it."""
    return place.block().read_bytes().index(MESSAGES[number - 1][1]) + offset


def test_a_log_that_is_whole_is_left_alone(place):
    told = place.restore()

    assert told.was_intact
    assert (told.commits, told.ordinals) == (len(MESSAGES), END.ordinal)
    assert place.served() == MESSAGES
    assert list((place.root / "restore").iterdir()) == []


def test_it_can_be_forced(place):
    told = place.restore(force=True)

    assert (told.was_intact, told.appended) == (False, len(MESSAGES))
    assert place.served() == MESSAGES
    assert (Path(told.aside) / "LOG-c-0001" / "msgs").is_dir()


@pytest.mark.parametrize(
    ("number", "offset"),
    [(1, 40), (3, 40), (SEALED, 40), (2, -3), (5, -200), (2, -60)],
    ids=["first", "third", "last sealed", "header", "before", "name"],
)
def test_a_flipped_byte_in_what_is_sealed_costs_nothing(place, number, offset):
    """What lies behind the damage, and nowhere else, is read around it."""
    flip(place.block(), inside(place, number, offset))

    told = place.restore()

    assert (told.ordinals, told.last_hash) == (END.ordinal, END.hash)
    assert not told.was_intact
    assert place.served() == MESSAGES
    assert place.restore().was_intact


def test_a_wrong_checksum_that_only_the_server_sees_costs_nothing(place):
    flip(place.block(), inside(place, 3, len(MESSAGES[2][1]) + 2))

    told = place.restore()

    assert told.ordinals == END.ordinal
    assert place.served() == MESSAGES


def test_a_truncated_file_loses_only_what_nobody_else_has(place):
    os.truncate(place.block(), inside(place, SEALED + 2))

    told = place.restore()

    assert told.commits == SEALED + 1
    assert place.served() == MESSAGES[: SEALED + 1]


def test_what_the_server_has_cut_is_had_back_from_the_second_copy(place):
    flip(place.block(), inside(place, 2))
    index = place.block().parent / "index.db"
    index.unlink(missing_ok=True)
    assert place.served() != MESSAGES

    assert place.restore(sealed=len(MESSAGES)).ordinals == END.ordinal
    assert place.served() == MESSAGES


@pytest.mark.parametrize("what", ["stream", "store", "everything"])
def test_a_deleted_store_is_made_anew(place, what):
    (stream,) = salvage.streams(place.nats, "LOG-c-")
    gone = {"stream": stream, "store": place.nats / "store", "everything": place.nats}
    shutil.rmtree(gone[what])

    told = place.restore(sealed=len(MESSAGES))

    assert (told.appended, told.aside) == (len(MESSAGES), "")
    assert place.served() == MESSAGES


def test_a_commit_that_contradicts_what_was_signed_is_not_put_back(place):
    signed = a_checkpoint(*MESSAGES[3], hash="0" * 64)
    told = place.restore(known=[signed])

    assert told.commits == 3


KILLED = """
import os, sys
from tests.engine.log.test_restore import Place
import engine.log.restore as module
from pathlib import Path
limit, seen = int(sys.argv[2]), 0
def line(frame, event, _):
    global seen
    if event == "line":
        seen += 1
        if seen == limit:
            os._exit(9)
    return line
def trace(frame, event, _):
    return line if frame.f_code.co_filename == module.__file__ else None
sys.settrace(trace)
Place(Path(sys.argv[1])).restore()
print(seen)
"""


def restored_in_a_process(place, limit):
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(place.root), str(limit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_a_kill_at_any_line_costs_nothing(made, tmp_path):
    """Killed at one line, then at another, then run to its end: all is there."""
    for number, limit in enumerate(range(13, 243, 23)):
        root = tmp_path / str(number)
        shutil.copytree(made.root, root)
        (root / "nats" / "port").unlink()
        place = Place(root)
        flip(place.block(), inside(place, 3))
        first = restored_in_a_process(place, limit)
        assert first.returncode in {0, 9}, first.stderr
        second = restored_in_a_process(place, limit + 7)
        assert second.returncode in {0, 9}, second.stderr

        told = place.restore()

        assert told.ordinals == END.ordinal, limit
        assert place.served() == MESSAGES
        assert not (root / "restore" / "building").exists()


def test_what_is_lost_is_known_and_can_be_given_up(tmp_path):
    run = tmp_path / "run"
    witness = Witness(run / "acknowledged")
    witness.note(10, END.ordinal, END.hash)
    known = marks(SimpleNamespace(checkpoints=(a_checkpoint(*MESSAGES[4]),)), witness.seen())
    left = a_checkpoint(*MESSAGES[7])
    end = End(sequence=8, ordinal=left.ordinal, hash=left.hash)
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / "n.sqlite").touch()

    assert lost_after(end, known, 0) == END.ordinal
    assert lost_after(End(sequence=10, ordinal=END.ordinal, hash=END.hash), known, 0) == 0
    for _ in range(2):  # cut short and run again
        said, aside = accept(tmp_path, "c", end, END.ordinal, now=5, stamp="s")

    assert (said.ordinal, said.lost) == (left.ordinal, END.ordinal)
    assert witness.seen().sequence == 8
    assert (aside / "read" / "n.sqlite").exists()
    assert len((tmp_path / "checkpoints" / "checkpoints.jsonl").read_bytes().splitlines()) == 1
    witness.close()
