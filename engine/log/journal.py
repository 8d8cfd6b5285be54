"""A stream of events with an index: what the recorder of the ``eventsourcing`` library stands on.

One message holds all events of one insert, and the tracking that goes with them, stored under the
stream's last sequence: all or nothing, never interleaved. Each event takes one ordinal, without
gaps. Every journal folds the messages into an index (which originator has which versions, at which
ordinals; how far each upstream was tracked) and brings it up to date before it answers, so events
of one originator are found, not searched for. Synchronous, for several threads.
"""

import contextlib
import json
import threading
import time
import uuid
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from engine.log.stream import log_config
from engine.log.wire import Refused, Wire

BATCH_MAX = 1000
BATCH_BYTES_MAX = 8 * 1024 * 1024
CACHED_BYTES_MAX = 32 * 1024 * 1024
WRONG_LAST_SEQUENCE = 10071, 10164
PATIENCE_S = 30.0
TIMEOUT_S = 5.0
RETRY_S = 0.05
SEQUENCE = b"Nats-Sequence: "
HEARD_S = 1.0


class JournalConflict(Exception):
    """An event with this originator and version, or a tracking as new, is there already."""


class JournalUnavailable(Exception):
    """The broker cannot be reached. Whether an insert was stored is not known."""


class Event(Struct, frozen=True, array_like=True):
    """An event as the library stores it; ``uuid`` says that the originator's id is one."""

    originator_id: str
    uuid: bool
    version: int
    topic: str
    state: bytes


class Batch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One insert. ``first`` is the ordinal of its first event, or of the next to come."""

    batch: str
    first: int
    events: tuple[Event, ...] = ()
    tracking: tuple[str, int] | None = None


class _Originator(Struct):
    """Versions in order, and the ordinal of each."""

    versions: list[int]
    ordinals: dict[int, int]


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(Batch).decode


class Journal:
    """One stream as seen by one connection. Everything may raise ``JournalUnavailable``."""

    def __init__(self, url: str, user: str, password: str, *, stream: str, subject: str) -> None:
        self._login = url, user, password
        self._stream = stream
        self._subject = subject
        self._lock = threading.RLock()
        self._wire: Wire | None = None
        self._made = False
        self._last_seq = 0
        self._firsts: list[int] = []  # ordinal of the first event of each message with events
        self._seqs: list[int] = []  # and that message's sequence
        self._ordinal = 0
        self._originators: dict[str, _Originator] = {}
        self._tracked: dict[str, int] = {}
        self._cache: OrderedDict[int, Batch] = OrderedDict()
        self._sizes: dict[int, int] = {}
        self._cached_bytes = 0
        self._sought = ""  # the insert under way
        self._found: Batch | None = None  # and where it was seen in the stream

    def close(self) -> None:
        """Close the connection; using the journal again opens another."""
        with self._lock:
            if self._wire is not None:
                self._wire.close()
                self._wire = None

    def insert(self, events: Sequence[Event], tracking: tuple[str, int] | None = None) -> list[int]:
        """Store events and tracking, all or nothing, and return the events' ordinals.

        Raises:
            JournalConflict: one of them is there already; nothing was stored.
        """
        with self._lock:
            self._sought, self._found = uuid.uuid4().hex, None
            stored = self._patiently(lambda: self._insert(tuple(events), tracking))
            return list(range(stored.first, stored.first + len(events)))

    def events_of(
        self,
        originator_id: str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> list[Event]:
        """Return an originator's events by version: above ``gt``, up to ``lte``."""
        with self._lock:
            return self._patiently(lambda: self._events_of(originator_id, gt, lte, desc, limit))

    def events_from(
        self, first: int, limit: int, *, last: int | None = None, topics: Sequence[str] = ()
    ) -> list[tuple[int, Event]]:
        """Return (ordinal, event) from ordinal ``first`` on, up to ``last``, ``limit`` of them."""
        with self._lock:
            return self._patiently(lambda: self._events_from(first, limit, last, frozenset(topics)))

    def last_ordinal(self) -> int:
        """Return the newest event's ordinal, 0 if there is none."""
        with self._lock:
            self._patiently(self._catch_up)
            return self._ordinal

    def tracked(self, upstream: str) -> int | None:
        """Return how far an upstream was tracked, None if it never was."""
        with self._lock:
            self._patiently(self._catch_up)
            return self._tracked.get(upstream)

    def listener(self, heard: Callable[[], None]) -> "Listener":
        """Call ``heard`` whenever there may be new events, until the listener is closed."""
        return Listener(self._login, f"{self._subject}.heard", heard)

    def _insert(self, events: tuple[Event, ...], tracking: tuple[str, int] | None) -> Batch:
        # Found already: an attempt of ours was stored whose answer was lost.
        while self._found is None:
            self._refuse_conflicts(events, tracking)
            batch = Batch(
                batch=self._sought, first=self._ordinal + 1, events=events, tracking=tracking
            )
            data = _encode(batch)
            seq = self._last_seq + 1
            ack = self._connected().call(
                self._subject, data, {"Nats-Expected-Last-Sequence": str(self._last_seq)}
            )
            error = ack.get("error")
            if error is None:
                self._fold(seq, batch, len(data))
                self._connected().tell(f"{self._subject}.heard")
            elif error.get("err_code") in WRONG_LAST_SEQUENCE:
                self._catch_up()
            else:
                raise Refused(str(error.get("description")))
        return self._found

    def _refuse_conflicts(self, events: Sequence[Event], tracking: tuple[str, int] | None) -> None:
        if len({(event.originator_id, event.version) for event in events}) < len(events):
            raise JournalConflict("the events to store are not unique")
        for event in events:
            known = self._originators.get(event.originator_id)
            if known is not None and event.version in known.ordinals:
                what = f"version {event.version} of {event.originator_id}"
                raise JournalConflict(f"{what} is already stored")
        if tracking is not None and tracking[1] <= self._tracked.get(tracking[0], -1):
            newest = self._tracked[tracking[0]]
            raise JournalConflict(f"{tracking[0]} was tracked to {newest}, {tracking[1]} is older")

    def _events_of(
        self, originator_id: str, gt: int | None, lte: int | None, desc: bool, limit: int | None
    ) -> list[Event]:
        self._catch_up()
        known = self._originators.get(originator_id)
        if known is None:
            return []
        low = 0 if gt is None else bisect_right(known.versions, gt)
        high = len(known.versions) if lte is None else bisect_right(known.versions, lte)
        versions = known.versions[low:high]
        if desc:
            versions.reverse()
        return [self._event(known.ordinals[version]) for version in versions[:limit]]

    def _events_from(
        self, first: int, limit: int, last: int | None, topics: frozenset[str]
    ) -> list[tuple[int, Event]]:
        self._catch_up()
        first = max(first, 1)
        last = self._ordinal if last is None else min(last, self._ordinal)
        found: list[tuple[int, Event]] = []
        place = bisect_right(self._firsts, first) - 1
        while first <= last and len(found) < limit:
            batch = self._batch_at(place, ahead=BATCH_MAX)
            for ordinal, event in enumerate(batch.events, start=batch.first):
                if not first <= ordinal <= last or (topics and event.topic not in topics):
                    continue
                found.append((ordinal, event))
                if len(found) == limit:
                    break
            first = batch.first + len(batch.events)
            place += 1
        return found

    def _event(self, ordinal: int) -> Event:
        batch = self._batch_at(bisect_right(self._firsts, ordinal) - 1)
        return batch.events[ordinal - batch.first]

    def _batch_at(self, place: int, *, ahead: int = 1) -> Batch:
        """Return the message at this place of the index; read it with ``ahead - 1`` after it."""
        seq = self._seqs[place]
        found = self._cache.get(seq)
        if found is None:
            for later, batch, size in reversed(self._read(seq, ahead)):
                self._keep(later, batch, size)  # the one asked for last, so that it stays
                found = batch
            assert found is not None, "nothing is ever deleted from the stream"
        else:
            self._cache.move_to_end(seq)
        return found

    def _keep(self, seq: int, batch: Batch, size: int) -> None:
        if seq in self._cache:
            return
        self._cache[seq] = batch
        self._sizes[seq] = size
        self._cached_bytes += size
        while self._cached_bytes > CACHED_BYTES_MAX and len(self._cache) > 1:
            old, _ = self._cache.popitem(last=False)
            self._cached_bytes -= self._sizes.pop(old)

    def _catch_up(self) -> None:
        """Fold what others have stored."""
        while batches := self._read(self._last_seq + 1, BATCH_MAX):
            for seq, batch, size in batches:
                self._fold(seq, batch, size)

    def _fold(self, seq: int, batch: Batch, size: int) -> None:
        if batch.events:
            self._firsts.append(batch.first)
            self._seqs.append(seq)
        for ordinal, event in enumerate(batch.events, start=batch.first):
            known = self._originators.get(event.originator_id)
            if known is None:
                known = self._originators[event.originator_id] = _Originator([], {})
            insort(known.versions, event.version)
            known.ordinals[event.version] = ordinal
        if batch.tracking is not None:
            self._tracked[batch.tracking[0]] = batch.tracking[1]
        self._ordinal = batch.first + len(batch.events) - 1
        self._last_seq = seq
        if batch.batch == self._sought:
            self._found = batch
        self._keep(seq, batch, size)

    def _read(self, seq: int, count: int) -> list[tuple[int, Batch, int]]:
        """Return (sequence, message, bytes) from ``seq`` on, as many as there are, up to ``count``.

        Fewer when they are big; none only at the end.
        """
        wire = self._connected()
        request = {"seq": seq, "batch": count, "max_bytes": BATCH_BYTES_MAX}
        wire.ask(f"$JS.API.DIRECT.GET.{self._stream}", json.dumps(request).encode())
        found: list[tuple[int, Batch, int]] = []
        while True:
            line, start, stop = wire.message()
            if status := wire.status(line, start):
                if status[:3] in {"204", "404"}:
                    return found
                if status[:3] == "503":
                    raise ConnectionRefusedError(f"nobody answers for {self._stream}")
                raise Refused(status)
            headers = wire.headers(line, start)
            at = headers.index(SEQUENCE) + len(SEQUENCE)
            number = int(headers[at : headers.index(b"\r", at)])
            found.append((number, _decode(wire.buffer[start:stop]), stop - start))

    def _patiently[T](self, operation: Callable[[], T]) -> T:
        """Run an operation, anew over another connection for as long as the broker is away."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return operation()
            except OSError as error:
                self.close()
                if time.monotonic() > deadline:
                    raise JournalUnavailable(f"{self._stream}: {error}") from error
                time.sleep(RETRY_S)
            except Refused as error:
                self.close()
                raise JournalUnavailable(f"{self._stream}: {error}") from error

    def _connected(self) -> Wire:
        if self._wire is None:
            self._wire = Wire(*self._login, timeout_s=TIMEOUT_S, name=self._stream)
            made = self._wire.call(
                f"$JS.API.STREAM.CREATE.{self._stream}",
                log_config(self._stream, self._subject, replicas=1),
            )
            if "error" in made:
                raise Refused(str(made["error"].get("description")))
        return self._wire


class Listener:
    """A thread that hears of new events.

    What is said may be lost, so it also calls ``heard`` every second.
    """

    def __init__(
        self, login: tuple[str, str, str], subject: str, heard: Callable[[], None]
    ) -> None:
        self._login = login
        self._subject = subject
        self._heard = heard
        self._closing = threading.Event()
        self._wire: Wire | None = None
        self._thread = threading.Thread(target=self._run, name=f"listen {subject}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop hearing. Can be repeated."""
        self._closing.set()
        if self._wire is not None:
            self._wire.close()
        if self._thread is not threading.current_thread():
            self._thread.join(TIMEOUT_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(OSError, Refused):
                self._hear()
            self._heard()
            self._closing.wait(RETRY_S)

    def _hear(self) -> None:
        with contextlib.closing(Wire(*self._login, timeout_s=TIMEOUT_S, name="listener")) as wire:
            self._wire = wire
            wire.listen(self._subject)
            while not self._closing.is_set():
                wire.wait(HEARD_S)
                self._heard()
