"""Every route says what it is: documents, validation and policy are made from that."""

import re

import pytest

from api.app import SURFACES
from api.routing import ANY_ACTION, PUBLIC, Route
from schemas.envelope import action_types
from schemas.policy import DEFAULT

ROUTES = [
    (surface.name, method, path, route)
    for surface in SURFACES
    for method, path, route in surface.routes.listing()
]
READ = re.compile(r"[a-z]+:[a-z_]+:[a-z_]+\Z")


@pytest.mark.parametrize(("service", "method", "path", "route"), ROUTES)
def test_a_route_names_what_the_policy_decides_about(service, method, path, route: Route):
    for action in route.actions:
        if action == ANY_ACTION:
            assert len(route.actions) == 1
        elif action == PUBLIC:
            assert route.actions[0] == PUBLIC
        elif ":" in action:
            assert READ.match(action), action
            assert service == "native" or action.startswith(f"{service}:")
        else:
            assert action in action_types(), action


@pytest.mark.parametrize(("service", "method", "path", "route"), ROUTES)
def test_what_a_route_names_has_a_rule(service, method, path, route: Route):
    for action in route.actions:
        assert action in {PUBLIC, ANY_ACTION} or action in DEFAULT, action


@pytest.mark.parametrize(("service", "method", "path", "route"), ROUTES)
def test_a_route_says_how_it_succeeds(service, method, path, route: Route):
    assert route.status
    assert all(200 <= status <= 302 or status == 501 for status in route.status)
    assert not (route.partly and 501 in route.status)
    if method in {"GET", "DELETE"}:
        assert route.body is None
    if method == "GET":
        assert all(":" in a or a == PUBLIC for a in route.actions)


def test_a_handler_reads_no_body_but_the_declared_one():
    """Every decoder that is declared is strict about names, but where the handler looks itself."""
    loose = {
        (service, method, path)
        for service, method, path, route in ROUTES
        if route.body is not None and not hasattr(route.body.type, "__struct_config__")
    }

    assert loose == {
        ("compute", "POST", "/v2.1/servers/{}/action"),
        ("image", "POST", "/v2/images"),
        ("native", "POST", "/v1/actions"),
    }
    for _, method, path, route in ROUTES:
        if route.body is not None and hasattr(route.body.type, "__struct_config__"):
            assert route.body.type.__struct_config__.forbid_unknown_fields, (method, path)
