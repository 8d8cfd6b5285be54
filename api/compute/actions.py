"""What is done to servers, what was done to them, and their consoles."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from api.compute.servers import Digits, find
from api.errors import NotOffered
from api.exchange import Answer, Call, json_answer
from api.routing import Routes
from api.times import micros_naive
from api.writing import write
from engine.bus.client import BusError
from projections.answers import InstanceAction
from schemas.compute import (
    ConfirmServerResize,
    DeleteServer,
    DiskConfig,
    RebootServer,
    ResizeServer,
    RevertServerResize,
    Server,
    StartServer,
    StopServer,
)
from schemas.errors import Conflict, InvalidInput, NotFound, Unavailable
from schemas.ids import FreeId
from schemas.work import ConsoleAsk, ConsoleReply

CONSOLE_S = 5.0


class _Reboot(Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["SOFT", "HARD", "soft", "hard", "Soft", "Hard"]


class _Console(Struct, frozen=True, forbid_unknown_fields=True):
    length: Annotated[int, Meta(ge=-1, le=2**53 - 1)] | Digits | None = None


class _Resize(Struct, frozen=True, forbid_unknown_fields=True):
    flavor_ref: FreeId = field(name="flavorRef")
    disk_config: DiskConfig | None = field(name="OS-DCF:diskConfig", default=None)


class _Actions(Struct, frozen=True, omit_defaults=True):
    """One of these, as documents describe it."""

    start: None = field(name="os-start", default=None)
    stop: None = field(name="os-stop", default=None)
    reboot: _Reboot | None = None
    resize: _Resize | None = None
    confirm_resize: None = field(name="confirmResize", default=None)
    revert_resize: None = field(name="revertResize", default=None)
    force_delete: None = field(name="forceDelete", default=None)
    console: _Console | None = field(name="os-getConsoleOutput", default=None)


# What the policy calls what is done.
DOES = {
    "os-start": "StartServer",
    "os-stop": "StopServer",
    "reboot": "RebootServer",
    "resize": "ResizeServer",
    "confirmResize": "ConfirmServerResize",
    "revertResize": "RevertServerResize",
    "forceDelete": "DeleteServer",
    "os-getConsoleOutput": "compute:consoles:read",
}

_action = msgspec.json.Decoder(dict[str, msgspec.Raw])
_console_reply = msgspec.json.Decoder(ConsoleReply)
_encode = msgspec.json.Encoder().encode

# Actions of Nova that this cloud does not do (yet): the answer says so, instead of "unknown".
_NOT_OFFERED = frozenset(
    {
        "suspend", "resume", "pause", "unpause", "lock", "unlock",
        "rebuild", "createImage", "createBackup", "changePassword", "shelve",
        "unshelve", "shelveOffload", "rescue", "unrescue", "addSecurityGroup",
        "removeSecurityGroup", "addFixedIp", "removeFixedIp", "addFloatingIp",
        "removeFloatingIp", "os-resetState", "restore", "migrate", "os-migrateLive", "evacuate",
        "trigger_crash_dump", "os-getVNCConsole", "os-getSPICEConsole", "os-getSerialConsole",
    }
)  # fmt: skip


async def act(call: Call) -> Answer:
    """POST /servers/{id}/action."""
    body = await call.decode(_action)
    if len(body) != 1:
        raise InvalidInput(f"the body must name one action, not {len(body)}")
    ((name, raw),) = body.items()
    if name not in DOES and name not in _NOT_OFFERED:
        raise InvalidInput(f"there is no action {name[:64]!r}")
    call.allow(DOES.get(name, "compute:servers:read"))
    server = find(call)
    ident = server.server_id
    match name:
        case "os-start":
            _null(raw, name)
            await write(call, StartServer(server_id=ident))
        case "os-stop":
            _null(raw, name)
            await write(call, StopServer(server_id=ident))
        case "reboot":
            hard = _read(raw, _Reboot, name).type.upper() == "HARD"
            await write(call, RebootServer(server_id=ident, hard=hard))
        case "resize":
            wish = _read(raw, _Resize, name)
            action = ResizeServer(
                server_id=ident, flavor_id=wish.flavor_ref, disk_config=wish.disk_config
            )
            await write(call, action)
        case "confirmResize":
            _null(raw, name)
            await write(call, ConfirmServerResize(server_id=ident))
            return Answer(204)
        case "revertResize":
            _null(raw, name)
            await write(call, RevertServerResize(server_id=ident))
        case "forceDelete":
            await write(call, DeleteServer(server_id=ident))
        case "os-getConsoleOutput":
            return await _console(call, server, _read(raw, _Console, name))
        case _:
            raise NotOffered(f"the action {name} is not offered")
    return Answer(202, content_type=b"application/json")


def _null(raw: msgspec.Raw, name: str) -> None:
    if bytes(raw) not in {b"null", b"{}", b'""'}:
        raise InvalidInput(f"the action {name} takes no arguments: its value must be null")


def _read[T](raw: msgspec.Raw, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the arguments of {name} are not as expected: {error}") from error


async def _console(call: Call, server: Server, wish: _Console) -> Answer:
    """Return the last lines of a server's console, asked of its host."""
    lines: int | None = None
    if wish.length not in {None, "", -1, "-1"}:
        text = str(wish.length)
        if not text.isdecimal():
            raise InvalidInput("length must be a whole number of lines, or -1 for all")
        lines = min(int(text), 1_000_000)
    if server.host_id is None or server.launched_at is None:
        raise Conflict("the server has not run yet, so it has no console")
    bus = call.edge.bus
    ask = _encode(ConsoleAsk(server_id=server.server_id, lines=lines))
    try:
        answer = await bus.request(bus.subjects.console(server.host_id), ask, timeout_s=CONSOLE_S)
    except BusError as error:
        raise Unavailable(f"the server's host {server.host_id} does not answer") from error
    reply = _console_reply.decode(answer)
    if reply.error:
        raise NotFound(f"there is no console to show: {reply.error}")
    return json_answer({"output": reply.output})


def _action_view(done: InstanceAction) -> dict[str, Any]:
    return {
        "action": done.action,
        "instance_uuid": done.server_id,
        "request_id": done.request_id,
        "user_id": done.user_id,
        "project_id": done.project_id,
        "start_time": micros_naive(done.start_at),
        "message": done.message if done.result == "Error" and done.message else None,
    }


async def list_actions(call: Call) -> Answer:
    """GET /servers/{id}/os-instance-actions: newest first."""
    done = call.edge.reader.instance_actions(find(call).server_id)
    return json_answer({"instanceActions": [_action_view(a) for a in done]})


async def show_action(call: Call) -> Answer:
    """GET /servers/{id}/os-instance-actions/{request id}."""
    server = find(call)
    done = call.edge.reader.instance_action(server.server_id, call.args[1])
    if done is None:
        raise NotFound(f"nothing was done to the server under {call.args[1][:64]!r}")
    view = _action_view(done)
    if call.may("compute:servers:read_events"):
        finished = None if done.finish_at is None else micros_naive(done.finish_at)
        event: dict[str, Any] = {
            "event": f"compute_{done.action}_server",
            "start_time": micros_naive(done.start_at),
            "finish_time": finished,
            "result": done.result,
            "traceback": None,
        }
        view["events"] = [event]
    return json_answer({"instanceAction": view})


def add(routes: Routes) -> None:
    """Route what this module answers."""
    one = "/v2.1/servers/{}"
    read = "compute:servers:read"
    routes.add(
        "POST",
        f"{one}/action",
        act,
        tuple(DOES.values()),
        body=_action,
        shape=_Actions,
        status=(200, 202, 204),
        bare=(202, 204),
        partly=True,
    )
    routes.add("GET", f"{one}/os-instance-actions", list_actions, read)
    routes.add("GET", f"{one}/os-instance-actions/{{}}", show_action, read)
