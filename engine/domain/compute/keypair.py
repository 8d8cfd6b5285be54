"""Keypairs: public keys that a user has put into servers."""

from engine.domain.context import Context
from engine.domain.state import Cell
from schemas import compute as s
from schemas.envelope import Fact
from schemas.errors import Duplicate, NotFound
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]


def create_keypair(cell: Cell, ctx: Context, action: s.CreateKeypair) -> Decision:
    """Store a public key for the caller."""
    if action.name in cell.state.keypairs.get(ctx.actor.user_id, {}):
        raise Duplicate(f"a keypair named {action.name!r} exists")
    keypair = s.Keypair(
        name=action.name,
        user_id=ctx.actor.user_id,
        public_key=action.public_key,
        fingerprint=action.fingerprint,
        created_at=ctx.now,
    )
    return [s.KeypairCreated(keypair=keypair)], {"name": action.name}


def delete_keypair(cell: Cell, ctx: Context, action: s.DeleteKeypair) -> Decision:
    """Remove a keypair of the caller."""
    if action.name not in cell.state.keypairs.get(ctx.actor.user_id, {}):
        raise NotFound(f"there is no keypair {action.name!r}")
    return [s.KeypairDeleted(user_id=ctx.actor.user_id, name=action.name)], {}


def keypair_created(cell: Cell, fact: s.KeypairCreated, at: Micros) -> None:
    cell.state.keypairs.setdefault(fact.keypair.user_id, {})[fact.keypair.name] = fact.keypair


def keypair_deleted(cell: Cell, fact: s.KeypairDeleted, at: Micros) -> None:
    keypairs = cell.state.keypairs[fact.user_id]
    del keypairs[fact.name]
    if not keypairs:
        del cell.state.keypairs[fact.user_id]
