"""What an edge refused is on record with the edge's own words."""

import pytest

from schemas.access import RefuseRequest
from schemas.envelope import Refused
from tests.engine.world import World

RULE = "CreateProject: admin in cloud"


@pytest.mark.parametrize("rule", ["", RULE])
def test_a_refusal_of_an_edge_is_refused_as_the_edge_has_said(rule):
    world = World()
    action = RefuseRequest(
        api="identity",
        method="POST",
        route="/v3/projects",
        action="CreateProject",
        code="Forbidden",
        status=403,
        reason="not you",
        rule=rule,
    )

    record = world.submit(world.admin, action)

    assert record.facts == ()
    assert record.verdict == Refused(
        code="Forbidden", status=403, reason="not you", rule=rule, fields={"rule": rule}
    )
