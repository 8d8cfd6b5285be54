"""What would have been decided under other rules: recorded load, decided anew. Nothing is written.

It tells of everybody's requests, so it is for those who read the whole log.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from api.exchange import Answer, Call, json_answer
from api.native.diff import ends
from api.native.history import WALK_S
from api.native.people import names_of
from api.native.policy import Rules
from api.past import told
from api.routing import Routes
from engine.domain.policy import replaced
from engine.domain.quota import DEFAULTS
from engine.rerun import Changed
from projections.timemachine.worker import Asked
from schemas.errors import InvalidInput, NotFound
from schemas.policy import PolicyTable
from schemas.quota import Limits

RUN = "log:what_if:run"

type Moment = Annotated[str, Meta(max_length=64)]


class Wish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be otherwise, and for which load.

    ``rules`` are the whole of what is set over the default policy. ``hosts`` is the order in which
    they are tried. ``from`` and ``to`` are ordinals or times.
    """

    quota: Limits = {}
    project: Annotated[str, Meta(max_length=255)] = ""
    rules: Annotated[Rules, Meta(max_length=1000)] | None = None
    hosts: Literal["spread", "pack"] | None = None
    start: Moment = field(default="", name="from")
    end: Moment = field(default="", name="to")


_wish = msgspec.json.Decoder(Wish)


async def what_if(call: Call) -> Answer:
    """POST /v1/what-if: decide recorded requests anew under other rules, and compare."""
    wish = await call.decode(_wish)
    changed = _changed(call, wish)
    since, through = await ends(call, wish.start, wish.end)
    asked = Asked(ordinal=through, since=since, changed=changed)
    compared = (await told(call, asked, timeout_s=WALK_S)).compared
    assert compared is not None, "a question for what would have been is answered with that"
    body = msgspec.to_builtins(compared)
    body["names"] = names_of(call, {one.user_id for one in compared.differences})
    return json_answer(body)


def _changed(call: Call, wish: Wish) -> Changed:
    """Return the change that is asked for.

    Raises:
        InvalidInput: it is none, or names what there is not.
        NotFound: there is no such project.
    """
    if not wish.quota and wish.rules is None and wish.hosts is None:
        raise InvalidInput("name what is to be otherwise: quota, rules or hosts")
    for name in wish.quota:
        if name not in DEFAULTS:
            raise InvalidInput(f"there is no quota {name!r}; there are {', '.join(DEFAULTS)}")
    if wish.project and call.edge.reader.project(wish.project) is None:
        raise NotFound(f"there is no project {wish.project[:64]!r}")
    rules = None
    if wish.rules is not None:
        rules = replaced(PolicyTable(), wish.rules).rules if wish.rules else {}
    return Changed(quota=wish.quota, project=wish.project or None, rules=rules, order=wish.hosts)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    routes.add("POST", "/v1/what-if", what_if, RUN, body=_wish)
