"""Which calls an access rule names."""

import pytest

from api.access_rules import permitted
from schemas.identity import AccessRule

SERVERS = "/compute/v2.1/servers"


@pytest.mark.parametrize(
    ("rule", "path", "named"),
    [
        ("/v2.1/servers", SERVERS, True),
        ("/compute/v2.1/servers", SERVERS, True),
        ("/v2.1/servers", f"{SERVERS}/1", False),
        ("/v2.1/servers/*", f"{SERVERS}/1", True),
        ("/v2.1/servers/*", f"{SERVERS}/", False),  # no segment at all
        ("/v2.1/servers/*", f"{SERVERS}/1/ips", False),
        ("/v2.1/servers/{id}/ips", f"{SERVERS}/1/ips", True),
        ("/v2.1/servers/{}/ips", f"{SERVERS}/1/ips", False),
        ("/v2.1/**", SERVERS, True),
        ("/v2.1/**", f"{SERVERS}/1/ips", True),
        ("/**/ips", f"{SERVERS}/1/ips", True),
        ("/**", SERVERS, True),
        ("/v2.1/server*", SERVERS, False),  # a wildcard is a whole segment
        ("/v2.1/servers", "/compute/v2.1/serv%65rs", False),
        ("/" + "**/" * 200 + "x", "/compute" + "/a" * 2000, False),  # and is told so soon
    ],
)
def test_a_path_is_named_segment_by_segment(rule: str, path: str, named: bool):
    rules = [AccessRule(access_rule_id="r", service="compute", method="GET", path=rule)]

    assert permitted(rules, "compute", "GET", path, "/compute") is named


def test_service_and_method_are_named_too():
    rules = [AccessRule(access_rule_id="r", service="compute", method="GET", path="/v2.1/servers")]

    assert permitted(rules, "compute", "GET", SERVERS, "/compute")
    assert not permitted(rules, "compute", "POST", SERVERS, "/compute")
    assert not permitted(rules, "image", "GET", "/image/v2.1/servers", "/image")
    assert not permitted([], "compute", "GET", SERVERS, "/compute")
