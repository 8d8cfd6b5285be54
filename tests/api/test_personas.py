"""Every route, asked by everybody, for what is theirs and what is not; and with bad tokens.

What is expected is in ``personas.toml``.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from api.app import SURFACES
from api.microversions import HIGHEST
from tests.api.conftest import Cloud
from tests.api.personas import PERSONAS, TOKENS, People, Person, bad_tokens, body_shape, table

MEANT = {"3": 403, "4": 404, "r": 400, "e": 200}
SEEING = {"admin", "s-reader", "s-member", "s-admin"}  # need not be kept from knowing what there is
PATCH = "application/openstack-images-v2.1-json-patch"
OCTETS = "application/octet-stream"


class Case(Struct, frozen=True):
    """A route and what is expected of it."""

    family: str
    method: str
    path: str
    yes: int | None  # None: not asked for what there is
    body: str
    rows: dict[str, str]

    @property
    def kind(self) -> str:
        if self.method == "PATCH" and self.path.startswith("/image/"):
            return PATCH
        return OCTETS if self.path.endswith("/file") else ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def read() -> list[Case]:
    cases = []
    for family, said in table(Path(__file__).with_name("personas.toml")).items():
        rows = {side: row.replace(" ", "") for side, row in said.items() if side != "routes"}
        assert all(len(row) == len(PERSONAS) for row in rows.values()), family
        for line in said["routes"].strip().splitlines():
            method, path, status, *body = line.split(" ", 3)
            yes = None if status == "-" else int(status)
            cases.append(Case(family, method, path, yes, body[0] if body else "", rows))
    return cases


CASES = read()


def test_every_route_has_its_expectations():
    for surface in SURFACES:
        within = [case for case in CASES if case.path.startswith(f"{surface.prefix}/v")]
        cut = len(surface.prefix)
        found = [surface.routes.find(case.path.partition("?")[0][cut:]) for case in within]
        known = {
            id(methods[0][case.method])
            for case, methods in zip(within, found, strict=True)
            if methods is not None
        }
        forgotten = [
            f"{method} {surface.prefix}{path}"
            for method, path, route in surface.routes.listing()
            if not route.public and route.last == HIGHEST and id(route) not in known
        ]
        assert forgotten == []


@pytest.fixture(scope="module")
def people(cloud: Cloud) -> Iterator[People]:
    everybody = People(cloud)
    yield everybody
    everybody.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_everybody_gets_what_is_theirs_to_get(people: People, case: Case):
    def asked(name: str) -> list[str]:
        return list(wrong(people, case, name))

    told = [line for lines in people.each(asked).values() for line in lines]

    assert not told, "\n".join(told)


def wrong(people: People, case: Case, name: str) -> Iterator[str]:
    """Yield what somebody is told and should not be."""
    at, person = PERSONAS.index(name), people.everyone[name]

    def ask(things: dict[str, str]):
        path = people.filled(case.path, things, name)
        body = people.filled(case.body, things, name)
        return person.ask(case.method, path, body, kind=case.kind)

    for side, row in case.rows.items():
        if side == "none":
            continue
        expected = MEANT.get(row[at], case.yes)
        things = people.sides["theirs" if side == "theirs" else "ours"].things
        told = None
        if expected is not None:
            told = ask(things)
            if told.status != expected:
                yield f"{name}, {side}: {told.status}, not {expected}: {told!r:.200}"
        if side == "any":
            continue
        none = case.rows.get("none", row)[at]
        absent = ask(people.nothing)
        if absent.status != MEANT.get(none, 404):
            yield f"{name}, nothing: {absent.status}, not as {none}: {absent!r:.200}"
        elif told is not None and row[at] != "y" and row[at] == none and name not in SEEING:
            one, other = body_shape(told, things), body_shape(absent, people.nothing)
            if one != other:
                yield f"{name}, {side}: told apart from nothing: {one} {other}"


@pytest.mark.parametrize(
    "why", ["none", "expired", "revoked", "forged", "foreign_key", "stranger_to_us"]
)
def test_no_route_takes_a_token_that_does_not_count(cloud: Cloud, people: People, why: str):
    bad = bad_tokens(cloud, people.everyone["admin"].token)
    bad |= {"none": "", "revoked": revoked(cloud)}
    someone = Person(cloud.url, bad[why])
    let_in = []
    for case in CASES:
        path = people.filled(case.path, people.sides["ours"].things, "admin")
        reply = someone.ask(case.method, path, kind=case.kind)
        if reply.status != 401 or "www-authenticate" not in reply.headers:
            let_in.append(f"{case}: {reply!r:.200}")
    someone.close()

    assert not let_in, "\n".join(let_in)


def revoked(cloud: Cloud) -> str:
    api = cloud.stranger()
    assert api("DELETE", TOKENS, headers={"X-Subject-Token": api.token}).status == 204
    return api.token
