"""A candidate: follows the log as a hot standby, and leads once the lease is its own.

Invariant: it leads from a state that is the fold of the whole log, and its first commits go into
the log all at once and as many as a predecessor may have in flight: none of those can be stored
after them. What it decides before they are stored is nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from engine.bus.client import Bus
from engine.bus.lease import Lease
from engine.decider import stamped
from engine.domain import leader
from engine.folded import Folded
from engine.log.commit import seal_commit
from engine.log.port import Log, LogUnavailable, WrongLastSequence
from engine.shell import Engine
from engine.turns import WINDOW, LeadershipLost, Note
from schemas.config import Config
from schemas.engine import ConfirmLead, ElectLeader
from schemas.envelope import Accepted, Action, Actor, Fact, Record, Request
from schemas.units import Micros, Ordinal
from schemas.work import WorkItem

logger = structlog.get_logger(__name__)

RETRY_S = 0.05

type SendWork = Callable[[WorkItem], Awaitable[None]]


class Candidate:
    """One process that may lead a cell."""

    def __init__(
        self,
        config: Config,
        bus: Bus,
        log: Log,
        lease: Lease,
        folded: Folded,
        *,
        clock: Callable[[], Micros],
        new_id: Callable[[], str],
        salt: Callable[[], str],
        send_work: SendWork,
        acknowledged: Callable[[int, Ordinal, str], None] = lambda *_: None,
        note: Note | None = None,
    ) -> None:
        """``note`` is called with states and what ends once they are durable, for snapshots."""
        self._config = config
        self._bus = bus
        self._log = log
        self._lease = lease
        self._clock = clock
        self._new_id = new_id
        self._salt = salt
        self._send_work = send_work
        self._acknowledged = acknowledged
        self._note = note
        self.folded = folded
        self._attempts: set[str] = set()  # the last hash of each election sent
        self.engine: Engine | None = None

    async def run(self) -> None:
        """Follow, then lead for as long as nobody else does.

        Raises:
            LeadershipLost: another leads; begin anew with a fresh fold.
            ChainBroken: the log is not what was written to it.
            LogError: the log takes no commits.
        """
        await self._follow_until_held()
        keeping = asyncio.create_task(self._lease.keep())
        leading = asyncio.create_task(self._lead())
        try:
            await asyncio.wait({keeping, leading}, return_when=asyncio.FIRST_COMPLETED)
            if leading.done():
                leading.result()
            keeping.result()
            raise LeadershipLost("another candidate took the lease")
        finally:
            for task in (keeping, leading):
                task.cancel()
            await asyncio.gather(keeping, leading, return_exceptions=True)

    async def release(self) -> None:
        """Let the next candidate lead at once; for an orderly end."""
        await self._lease.release()

    def at_rest(self) -> Folded | None:
        """Return the state and its place in the log, if all of it is durable."""
        return self.folded if self.engine is None else self.engine.turns.at_rest()

    async def _follow_until_held(self) -> None:
        acquiring = asyncio.create_task(self._lease.acquire())
        following = asyncio.create_task(self._follow())
        try:
            await asyncio.wait({acquiring, following}, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
            acquiring.result()
        finally:
            for task in (acquiring, following):
                task.cancel()
            await asyncio.gather(acquiring, following, return_exceptions=True)

    async def _follow(self) -> None:
        """Fold what the leader writes, for ever."""
        logger.info("following", ordinal=self.folded.cell.state.ordinal)
        async for batch in self._log.read_batches(self.folded.sequence, follow=True):
            for commit in batch:
                self.folded.take(commit.seq, commit.data)
            if self._note is not None:
                self._note(self.folded, None)

    async def _catch_up(self) -> None:
        """Fold up to the end as whoever orders the appends knows it."""
        number = 0
        while number != self.folded.cell.state.log_number:
            # One that rolled the log may have ended before it went on.
            number = self.folded.cell.state.log_number
            await self._log.roll(number)
            end = await self._log.end()
            while self.folded.sequence < end:
                # A replica may lag behind that end for a moment.
                async for batch in self._log.read_batches(self.folded.sequence):
                    for commit in batch:
                        self.folded.take(commit.seq, commit.data)

    async def _lead(self) -> None:
        while True:
            await self._catch_up()
            if self.folded.prev in self._attempts:
                break  # stored, though we were not told
            if not await self._lease.confirm():
                raise LeadershipLost("another candidate took the lease")
            try:
                await self._elect()
            except LogUnavailable as error:
                logger.warning("election_unknown", error=str(error))
                await asyncio.sleep(RETRY_S)
            except WrongLastSequence:
                # A leader that has not yet noticed wrote meanwhile; it will, by the first refusal.
                logger.info("election_repeated", ordinal=self.folded.cell.state.ordinal)
                await asyncio.sleep(RETRY_S)
            else:
                break
        self.engine = Engine(
            self._config,
            self._bus,
            self._log,
            self.folded,
            clock=self._clock,
            new_id=self._new_id,
            salt=self._salt,
            send_work=self._send_work,
            acknowledged=self._acknowledged,
            note=self._note,
            confirm=self._lease.confirm,
        )
        await self.engine.lead()

    async def _elect(self) -> None:
        """Take the lead in the log: the epoch's first commits, all at once.

        They are folded as they are read back, so that a refusal leaves nothing behind.
        """
        state = self.folded.cell.state
        epoch, at = state.epoch + 1, max(self._clock(), state.at)
        elect = ElectLeader(epoch=epoch, node=self._config.node)
        confirm = ConfirmLead(epoch=epoch, node=self._config.node)
        datas: list[bytes] = []
        prev, first = self.folded.prev, state.ordinal + 1
        actions: list[ElectLeader | ConfirmLead] = [elect, *[confirm] * (WINDOW - 1)]
        for action in actions:
            facts = leader.facts_of(action, at)
            record = self._record(action, facts, at)
            data, prev = seal_commit(
                commit_id=self._new_id(),
                first=first,
                prev=prev,
                epoch=epoch,
                at=at,
                records=[record],
            )
            datas.append(data)
            first += 1 + len(facts)
        self._attempts.add(prev)
        await self._log.append_all(datas, expected_last=self.folded.sequence)
        for place, data in enumerate(datas, start=self.folded.sequence + 1):
            self.folded.take(place, data)
        self._acknowledged(self.folded.sequence, state.ordinal, self.folded.prev)

    def _record(self, action: Action, facts: Sequence[Fact], at: Micros) -> Record:
        request = stamped(
            Request(
                request_id=f"req-{self._new_id()}",
                actor=Actor(kind="system", user_id="system"),
                action=action,
                submitted_at=at,
            )
        )
        verdict = Accepted(reply={})
        return Record(salt=self._salt(), request=request, verdict=verdict, facts=tuple(facts))
