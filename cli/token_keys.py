"""`cumulog admin token-keys`: the keys that sign tokens. They lie beside the log, never in it."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.parameters import AuthorityOption, ConfigArgument
from cli.problem import Problem
from cli.session import Session, command, group

if TYPE_CHECKING:
    from engine.bus.keys import TokenKeys

keys_app = group("The keys that sign tokens.")
COLUMNS = [("KEY", "key"), ("USE", "use"), ("RING", "ring"), ("RING MADE AT", "made_at")]


@command(keys_app, "list")
def list_(
    session: Session, config: ConfigArgument = "", *, authority: AuthorityOption = ""
) -> None:
    """List the keys by fingerprint: the one that signs, those that still open, the next.

    Example: cumulog admin token-keys list --state-dir var
    """
    _show(session, _asked(session, config, authority, rotate=False, end_tokens=False))


@command(keys_app, "rotate")
def rotate(
    session: Session,
    config: ConfigArgument = "",
    *,
    authority: AuthorityOption = "",
    end_tokens: Annotated[
        bool, typer.Option("--end-tokens", help="Keep no key: every token there is ends.")
    ] = False,
) -> None:
    """Let the next key sign, make one for the time after it, and drop the oldest.

    Edges take it up within seconds. Tokens are good for as long as their key is in the ring, so
    wait 12 hours between rotations, unless a key is in wrong hands: then give --end-tokens.

    Example: cumulog admin token-keys rotate --state-dir var

    In a cluster: cumulog admin token-keys rotate ./broker/components/admin.json
    """
    _show(session, _asked(session, config, authority, rotate=True, end_tokens=end_tokens))


def _asked(
    session: Session, config: str, authority: str, *, rotate: bool, end_tokens: bool
) -> "TokenKeys":
    import asyncio

    from cli.cloud import STATE_DIR
    from cli.rollover import admin_config, broker
    from engine.bus.client import BusError
    from engine.bus.keys import Keys
    from schemas.errors import Rejected

    told = admin_config(config, authority, session.state_dir or ("" if config else STATE_DIR))

    async def ask() -> "TokenKeys":
        async with broker(told) as bus:
            keys = Keys(bus)
            if rotate:
                return await keys.rotate_token_keys(end_tokens=end_tokens)
            return await keys.token_keys()

    try:
        return asyncio.run(ask())
    except (BusError, Rejected) as error:
        raise Problem(f"the keys cannot be reached: {error}") from error


def _show(session: Session, ring: "TokenKeys") -> None:
    from hashlib import sha256

    last = len(ring.keys) - 1
    rows = [
        {
            "key": sha256(key).hexdigest()[:16],
            "use": "signs" if at == 0 else "next" if at == last else "opens",
            "ring": ring.seq,
            "made_at": ring.made_at.isoformat(timespec="seconds"),
        }
        for at, key in enumerate(ring.keys)
    ]
    session.show_all(rows, COLUMNS)
