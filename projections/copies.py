"""A second place for sealed history: any S3 store, or a folder.

Segments lie there under the names that they have here, each with its manifest, so that whatever
reads history here reads it there. Invariant: a manifest is written after its data was read back and
has the manifest's checksum; what has no manifest is no copy. Copying again copies what is missing
and nothing else; a merged segment's parts go when it is there.
"""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from projections.history import History
from projections.segment import HistoryBroken, Segment
from schemas.config import Config
from schemas.errors import InvalidInput, Unavailable
from schemas.units import Ordinal

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = frozenset({"s3", "file"})
TIMEOUT = timedelta(seconds=30)
RETRY = timedelta(seconds=60)
READ_BYTES = 8 * 2**20
MANIFEST_BYTES = 64 * 1024

_decode_segment = msgspec.json.Decoder(Segment).decode
_decode_options = msgspec.json.Decoder(dict[str, str]).decode
_encode = msgspec.json.Encoder(order="sorted").encode


class CopiesAnswer(Struct, frozen=True, kw_only=True):
    """What a store holds of history: ``copied`` is the last ordinal with none missing before."""

    store: str
    copied: Ordinal = 0
    segments: int = 0
    bytes: int = 0
    waiting: int = 0  # segments here that are not there


class Copies:
    """The copies of one history in one store. One process may copy; any may look."""

    def __init__(
        self, history: History, url: str, options: Mapping[str, str] | None = None
    ) -> None:
        """``url`` is s3://bucket/prefix or file:///folder; ``options`` are obstore's, for S3.

        Raises:
            InvalidInput: the address is of another kind, or names an account.
        """
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or parts.username or parts.password or parts.query:
            raise InvalidInput(
                "a store is s3://bucket/prefix or file:///folder, without an account"
            )
        self.url = url
        self._history = history
        self._options = dict(options or {})
        self._opened: ObjectStore | None = None

    def copy(self) -> list[Segment]:
        """Copy what is not there yet; return it. Blocking.

        Raises:
            HistoryBroken: a segment here is not what was sealed, or the store holds another one
                under its name.
            Unavailable: the store does not take it.
        """
        copied: list[Segment] = []
        with self._history.hold() as segments:
            there = self.manifests()
            for segment in segments:
                known = there.get(segment.name)
                if known is None:
                    self._history.require_intact([segment])
                    self._put(segment)
                    copied.append(segment)
                elif known.sha256 != segment.sha256:
                    raise HistoryBroken(
                        f"{self.url} holds another segment under the name {segment.name}",
                        segment.first,
                    )
            self._forget(there, segments)
        return copied

    def look(self) -> CopiesAnswer:
        """Return what the store holds. Blocking.

        Raises:
            Unavailable: it does not answer.
        """
        here = self._history.segments()
        there = self.manifests()
        copied = 0
        for segment in sorted(there.values(), key=lambda each: (each.first, -each.last)):
            if segment.first == copied + 1:
                copied = segment.last
        return CopiesAnswer(
            store=self.url,
            copied=copied,
            segments=len(there),
            bytes=sum(segment.bytes for segment in there.values()),
            waiting=sum(segment.name not in there for segment in here),
        )

    def manifests(self) -> dict[str, Segment]:
        """Return the segments whose data lies in the store with the size that it should have.

        Raises:
            HistoryBroken: what should be a manifest is none.
            Unavailable: the store does not answer.
        """
        import obstore  # noqa: PLC0415  # loaded by who has a store

        found: dict[str, Segment] = {}
        sizes: dict[str, int] = {}
        try:
            for page in obstore.list(self._store()):
                sizes |= {str(each["path"]): int(each["size"]) for each in page}
            for name, size in sizes.items():
                if not name.endswith(".json"):
                    continue
                if size > MANIFEST_BYTES:
                    raise HistoryBroken(f"{self.url}: {name} is no manifest: {size} bytes")
                data = bytes(obstore.get_range(self._store(), name, start=0, end=size))
                segment = _decode_segment(data)
                if name != f"{segment.name}.json":
                    raise HistoryBroken(f"{self.url}: {name} is the manifest of {segment.name}")
                if sizes.get(f"{segment.name}.parquet") == segment.bytes:
                    found[segment.name] = segment
        except msgspec.MsgspecError as error:
            raise HistoryBroken(f"{self.url}: {name} is no manifest: {error}") from error
        except obstore.exceptions.BaseError as error:
            raise self._failed(error) from error
        return found

    def fetch(self, segment: Segment, into: Path) -> None:
        """Write a segment's data into a file: as many bytes as its manifest says, and no more.

        Raises:
            Unavailable: the store does not answer, or the file cannot be written.
        """
        import obstore  # noqa: PLC0415  # as above

        try:
            with into.open("xb") as file:
                for piece in self._pieces(segment):
                    file.write(piece)
        except (obstore.exceptions.BaseError, OSError) as error:
            into.unlink(missing_ok=True)
            raise self._failed(error) from error

    def _pieces(self, segment: Segment) -> Iterator[bytes]:
        """Yield the data piece by piece, each within the time that one request may take."""
        import obstore  # noqa: PLC0415  # as above

        store, name = self._store(), f"{segment.name}.parquet"
        for start in range(0, segment.bytes, READ_BYTES):
            end = min(start + READ_BYTES, segment.bytes)
            yield bytes(obstore.get_range(store, name, start=start, end=end))

    def _put(self, segment: Segment) -> None:
        """Write the data, read it back, and then write the manifest."""
        import obstore  # noqa: PLC0415  # as above

        store, name = self._store(), f"{segment.name}.parquet"
        try:
            obstore.put(store, name, self._history.path(segment))
            size = int(obstore.head(store, name)["size"])
            digest = hashlib.sha256()
            for piece in self._pieces(segment) if size == segment.bytes else ():
                digest.update(piece)
            if digest.hexdigest() != segment.sha256:
                raise Unavailable(f"{self.url} has other bytes of {name} than were sent")
            obstore.put(store, f"{segment.name}.json", _encode(segment))
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self._failed(error) from error

    def _forget(self, there: Mapping[str, Segment], segments: list[Segment]) -> None:
        """Remove what was merged into a segment that is there now."""
        import obstore  # noqa: PLC0415  # as above

        counting = {segment.name for segment in segments}
        for name, old in there.items():
            if name in counting:
                continue
            if any(new.first <= old.first and old.last <= new.last for new in segments):
                try:
                    # A manifest goes before its data, as here.
                    obstore.delete(self._store(), f"{name}.json")
                    obstore.delete(self._store(), f"{name}.parquet")
                except obstore.exceptions.BaseError as error:
                    raise self._failed(error) from error

    def _store(self) -> "ObjectStore":
        from obstore.store import from_url  # noqa: PLC0415  # as above

        if self._opened is None:
            more: dict[str, Any] = {"mkdir": True}
            if self.url.startswith("s3:"):
                more = {
                    "config": self._options,
                    "client_options": {"timeout": TIMEOUT, "allow_http": True},
                    "retry_config": {"max_retries": 3, "retry_timeout": RETRY},
                }
            self._opened = from_url(self.url, **more)
        return self._opened

    def _failed(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self.url}: {str(error).splitlines()[0][:300]}")


def copies_of(config: Config, history: History) -> Copies | None:
    """Return the copies that a configuration asks for; None if it asks for none.

    Raises:
        InvalidInput: the store's address or its options cannot be read.
    """
    if not config.history_store:
        return None
    options: dict[str, str] = {}
    if config.history_store_options:
        try:
            options = _decode_options(Path(config.history_store_options).read_bytes())
        except (OSError, msgspec.MsgspecError) as error:
            # What stands in it is not shown: it holds keys.
            raise InvalidInput(
                f"{config.history_store_options} cannot be read as JSON of texts"
            ) from error
    return Copies(history, config.history_store, options)
