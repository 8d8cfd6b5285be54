"""Which streams the log lies in, and in which of them a sequence is to be looked for.

The log goes on in the next numbered stream when one is closed; its sequences go on without a gap.
A closed one may be dropped once it is archived. So nobody knows beforehand which there are: the
broker is asked for their names, and each for its first message, whose place never changes.
"""

import itertools
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from engine.log.port import LogGone
from schemas.subjects import Subjects

# Sequences and commits after a sequence, of what was archived.
type Archived = Callable[[int], Iterable[tuple[int, bytes]]]

NAMES = "$JS.API.STREAM.NAMES"
ROLLED = "engine.log.rolled.v1"
_HINT = f'"{ROLLED}"'.encode()


class Stream(Struct, frozen=True):
    """A stream of the log. ``first`` is the first message's sequence; 0: none was found in it."""

    number: int
    name: str
    first: int = 0


class _Fact(Struct, frozen=True):
    type: str
    number: int = 0


class _Record(Struct, frozen=True):
    facts: tuple[msgspec.Raw, ...] = ()


class _Commit(Struct, frozen=True):
    records: tuple[_Record, ...] = ()


_decode_commit = msgspec.json.Decoder(_Commit).decode
_decode_fact = msgspec.json.Decoder(_Fact).decode


def rolls_to(data: bytes) -> int:
    """Return the number of the stream in which the log goes on after this commit; 0: the same."""
    if _HINT not in data:
        return 0
    try:
        for record in _decode_commit(data).records:
            for raw in record.facts:
                if _HINT in bytes(raw) and (fact := _decode_fact(raw)).type == ROLLED:
                    return fact.number
    except msgspec.MsgspecError:
        return 0  # for whoever checks commits to tell
    return 0


def names_request(cell: str) -> bytes:
    """Return what ``NAMES`` is asked with."""
    return json.dumps({"subject": Subjects(cell=cell).log_all}).encode()


def numbers_in(cell: str, listed: Iterable[str]) -> list[int]:
    """Return the numbers of the log's streams among all that were listed, in order."""
    names = Subjects(cell=cell)
    prefix = names.log_stream_of(0)[:-4]
    found = [name.removeprefix(prefix) for name in listed if name.startswith(prefix)]
    return sorted(int(number) for number in found if number.isdecimal() and len(number) == 4)


def first_request(cell: str, number: int) -> bytes:
    """Return what a stream is asked with for its first message, by direct get."""
    request = {"seq": 1, "next_by_subj": Subjects(cell=cell).log_subject(number)}
    return json.dumps(request).encode()


def holding(streams: Sequence[Stream], seq: int) -> Sequence[Stream]:
    """Return the streams that may hold a sequence, in order; at most the last has no message yet.

    Raises:
        LogGone: the stream that held it was dropped.
    """
    begun = [place for place, stream in enumerate(streams) if 0 < stream.first <= seq]
    if begun:
        place = begun[-1]
        return [streams[place], *_empty(streams[place + 1 :])]
    if streams[0].first > 0:
        raise LogGone(seq, streams[0].first)
    return _empty(streams)


def _empty(streams: Sequence[Stream]) -> list[Stream]:
    """Return the first ones in which nothing was found."""
    return list(itertools.takewhile(lambda stream: stream.first == 0, streams))


def until(archived: Archived, after_seq: int, first: int) -> Generator[tuple[int, bytes]]:
    """Yield what was archived after a sequence, up to where the streams begin.

    Raises:
        LogGone: not all of it was archived.
    """
    for seq, data in archived(after_seq):
        if seq >= first:
            break
        yield seq, data
        after_seq = seq
    if after_seq + 1 < first:
        raise LogGone(after_seq + 1, first)


def whole(
    read: Callable[[int], Iterator[tuple[int, bytes]]], after_seq: int, archived: Archived | None
) -> Iterator[tuple[int, bytes]]:
    """Yield what ``read`` yields after a sequence, and before it what only the archive has.

    Raises:
        LogGone: what was dropped is not in the archive.
    """
    while True:
        try:
            for seq, data in read(after_seq):
                yield seq, data
                after_seq = seq
        except LogGone as gone:
            if archived is None:
                raise
            first = gone.first
        else:
            return
        for seq, data in until(archived, after_seq, first):
            yield seq, data
            after_seq = seq
