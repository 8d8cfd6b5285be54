"""Quotas as every service answers for them: whose may be read, and what numbers a client may send.

A service names quotas as its clients do; the engine's names are told in ``engine.domain.quota``.
"""

from typing import Annotated

from msgspec import Meta

from api.exchange import Call
from schemas.errors import Forbidden, InvalidInput, NotFound
from schemas.quota import UNLIMITED

LIMIT_MAX = 2**31 - 1  # what OpenStack's clients and services take
# Some clients send numbers as text.
Limit = (
    Annotated[int, Meta(ge=UNLIMITED, le=LIMIT_MAX)]
    | Annotated[str, Meta(pattern=r"^(-1|[0-9]{1,10})\Z")]
)


def readable_project(call: Call, project_id: str, action: str) -> str:
    """Return the project if the policy lets the caller do with its quota what it calls ``action``.

    Raises:
        Forbidden: it may not; said alike of projects there are and those there are not.
        NotFound: it might, but there is no such project.
    """
    reach = call.allow(action)
    if not reach.any and not (reach.project and project_id == call.principal.project_id):
        raise Forbidden("another project's quota is read by administrators only")
    if call.edge.reader.project(project_id) is None:
        raise NotFound(f"there is no project {project_id[:64]!r}")
    return project_id


def number(limit: int | str) -> int:
    """Return a limit that was sent, as a number.

    Raises:
        InvalidInput: it is too large.
    """
    value = int(limit)
    if value > LIMIT_MAX:
        raise InvalidInput(f"a limit is at most {LIMIT_MAX}, not {value}")
    return value
