"""The log in memory, for tests: what ``jetstream`` promises, for as long as the process lives."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from engine.log.port import StoredCommit, WrongLastSequence, is_same

BATCH_MAX = 256


class MemoryLog:
    """See ``port.Log``."""

    def __init__(self) -> None:
        self._commits: list[StoredCommit] = []
        self._grown = asyncio.Event()

    async def append(
        self,
        data: bytes,
        *,
        expected_last: int,
        commit_id: str | None = None,
        pipelined: bool = False,  # noqa: ARG002  # here, nothing is ever under way
    ) -> int:
        """See ``port.Log.append``."""
        if expected_last != len(self._commits):
            for stored in self._commits[expected_last : expected_last + 1]:
                if is_same(stored, data, commit_id):
                    return stored.seq
            raise WrongLastSequence(expected_last, len(self._commits))
        now = time.time_ns() // 1000
        self._commits.append(StoredCommit(expected_last + 1, bytes(data), now))
        self._grown.set()
        self._grown = asyncio.Event()
        return expected_last + 1

    async def append_all(self, datas: Sequence[bytes], *, expected_last: int) -> int:
        """See ``port.Log.append_all``."""
        if expected_last != len(self._commits):
            raise WrongLastSequence(expected_last, len(self._commits))
        for place, data in enumerate(datas, start=expected_last):
            await self.append(data, expected_last=place)
        return expected_last + len(datas)

    async def end(self) -> int:
        """See ``port.Log.end``."""
        return len(self._commits)

    async def roll(self, number: int) -> None:
        """See ``port.Log.roll``."""

    async def read(
        self, after_seq: int = 0, *, follow: bool = False
    ) -> AsyncGenerator[StoredCommit]:
        """See ``port.Log.read``."""
        async for batch in self.read_batches(after_seq, follow=follow):
            for commit in batch:
                yield commit

    async def read_batches(
        self, after_seq: int = 0, *, follow: bool = False
    ) -> AsyncGenerator[list[StoredCommit]]:
        """See ``port.Log.read_batches``."""
        end = len(self._commits)
        while follow or after_seq < end:
            grown = self._grown
            stop = after_seq + BATCH_MAX if follow else min(end, after_seq + BATCH_MAX)
            if batch := self._commits[after_seq:stop]:
                yield batch
                after_seq = batch[-1].seq
            else:
                await grown.wait()

    async def last(self) -> StoredCommit | None:
        """See ``port.Log.last``."""
        return self._commits[-1] if self._commits else None
