"""Who may submit which action. Deny by default: an action without a rule is refused.

Roles imply each other: admin ⊃ member ⊃ reader. Whose resource it is, is checked where the resource
is looked up (``engine.domain``), so that another project's answers as if it were not there.
"""

from typing import Literal

from schemas import billing as b
from schemas import compute as c
from schemas import engine as e
from schemas import host as h
from schemas import identity as i
from schemas import image as m
from schemas import network as n
from schemas import operation as o
from schemas.envelope import Actor, action_types
from schemas.errors import Forbidden

type Needs = Literal["system", "agent", "admin", "member", "reader", "user"]

RULES: dict[type, Needs] = {
    i.Bootstrap: "system",
    i.CreateProject: "admin",
    i.UpdateProject: "admin",
    i.DeleteProject: "admin",
    i.CreateUser: "admin",
    i.UpdateUser: "user",  # oneself; the decision says what else needs admin
    i.DeleteUser: "admin",
    i.GrantRole: "admin",
    i.RevokeRole: "admin",
    i.RevokeToken: "user",
    c.CreateFlavor: "admin",
    c.DeleteFlavor: "admin",
    c.CreateKeypair: "reader",
    c.DeleteKeypair: "reader",
    c.CreateServer: "member",
    c.RenameServer: "member",
    c.DeleteServer: "member",
    c.StartServer: "member",
    c.StopServer: "member",
    c.RebootServer: "member",
    c.ReportServerState: "agent",
    m.CreateImage: "member",
    m.UploadImage: "member",
    m.UpdateImage: "member",
    m.DeleteImage: "member",
    n.CreateNetwork: "member",
    n.DeleteNetwork: "member",
    n.CreateSubnet: "member",
    n.DeleteSubnet: "member",
    n.CreatePort: "member",
    n.DeletePort: "member",
    h.RegisterHost: "agent",
    h.MarkHost: "system",
    h.ReportDrift: "agent",
    o.ReportOperation: "agent",
    o.PassDeadline: "system",
    b.PublishPriceList: "admin",
    e.ElectLeader: "system",
    e.ConfirmLead: "system",
    e.RollLog: "admin",
}
assert set(RULES) == set(action_types().values()), "every action has its rule"


def authorize(actor: Actor, roles: frozenset[str], action: object) -> None:
    """Return if the actor may submit this action.

    ``roles`` are those the state grants, implied ones included.

    Raises:
        Forbidden: it may not; the message names the role that is missing.
    """
    needs = RULES.get(type(action))
    name = type(action).__name__
    match needs:
        case None:
            raise Forbidden(f"nobody may submit {name}: it has no rule")
        case "system" | "agent":
            if actor.kind != needs:
                raise Forbidden(f"{name} is for the {needs} only")
        case "user":
            if actor.kind != "user":
                raise Forbidden(f"{name} is for users only")
        case _:
            if actor.kind != "user" or needs not in roles:
                raise Forbidden(f"{name} needs the role {needs}", needs=needs)
