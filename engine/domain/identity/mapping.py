"""What a provider says of somebody, understood by a mapping's rules. Pure, as Keystone's mappings.

Invariant: nobody is anybody by default. Without a rule that matches and names a user there is no
user; a claim that is missing makes a rule not match.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import re2
from msgspec import Struct

from engine.domain.identity.password import MEMORY_MAX
from schemas import identity as s
from schemas.errors import InvalidInput, Unauthorized

type Claims = Mapping[str, Sequence[str]]

# As web servers hand claims on, whose modules Keystone's mappings are written for.
_PREFIXES = ("HTTP_OIDC_", "HTTP_OIDC-", "OIDC_CLAIM_", "OIDC-")
_PLACE = re.compile(r"\{(\d{1,2})\}")


class Mapped(Struct, frozen=True, kw_only=True):
    """Who somebody is here. Groups are ids, or names with the domain that was meant."""

    name: str
    email: str = ""
    group_ids: tuple[str, ...] = ()
    group_names: tuple[tuple[str, s.DomainRef | None], ...] = ()
    projects: tuple[tuple[str, tuple[str, ...]], ...] = ()  # name, names of roles


def claim_name(kind: str) -> str:
    """Return which claim a remote ``type`` means: ``HTTP_OIDC_EMAIL`` and ``OIDC-email``, too."""
    for prefix in _PREFIXES:
        if kind.startswith(prefix):
            rest = kind.removeprefix(prefix)
            return rest.lower() if rest.isupper() else rest
    return kind


def wanted_claims(rules: Sequence[s.MappingRule]) -> frozenset[str]:
    """Return the claims that rules look at; no other is of interest."""
    return frozenset(claim_name(remote.type) for rule in rules for remote in rule.remote)


def need_sound(rules: Sequence[s.MappingRule]) -> None:
    """Let rules pass that can be used.

    Raises:
        InvalidInput: the message says which cannot, and why.
    """
    for number, rule in enumerate(rules, 1):
        direct = sum(
            remote.any_one_of is None and remote.not_any_of is None for remote in rule.remote
        )
        for text in _texts(rule):
            if any(int(place) >= direct for place in _PLACE.findall(text)):
                raise InvalidInput(
                    f"rule {number}: {text!r} refers to more than its {direct} remote value(s)"
                )
        for remote in rule.remote:
            if remote.any_one_of is not None and remote.not_any_of is not None:
                raise InvalidInput(f"rule {number}: any_one_of and not_any_of exclude each other")
            if remote.regex:
                for pattern in remote.any_one_of or remote.not_any_of or ():
                    _compiled(pattern)
        for local in rule.local:
            if local.group is not None and local.group.id is None and local.group.name is None:
                raise InvalidInput(f"rule {number}: a group is given by id, or by name and domain")
    if not any(local.user is not None for rule in rules for local in rule.local):
        raise InvalidInput("no rule names a user, so that nobody could sign in by it")


def _texts(rule: s.MappingRule) -> Iterator[str]:
    for local in rule.local:
        user, group = local.user, local.group
        yield from (text for text in (local.groups, local.group_ids) if text)
        if user is not None:
            yield from (text for text in (user.name, user.id, user.email) if text)
        if group is not None:
            yield from (text for text in (group.name, group.id) if text)
        for project in local.projects or ():
            yield project.name


def mapped(rules: Sequence[s.MappingRule], claims: Claims) -> Mapped:
    """Return who somebody is here: of the user the first that matches, of the rest all.

    Raises:
        Unauthorized: no rule that matches names a user.
    """
    name = email = ""
    group_ids: dict[str, None] = {}
    group_names: dict[tuple[str, s.DomainRef | None], None] = {}
    projects: list[tuple[str, tuple[str, ...]]] = []
    for rule in rules:
        values = _direct(rule, claims)
        if values is None:
            continue
        for local in rule.local:
            if local.user is not None and not name:
                wish = local.user
                name = _one(wish.name or wish.id or "", values)
                email = _one(wish.email or "", values)
            if local.group is not None:
                group = local.group
                if group.id is not None:
                    group_ids[_one(group.id, values)] = None
                else:
                    group_names[_one(group.name or "", values), group.domain] = None
            for ident in _many(local.group_ids, values):
                group_ids[ident] = None
            for one in _many(local.groups, values):
                group_names[one, local.domain] = None
            for project in local.projects or ():
                roles = tuple(role.name for role in project.roles)
                projects.append((_one(project.name, values), roles))
    if not name:
        raise Unauthorized("no rule of the mapping says who this is")
    return Mapped(
        name=name,
        email=email,
        group_ids=tuple(sorted(group_ids)),
        group_names=tuple(group_names),
        projects=tuple(projects),
    )


def _direct(rule: s.MappingRule, claims: Claims) -> list[Sequence[str]] | None:
    """Return what the places of a rule stand for; None if it does not match."""
    direct: list[Sequence[str]] = []
    for remote in rule.remote:
        values = claims.get(claim_name(remote.type), ())
        if not values:
            return None
        if remote.any_one_of is not None:
            if not _any_is(values, remote.any_one_of, regex=remote.regex):
                return None
        elif remote.not_any_of is not None:
            if _any_is(values, remote.not_any_of, regex=remote.regex):
                return None
        else:
            if remote.whitelist is not None:
                values = [value for value in values if value in remote.whitelist]
            if remote.blacklist is not None:
                values = [value for value in values if value not in remote.blacklist]
            direct.append(values)
    return direct


def _any_is(values: Sequence[str], wanted: Sequence[str], *, regex: bool) -> bool:
    if not regex:
        return not frozenset(values).isdisjoint(wanted)
    return any(_compiled(pattern).search(value) for pattern in wanted for value in values)


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = MEMORY_MAX
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = f"the expression {pattern!r} cannot be used (its syntax is RE2's)"
        raise InvalidInput(reason) from error


def _one(text: str, values: Sequence[Sequence[str]]) -> str:
    """Return a text with its places filled in.

    Raises:
        Unauthorized: one of them stands for several values, or none.
    """

    def value(place: re.Match[str]) -> str:
        found = values[int(place[1])]
        if len(found) != 1:
            raise Unauthorized("what the mapping takes for one value are several, or none")
        return found[0]

    return _PLACE.sub(value, text)


def _many(text: str | None, values: Sequence[Sequence[str]]) -> Sequence[str]:
    """Return what a text stands for: many, if it is one place and nothing else."""
    if text is None:
        return ()
    whole = _PLACE.fullmatch(text)
    return values[int(whole[1])] if whole else (_one(text, values),)
