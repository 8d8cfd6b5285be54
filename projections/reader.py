"""Typed reads from a node's read model.

Synchronous, on one read-only connection per thread; nothing here writes. Each call sees the newest
committed position; ``snapshot`` holds several calls to one position. Decoded resources are kept by
the ordinal that last changed them, so that listing what has not changed decodes nothing. After a
rebuild has switched the file the next call opens the new one.

Lists are ordered and paged by ``sort`` (column, descending) with the id as the last key; ``marker``
is the id of the last element seen. ``project_id`` None means every project: whether the caller may
ask for that is the edge's to decide.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypedDict, Unpack

from projections import audit, blast_radius, undo
from projections.alarm import ALARMS
from projections.answers import (
    Address,
    Event,
    InstanceAction,
    OperationState,
    RequestAlarm,
    ServerView,
    Why,
)
from projections.billing_reader import BillingReader
from projections.compute import DELETED, FLAVORS, SERVERS
from projections.explanation import Explained, SetBy
from projections.host import HOSTS
from projections.identity import KEYPAIRS
from projections.identity_reader import IdentityReader
from projections.idle import Idle, idle
from projections.image import IMAGES
from projections.meter import METERS
from projections.network_reader import NetworkReader
from projections.operation import OPERATIONS
from projections.orphans import Orphan, orphans
from projections.policy import POLICY, ROW
from projections.query import BY_NAME, NEWEST_FIRST, Query, Sort
from projections.quota_reader import QuotaReader
from projections.webhook import WEBHOOKS
from schemas.alarm import Alarm
from schemas.compute import Flavor, Keypair, Server
from schemas.host import Host
from schemas.image import Image
from schemas.metering import MeterDefinition
from schemas.policy import PolicyTable
from schemas.units import Micros, Ordinal
from schemas.webhook import Webhook

BY_ID: Sort = (("id", False),)
_IMAGE_SEEN = "(project_id = ? OR visibility = 'public')"


class ServerFilters(TypedDict, total=False):
    """The filters of ``Reader.server_views``."""

    project_id: str | None
    ids: Sequence[str] | None
    name: str | None
    ip: str | None
    status: Sequence[str] | None
    user_id: str | None
    host_id: str | None
    image_id: str | None
    flavor_id: str | None
    key_name: str | None
    changed_since: int | None
    changed_before: int | None
    deleted: bool | None
    sort: Sort
    marker: str | None
    limit: int | None


class Reader(BillingReader, IdentityReader, NetworkReader, QuotaReader):
    """All reads of one node. Cheap to share: threads get a connection each."""

    # Compute

    def flavor(self, flavor_id: str) -> Flavor | None:
        """Return a flavor."""
        return self.one(FLAVORS, flavor_id)

    def flavors(
        self,
        *,
        name: str | None = None,
        is_public: bool | None = None,
        min_memory_mib: int = 0,
        min_disk_gib: int = 0,
        sort: Sort = BY_ID,
        marker: str | None = None,
        limit: int | None = None,
    ) -> list[Flavor]:
        """Sort columns: id, name, vcpus, memory_mib, disk_gib."""
        query = Query(FLAVORS).equal(name=name, is_public=is_public)
        if min_memory_mib:
            query.where("memory_mib >= ?", min_memory_mib)
        if min_disk_gib:
            query.where("disk_gib >= ?", min_disk_gib)
        return self.page(query, sort, marker, limit)

    def keypair(self, user_id: str, name: str) -> Keypair | None:
        """Return a keypair of a user."""
        found = self.page(
            Query(KEYPAIRS, "name").within("user_id = ?", user_id).equal(name=name), BY_NAME
        )
        return found[0] if found else None

    def keypairs(
        self, user_id: str, *, marker: str | None = None, limit: int | None = None
    ) -> list[Keypair]:
        """Return a user's keypairs by name; ``marker`` is a name."""
        query = Query(KEYPAIRS, "name").within("user_id = ?", user_id)
        return self.page(query, BY_NAME, marker, limit)

    def server(
        self, server_id: str, *, project_id: str | None = None, deleted: bool = False
    ) -> Server | None:
        """Return a server; with ``deleted`` also one that is gone (``vm_state`` is "deleted")."""
        view = self.server_view(server_id, project_id=project_id, deleted=deleted)
        return None if view is None else view.server

    def server_view(
        self, server_id: str, *, project_id: str | None = None, deleted: bool = False
    ) -> ServerView | None:
        """Return a server with its addresses."""
        view = self.one(SERVERS, server_id)
        if view is None or (view.server.vm_state == DELETED and not deleted):
            return None
        return view if project_id in {None, view.server.project_id} else None

    def server_views(
        self,
        *,
        project_id: str | None = None,
        ids: Sequence[str] | None = None,
        name: str | None = None,
        ip: str | None = None,
        status: Sequence[str] | None = None,
        user_id: str | None = None,
        host_id: str | None = None,
        image_id: str | None = None,
        flavor_id: str | None = None,
        key_name: str | None = None,
        changed_since: int | None = None,
        changed_before: int | None = None,
        deleted: bool | None = False,
        sort: Sort = NEWEST_FIRST,
        marker: str | None = None,
        limit: int | None = None,
    ) -> list[ServerView]:
        """Return servers with their addresses.

        ``name`` and ``ip`` are regular expressions matched anywhere. ``deleted`` None means both;
        gone servers have ``vm_state`` "deleted". Sort columns: id, name, status, project_id,
        user_id, host_id, image_id, flavor_id, key_name, vcpus, memory_mib, created_at, updated_at.

        Raises:
            BadPattern: an expression is malformed or could take long.
            BadSort: there is no such column.
            MarkerNotFound: the marker is not a server of the project.
        """
        query = Query(SERVERS)
        if project_id is not None:
            query.within("project_id = ?", project_id)
        if deleted is not None:
            query.where("deleted = 1" if deleted else "deleted = 0")
        query.among(id=ids, status=status).matching("name", name)
        query.equal(user_id=user_id, host_id=host_id, image_id=image_id)
        query.equal(flavor_id=flavor_id, key_name=key_name)
        query.compare("updated_at >= ?", changed_since).compare("updated_at <= ?", changed_before)
        query.matching_address(ip)
        return self.page(query, sort, marker, limit)

    def servers(self, **filters: Unpack[ServerFilters]) -> list[Server]:
        """Return servers alone, by the filters of ``server_views``."""
        return [view.server for view in self.server_views(**filters)]

    def addresses(self, server_ids: Sequence[str]) -> dict[str, tuple[Address, ...]]:
        """Return the addresses of servers; every id is a key."""
        views = self.server_views(ids=server_ids, deleted=None, sort=BY_ID)
        found = {view.server.server_id: view.addresses for view in views}
        return {server_id: found.get(server_id, ()) for server_id in server_ids}

    def instance_actions(self, server_id: str) -> list[InstanceAction]:
        """Return what was done to a server, newest first; also of a deleted one."""
        return audit.instance_actions(self.db(), server_id)

    def instance_action(self, server_id: str, request_id: str) -> InstanceAction | None:
        """Return one thing that was done to a server."""
        actions = audit.instance_actions(self.db(), server_id)
        return next((action for action in actions if action.request_id == request_id), None)

    # Image

    def image(self, image_id: str, *, visible_to: str | None = None) -> Image | None:
        """Return an image; ``visible_to`` a project means its own or a public one."""
        image = self.one(IMAGES, image_id)
        if image is None or visible_to in {None, image.project_id}:
            return image
        return image if image.visibility == "public" else None

    def images(
        self,
        *,
        visible_to: str | None = None,
        project_id: str | None = None,
        ids: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        status: Sequence[str] | None = None,
        visibility: str | None = None,
        disk_format: str | None = None,
        protected: bool | None = None,
        sort: Sort = NEWEST_FIRST,
        marker: str | None = None,
        limit: int | None = None,
    ) -> list[Image]:
        """Return images; ``visible_to`` a project means its own and public ones, None all.

        Sort columns: id, name, status, visibility, project_id, disk_format, size_bytes,
        created_at, updated_at.
        """
        query = Query(IMAGES)
        if visible_to is not None:
            query.within(_IMAGE_SEEN, visible_to)
        query.among(id=ids, name=names, status=status).equal(project_id=project_id)
        query.equal(visibility=visibility, disk_format=disk_format, protected=protected)
        return self.page(query, sort, marker, limit)

    # Hosts, operations, webhooks

    def host(self, host_id: str) -> Host | None:
        """Return a host."""
        return self.one(HOSTS, host_id)

    def hosts(self, *, status: str | None = None) -> list[Host]:
        """Return hosts by id."""
        return self.page(Query(HOSTS).equal(status=status), BY_ID)

    def operation(
        self, operation_id: str, *, project_id: str | None = None
    ) -> OperationState | None:
        """Return an operation and how it stands."""
        state = self.one(OPERATIONS, operation_id)
        if state is None or project_id in {None, state.operation.project_id}:
            return state
        return None

    def operations(
        self,
        *,
        resource_id: str | None = None,
        project_id: str | None = None,
        request_id: str | None = None,
        running: bool | None = None,
        marker: str | None = None,
        limit: int = 100,
    ) -> list[OperationState]:
        """Return operations, newest first."""
        query = Query(OPERATIONS).equal(resource_id=resource_id, request_id=request_id)
        if project_id is not None:
            query.within("project_id = ?", project_id)
        if running is not None:
            query.where("status = 'running'" if running else "status <> 'running'")
        return self.page(query, (("started_at", True),), marker, limit)

    def meters(self, *, key: str | None = None) -> list[MeterDefinition]:
        """Return all versions of the meters that somebody defined, by key and version."""
        query = Query(METERS, "key || ' ' || version").equal(key=key)
        return self.page(query, (("key", False), ("version", False)))

    def server_counts(self, project_id: str) -> list[tuple[str, int]]:
        """Return how many servers a project has, by status."""
        return list(
            self.db().execute(
                "SELECT status, count(*) FROM servers WHERE project_id = ? AND deleted = 0 "
                "GROUP BY status ORDER BY status",
                (project_id,),
            )
        )

    def alarm(self, alarm_id: str) -> Alarm | None:
        """Return an alarm."""
        return self.one(ALARMS, alarm_id)

    def alarms(self, *, project_id: str | None = None) -> list[Alarm]:
        """Return alarms by name."""
        query = Query(ALARMS)
        if project_id is not None:
            query.within("project_id = ?", project_id)
        return self.page(query, (("name", False),))

    def happened(
        self, project_id: str, tags: Iterable[str], *, after: Ordinal, before: Micros
    ) -> Iterator[tuple[Ordinal, Micros, str, str]]:
        """Yield (ordinal, time, tag, resource id) of a project's facts with these tags."""
        wanted = sorted(tags)
        marks = ", ".join("?" * len(wanted))
        sql = (
            "SELECT ordinal, at, tag, resource_id FROM timeline "  # noqa: S608  # question marks
            "WHERE project_id = ? AND ordinal > ? AND at < ? AND kind = 'fact' "
            f"AND tag IN ({marks}) ORDER BY ordinal"
        )
        yield from self.db().execute(sql, (project_id, after, before, *wanted))

    def webhook(self, webhook_id: str) -> Webhook | None:
        """Return a webhook."""
        return self.one(WEBHOOKS, webhook_id)

    def webhooks(
        self,
        *,
        project_id: str | None = None,
        marker: str | None = None,
        limit: int | None = None,
    ) -> list[Webhook]:
        """Return webhooks, the oldest first."""
        query = Query(WEBHOOKS)
        if project_id is not None:
            query.within("project_id = ?", project_id)
        return self.page(query, (("created_at", False),), marker, limit)

    def policy(self) -> PolicyTable | None:
        """Return the rules that an operator has set; None if there never were any."""
        return self.one(POLICY, ROW)

    # The log itself

    def events(
        self,
        *,
        after: int = 0,
        limit: int = 100,
        project_id: str | None = None,
        resource_id: str | None = None,
    ) -> list[Event]:
        """Return what follows ordinal ``after``, in order: the feed."""
        return audit.events(self.db(), after, limit, project_id, resource_id)

    def first_at(self, at: int) -> int:
        """Return the ordinal of the first event at or after a time; one past the last if none."""
        return audit.first_at(self.db(), at)

    def audit_log(
        self,
        *,
        project_id: str | None = None,
        user_id: str | None = None,
        address: str | None = None,
        request_id: str | None = None,
        resource_id: str | None = None,
        resource_kind: str | None = None,
        tag: str | None = None,
        outcome: str | None = None,
        code: str | None = None,
        since: int | None = None,
        until: int | None = None,
        before: int | None = None,
        after: int | None = None,
        people: bool = False,
        limit: int = 100,
    ) -> list[Event]:
        """Return requests with their verdicts, newest first; with ``after`` the oldest first.

        ``since`` and ``until`` bound the commit's time, half-open. ``before`` is an ordinal: the
        next page ends before it; ``after`` one that it begins after. ``people`` leaves out what
        agents and the engine's clock asked.
        """
        filters = {
            "project_id": project_id,
            "user_id": user_id,
            "address": address,
            "request_id": request_id,
            "resource_id": resource_id,
            "resource_kind": resource_kind,
            "tag": tag,
            "outcome": outcome,
            "code": code,
        }
        return audit.requests(self.db(), filters, since, until, before, after, people, limit)

    def records(self, found: Sequence[Event]) -> list[Event]:
        """Return requests, each with its facts."""
        return audit.records(self.db(), found)

    def audit_show(self, request_id: str, *, project_id: str | None = None) -> list[Event]:
        """Return a request, its facts, and all that it led to, in order; empty if unknown.

        With ``project_id`` a request of another project is unknown.
        """
        return audit.show(self.db(), request_id, project_id)

    def made_by(self, resource_id: str) -> str:
        """Return the user whose request made a resource, "" if nobody is known."""
        return audit.made_by(self.db(), resource_id)

    def idle(self, project_id: str | None, *, before: int) -> list[Idle]:
        """Return what has cost and done nothing since before a time; see ``projections.idle``."""
        return idle(self.db(), project_id, before)

    def orphans(self, project_id: str | None) -> list[Orphan]:
        """Return what belongs to nothing that is there; see ``projections.orphans``."""
        return orphans(self.db(), project_id)

    def was_asked(self, request_id: str, *, project_id: str | None = None) -> bool:
        """Return whether there is a request of this id, of a project or of any."""
        return audit.was_asked(self.db(), request_id, project_id)

    def undo(self, requests: Sequence[Event], caller: str) -> list[undo.Step]:
        """Return the steps that take requests back; see ``projections.undo``.

        May take a second: not for the event loop.
        """
        return undo.plan(self.db(), requests, caller)

    def blast_radius(
        self,
        kind: blast_radius.RootKind,
        identity: str,
        *,
        project_id: str | None = None,
        user_id: str = "",
        since: int | None = None,
    ) -> blast_radius.Radius | None:
        """Return what followed from a thing; see ``projections.blast_radius``.

        May take a second: not for the event loop.
        """
        return blast_radius.radius(
            self.db(), kind, identity, project_id=project_id, user_id=user_id, since=since
        )

    def news(self, after: int, limit: int) -> list[tuple[int, str, str, str]]:
        """Return ordinal, project, kind and resource of what follows an ordinal, in order."""
        return audit.news(self.db(), after, limit)

    def asked(self, request_ids: set[str]) -> dict[str, bytes]:
        """Return the JSON of requests and their verdicts by request id, of those that are known."""
        return audit.asked(self.db(), request_ids)

    def request_alarms(self, *, limit: int = 100) -> list[RequestAlarm]:
        """Return request ids that stand at two ordinals, the newest first; there must be none."""
        return audit.alarms(self.db(), limit)

    def why(
        self, resource_id: str, *, project_id: str | None = None, limit: int = 1000
    ) -> Why | None:
        """Return the events that made a resource what it is; None if nobody spoke of it.

        With ``project_id`` another project's resource is unknown. Of more than ``limit`` events
        about the resource itself, the newest are given.
        """
        return audit.why(self.db(), resource_id, project_id, limit)

    def set_by(self, ordinals: Sequence[int]) -> dict[int, SetBy]:
        """Return the request and the person behind facts, by the facts' ordinals."""
        return audit.set_by(self.db(), ordinals)

    def explained(
        self, resource_id: str, *, project_id: str | None = None
    ) -> tuple[Explained, ...] | None:
        """Return a resource's fields with the fact that set each; None if too many speak of it.

        With ``project_id`` only what that project's facts have set. Takes a millisecond for every
        ten facts or so: not for the event loop.
        """
        return audit.explained(self.db(), resource_id, project_id)
