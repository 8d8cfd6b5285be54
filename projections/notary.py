"""The notary: signs how far the log has come, and proves what is in it.

Signs nothing but what it has walked: from the last checkpoint, which the log must still contain, to
the new one, every commit's hash and its place in the chain are checked. Blocking; one at a time.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.log.checkpoint import (
    Book,
    Checkpoint,
    Held,
    held,
    is_at,
    read_statement,
    require_contained,
    sign,
)
from engine.log.commit import ChainBroken, check_commit, open_commit
from engine.log.proof import make_proof
from engine.log.signing import SigningKeys
from engine.log.verify import VerifyReport, verify
from projections.archive import Read
from projections.history import History
from projections.reader import Reader
from schemas.config import Config
from schemas.errors import InvalidInput, NotFound
from schemas.units import Micros, Ordinal

# Two checkpoints are never further apart, so that no proof of a record is long.
COMMITS_BETWEEN = 4096
LINES_MAX = 1000


class StatementsAnswer(Struct, frozen=True, kw_only=True):
    """Signed lines with the sequences they are about, in order; ``more`` if these are not all."""

    lines: tuple[tuple[int, str], ...]
    more: bool = False


class KeyAnswer(Struct, frozen=True, kw_only=True):
    """The id of the key that signs now, and all public keys (PEM), the newest last."""

    key: str
    keys: str


def book_of(config: Config) -> Book:
    """Return where a cell's checkpoints are kept."""
    copy = Path(config.checkpoint_copy) if config.checkpoint_copy else None
    return Book(Path(config.state_dir) / "checkpoints", copy)


def keys_of(config: Config) -> SigningKeys:
    """Return the keys that a cell's checkpoints are signed with."""
    return SigningKeys(Path(config.state_dir) / "keys")


class Notary:
    """Signs for one cell. ``read`` yields what follows a sequence."""

    def __init__(
        self,
        cell: str,
        keys: SigningKeys,
        book: Book,
        read: Read,
        history: History,
        reader: Reader,
    ) -> None:
        self._cell = cell
        self._keys = keys
        self._book = book
        self._read = read
        self._history = history
        self._reader = reader

    def held(self) -> Held:
        """Return what the log must contain.

        Raises:
            CheckpointBroken: a line is not what was signed.
            KeysUnreadable: the public keys cannot be read.
        """
        return held(self._book.lines(), self._keys.public())

    def require_contained(self) -> None:
        """Check, without walking it, that the log still contains what was signed.

        Raises:
            ChainBroken: says from which ordinal on it was cut or written anew.
            CheckpointBroken: a line is not what was signed.
        """
        require_contained(self.held().checkpoints, self._fetch)

    def sign(self, now: Micros) -> Checkpoint | None:
        """Sign how far the log has come, and return it; None if the log is empty.

        If nothing has been appended since, the last checkpoint is returned as it is.

        Raises:
            ChainBroken: the log is not what was written, or not what was signed; nothing is signed.
            CheckpointBroken: a line is not what was signed.
        """
        checkpoints = self.held().checkpoints
        last = checkpoints[-1] if checkpoints else None
        messages = iter(self._read(last.sequence - 1 if last else 0))
        report = self._begin(last, checkpoints, messages)
        key_id, key = self._keys.current()
        while True:
            before = report
            report = verify(itertools.islice(messages, COMMITS_BETWEEN), start=report)
            grown = report.commits > before.commits
            if not report.commits or not (grown or last is None or last.key != key_id):
                return last
            last = Checkpoint(
                at=max(now, last.at if last else 0),
                cell=self._cell,
                hash=report.last_hash,
                key=key_id,
                ordinal=report.ordinals,
                sequence=report.commits,
            )
            self._book.append(sign(last, key))

    def mirror(self) -> None:
        """Copy what was signed to where the operator wants it.

        Raises:
            OSError: it cannot be written there now.
        """
        self._book.mirror()

    def statements(self, after: Ordinal, through: int) -> StatementsAnswer:
        """Return signed lines about what follows an ordinal, up to a sequence (0: to the end)."""
        kept = self.held()
        wanted = {*kept.checkpoints, *kept.losses}
        found: list[tuple[int, Ordinal, Micros, bytes]] = []
        for line in self._book.lines():
            said = read_statement(line, None)
            if said in wanted and said.ordinal > after and said.sequence <= (through or 2**63):
                found.append((said.sequence, said.ordinal, said.at, line))
        found.sort()
        cut = found[:LINES_MAX]
        # An ordinal's lines stay together: the next question begins after it.
        for each in found[LINES_MAX:]:
            if each[1] != cut[-1][1]:
                break
            cut.append(each)
        return StatementsAnswer(
            lines=tuple((each[0], each[3].decode()) for each in cut), more=len(cut) < len(found)
        )

    def key(self) -> KeyAnswer:
        """Return the public keys; the first time, a key is made."""
        key_id, _ = self._keys.current()
        return KeyAnswer(key=key_id, keys=self._keys.public_pem().decode())

    def proof(self, of: str, now: Micros) -> msgspec.Raw:
        """Return the proof (``engine.log.proof``) of a request, by its id or an ordinal.

        Raises:
            NotFound: the log does not hold it.
            ChainBroken: the log is not what was written.
        """
        ordinal = self._ordinal(of)
        signed = self.sign(now)
        if signed is None or signed.ordinal < ordinal:
            raise NotFound(f"the log ends before ordinal {ordinal}")
        # The nearest that signs it; several may sign one place, with keys of different ages.
        lines = self.statements(ordinal - 1, 0).lines
        sequence, line = next(
            (sequence, line)
            for sequence, line in lines
            if isinstance(read_statement(line.encode(), None), Checkpoint)
        )
        first_seq = self._sequence(ordinal)
        messages = self._read(first_seq - 1)
        chain = itertools.islice(messages, sequence - first_seq + 1)
        return msgspec.Raw(make_proof(ordinal, (data for _, data in chain), line.encode()))

    def _ordinal(self, of: str) -> Ordinal:
        if of.isdecimal() and len(of) <= 16 and int(of) > 0:
            return int(of)
        if not of.startswith("req-"):
            raise InvalidInput(f"{of[:64]!r} is neither a request's id nor an ordinal")
        found = self._reader.audit_show(of)
        if not found:
            raise NotFound(f"there is no request {of[:64]!r}")
        return min(event.ordinal for event in found)

    def _sequence(self, ordinal: Ordinal) -> int:
        """Return the sequence of the commit that holds an ordinal."""
        with self._history.hold() as segments:
            for segment in segments:
                if segment.first <= ordinal <= segment.last:
                    return self._history.sequence_of(segment, ordinal)
        for seq, data in self._read(segments[-1].last_seq if segments else 0):
            sealed = open_commit(data)
            if check_commit(data, sealed.prev, sealed.first).next_first > ordinal:
                return seq
        raise NotFound(f"the log ends before ordinal {ordinal}")

    def _begin(
        self,
        last: Checkpoint | None,
        checkpoints: tuple[Checkpoint, ...],
        messages: Iterator[tuple[int, bytes]],
    ) -> VerifyReport:
        """Return where to walk on from: the last checkpoint, once the log is seen to contain it."""
        if last is None:
            return verify(())
        seq, data = next(messages, (0, b""))
        if seq != last.sequence or not is_at(last, data):
            require_contained(checkpoints, self._fetch)
            raise ChainBroken(last.ordinal, f"the log does not contain ordinal {last.ordinal}")
        sealed = open_commit(data)
        return VerifyReport(
            commits=last.sequence,
            ordinals=last.ordinal,
            last_hash=last.hash,
            last_at=sealed.at,
            epoch=sealed.epoch,
        )

    def _fetch(self, seq: int) -> bytes | None:
        for found, data in self._read(seq - 1):
            return data if found == seq else None
        return None
