"""What people give as text or in files, read as the API takes it."""

from pathlib import Path
from typing import Any

from cli.problem import USAGE, Problem

_STAYS_TEXT = {"tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"}


def micros(text: str) -> int:
    """Return a time (ISO 8601; UTC, unless it says otherwise) in microseconds since 1970.

    Raises:
        Problem: the text is none.
    """
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(
            f"{text!r} is no time; one looks like 2026-12-01T00:00:00Z", exit_code=USAGE
        ) from None
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def read_fields(file: Path, action: str) -> dict[str, Any]:
    """Return the fields of an action from a file of JSON or YAML. Numbers with a point stay text.

    Raises:
        Problem: it cannot be read, or is no mapping.
    """
    import yaml

    class Exact(yaml.CSafeLoader):
        """Reads 0.10 as it is written: money is no float."""

    Exact.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] not in _STAYS_TEXT]
        for first, pairs in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        said = yaml.load(file.read_text(), Loader=Exact)  # noqa: S506  # a safe loader, that knows fewer types
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Problem(f"{file} cannot be read: {error}", exit_code=USAGE) from error
    if not isinstance(said, dict):
        raise Problem(
            f"{file} has no fields",
            hint=f"`cumulog submit {action} --describe` tells them.",
            exit_code=USAGE,
        )
    return said
