"""Seals, merges, copies and restores history, and dies at a given line of it: run by test_kills.

First a process does the work and looks, at each line that it comes to, at what lies on the disk.
For each line at which that is other than at the line before (a kill at all the rest leaves the
same) a process then does the work and kills itself there, with SIGKILL; another one looks at what
is left, does the work again, and looks at what came of it. This process itself only forks, so that
each begins from nothing.
"""

import itertools
import json
import os
import shutil
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from types import CodeType

import duckdb  # noqa: F401  # loaded once, before any process forks
import obstore
from pyarrow import parquet  # noqa: F401

from engine.log.checkpoint import Checkpoint, Held
from projections import copies, history, recovery, segment
from projections.copies import Copies
from projections.history import History
from projections.recovery import restore

assert obstore
WATCHED = {module.__file__ for module in (history, segment, copies, recovery)}
TOOL = 4


class Work:
    """One kind of work on one history, of which each process gets a copy."""

    def __init__(self, base: Path, name: str) -> None:
        self.base = base
        self.name = name
        self.commits = [
            (seq, data.encode()) for seq, data in json.loads((base / "commits.json").read_text())
        ]

    def do(self, place: Path) -> None:
        """Do all that is to be done."""
        found = History(place / "history")
        match self.name:
            case "seal":
                while self._seal(found):
                    pass
            case "merge":
                while found.merge_due(10**6, 2**52):
                    pass
            case "copy":
                Copies(found, f"file://{place}/there").copy()
            case "restore":
                self._restore(found, place)

    def _restore(self, found: History, place: Path) -> None:
        store = Copies(found, f"file://{place}/there")
        last = max(store.manifests().values(), key=lambda each: each.last)
        signed = Checkpoint(
            at=1, cell="c", key="k",
            hash=last.last_hash, ordinal=last.last, sequence=last.last_seq,
        )  # fmt: skip
        with closing(sqlite3.connect(self.base / "n.sqlite")) as db:
            told = restore(found, store, lambda: Held(checkpoints=(signed,)), lambda: db)
        assert told.whole, told.why

    def damage(self, place: Path) -> None:
        """Harm the first file, and lose the second and the last with their manifests."""
        shutil.copytree(place / "history", place / "there")
        first, second, *_, last = History(place / "history").segments()
        path = place / "history" / f"{first.name}.parquet"
        path.write_bytes(path.read_bytes()[:-1])
        for lost in (second, last):
            for end in ("json", "parquet"):
                (place / "history" / f"{lost.name}.{end}").unlink()

    def _seal(self, found: History) -> bool:
        held = found.segments()
        last = held[-1] if held else None
        db = sqlite3.connect(self.base / "n.sqlite")
        left = self.commits[last.last_seq if last else 0 :]
        done = found.seal(left, db, ordinals_max=25, through=2**40)
        db.close()
        return done is not None

    def check_rest(self, place: Path) -> None:
        """Whatever is left holds together, and is what the log is."""
        found = History(place / "history")
        if self.name == "restore":
            assert set(found.readable()) <= set(self.commits)
            return
        held = found.verify()
        read = [commit for each in held for commit in found.commits(each)]
        whole = self.name != "seal"
        assert read == (self.commits if whole else self.commits[: len(read)])
        if self.name == "copy":
            there = History(place / "there")
            copied = [commit for each in there.verify() for commit in there.commits(each)]
            assert copied == self.commits[: len(copied)]

    def check_done(self, place: Path) -> None:
        """All is done, and nothing else lies there."""
        self.check_rest(place)
        found = History(place / "history")
        held = found.verify()
        assert [commit for each in held for commit in found.commits(each)] == self.commits
        assert held[-1].last_seq == len(self.commits)
        names = {f"{each.name}.{end}" for each in held for end in ("json", "parquet")}
        assert {
            path.name
            for path in (place / "history").iterdir()
            if not path.name.startswith("damaged-")
        } == names
        if self.name == "merge":
            assert len(held) == 1
        if self.name == "copy":
            assert {path.name for path in (place / "there").iterdir()} == names


def at_lines(act: Callable[[int], None]) -> None:
    """Call at each line of the code that is watched, with how many there were before."""
    count = itertools.count()

    def at(code: CodeType, _line: int) -> object:
        if code.co_filename not in WATCHED:
            return sys.monitoring.DISABLE
        act(next(count))
        return None

    sys.monitoring.use_tool_id(TOOL, "doomed")
    sys.monitoring.register_callback(TOOL, sys.monitoring.events.LINE, at)
    sys.monitoring.set_events(TOOL, sys.monitoring.events.LINE)


def watched(work: Work, place: Path) -> None:
    """Do the work; note the lines at which the disk has changed."""
    lines: list[int] = []
    before: object = None

    def look(number: int) -> None:
        nonlocal before
        now = [
            (entry.path, entry.inode(), entry.stat().st_size)
            for folder in (place / "history", place / "there")
            if folder.exists()
            for entry in os.scandir(folder)
        ]
        if now != before:
            lines.append(number)
        before = now

    at_lines(look)
    work.do(place)
    (place / "lines.json").write_text(json.dumps(lines))


def doomed(work: Work, place: Path, line: int) -> None:
    """Do the work, and die on the way."""

    def die(number: int) -> None:
        if number == line:
            os.kill(os.getpid(), signal.SIGKILL)

    at_lines(die)
    work.do(place)


def forked(act: Callable[[], None]) -> int:
    """Run in a process of its own; return how it ended, as os.waitstatus_to_exitcode."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:  # noqa: BLE001  # told, and how it ended too
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    """Die at every line at which something has changed; print how many there were."""
    base, name = Path(sys.argv[1]), sys.argv[2]
    work = Work(base, name)
    place = base / "place"

    def after() -> None:
        work.check_rest(place)
        work.do(place)
        work.check_done(place)

    def lay_out() -> None:
        shutil.rmtree(place, ignore_errors=True)
        (place / "history").mkdir(parents=True)
        if name != "seal":
            shutil.copytree(base / "sealed", place / "history", dirs_exist_ok=True)
        if name == "restore":
            work.damage(place)

    lay_out()
    if forked(lambda: watched(work, place)):
        sys.exit("the work cannot be done at all")
    lines = json.loads((place / "lines.json").read_text())
    for line in lines:
        lay_out()
        ended = forked(partial(doomed, work, place, line))
        if ended != -signal.SIGKILL:
            sys.exit(f"line {line}: it ended with {ended}")
        if forked(after):
            sys.exit(f"line {line}: what was left is not what should be")
    print(len(lines))


if __name__ == "__main__":
    main()
