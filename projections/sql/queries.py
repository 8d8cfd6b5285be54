"""Has questions in SQL answered, each by a process of its own that is ended when it takes too much.

Invariant: however a process ends, whoever asked is told, and nothing of it is left: no process, no
file. An answer is whole or there is none.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from projections.history import History, history_path
from projections.runner import read_model_path
from projections.segment import HistoryBroken
from projections.sql.child import TooMuch
from projections.sql.question import (
    ANSWER,
    MOVED,
    Column,
    Format,
    Limits,
    Question,
    Sealed,
    Told,
    given_file,
)
from projections.sql.statement import NotAllowed
from schemas.config import Config
from schemas.errors import InvalidInput, Rejected, Unavailable
from schemas.units import Ordinal

log = structlog.get_logger(__name__)

AT_ONCE = 2
WAITING_MAX = 16
OF_ONE_MAX = 4  # under way or waiting, of one user
ATTEMPTS = 5  # segments may be merged away between listing and reading
STARTING_S = 15.0  # beside what a question itself may take
CHUNK_BYTES = 256 * 1024
TOLD_BYTES_MAX = 1 * 2**20


class TooManyQueries(Rejected):
    """As many questions are under way as may be."""

    code = "TooManyQueries"
    status = 429
    hint = "Wait for the answer to one that was asked."


_REFUSALS: dict[str, type[Rejected]] = {
    each.code: each for each in (InvalidInput, NotAllowed, TooMuch)
}


class Found(Struct, frozen=True, kw_only=True):
    """An answer: its columns, and its rows as a file in the format asked for."""

    columns: tuple[Column, ...]
    rows: int
    file: IO[bytes]

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the file piece by piece, and close it."""
        try:
            while chunk := await asyncio.to_thread(self.file.read, CHUNK_BYTES):
                yield chunk
        finally:
            self.file.close()


class Queries:
    """The questions of one process."""

    def __init__(self, config: Config) -> None:
        self._history = History(history_path(config))
        self._read_model = read_model_path(config)
        self._directory = Path(config.state_dir) / "sql"
        self._limits = Limits(
            memory_mib=config.sql_memory_mib,
            seconds=config.sql_s,
            cpu_s=max(1, int(2 * config.sql_s)),
            rows=config.sql_rows_max,
            answer_mib=config.sql_answer_mib,
        )
        self._running = asyncio.Semaphore(AT_ONCE)
        self._of: Counter[str] = Counter()
        self._numbers = itertools.count(1)

    async def ask(
        self,
        sql: str,
        *,
        user: str,
        project: str | None,
        through: Ordinal,
        form: Format,
        given: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> Found:
        """Answer a question over all ordinals up to ``through``, which the read model holds.

        ``project`` None shows everybody's rows. ``given`` are the rows of views that are not
        computed in SQL.

        Raises:
            NotAllowed: it is no single SELECT of the views.
            InvalidInput: the database does not understand it.
            TooMuch: it takes more time, memory, disk or rows than it may.
            TooManyQueries: too many are under way.
            Unavailable: history cannot be read.
        """
        async with self._turn(user):
            for _ in range(ATTEMPTS):
                segments = await asyncio.to_thread(self._segments)
                question = Question(
                    sql=sql,
                    project=project,
                    segments=tuple(sealed for sealed, _ in segments),
                    sealed=segments[-1][1] if segments else 0,
                    through=through,
                    read_model=str(self._read_model),
                    scratch="",
                    format=form,
                    limits=self._limits,
                )
                found = await self._answered(question, given or {})
                if found is not None:
                    return found
        raise Unavailable("history changes faster than it can be read")

    @asynccontextmanager
    async def _turn(self, user: str) -> AsyncIterator[None]:
        if self._of[user] >= OF_ONE_MAX or self._of.total() >= WAITING_MAX:
            raise TooManyQueries("as many questions are under way as may be")
        self._of[user] += 1
        try:
            async with self._running:
                yield
        finally:
            self._of -= Counter((user,))

    def _segments(self) -> list[tuple[Sealed, Ordinal]]:
        """Return what is sealed, its bytes checked, and up to which ordinal each reaches."""
        history = self._history
        try:
            segments = history.segments()
            history.require_intact(segments)
        except HistoryBroken as error:
            raise Unavailable(f"history is not what was written: {error}") from error
        return [
            (Sealed(path=str(history.path(each)), format=each.format), each.last)
            for each in segments
        ]

    async def _answered(
        self, question: Question, given: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Found | None:
        """Have a process answer; None if segments were moved away from under it."""
        scratch = await asyncio.to_thread(self._scratch)
        try:
            for view, rows in given.items():
                await asyncio.to_thread(_write_rows, scratch / given_file(view), rows)
            told = await self._run(replace(question, scratch=str(scratch)))
            if told.code == MOVED:
                return None
            if told.code:
                raise _REFUSALS.get(told.code, InvalidInput)(told.reason)
            file = (scratch / ANSWER).open("rb")
            return Found(columns=told.columns, rows=told.rows, file=file)
        finally:
            # An open file stays readable.
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    def _scratch(self) -> Path:
        """Make a directory for one question; remove those of processes that are gone."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._directory.iterdir():
            owner = path.name.partition("-")[0]
            if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
                shutil.rmtree(path, ignore_errors=True)
        scratch = self._directory / f"{os.getpid()}-{next(self._numbers)}"
        scratch.mkdir(mode=0o700)
        return scratch

    async def _run(self, question: Question) -> Told:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing is imported from where it works
            "-m",
            "projections.sql.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=question.scratch,
            env=_environment(),
        )
        limits = question.limits
        try:
            async with asyncio.timeout(limits.seconds + STARTING_S):
                out, errors = await process.communicate(msgspec.json.encode(question))
        except TimeoutError:
            raise TooMuch(f"it took longer than {limits.seconds:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        code = process.returncode
        if code == 0 and len(out) <= TOLD_BYTES_MAX:
            return msgspec.json.decode(out, type=Told)
        log.warning("query_ended", code=code, error=errors[-2000:].decode(errors="replace"))
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            raise TooMuch(f"it took more than {limits.cpu_s} s of processor time, or was killed")
        raise TooMuch(f"it needs more than {limits.memory_mib} MiB of memory")


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_bytes(msgspec.json.Encoder().encode_lines(rows))


def _environment() -> dict[str, str]:
    """Return what the process is to know of this one's environment: where its code is."""
    path = os.pathsep.join(place for place in sys.path if place)
    return {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": path, "LANG": "C.UTF-8", "TZ": "UTC"}
