"""What followed from something: an event, a request, an image, a key, a host, a user, a token.

From what was asked about, each step goes to what is there because of it: from a user or credential
to what was asked for with it, from a request to what it made, changed and removed and to requests
that name it as their cause, from what was made to what was made of it in turn. What was changed
only is told of and not followed. Invariant: each thing stands in the tree once, where it is nearest
to the root; the walk is breadth first and bounded, and says if it ended at its bound.
"""

import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

from projections import audit
from projections.answers import Event, ServerView
from projections.compute import DELETED, SERVERS
from projections.network import PORTS, SUBNETS
from projections.store import Table

NODES_MAX = 20_000
DEPTH_MAX = 16

type RootKind = Literal[
    "event", "request", "image", "keypair", "network", "host", "project", "user",
    "application_credential", "trust", "token",
]  # fmt: skip
ROOTS: tuple[RootKind, ...] = (
    "event", "request", "image", "keypair", "network", "host", "project", "user",
    "application_credential", "trust", "token",
)  # fmt: skip


class Node(Struct, frozen=True, kw_only=True):
    """A thing that followed, how it did, and what followed from it.

    ``ordinal`` and ``at`` are of the event that made it part of this; for a request, its own.
    ``gone`` says of a resource that it is there no more.
    """

    kind: str
    id: str
    how: str
    ordinal: int
    at: int
    what: str = ""
    project_id: str = ""
    user_id: str = ""
    outcome: str = ""
    gone: bool = False
    below: tuple["Node", ...] = ()


class Radius(Struct, frozen=True, kw_only=True):
    """The tree with its counts: ``counts`` by kind and by how it followed.

    ``since`` and ``until`` are the times of the first and the last thing that followed.
    """

    root: Node
    counts: dict[str, dict[str, int]]
    refused: int
    reports: int
    users: tuple[str, ...]
    projects: tuple[str, ...]
    since: int | None
    until: int | None
    complete: bool


class _Found(Struct):
    """A node under way: where it hangs, and what is to be asked about it."""

    parent: int
    depth: int
    node: Node
    event: Event | None = None
    follow: bool = True


class _Actor(Struct, frozen=True):
    kind: str
    application_credential_id: str = ""
    trust_id: str = ""
    audit_id: str = ""


class _Request(Struct, frozen=True):
    actor: _Actor


class _Body(Struct, frozen=True):
    request: _Request


class _Grant(Struct, frozen=True):
    user_id: str = ""
    project_id: str = ""


class _Granted(Struct, frozen=True):
    grant: _Grant


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_granted = msgspec.json.Decoder(_Granted).decode

_GRANTED = "identity.role.granted.v1"
_MADE = ("created", "registered", "published")


# What followed, its event, and whether it is followed on.
type _Step = tuple[Node, Event | None, bool]


def radius(
    db: sqlite3.Connection,
    kind: RootKind,
    identity: str,
    *,
    project_id: str | None = None,
    user_id: str = "",
    since: int | None = None,
) -> Radius | None:
    """Return what followed from a thing; None if nobody ever spoke of it.

    Args:
        db: the read model.
        kind: what ``identity`` names.
        identity: an ordinal, a request's id, a token's audit id, or a resource's id; a keypair's
            is its name.
        project_id: whose part of it is told of; None: all.
        user_id: whose keypair or token it is; "" of a keypair: anybody's of that name.
        since: only what came at or after this time.
    """
    walk = _Walk(db, project_id)
    if not walk.begin(kind, identity, user_id):
        return None
    walk.go(since)
    return walk.result()


class _Walk:
    """One walk, breadth first."""

    def __init__(self, db: sqlite3.Connection, project_id: str | None) -> None:
        self._db = db
        self._project_id = project_id
        self._first = 0  # the ordinal from which on what followed counts
        self._since = 0  # and its time
        self._found: list[_Found] = []
        self._seen: set[tuple[str, str]] = set()
        self._queue: deque[int] = deque()
        self._reports = 0
        self._whole = True
        self._root_user = ""

    def begin(self, kind: RootKind, identity: str, user_id: str) -> bool:
        """Take up the root; return whether it is known, or anything followed from it."""
        self._root_user = user_id
        event: Event | None = None
        if kind == "event":
            event = self._event(identity)
        elif kind == "request":
            event = next(iter(self._events("request_id = ? AND kind = 'request'", identity)), None)
        if kind in {"event", "request"}:
            if event is None:
                return False
            self._add(-1, self._node_of(event, "asked about"), event)
            return True
        about = next(
            iter(self._events("resource_kind = ? AND resource_id = ?", kind, identity)), None
        )
        root = Node(
            kind=kind,
            id=identity,
            how="asked about",
            ordinal=about.ordinal if about else 0,
            at=about.at if about else 0,
            project_id=about.project_id if about else "",
        )
        self._add(-1, root, None)
        if about is not None:
            return True
        known = next(self._below(0), None) is not None
        return known or (self._project_id is None and kind == "user" and self._is_user(identity))

    def go(self, since: int | None) -> None:
        """Walk until nothing follows since then, or the bound is reached."""
        if since is not None:
            self._first, self._since = audit.first_at(self._db, since), since
        while self._queue:
            number = self._queue.popleft()
            found = self._found[number]
            if not found.follow:
                continue
            for node, event, follow in self._below(number):
                if (node.kind, node.id) in self._seen:
                    continue
                if len(self._found) >= NODES_MAX or found.depth >= DEPTH_MAX:
                    self._whole = False
                    break
                self._add(number, node, event, follow=follow)

    def result(self) -> Radius:
        """Return the tree, counted."""
        below: dict[int, list[Node]] = {}
        root: Node | None = None
        counts: dict[str, Counter[str]] = {}
        for number in range(len(self._found) - 1, -1, -1):
            found = self._found[number]
            hanging = tuple(reversed(below.pop(number, [])))
            node = msgspec.structs.replace(found.node, below=hanging)
            if found.parent < 0:
                root = node
            else:
                below.setdefault(found.parent, []).append(node)
                counts.setdefault(node.kind, Counter())[node.how] += 1
        assert root is not None, "every walk begins somewhere"
        followed = [found.node for found in self._found[1:]]
        times = [node.at for node in followed if node.at]
        return Radius(
            root=root,
            counts={kind: dict(sorted(counts[kind].items())) for kind in sorted(counts)},
            refused=sum(node.outcome == "refused" for node in followed),
            reports=self._reports,
            users=tuple(sorted({node.user_id for node in followed if node.user_id})),
            projects=tuple(sorted({node.project_id for node in followed if node.project_id})),
            since=min(times, default=None),
            until=max(times, default=None),
            complete=self._whole,
        )

    def _add(self, parent: int, node: Node, event: Event | None, *, follow: bool = True) -> None:
        depth = 0 if parent < 0 else self._found[parent].depth + 1
        self._seen.add((node.kind, node.id))
        self._queue.append(len(self._found))
        self._found.append(
            _Found(parent=parent, depth=depth, node=node, event=event, follow=follow)
        )

    def _below(self, number: int) -> Iterator[_Step]:
        """Yield what followed from a thing: a node, its event, and whether it is followed on."""
        found = self._found[number]
        node, event = found.node, found.event
        if node.kind == "request":
            assert event is not None, "requests are found by their events"
            yield from self._of_request(event)
        elif node.kind == "event":
            assert event is not None, "facts are found by their events"
            yield from self._of_facts([event])
        elif node.kind == "grant":
            user_id, _, project_id = node.id.partition("@")
            yield from self._asked_by(user_id, after=node.ordinal, within=project_id)
        else:
            follow = _FOLLOW.get(node.kind)
            if follow is not None:
                yield from follow(self, node)

    def _of_request(self, request: Event) -> Iterator[_Step]:
        yield from self._of_facts(audit.records(self._db, [request])[1:])
        for caused in self._events(
            "cause = ? AND cause <> '' AND kind = 'request'", request.request_id
        ):
            if _decode_body(caused.body).request.actor.kind == "user":
                yield self._node_of(caused, "caused"), caused, True
            else:
                self._reports += 1

    def _of_facts(self, facts: list[Event]) -> Iterator[_Step]:
        for fact in facts:
            if fact.tag.startswith("operation.") or not fact.resource_id:
                continue
            if self._project_id not in {None, fact.project_id}:
                continue
            verb = fact.tag.split(".")[2]
            if fact.tag == _GRANTED:
                grant = _decode_granted(fact.body).grant
                if grant.user_id:
                    granted = f"{grant.user_id}@{grant.project_id}"
                    yield (
                        self._resource(fact, "granted", kind="grant", identity=granted),
                        fact,
                        True,
                    )
                    continue
            made = verb in _MADE
            how = "made" if made else "removed" if verb in {"deleted", "revoked"} else "changed"
            yield self._resource(fact, how), fact, made

    def _resource(self, fact: Event, how: str, *, kind: str = "", identity: str = "") -> Node:
        return Node(
            kind=kind or fact.resource_kind,
            id=identity or fact.resource_id,
            how=how,
            ordinal=fact.ordinal,
            at=fact.at,
            what=fact.tag,
            project_id=fact.project_id,
            user_id=fact.user_id,
            gone=how == "removed" or self._is_gone(fact),
        )

    def _node_of(self, event: Event, how: str) -> Node:
        is_request = event.kind == "request"
        return Node(
            kind="request" if is_request else "event",
            id=event.request_id if is_request else str(event.ordinal),
            how=how,
            ordinal=event.ordinal,
            at=event.at,
            what=event.tag,
            project_id=event.project_id,
            user_id=event.user_id,
            outcome=event.outcome,
        )

    def _asked_by(
        self,
        user_id: str,
        *,
        after: int = 0,
        within: str = "",
        using: Callable[[_Actor], bool] | None = None,
    ) -> Iterator[_Step]:
        """Yield what a user asked for, with one credential or with any."""
        for event in self._events(
            "user_id = ? AND kind = 'request' AND ordinal > ?", user_id, after
        ):
            if within and event.project_id != within:
                continue
            if using is None or using(_decode_body(event.body).request.actor):
                yield self._node_of(event, "asked for"), event, event.outcome == "accepted"

    def _servers(self, how: str, where: str, *values: str) -> Iterator[_Step]:
        for view in self._rows(SERVERS, where, *values):
            assert isinstance(view, ServerView), "servers are stored as views"
            server = view.server
            yield self._row_node(
                "server", server.server_id, how, server, server.vm_state == DELETED
            )

    def _rows_of(
        self, table: Table[Any], kind: str, key: str, how: str, where: str, *values: str
    ) -> Iterator[_Step]:
        for row in self._rows(table, where, *values):
            yield self._row_node(kind, getattr(row, key), how, row, gone=False)

    def _row_node(self, kind: str, identity: str, how: str, row: Any, gone: bool) -> _Step:
        first = self._db.execute(
            "SELECT ordinal, at FROM timeline WHERE resource_id = ? AND kind = 'fact' "
            "AND resource_kind = ? ORDER BY ordinal LIMIT 1",
            (identity, kind),
        ).fetchone() or (0, row.created_at)
        node = Node(
            kind=kind,
            id=identity,
            how=how,
            ordinal=first[0],
            at=first[1],
            what=row.name,
            project_id=row.project_id,
            user_id=getattr(row, "user_id", ""),
            gone=gone,
        )
        return node, None, False

    def _rows(self, table: Table[Any], where: str, *values: str) -> Iterator[Any]:
        mine = "" if self._project_id is None else " AND project_id = ?"
        limits = [*values, *([self._project_id] if mine else []), NODES_MAX + 1]
        sql = f"SELECT body FROM {table.name} WHERE {where}{mine} ORDER BY created_at, id LIMIT ?"  # noqa: S608  # our own names
        for (body,) in self._db.execute(sql, limits):
            row = table.decode(body)
            if getattr(row, "server", row).created_at >= self._since:
                yield row

    def _event(self, text: str) -> Event | None:
        if not text.isdecimal() or len(text) > 18:
            return None
        return next(iter(self._events("ordinal = ?", int(text))), None)

    def _events(self, where: str, *values: Any) -> list[Event]:
        """Return events since the first that counts, of whom may be told."""
        mine = "" if self._project_id is None else " AND project_id = ?"
        limits = [*values, self._first, *([self._project_id] if mine else []), NODES_MAX + 1]
        return audit.select(
            self._db, f"{where} AND ordinal >= ?{mine} ORDER BY ordinal LIMIT ?", limits
        )

    def _is_gone(self, fact: Event) -> bool:
        newest = self._db.execute(
            "SELECT tag FROM timeline WHERE resource_id = ? AND kind = 'fact' "
            "AND resource_kind = ? ORDER BY ordinal DESC LIMIT 1",
            (fact.resource_id, fact.resource_kind),
        ).fetchone()
        return newest is not None and newest[0].split(".")[2] == "deleted"

    def _is_user(self, identity: str) -> bool:
        row = self._db.execute("SELECT 1 FROM users WHERE id = ?", (identity,)).fetchone()
        return row is not None

    # What is there because of a thing that was asked about, or made on the way.

    def of_image(self, node: Node) -> Iterator[_Step]:
        return self._servers("made from it", "image_id = ?", node.id)

    def of_keypair(self, node: Node) -> Iterator[_Step]:
        owner = node.user_id or self._root_user
        if owner:
            return self._servers("has the key", "key_name = ? AND user_id = ?", node.id, owner)
        return self._servers("has the key", "key_name = ?", node.id)

    def of_host(self, node: Node) -> Iterator[_Step]:
        return self._servers("placed on it", "host_id = ?", node.id)

    def of_network(self, node: Node) -> Iterator[_Step]:
        key = "network_id = ?"
        yield from self._rows_of(SUBNETS, "subnet", "subnet_id", "part of it", key, node.id)
        yield from self._rows_of(PORTS, "port", "port_id", "plugged into it", key, node.id)

    def of_project(self, node: Node) -> Iterator[_Step]:
        for event in self._events("project_id = ? AND kind = 'request' AND user_id <> ''", node.id):
            yield self._node_of(event, "asked for in it"), event, event.outcome == "accepted"

    def of_user(self, node: Node) -> Iterator[_Step]:
        return self._asked_by(node.id)

    def of_token(self, node: Node) -> Iterator[_Step]:
        return self._asked_by(self._root_user, using=lambda actor: actor.audit_id == node.id)

    def of_application_credential(self, node: Node) -> Iterator[_Step]:
        for owner in self._owners(node):
            yield from self._asked_by(
                owner, using=lambda actor: actor.application_credential_id == node.id
            )

    def of_trust(self, node: Node) -> Iterator[_Step]:
        for owner in self._owners(node):
            yield from self._asked_by(owner, using=lambda actor: actor.trust_id == node.id)

    def _owners(self, node: Node) -> list[str]:
        """Return who may act with a credential, as the fact that made it says: also of one gone."""
        made = self._db.execute(
            "SELECT body FROM timeline WHERE resource_id = ? AND resource_kind = ? "
            "AND kind = 'fact' ORDER BY ordinal LIMIT 1",
            (node.id, node.kind),
        ).fetchone()
        if made is None:
            return []
        said = msgspec.json.decode(made[0])[node.kind]
        return [str(said[name]) for name in ("user_id", "trustee_user_id") if said.get(name)]


type _Follow = Callable[[_Walk, Node], Iterator[_Step]]

_FOLLOW: dict[str, _Follow] = {
    "image": _Walk.of_image,
    "keypair": _Walk.of_keypair,
    "host": _Walk.of_host,
    "network": _Walk.of_network,
    "project": _Walk.of_project,
    "user": _Walk.of_user,
    "token": _Walk.of_token,
    "application_credential": _Walk.of_application_credential,
    "trust": _Walk.of_trust,
}
