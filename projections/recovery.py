"""Sealed files that are gone or damaged, fetched again from the second place.

A store may hold anything, and be anybody's: what it gives counts only if its bytes are those that
the manifest here names; or, where that is gone too, if its commits follow the hash chain from what
is whole before it to something that is ours: a file after it, or a checkpoint that was signed here.
Of those only the commits are taken, and files written of them anew. What was damaged is kept
beside, as ``damaged-…``. A kill at any moment leaves the next call to do the same again.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from engine.log.checkpoint import Held
from engine.log.commit import GENESIS
from projections.copies import Copies, CopiesAnswer
from projections.history import FETCHING, History
from projections.reader import Reader
from projections.segment import HistoryBroken, Segment
from schemas.errors import InvalidInput, Unavailable
from schemas.units import Ordinal

LOOK_S = 15.0  # how long who asks what lies there is kept waiting


class RecoveryAnswer(Struct, frozen=True, kw_only=True):
    """What was put back, and up to which ordinal history is whole now.

    It is ``whole`` if that is as far as its manifests here say, and the store has nothing more; if
    not, ``why`` says what is in the way.
    """

    store: str
    whole: bool
    ordinal: Ordinal
    restored: tuple[Segment, ...] = ()
    why: str = ""


class _Found(Struct):
    """A segment that follows those before it, and where it was fetched to; None: it is here."""

    segment: Segment
    fetched: Path | None = None
    is_ours: bool = False


type Timeline = Callable[[], sqlite3.Connection]


def restore(
    history: History, copies: Copies, held: Callable[[], Held], timeline: Timeline
) -> RecoveryAnswer:
    """Fetch what is missing or damaged here, and put it in its place once it is proven. Blocking.

    ``held`` returns the checkpoints that were signed here, ``timeline`` the read model.

    Raises:
        Unavailable: the store does not answer.
        NotProjected: the timeline does not reach as far.
    """
    history.directory.mkdir(parents=True, exist_ok=True)
    for path in history.directory.glob(f"{FETCHING}*"):
        path.unlink()
    named, good = history.looked_at()
    chain, why = _chain(history, copies, named, good)
    try:
        kept, unsure = _proven(history, chain, {each.name: each for each in named}, held())
        restored = _put_back(history, kept, named, good, timeline)
    finally:
        for found in chain:
            _drop(found)
    end = kept[-1].segment.last if kept else 0
    missing = [each for each in named if each.last > end]
    if unsure is not None:
        why = f"nothing here says that {unsure.name} of the store is ours"
    elif not missing:
        why = ""
    return RecoveryAnswer(
        store=copies.url,
        whole=not missing and unsure is None,
        ordinal=end,
        restored=tuple(restored),
        why=why,
    )


def _chain(
    history: History, copies: Copies, named: Sequence[Segment], good: Sequence[Segment]
) -> tuple[list[_Found], str]:
    """Return what follows each other from the first ordinal on, and why there is no more."""
    there = list(copies.manifests().values())
    chain: list[_Found] = []
    why = ""
    while True:
        last, link = _reached(chain)
        here = [s for s in good if (s.first, s.prev_hash) == (last + 1, link)]
        if here:
            chain.append(_Found(segment=max(here, key=lambda each: each.last), is_ours=True))
            continue
        for segment in _fitting(there, named, good, chain):
            fetched = history.directory / f"{FETCHING}{segment.name}.parquet"
            fetched.unlink(missing_ok=True)
            try:
                copies.fetch(segment, fetched)
                history.require_commits(segment, fetched)
            except HistoryBroken as error:
                why = f"{copies.url}: {error}"
                fetched.unlink(missing_ok=True)
                there.remove(segment)
                continue
            # It may hold what is here in smaller files, too.
            while chain and chain[-1].segment.first >= segment.first:
                _drop(chain.pop())
            chain.append(_Found(segment=segment, fetched=fetched))
            break
        else:
            return chain, why or f"{copies.url} has nothing that follows ordinal {last}"


def _reached(chain: Sequence[_Found]) -> tuple[Ordinal, str]:
    return (chain[-1].segment.last, chain[-1].segment.last_hash) if chain else (0, GENESIS)


def _drop(found: _Found) -> None:
    if found.fetched is not None:
        found.fetched.unlink(missing_ok=True)


def _fitting(
    there: Sequence[Segment],
    named: Sequence[Segment],
    good: Sequence[Segment],
    chain: Sequence[_Found],
) -> list[Segment]:
    """Return what goes on with a chain, the best first: the very file that is named here.

    Then what leads to a file that is whole here, and what goes furthest; of several the one that
    begins where the chain ends.
    """
    last, link = _reached(chain)
    until = min((each.first for each in good if each.first > last), default=None)
    ours = {(each.name, each.sha256) for each in named}
    begins = {(found.segment.first, found.segment.prev_hash) for found in chain}
    begins.add((last + 1, link))
    fitting = [s for s in there if s.last > last and (s.first, s.prev_hash) in begins]
    return sorted(
        fitting,
        key=lambda each: (
            (each.name, each.sha256) not in ours,
            each.first <= last,
            until is not None and each.last >= until,
            -each.last,
        ),
    )


def _proven(
    history: History, chain: Sequence[_Found], named: Mapping[str, Segment], held: Held
) -> tuple[list[_Found], Segment | None]:
    """Return those that are ours, up to the last that is, and the first that may not be."""
    ends = {(each.last, each.last_hash) for each in named.values()}
    ours = 0
    for number, found in enumerate(chain, 1):
        segment = found.segment
        if found.is_ours or (segment.last, segment.last_hash) in ends:
            ours = number  # and so are those before it: it follows them by the hash chain
            continue
        signed = {s.ordinal: s.hash for s in held.checkpoints if s.ordinal >= segment.first}
        if found.fetched is not None and history.has_signed(segment, found.fetched, signed):
            ours = number
    unsure = chain[ours].segment if ours < len(chain) else None
    return list(chain[:ours]), unsure


def _put_back(
    history: History,
    kept: Sequence[_Found],
    named: Sequence[Segment],
    good: Sequence[Segment],
    timeline: Timeline,
) -> list[Segment]:
    """Put what was fetched in its place, and what was damaged aside."""
    ours = {(each.name, each.sha256) for each in named}
    intact = {each.name for each in good}
    restored: list[Segment] = []
    for found in kept:
        new, data = found.segment, found.fetched
        if data is None:
            continue
        for old in named:
            covered = new.first <= old.last and old.first <= new.last
            if covered and (old.name not in intact or old.name == new.name):
                history.set_aside(old)
        if (new.name, new.sha256) in ours:
            history.put_back(new, data)
            restored.append(new)
        else:
            restored += history.write_anew(new, data, timeline())
    return restored


def questions(
    history: History, copies: Copies | None, held: Callable[[], Held], reader: Reader
) -> Mapping[str, Callable[[bytes], Awaitable[CopiesAnswer | RecoveryAnswer]]]:
    """Return what the archiver answers about copies; ``held`` are the checkpoints it keeps."""
    looking: asyncio.Future[CopiesAnswer] | None = None

    async def look(_payload: bytes) -> CopiesAnswer:
        # A store that does not answer holds up one thread, however many ask, and no question.
        nonlocal looking
        if copies is None:
            return CopiesAnswer(store="")
        if looking is None or looking.done():
            looking = asyncio.ensure_future(asyncio.to_thread(copies.look))
        await asyncio.wait({looking}, timeout=LOOK_S)
        if not looking.done():
            raise Unavailable(f"{copies.url} does not answer")
        return looking.result()

    async def copy(_payload: bytes) -> CopiesAnswer:
        store = _required(copies)
        await asyncio.to_thread(store.copy)
        return await asyncio.to_thread(store.look)

    async def back(_payload: bytes) -> RecoveryAnswer:
        return await asyncio.to_thread(restore, history, _required(copies), held, reader.db)

    return {"copies": look, "copy": copy, "restore": back}


def _required(copies: Copies | None) -> Copies:
    if copies is None:
        raise InvalidInput("there is no store: set history_store")
    return copies
