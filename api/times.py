"""Times as each service writes them. All UTC; inside they are integer microseconds."""

from datetime import UTC, datetime
from functools import lru_cache

from schemas.errors import InvalidInput


def _at(micros: int) -> datetime:
    seconds, rest = divmod(micros, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


@lru_cache(maxsize=16384)
def seconds_z(micros: int) -> str:
    """``2026-01-02T03:04:05Z``: compute's created and updated, image, network."""
    return _at(micros).isoformat(timespec="seconds")[:19] + "Z"


def micros_z(micros: int) -> str:
    """``2026-01-02T03:04:05.000000Z``: identity."""
    return _at(micros).isoformat(timespec="microseconds")[:26] + "Z"


@lru_cache(maxsize=16384)
def micros_naive(micros: int) -> str:
    """``2026-01-02T03:04:05.000000``: compute's extensions and actions, keypairs."""
    return _at(micros).isoformat(timespec="microseconds")[:26]


def parse_time(text: str) -> int:
    """Return the microseconds of an ISO 8601 time or date; without a zone it is UTC.

    Raises:
        ValueError: it is not such a time, or before 1970.
    """
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    delta = value - datetime(1970, 1, 1, tzinfo=UTC)
    micros = (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds
    if micros < 0:
        raise ValueError("a time before 1970")
    return micros


def time_asked(text: str, name: str) -> int:
    """Return the microseconds of a time that a client has sent as ``name``.

    Raises:
        InvalidInput: it is not an ISO 8601 time or date, or before 1970.
    """
    try:
        return parse_time(text)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{name} must be a time of ISO 8601") from error
