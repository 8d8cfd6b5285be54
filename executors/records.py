"""What an agent remembers of a server between its own lives: ``state.json`` beside its disk.

Only what cannot be seen on the host: under which boot a domain was last started, and that a disk
was made. So a start under one boot number happens once, and a disk that has vanished is never
quietly replaced by an empty one. Written by rename; not synced, since a power failure ends the
domain as well and the record then only errs towards starting it again.
"""

from pathlib import Path
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from executors.layout import Layout
from schemas.ids import ServerId
from schemas.units import Micros

type Phase = Literal["made", "starting", "started", "stopped", "ended"]


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``phase`` is about ``boot``: starting means a domain may or may not have been created.

    ``ended`` says that the domain went on its own account and that the engine was told so.
    """

    boot: int = 0
    phase: Phase = "made"
    started_at: Micros = 0
    disk_made: bool = False


class Records(Protocol):
    """Records by server."""

    def load(self, server_id: ServerId) -> Record | None:
        """Return a server's record, None if there is none or it cannot be read."""
        ...

    def save(self, server_id: ServerId, record: Record) -> None:
        """Replace a server's record."""
        ...

    def forget(self, server_id: ServerId) -> None:
        """Drop what is remembered in memory; its file goes with the server's directory."""
        ...


class MemoryRecords:
    """Records of a simulated host: gone with the process, as its domains are."""

    def __init__(self) -> None:
        self._records: dict[ServerId, Record] = {}

    def load(self, server_id: ServerId) -> Record | None:
        """Return a server's record, None if there is none."""
        return self._records.get(server_id)

    def save(self, server_id: ServerId, record: Record) -> None:
        """Replace a server's record."""
        self._records[server_id] = record

    def forget(self, server_id: ServerId) -> None:
        """Drop a server's record."""
        self._records.pop(server_id, None)


class FileRecords(MemoryRecords):
    """Records in ``DIR/host/servers/<id>/state.json``; read once, then kept in memory."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._layout = layout
        self._decode = msgspec.json.Decoder(Record).decode
        self._encode = msgspec.json.Encoder().encode

    def load(self, server_id: ServerId) -> Record | None:
        """Return a server's record, None if there is none or its file is damaged."""
        if (kept := super().load(server_id)) is not None:
            return kept
        try:
            record = self._decode(self._path(server_id).read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        super().save(server_id, record)
        return record

    def save(self, server_id: ServerId, record: Record) -> None:
        """Replace a server's record in its file, then in memory."""
        if super().load(server_id) == record:
            return
        path = self._path(server_id)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_bytes(self._encode(record))
        beside.replace(path)
        super().save(server_id, record)

    def _path(self, server_id: ServerId) -> Path:
        return self._layout.server(server_id) / "state.json"
