"""That sealed history and the log are the same, byte for byte, and that nothing is missing.

``Archive.verify`` compares hashes, as an auditor can. This compares bytes: each commit of each
segment with the one that lies in the log, and walks what is not sealed yet. Where a stream was
dropped from the broker, history is all there is, and is held to the hash chain alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping

from msgspec import Struct

from engine.log.commit import GENESIS, ChainBroken, check_commit
from engine.log.port import LogGone
from projections.files import Read
from projections.history import History
from projections.segment import HistoryBroken, Segment
from schemas.units import Ordinal


class AgreementAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether segments and log agree; if not, from which ordinal on, and why."""

    agree: bool
    segments: int = 0
    commits: int = 0  # compared
    bytes: int = 0  # of those, as they lie in the log
    sealed: Ordinal = 0
    head: Ordinal = 0  # what follows the sealed ordinals is in the log alone
    ordinal: Ordinal = 0
    why: str = ""


def questions(
    history: History, read: Read
) -> Mapping[str, Callable[[bytes], Awaitable[AgreementAnswer]]]:
    """Return what the archiver answers about this."""

    async def agreement(_payload: bytes) -> AgreementAnswer:
        return await asyncio.to_thread(compare, history, read)

    return {"agreement": agreement}


def compare(history: History, read: Read) -> AgreementAnswer:
    """Read log and segments side by side. Blocking."""
    try:
        with history.hold() as segments:
            history.verify(segments)
            return _compared(history, segments, iter(read(0)))
    except (ChainBroken, HistoryBroken) as error:
        return AgreementAnswer(agree=False, ordinal=error.ordinal, why=str(error))
    except LogGone as error:
        return AgreementAnswer(agree=False, why=f"neither log nor history holds it: {error}")


def _compared(
    history: History, segments: list[Segment], log: Iterator[tuple[int, bytes]]
) -> AgreementAnswer:
    commits = size = sealed = 0
    link = GENESIS
    for segment in segments:
        for seq, data in history.commits(segment):
            found = next(log, None)
            if found is None:
                raise ChainBroken(
                    sealed + 1, f"the log ends before it, and segment {segment.name} does not"
                )
            if found != (seq, data):
                raise ChainBroken(
                    sealed + 1, f"segment {segment.name} and the log have other bytes for it"
                )
            head = check_commit(data, link, sealed + 1)
            sealed, link = head.next_first - 1, head.hash
            commits, size = commits + 1, size + len(data)
    last = sealed
    for _, data in log:
        head = check_commit(data, link, last + 1)
        last, link = head.next_first - 1, head.hash
    return AgreementAnswer(
        agree=True, segments=len(segments), commits=commits, bytes=size, sealed=sealed, head=last
    )
