"""What takes a change back: from a row before it, after it and now, the actions that restore it.

Pure: no read model, no clock. Invariant: only what the undone change has set is set back; whatever
else was changed since stays as it is, and what is as it was before needs nothing: a plan that was
carried out in part is asked for again, and holds the rest. What no action can bring back is said,
never guessed at.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import NODEFAULT, UNSET, Struct

from engine.domain.quota import DEFAULTS
from projections import catalog, compute, credential, federation, identity, image, network
from projections.alarm import ALARMS
from projections.meter import METERS
from projections.policy import POLICY
from projections.quota import CLASS, QUOTAS
from projections.store import Table
from projections.webhook import WEBHOOKS
from schemas import alarm as sa
from schemas import compute as sc
from schemas import identity as si
from schemas import image as sm
from schemas import metering as sg
from schemas import network as sn
from schemas import policy as sp
from schemas import quota as sq
from schemas import webhook as sw
from schemas.envelope import Action, decode_action

DELETED_SERVER = "its disk was removed with it, and what was on it"
GROWN = "its disk has grown, and disks do not shrink"
REBOOTED = "what a reboot has ended does not go on"
UNKNOWN = "nobody knows the secret that it was shown with"
OTHER_ID = "what is made again has another id"
KEPT = ("updated_at", "created_at", "revision", "ordinal", "version")  # of the row, not of people

STOPPED = "compute.server.stop_requested.v1"
STARTED = "compute.server.start_requested.v1"
REBOOT = "compute.server.reboot_requested.v1"
RESIZED = "compute.server.resize_requested.v1"
CONFIRMED = "compute.server.resize_confirmed.v1"
REVERTED = "compute.server.resize_revert_requested.v1"


class Cannot(Struct, frozen=True):
    """Something that no action takes back, and why."""

    why: str


class Change(Struct, frozen=True, kw_only=True):
    """What a row of the read model was before the undone facts, after them, and is now.

    None: it was not there. ``tags`` are the facts' own, ``caller`` the user who wants it undone.
    """

    table: Table[Any]
    before: Any
    after: Any
    now: Any
    tags: tuple[str, ...]
    caller: str


type Undone = list[Action | Cannot]


class _Kind(Struct, frozen=True, kw_only=True):
    """How one kind of row is removed, made again with all it had, and set back."""

    remove: Callable[[Any], Action | Cannot]
    make: Callable[[Any], Action | Cannot]
    update: tuple[type[Struct], str] | None = (
        None  # an action that leaves what is not given; its id field
    )
    aside: tuple[str, ...] = ()  # fields that follow from others


def undo(change: Change) -> Undone:
    """Return what takes a change back: actions in their order, and what none does."""
    return [_takeable(one) for one in _undone(change)]


def _takeable(one: Action | Cannot) -> Action | Cannot:
    """Return an action if it is one that the API takes: what was once stored need not be."""
    if isinstance(one, Cannot):
        return one
    try:
        decode_action(msgspec.json.encode(one))
    except msgspec.ValidationError as error:
        return Cannot(f"no action sets it back: {error}")
    return one


def _undone(change: Change) -> Undone:
    special = _SPECIAL.get(change.table)
    if special is not None:
        return special(change)
    kind = _KINDS.get(change.table)
    if kind is None:
        return [Cannot("there is no action that takes it back")]
    before, after, now = change.before, change.after, change.now
    if before is None:
        return [] if now is None else [kind.remove(now)]
    if after is None:
        return [] if now is not None else [kind.make(before)]
    if now is None:
        return [Cannot("it is gone")]
    return _set_back(kind, before, after, now)


def _set_back(kind: _Kind, before: Any, after: Any, now: Any) -> Undone:
    changed = {
        name: value
        for name in before.__struct_fields__
        if (value := getattr(before, name)) not in (getattr(after, name), getattr(now, name))
        and name not in (*KEPT, *kind.aside)
    }
    if not changed:
        return []
    if kind.update is None:
        return [Cannot(f"no action sets {', '.join(changed)} back")]
    action, id_field = kind.update
    given: dict[str, Any] = {}
    undone: Undone = []
    for name, value in changed.items():
        if name == "extra":
            back_in_extra = {
                key: value.get(key)
                for key in sorted(value.keys() | after.extra.keys())
                if value.get(key) not in (after.extra.get(key), now.extra.get(key))
            }
            if back_in_extra:
                given["extra"] = back_in_extra
        elif name not in action.__struct_fields__ or _is_secret(name):
            undone.append(Cannot(f"no action sets {name} back"))
        elif value is None:
            undone.append(Cannot(f"{name} was not set, and cannot be unset"))
        else:
            given[name] = value
    if given:
        back: Any = action(**{id_field: getattr(before, id_field)}, **given)
        undone.append(back)
    return undone


def _is_secret(name: str) -> bool:
    return name in {"password", "secret", "url", "oidc", "blob"}


def _server(change: Change) -> Undone:
    before, after, now = (_inner(row) for row in (change.before, change.after, change.now))
    alive = now is not None and now.vm_state != compute.DELETED
    if before is None:
        return [sc.DeleteServer(server_id=now.server_id)] if alive else []
    if "compute.server.delete_requested.v1" in change.tags:
        return [Cannot(DELETED_SERVER)]
    if not alive:
        return [Cannot("the server is gone")]
    undone: Undone = []
    if before.name not in (after.name, now.name):
        undone.append(sc.RenameServer(server_id=before.server_id, name=before.name))
    if REBOOT in change.tags:
        undone.append(Cannot(REBOOTED))
    turned = [tag for tag in change.tags if tag in {STARTED, STOPPED, REBOOT}]
    if turned and now.status != before.status and before.status in {"ACTIVE", "SHUTOFF"}:
        runs = turned[-1] != STOPPED
        if runs and before.status == "SHUTOFF":
            undone.append(sc.StopServer(server_id=before.server_id))
        if not runs and before.status == "ACTIVE":
            undone.append(sc.StartServer(server_id=before.server_id))
    return [*undone, *_sized_back(change.tags, before, now)]


def _sized_back(tags: tuple[str, ...], before: sc.Server, now: sc.Server) -> Undone:
    """Return what gives a server the flavor back that it had; as long as it waits, by a revert."""
    if RESIZED in tags and now.status == "VERIFY_RESIZE":
        return [sc.RevertServerResize(server_id=now.server_id)]
    flavor = before.flavor
    if CONFIRMED in tags and before.resize is not None:
        flavor = before.resize.old
    elif not {RESIZED, REVERTED} & set(tags):
        return []
    if flavor == now.flavor:
        return []
    if flavor.disk_gib < now.flavor.disk_gib:
        return [Cannot(GROWN)]
    return [sc.ResizeServer(server_id=now.server_id, flavor_id=flavor.flavor_id)]


def _inner(row: Any) -> Any:
    return getattr(row, "server", row)


def _image(change: Change) -> Undone:
    before, after, now = change.before, change.after, change.now
    if before is None:
        if now is None:
            return []
        unprotect = (
            [sm.UpdateImage(image_id=now.image_id, protected=False)] if now.protected else []
        )
        return [*unprotect, sm.DeleteImage(image_id=now.image_id)]
    if after is None:
        return [Cannot("its content was removed with it")]
    if now is None:
        return [Cannot("the image is gone")]
    content = ("status", "blob_id", "size_bytes", "virtual_size_bytes", "md5", "sha512", "message")
    undone = _set_back(
        _Kind(remove=_never, make=_never, update=(sm.UpdateImage, "image_id"), aside=content),
        before,
        after,
        now,
    )
    if any(getattr(before, name) != getattr(after, name) for name in content):
        undone.append(Cannot("no action takes an image's content back: delete the image"))
    return undone


def _port(change: Change) -> Undone:
    made = change.now or change.after or change.before
    if made is None or made.made_by_server or made.device_id:
        return []  # it goes with its server
    if change.before is None:
        return [] if change.now is None else [sn.DeletePort(port_id=made.port_id)]
    return [Cannot(OTHER_ID)] if change.after is None else []


def _domain(change: Change) -> Undone:
    if change.before is not None or change.now is None:
        return _of_kind(change, _DOMAIN)
    domain_id = change.now.domain_id
    disable = [si.UpdateDomain(domain_id=domain_id, enabled=False)] if change.now.enabled else []
    return [*disable, si.DeleteDomain(domain_id=domain_id)]


def _of_kind(change: Change, kind: _Kind) -> Undone:
    if change.before is None:
        return []
    if change.after is None:
        return [kind.make(change.before)]
    return (
        [Cannot("it is gone")]
        if change.now is None
        else _set_back(kind, change.before, change.after, change.now)
    )


def _keypair(change: Change) -> Undone:
    pair = change.now or change.after or change.before
    if pair is not None and pair.user_id != change.caller:
        return [Cannot("a key is its user's own, to make and to delete")]
    if change.before is None:
        return [] if change.now is None else [sc.DeleteKeypair(name=pair.name)]
    if change.after is None and change.now is None:
        before = change.before
        return [
            sc.CreateKeypair(
                name=before.name, public_key=before.public_key, fingerprint=before.fingerprint
            )
        ]
    return []


def _application_credential(change: Change) -> Undone:
    return _one_way(
        change,
        lambda row: si.DeleteApplicationCredential(
            application_credential_id=row.application_credential_id
        ),
        UNKNOWN,
    )


def _one_way(change: Change, remove: Callable[[Any], Action], lost: str) -> Undone:
    """Undo what can be made and removed, and never made again as it was."""
    if change.before is None:
        return [] if change.now is None else [remove(change.now)]
    return [Cannot(lost)]


def _quotas(change: Change) -> Undone:
    before = {} if change.before is None else change.before.limits
    after = {} if change.after is None else change.after.limits
    now = {} if change.now is None else change.now.limits
    row = change.before or change.after or change.now
    if row is None or "identity.project.deleted.v1" in change.tags:
        return []  # they went with their project
    changed = [n for n in {**before, **after} if before.get(n) not in (after.get(n), now.get(n))]
    back = {name: before[name] for name in changed if name in before}
    fresh = tuple(name for name in changed if name not in before)
    if row.owner == CLASS:
        defaults = {name: DEFAULTS[name] for name in fresh if name in DEFAULTS}
        limits = back | {n: limit for n, limit in defaults.items() if now.get(n) != limit}
        return [sq.SetQuotaClass(limits=limits)] if limits else []
    undone: Undone = []
    if fresh:
        undone.append(sq.ResetQuota(project_id=row.owner, names=fresh))
    if back:
        undone.append(sq.SetQuota(project_id=row.owner, limits=back))
    return undone


def _policy(change: Change) -> Undone:
    before = {} if change.before is None else change.before.rules
    after = {} if change.after is None else change.after.rules
    now = {} if change.now is None else change.now.rules
    changed = [n for n in {**before, **after} if before.get(n) not in (after.get(n), now.get(n))]
    if not changed:
        return []
    return [sp.SetPolicy(rules={name: before.get(name) for name in changed})]


def _password_policy(change: Change) -> Undone:
    before = change.before or si.PasswordPolicy()
    now = change.now or si.PasswordPolicy()
    return [] if before in (change.after, now) else [si.SetPasswordPolicy(policy=before)]


def _nothing(_change: Change) -> Undone:
    """It comes and goes with something else."""
    return []


def _never(_row: Any) -> Cannot:
    return Cannot(OTHER_ID)


def _lost(why: str) -> Callable[[Any], Cannot]:
    return lambda _row: Cannot(why)


def _same(action: type[Struct], row: Any) -> Any:
    """Return an action with the fields that a row has too."""
    fields = {
        name: value
        for name in action.__struct_fields__
        if (value := getattr(row, name, UNSET)) not in (UNSET, "")
    }
    return action(**fields)


_DOMAIN = _Kind(
    remove=_never,
    make=_lost("what was in it went with it"),
    update=(si.UpdateDomain, "domain_id"),
)

_KINDS: dict[Table[Any], _Kind] = {
    compute.FLAVORS: _Kind(
        remove=lambda row: sc.DeleteFlavor(flavor_id=row.flavor_id),
        make=lambda row: _same(sc.CreateFlavor, row),
    ),
    network.NETWORKS: _Kind(
        remove=lambda row: sn.DeleteNetwork(network_id=row.network_id), make=_never
    ),
    network.SUBNETS: _Kind(
        remove=lambda row: sn.DeleteSubnet(subnet_id=row.subnet_id), make=_never
    ),
    identity.PROJECTS: _Kind(
        remove=lambda row: si.DeleteProject(project_id=row.project_id),
        make=_never,
        update=(si.UpdateProject, "project_id"),
    ),
    identity.USERS: _Kind(
        remove=lambda row: si.DeleteUser(user_id=row.user_id),
        make=_lost("its password and its id went with it"),
        update=(si.UpdateUser, "user_id"),
        aside=(
            "password_history",
            "password_changed_at",
            "password_expires_at",
            "tokens_valid_from",
        ),
    ),
    identity.GROUPS: _Kind(
        remove=lambda row: si.DeleteGroup(group_id=row.group_id),
        make=_never,
        update=(si.UpdateGroup, "group_id"),
    ),
    identity.ROLES: _Kind(
        remove=lambda row: si.DeleteRole(role_id=row.role_id),
        make=_lost("who had it went with it"),
        update=(si.UpdateRole, "role_id"),
    ),
    identity.MEMBERSHIPS: _Kind(
        remove=lambda row: _same(si.RemoveGroupMember, row),
        make=lambda row: _same(si.AddGroupMember, row),
    ),
    identity.IMPLICATIONS: _Kind(
        remove=lambda row: _same(si.EndRoleImplication, row),
        make=lambda row: _same(si.ImplyRole, row),
    ),
    identity.GRANTS: _Kind(
        remove=lambda row: _same(si.RevokeRole, row), make=lambda row: _same(si.GrantRole, row)
    ),
    credential.CREDENTIALS: _Kind(
        remove=lambda row: si.DeleteCredential(credential_id=row.credential_id),
        make=_lost(UNKNOWN),
    ),
    credential.TRUSTS: _Kind(
        remove=lambda row: si.DeleteTrust(trust_id=row.trust_id),
        make=_lost("only its trustor may give it, and it would have another id"),
    ),
    catalog.REGIONS: _Kind(
        remove=lambda row: si.DeleteRegion(region_id=row.region_id),
        make=lambda row: _same(si.CreateRegion, row),
        update=(si.UpdateRegion, "region_id"),
    ),
    catalog.SERVICES: _Kind(
        remove=lambda row: si.DeleteService(service_id=row.service_id),
        make=_never,
        update=(si.UpdateService, "service_id"),
    ),
    catalog.ENDPOINTS: _Kind(
        remove=lambda row: si.DeleteEndpoint(endpoint_id=row.endpoint_id),
        make=_never,
        update=(si.UpdateEndpoint, "endpoint_id"),
    ),
    federation.PROVIDERS: _Kind(
        remove=lambda row: si.DeleteIdentityProvider(idp_id=row.idp_id),
        make=_lost("its client's secret, and who came by it, went with it"),
        update=(si.UpdateIdentityProvider, "idp_id"),
    ),
    federation.MAPPINGS: _Kind(
        remove=lambda row: si.DeleteMapping(mapping_id=row.mapping_id),
        make=lambda row: _same(si.CreateMapping, row),
        update=(si.UpdateMapping, "mapping_id"),
    ),
    federation.PROTOCOLS: _Kind(
        remove=lambda row: _same(si.DeleteProtocol, row),
        make=lambda row: _same(si.CreateProtocol, row),
    ),
    METERS: _Kind(
        remove=lambda row: (
            sg.DeleteMeter(key=row.key)
            if row.version == 1
            else Cannot("usage was measured by it: define the version before it again")
        ),
        make=_never,
    ),
    ALARMS: _Kind(
        remove=lambda row: sa.DeleteAlarm(alarm_id=row.alarm_id),
        make=_never,
        aside=("ringing", "changed_at"),
    ),
    WEBHOOKS: _Kind(
        remove=lambda row: sw.DeleteWebhook(webhook_id=row.webhook_id),
        make=_lost(UNKNOWN),
        update=(sw.UpdateWebhook, "webhook_id"),
        aside=("cause",),
    ),
}

_SPECIAL: dict[Table[Any], Callable[[Change], Undone]] = {
    compute.SERVERS: _server,
    image.IMAGES: _image,
    network.PORTS: _port,
    network.SECURITY_GROUPS: _nothing,  # a project's own, made with it
    identity.DOMAINS: _domain,
    identity.KEYPAIRS: _keypair,
    identity.PASSWORD_POLICY: _password_policy,
    credential.APPLICATION_CREDENTIALS: _application_credential,
    credential.ACCESS_RULES: _nothing,  # made with an application credential, and harmless alone
    federation.FEDERATED: _nothing,
    QUOTAS: _quotas,
    POLICY: _policy,
}


def as_sent(action: Action) -> dict[str, Any]:
    """Return an action as the API takes it: its type, and what is not as by default."""
    built: dict[str, Any] = msgspec.to_builtins(action)
    for field in msgspec.structs.fields(type(action)):
        default = field.default
        if field.default_factory is not NODEFAULT:
            default = field.default_factory()
        if default is not NODEFAULT and getattr(action, field.name) == default:
            built.pop(field.encode_name)
    return built
