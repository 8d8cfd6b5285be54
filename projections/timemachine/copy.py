"""A whole read model of a moment, timeline included, in a place of its own.

Invariant: what is laid down is what a read model that was projected up to the moment's ordinal and
no further would hold (``store.digest``); a directory without the link to it holds nothing.
"""

import time
from contextlib import closing
from pathlib import Path

from projections import files, store
from projections.models import decode_stored, last_ordinal
from projections.reader import Reader
from projections.timemachine.moments import BeforeFirstEvent, InTheFuture, Moment, Moments, Read
from schemas.errors import Unavailable
from schemas.units import Micros, Ordinal

REACHED_S = 30.0
POLL_S = 0.05


def ordinal_at(model: Path, read: Read, at: Micros) -> Ordinal:
    """Return the last ordinal of the last commit that was made at a time or before.

    Waits until the read model has come as far as the log is now.

    Raises:
        Unavailable: it has not, in time.
        BeforeFirstEvent: there was none.
    """
    reader = Reader(model)
    try:
        head = reader.head()
        end = head.ordinal
        for _, data in read(head.seq):
            end = last_ordinal(decode_stored(data))
        deadline = time.monotonic() + REACHED_S
        while reader.position() < end:
            if time.monotonic() > deadline:
                raise Unavailable(f"the read model has not reached ordinal {end}")
            time.sleep(POLL_S)
        found = reader.first_at(at + 1) - 1
    finally:
        reader.close()
    if found < 1:
        raise BeforeFirstEvent("nothing had happened yet at that time")
    return found


def lay_down(model: Path, read: Read, ordinal: Ordinal, path: Path) -> Moment:
    """Make a read model at ``path`` of the last moment that does not go beyond an ordinal.

    Args:
        model: the node's read model, which must have come as far.
        read: yields what the log holds after a sequence.
        ordinal: the moment.
        path: where to; nothing may be there yet.

    Raises:
        BeforeFirstEvent, InTheFuture: there is no such moment.
        FileExistsError: there is something.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if files.generation(path):
        raise FileExistsError(f"{path} is there already")
    file = files.generation_file(path, 1)
    files.remove(file)
    reached = Moments(model, read).write(file, ordinal)
    with closing(store.open_scratch(file)) as db:
        store.attach(db, model, "now")
        (known,) = db.execute("SELECT ordinal FROM now.position").fetchone()
        if known < reached:
            raise InTheFuture(f"the node's read model ends at ordinal {known}")
        db.execute("BEGIN")
        # Alarms follow by the table's own trigger.
        db.execute(
            "INSERT INTO main.timeline SELECT * FROM now.timeline WHERE ordinal <= ? "
            "ORDER BY ordinal",
            (reached,),
        )
        db.execute("COMMIT")
        position = store.read_position(db)
    files.switch_to_next(path)
    return Moment(ordinal=position.ordinal, at=position.at, file=str(path))
