"""Quotas and limits as compute's clients know them: a closed set of names for each microversion.

What they name and this cloud has none of (injected files, server groups, floating IPs) has limits
that are kept as they are set, and counts nothing. Quotas are of projects: one user's cannot be set.
"""

from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from api.errors import NotOffered
from api.exchange import Answer, Call, Version, json_answer
from api.microversions import HIGHEST, LOWEST
from api.quota import Limit, number, readable_project
from api.routing import Routes
from api.writing import write
from schemas.errors import InvalidInput, NotFound
from schemas.quota import ResetQuota, SetQuota, SetQuotaClass

type View = dict[str, Any]

READ, READ_DEFAULTS = "compute:quotas:read", "compute:quota_defaults:read"
READ_LIMITS = "compute:limits:read"
CLASS = "default"
NO_NETWORK: Version = (2, 36)  # from here on what the network service has is asked for there
CLASS_OF_GROUPS: Version = (2, 50)  # from here on classes have what sets have
NO_FILES: Version = (2, 57)  # from here on no files are injected
NO_IMAGES: Version = (2, 39)  # from here on nothing is said of images' metadata


class Named(NamedTuple):
    """What a quota is called here and inside, and the microversions that have it."""

    quota: str
    since: Version = LOWEST
    before: Version = HIGHEST

    def at(self, version: Version) -> bool:
        """Return whether a microversion has it."""
        return self.since <= version < self.before


SET: dict[str, Named] = {
    "instances": Named("servers"),
    "cores": Named("vcpus"),
    "ram": Named("memory_mib"),
    "key_pairs": Named("keypairs"),
    "metadata_items": Named("server_metadata"),
    "server_groups": Named("server_groups"),
    "server_group_members": Named("server_group_members"),
    "injected_files": Named("injected_files", before=NO_FILES),
    "injected_file_content_bytes": Named("injected_file_bytes", before=NO_FILES),
    "injected_file_path_bytes": Named("injected_file_path_bytes", before=NO_FILES),
    "fixed_ips": Named("fixed_ips", before=NO_NETWORK),
    "floating_ips": Named("floating_ips", before=NO_NETWORK),
    "security_groups": Named("security_groups", before=NO_NETWORK),
    "security_group_rules": Named("security_group_rules", before=NO_NETWORK),
}
# Classes lost what is the network service's later, and had no groups before.
CLASS_SET: dict[str, Named] = {
    name: named._replace(
        since=CLASS_OF_GROUPS if named.quota.startswith("server_group") else named.since,
        before=CLASS_OF_GROUPS if named.before == NO_NETWORK else named.before,
    )
    for name, named in SET.items()
}
MAXIMA: dict[str, Named] = {
    "maxTotalInstances": Named("servers"),
    "maxTotalCores": Named("vcpus"),
    "maxTotalRAMSize": Named("memory_mib"),
    "maxTotalKeypairs": Named("keypairs"),
    "maxServerMeta": Named("server_metadata"),
    "maxImageMeta": Named("server_metadata", before=NO_IMAGES),
    "maxPersonality": Named("injected_files", before=NO_FILES),
    "maxPersonalitySize": Named("injected_file_bytes", before=NO_FILES),
    "maxServerGroups": Named("server_groups"),
    "maxServerGroupMembers": Named("server_group_members"),
    "maxSecurityGroups": Named("security_groups", before=NO_NETWORK),
    "maxSecurityGroupRules": Named("security_group_rules", before=NO_NETWORK),
    "maxTotalFloatingIps": Named("floating_ips", before=NO_NETWORK),
}
TOTALS: dict[str, Named] = {
    "totalInstancesUsed": Named("servers"),
    "totalCoresUsed": Named("vcpus"),
    "totalRAMUsed": Named("memory_mib"),
    "totalSecurityGroupsUsed": Named("security_groups", before=NO_NETWORK),
    "totalFloatingIpsUsed": Named("floating_ips", before=NO_NETWORK),
    "totalServerGroupsUsed": Named("server_groups"),
}


class _Limits(Struct, frozen=True, forbid_unknown_fields=True):
    instances: Limit | UnsetType = UNSET
    cores: Limit | UnsetType = UNSET
    ram: Limit | UnsetType = UNSET
    key_pairs: Limit | UnsetType = UNSET
    metadata_items: Limit | UnsetType = UNSET
    server_groups: Limit | UnsetType = UNSET
    server_group_members: Limit | UnsetType = UNSET
    injected_files: Limit | UnsetType = UNSET
    injected_file_content_bytes: Limit | UnsetType = UNSET
    injected_file_path_bytes: Limit | UnsetType = UNSET
    fixed_ips: Limit | UnsetType = UNSET
    floating_ips: Limit | UnsetType = UNSET
    security_groups: Limit | UnsetType = UNSET
    security_group_rules: Limit | UnsetType = UNSET


class _ProjectLimits(_Limits, frozen=True, forbid_unknown_fields=True):
    force: bool = False


class _SetBody(Struct, frozen=True, forbid_unknown_fields=True):
    quota_set: _ProjectLimits


class _ClassBody(Struct, frozen=True, forbid_unknown_fields=True):
    quota_class_set: _Limits


_set = msgspec.json.Decoder(_SetBody)
_class = msgspec.json.Decoder(_ClassBody)


def picked(names: dict[str, Named], values: dict[str, int], version: Version) -> dict[str, int]:
    """Return values as a microversion names them; what is not counted is 0."""
    return {name: values.get(named.quota, 0) for name, named in names.items() if named.at(version)}


def _sent(names: dict[str, Named], body: _Limits, version: Version) -> dict[str, int]:
    """Return the limits that were sent, as the engine names them.

    Raises:
        InvalidInput: one is not a quota of this microversion, or too large.
    """
    limits: dict[str, int] = {}
    for name, named in names.items():
        value = getattr(body, name)
        if value is UNSET:
            continue
        if not named.at(version):
            raise InvalidInput(f"there is no quota {name} at this microversion")
        limits[named.quota] = number(value)
    return limits


async def show(call: Call) -> Answer:
    """GET /os-quota-sets/{project}."""
    project_id = readable_project(call, call.args[0], READ)
    limits = call.edge.reader.quota_limits(project_id)
    view: View = {"id": project_id, **picked(SET, limits, call.microversion)}
    return json_answer({"quota_set": view})


async def detail(call: Call) -> Answer:
    """GET /os-quota-sets/{project}/detail: with what is used. Keypairs are those of a user."""
    project_id = readable_project(call, call.args[0], READ)
    principal, reader = call.principal, call.edge.reader
    user_id = call.param("user_id")
    if not user_id and project_id == principal.project_id:
        user_id = principal.user_id
    if user_id != principal.user_id and not call.reach.any:
        user_id = ""
    with reader.snapshot():
        limits = picked(SET, reader.quota_limits(project_id), call.microversion)
        used = picked(SET, reader.quota_use(project_id, user_id), call.microversion)
    view: View = {"id": project_id}
    for name, limit in limits.items():
        view[name] = {"limit": limit, "in_use": used[name], "reserved": 0}
    return json_answer({"quota_set": view})


async def defaults(call: Call) -> Answer:
    """GET /os-quota-sets/{project}/defaults: what would hold without limits of its own."""
    limits = picked(SET, call.edge.reader.quota_defaults(), call.microversion)
    return json_answer({"quota_set": {"id": call.args[0], **limits}})


async def update(call: Call) -> Answer:
    """PUT /os-quota-sets/{project}. Without ``force`` no limit goes below what is used."""
    _of_project(call)
    body = (await call.decode(_set)).quota_set
    limits = _sent(SET, body, call.microversion)
    project_id = call.args[0]
    await write(call, SetQuota(project_id=project_id, limits=limits, check_limit=not body.force))
    held = {**call.edge.reader.quota_limits(project_id), **limits}
    return json_answer({"quota_set": picked(SET, held, call.microversion)})


async def reset(call: Call) -> Answer:
    """DELETE /os-quota-sets/{project}: those of compute's quotas alone that compute has."""
    _of_project(call)
    names = tuple(sorted({named.quota for named in SET.values() if named.before != NO_NETWORK}))
    await write(call, ResetQuota(project_id=call.args[0], names=names))
    return Answer(202)


def _of_project(call: Call) -> None:
    """Refuse to change a project's quota where only one user's was meant.

    Raises:
        NotOffered: a user was named.
    """
    if call.param("user_id"):
        raise NotOffered("quotas are of projects; a single user has none of its own to set")


async def show_class(call: Call) -> Answer:
    """GET /os-quota-class-sets/{class}: there is one, ``default``."""
    _need_class(call)
    limits = picked(CLASS_SET, call.edge.reader.quota_defaults(), call.microversion)
    return json_answer({"quota_class_set": {"id": CLASS, **limits}})


async def update_class(call: Call) -> Answer:
    """PUT /os-quota-class-sets/{class}."""
    _need_class(call)
    body = (await call.decode(_class)).quota_class_set
    limits = _sent(CLASS_SET, body, call.microversion)
    await write(call, SetQuotaClass(limits=limits))
    held = {**call.edge.reader.quota_defaults(), **limits}
    return json_answer({"quota_class_set": picked(CLASS_SET, held, call.microversion)})


def _need_class(call: Call) -> None:
    if call.args[0] != CLASS:
        raise NotFound(f"there is no quota class {call.args[0][:64]!r}, only {CLASS!r}")


async def limits(call: Call) -> Answer:
    """GET /limits: what the caller's project may hold and holds."""
    principal, reader, version = call.principal, call.edge.reader, call.microversion
    asked = call.param("tenant_id") or call.param("project_id") or principal.project_id
    project_id = readable_project(call, asked, READ_LIMITS)
    with reader.snapshot():
        maxima = picked(MAXIMA, reader.quota_limits(project_id), version)
        totals = picked(TOTALS, reader.quota_use(project_id), version)
    return json_answer({"limits": {"rate": [], "absolute": maxima | totals}})


def add(routes: Routes) -> None:
    """Route what this module answers."""
    one, user = "/v2.1/os-quota-sets/{}", ("user_id",)
    routes.add("GET", one, show, READ, query=user)
    routes.add("GET", f"{one}/detail", detail, READ, query=user)
    routes.add("GET", f"{one}/defaults", defaults, READ_DEFAULTS)
    routes.add("PUT", one, update, "SetQuota", body=_set, query=user, partly=True)
    routes.add("DELETE", one, reset, "ResetQuota", query=user, status=202, bare=(202,), partly=True)
    classes = "/v2.1/os-quota-class-sets/{}"
    routes.add("GET", classes, show_class, READ_DEFAULTS)
    routes.add("PUT", classes, update_class, "SetQuotaClass", body=_class)
    routes.add("GET", "/v2.1/limits", limits, READ_LIMITS, query=("tenant_id", "project_id"))
