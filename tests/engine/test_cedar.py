"""Cedar, a policy engine with a proven core, decides as the table does."""

from typing import Any

import pytest
from cedarpy import AuthzResult, Decision, is_authorized_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cedar import cedar
from engine.policy import Policy
from schemas.identity import RANKED
from schemas.policy import DEFAULT

# Entries that the default table does not have, each of another form.
ODD: dict[str, tuple[str, ...]] = {
    "Odd": ("reader in domain over self", "night-shift in project over any"),
    "Closed": (),
    "Self": ("admin in cloud over self", "member in domain over any"),
}
TABLES = {"default": DEFAULT, "odd": ODD}
IDS = st.sampled_from(["", "a", "b"])
ROLES = st.sets(st.sampled_from([*RANKED, "service", "night-shift"])).map(frozenset)
SCOPES = st.sampled_from(["", "project", "domain", "system", "engine", "agent", "edge"])


def asked(table: dict[str, tuple[str, ...]]) -> st.SearchStrategy[tuple]:
    """Return requests: action, scope, roles, then user, project and domain of each side."""
    owner = st.tuples(IDS, IDS, IDS)
    return st.tuples(st.sampled_from(sorted(table)), SCOPES, ROLES, owner, owner)


def reached(policy: Policy, request: tuple) -> bool:
    """Return what the table says, as decisions and handlers read it."""
    action, scope, roles, principal, resource = request
    reach = policy.reach(action, scope, roles)
    if reach is None:
        return False
    user, project, domain = (p == r for p, r in zip(principal, resource, strict=True))
    return (
        reach.any
        or (reach.user and user)
        or (reach.project and project)
        or (reach.domain and domain)
    )


def decided(text: str, requests: list[tuple]) -> list[bool]:
    """Return what Cedar says."""
    entities: list[dict[str, Any]] = []
    questions = []
    for at, (action, scope, roles, principal, resource) in enumerate(requests):
        owners = zip(("user", "project", "domain"), principal, resource, strict=True)
        mine, its = {}, {}
        for name, one, other in owners:
            mine[name], its[name] = one, other
        who = mine | {"scope": scope, "roles": sorted(roles)}
        for kind, attributes in (("User", who), ("Thing", its)):
            uid = {"type": kind, "id": str(at)}
            entities.append({"uid": uid, "attrs": attributes, "parents": []})
        questions.append(
            {
                "principal": f'User::"{at}"',
                "action": f'Action::"{action}"',
                "resource": f'Thing::"{at}"',
                "context": {},
            }
        )
    results: list[AuthzResult] = is_authorized_batch(questions, text, entities)
    assert not any(result.diagnostics.errors for result in results)
    return [result.decision is Decision.Allow for result in results]


@pytest.mark.parametrize("name", TABLES)
def test_cedar_decides_alike(name: str):
    table = TABLES[name]
    policy, text = Policy(table), cedar(table)
    seen: set[bool] = set()

    @settings(deadline=None, max_examples=30)
    @given(requests=st.lists(asked(table), min_size=20, max_size=60))
    def alike(requests: list[tuple]) -> None:
        expected = [reached(policy, request) for request in requests]
        assert decided(text, requests) == expected
        seen.update(expected)

    alike()

    assert seen == {True, False}


def test_another_table_is_told_apart():
    """The comparison can fail: with one entry more, Cedar permits what the table refuses."""
    request = ("Odd", "project", frozenset({"member"}), ("a", "a", ""), ("b", "a", ""))
    wider = ODD | {"Odd": (*ODD["Odd"], "member in project")}

    assert not reached(Policy(ODD), request)
    assert decided(cedar(ODD), [request]) == [False]
    assert decided(cedar(wider), [request]) == [True]
