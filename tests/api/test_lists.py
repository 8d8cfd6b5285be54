"""Pages: one table over the lists of all services."""

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

import pytest
from msgspec import Struct

from tests.api.conftest import Api, Cloud, fresh

NET = "/network/v2.0"
COMPUTE = "/compute/v2.1"


class Listed(Struct, frozen=True, kw_only=True):
    """A list: its path with a query that finds the things of this test, and how it pages."""

    path: str
    key: str
    ident: str = "id"
    links: str = ""  # where the link to the next page is; "": a path without the prefix
    unknown_marker: int = 400


LISTS = [
    Listed(path=f"{COMPUTE}/servers?name={{tag}}", key="servers", links="servers_links"),
    Listed(path=f"{COMPUTE}/servers/detail?name={{tag}}", key="servers", links="servers_links"),
    Listed(path=f"{COMPUTE}/flavors?minRam=77", key="flavors", links="flavors_links"),
    Listed(path=f"{COMPUTE}/flavors/detail?minRam=77", key="flavors", links="flavors_links"),
    Listed(path="/image/v2/images?tag={tag}", key="images"),
    Listed(path="/image/v2/images?owner={project}", key="images"),
    *(
        Listed(path=NET + path, key=key, links=f"{key}_links", unknown_marker=404)
        for path, key in (
            ("/networks?description={tag}", "networks"),
            ("/networks?project_id={project}", "networks"),
            ("/subnets?description={tag}", "subnets"),
            ("/subnets?project_id={project}&fields=id", "subnets"),
            ("/ports?description={tag}", "ports"),
            ("/ports?project_id={project}", "ports"),
            ("/security-groups?project_id={project}", "security_groups"),
            ("/security-group-rules?project_id={project}", "security_group_rules"),
        )
    ),
]
NETWORK_LISTS = [one for one in LISTS if one.path.startswith(NET)]


@pytest.fixture(scope="module")
def world(cloud: Cloud) -> Iterator[dict[str, str]]:
    """Three of each thing, in a project of their own."""
    api, tag = cloud.stranger(), fresh("paged")
    token = api("GET", "/identity/v3/auth/tokens", headers={"X-Subject-Token": api.token}).body
    networks = [
        api.made(f"{NET}/networks", {"network": {"name": f"{tag}-{at}", "description": tag}})
        for at in range(3)
    ]
    for at, network in enumerate(networks):
        subnet = {"network_id": network["id"], "cidr": f"10.99.{at}.0/24", "description": tag}
        api.made(f"{NET}/subnets", {"subnet": subnet})
        api.made(f"{NET}/ports", {"port": {"network_id": network["id"], "description": tag}})
        image = {"name": f"{tag}-{at}", "disk_format": "raw", "tags": [tag]}
        assert api("POST", "/image/v2/images", image).status == 201
        size = {"name": f"{tag}-{at}", "ram": 2**20 + at, "vcpus": 1, "disk": 1}
        cloud.admin.made(f"{COMPUTE}/flavors", {"flavor": size})
        cloud.server(api, network["id"], name=f"{tag}-{at}")
    yield {"tag": tag, "project": token["token"]["project"]["id"], "token": api.token}
    for flavor in cloud.admin("GET", f"{COMPUTE}/flavors?minRam=77777").body["flavors"]:
        assert cloud.admin("DELETE", f"{COMPUTE}/flavors/{flavor['id']}").status == 202


@pytest.fixture(scope="module")
def api(cloud: Cloud, world: dict[str, str]) -> Api:
    return Api(cloud.url, world["token"])


def page(api: Api, listed: Listed, href: str) -> tuple[list[str], str]:
    """Return the ids of a page and where the next one is, "" if there is none."""
    reply = api("GET", href.removeprefix(api.url))
    assert reply.status == 200, reply
    ids = [one[listed.ident] for one in reply.body[listed.key]]
    if not listed.links:
        following = reply.body.get("next", "")
        assert not following or following.startswith("/v2/images?")
        return ids, f"{api.url}/image{following}" if following else ""
    links = {link["rel"]: link["href"] for link in reply.body.get(listed.links, [])}
    assert listed.links not in reply.body or links, "an empty list of links is left out"
    assert not links or links.keys() <= {"next", "previous"}
    return ids, links.get("next", "")


def walked(api: Api, listed: Listed, href: str, limit: int) -> list[list[str]]:
    """Return all pages; each link is the first address with another marker."""
    asked = sorted(parse_qsl(urlsplit(href).query))
    pages: list[list[str]] = []
    while href:
        ids, following = page(api, listed, href)
        assert bool(following) == (len(ids) == limit), "a full page has a link, and no other"
        if following:
            assert following.startswith(api.url)
            assert urlsplit(following).path == urlsplit(api.url + href.removeprefix(api.url)).path
            pairs = parse_qsl(urlsplit(following).query)
            assert sorted(p for p in pairs if p[0] != "marker") == asked
            assert dict(pairs)["marker"] == ids[-1]
        pages.append(ids)
        href = following
    return pages


@pytest.mark.parametrize("listed", LISTS, ids=lambda one: one.path)
def test_pages_add_up_to_the_list(api: Api, world: dict, listed: Listed):
    path = listed.path.format(**world)
    whole, _ = page(api, listed, path)
    assert len(whole) >= (1 if listed.key == "security_groups" else 3)
    assert len(set(whole)) == len(whole)

    for limit in (1, 2, len(whole), len(whole) + 1):
        pages = walked(api, listed, f"{path}&limit={limit}", limit)
        assert [ident for one in pages for ident in one] == whole
        assert len(pages) == len(whole) // limit + 1


@pytest.mark.parametrize("listed", LISTS, ids=lambda one: one.path)
def test_the_edges_of_limit_and_marker(api: Api, world: dict, listed: Listed):
    path = listed.path.format(**world)

    nothing = api("GET", f"{path}&limit=0")
    assert (nothing.status, nothing.body[listed.key]) == (200, [])
    assert listed.links not in nothing.body
    for bad in ("-1", "many", "1.5", "1e3", "+1", "%20", "0x10", "%D9%A3"):
        assert api("GET", f"{path}&limit={bad}").status == 400, bad
    whole = api("GET", path).body[listed.key]
    assert api("GET", f"{path}&limit=100000000").body[listed.key] == whole
    for unknown in ("nothing", "00000000-0000-0000-0000-000000000000", "%27", "-1", "9" * 400):
        reply = api("GET", f"{path}&marker={unknown}")
        assert reply.status == listed.unknown_marker, unknown
        paged = api("GET", f"{path}&marker={unknown}&limit=2")
        assert paged.status == listed.unknown_marker, unknown


@pytest.mark.parametrize("listed", LISTS, ids=lambda one: one.path)
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_pages_keep_the_order_asked_for(api: Api, world: dict, listed: Listed, direction: str):
    base = f"{listed.path.format(**world)}&sort_key=created_at&sort_key=id&sort_dir="
    path = base + direction

    whole, _ = page(api, listed, path)
    pages = walked(api, listed, f"{path}&limit=2", 2)

    assert [ident for one in pages for ident in one] == whole
    other, _ = page(api, listed, base + {"asc": "desc", "desc": "asc"}[direction])
    assert other == whole[::-1]
    assert api("GET", f"{path}&sort_key=nonsense").status == 400
    assert api("GET", f"{base}sideways").status == 400


@pytest.mark.parametrize("listed", NETWORK_LISTS, ids=lambda one: one.path)
def test_network_lists_can_be_walked_backwards(api: Api, world: dict, listed: Listed):
    path = listed.path.format(**world)
    whole, _ = page(api, listed, path)
    assert listed.links not in api("GET", path).body, "links come to those who ask for pages"

    href, pages = f"{path}&limit=2&page_reverse=True", []
    while href:
        body = api("GET", href.removeprefix(api.url)).body
        ids = [one["id"] for one in body[listed.key]]
        links = {link["rel"]: link["href"] for link in body.get(listed.links, [])}
        assert ("previous" in links) == (len(ids) == 2)
        if pages and ids:  # The page after this one is the one we came from.
            following, _ = page(api, listed, links["next"])
            assert following == pages[-1]
        pages.append(ids)
        href = links.get("previous", "")

    assert [ident for one in reversed(pages) for ident in one] == whole


def test_a_second_page_of_a_network_list_links_back(api: Api, world: dict):
    path = f"{NET}/networks?description={world['tag']}&limit=1"
    first = api("GET", path).body
    second = api("GET", f"{path}&marker={first['networks'][0]['id']}").body
    links = {link["rel"]: link["href"] for link in second["networks_links"]}

    assert [link["rel"] for link in first["networks_links"]] == ["next"]
    back = api("GET", links["previous"].removeprefix(api.url)).body
    assert back["networks"] == first["networks"]


IDENTITY_LISTS = ["projects", "users", "domains", "roles", "services", "endpoints", "regions",
                  "role_assignments"]  # fmt: skip


@pytest.mark.parametrize("name", IDENTITY_LISTS)
def test_identity_lists_come_whole(cloud: Cloud, name: str):
    """A limit may be ignored there; what a list says of its pages is that there is one."""
    path = f"/identity/v3/{name}"
    whole = cloud.admin("GET", path).body

    for query in ("limit=1", "limit=0", "marker=nothing", "limit=1&marker=nothing"):
        assert cloud.admin("GET", f"{path}?{query}").body[name] == whole[name]
    assert whole["links"] == {"self": cloud.url + path, "previous": None, "next": None}


def test_keypairs_come_whole_before_2_35(cloud: Cloud):
    stranger = cloud.stranger()
    names = sorted(fresh("pair") for _ in range(2))
    for name in names:
        stranger.made(f"{COMPUTE}/os-keypairs", {"keypair": {"name": name}})

    body = stranger("GET", f"{COMPUTE}/os-keypairs?limit=1").body

    assert body.keys() == {"keypairs"}
    assert [k["keypair"]["name"] for k in body["keypairs"]] == names


def test_operations_come_in_pages(api: Api):
    whole = [
        o["operation"]["operation_id"] for o in api("GET", "/v1/operations").body["operations"]
    ]
    pages, marker = [], ""
    while True:
        body = api("GET", f"/v1/operations?limit=2{marker}").body
        pages += [o["operation"]["operation_id"] for o in body["operations"]]
        if "next_marker" not in body:
            break
        marker = f"&marker={body['next_marker']}"

    assert len(whole) >= 3
    assert pages == whole
    assert api("GET", "/v1/operations?marker=nothing").status == 400


def test_audit_comes_in_pages(api: Api):
    whole = [r["ordinal"] for r in api("GET", "/v1/audit").body["requests"]]
    pages, before = [], ""
    while True:
        body = api("GET", f"/v1/audit?limit=4{before}").body
        pages += [r["ordinal"] for r in body["requests"]]
        if "next_before" not in body:
            break
        before = f"&before={body['next_before']}"

    assert len(whole) > 4
    assert pages == whole == sorted(whole, reverse=True)
