"""A change that is asked for again under one key is made once, on every route there is."""

import http.client
import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from api.app import SURFACES
from api.routing import ANY_ACTION, Route
from tests.api.conftest import Api, Cloud, Reply, fresh

MUTATING = [
    (surface.prefix, method, path, route)
    for surface in SURFACES
    for method, path, route in surface.routes.listing()
    # What signs somebody in has no asker yet that a key could belong to.
    if route.mutates and not route.public and route.status != (501,)
]
NETWORK = "/network/v2.0"
COMPUTE = "/compute/v2.1"
IDENTITY = "/identity/v3"
IMAGE = "/image/v2"

_numbers = itertools.count(10)


def named(method: str, prefix: str, path: str) -> str:
    return f"{method} {prefix}{path}"


def ask(api: Api, method: str, path: str, body: object = None, **headers: str) -> Reply:
    return api(method, path, body, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize(("prefix", "method", "path", "route"), MUTATING)
def test_a_key_that_is_none_is_refused_clearly_everywhere(
    admin: Api, prefix: str, method: str, path: str, route: Route
):
    where = prefix + path.replace("{}", "nothing")
    for key in ("", "k" * 256, "schlüssel", "a\tb"):
        reply = admin(method, where, {}, headers={"Idempotency-Key": key})

        assert reply.status == 400, (key, reply)
        assert b"n Idempotency-Key is sent once and has 1 to 255" in reply.raw


def test_a_key_that_is_sent_twice_is_refused(admin: Api):
    connection = http.client.HTTPConnection(urlsplit(admin.url).netloc, timeout=60)
    connection.putrequest("POST", f"{NETWORK}/networks")
    for name, value in (
        ("X-Auth-Token", admin.token),
        ("Content-Length", "2"),
        ("Idempotency-Key", "a"),
        ("Idempotency-Key", "a"),
    ):
        connection.putheader(name, value)
    connection.endheaders(b"{}")
    assert connection.getresponse().status == 400
    connection.close()


# What makes each change possible, and asks for it: path and body, and another body or path.
type Wish = tuple[str, object]
type Example = Callable[[Cloud], Wish]


def _project(cloud: Cloud) -> str:
    return cloud.admin.made(f"{IDENTITY}/projects", {"project": {"name": fresh("p")}})["id"]


def _user(cloud: Cloud) -> str:
    user = {"user": {"name": fresh("u"), "password": "pw"}}
    return cloud.admin.made(f"{IDENTITY}/users", user)["id"]


def _role(cloud: Cloud) -> str:
    return cloud.admin("GET", f"{IDENTITY}/roles?name=member").body["roles"][0]["id"]


def _grant(cloud: Cloud) -> str:
    return f"{IDENTITY}/projects/{_project(cloud)}/users/{_user(cloud)}/roles/{_role(cloud)}"


def _granted(cloud: Cloud) -> str:
    path = _grant(cloud)
    assert cloud.admin("PUT", path).status == 204
    return path


def _flavor() -> dict:
    return {"flavor": {"name": fresh("f"), "ram": 64, "vcpus": 1, "disk": 1}}


def _image(cloud: Cloud) -> str:
    wish = {"name": fresh("i"), "disk_format": "raw", "container_format": "bare"}
    reply = cloud.admin("POST", f"{IMAGE}/images", wish)
    assert reply.status == 201, reply
    return reply.body["id"]


def _tagged(cloud: Cloud) -> str:
    path = f"{IMAGE}/images/{_image(cloud)}/tags/x"
    assert cloud.admin("PUT", path).status == 204
    return path


def _net(cloud: Cloud) -> str:
    return cloud.network(cloud.admin, f"10.{next(_numbers)}.0.0/24")["id"]


def _bare(cloud: Cloud) -> str:
    wish = {"network": {"name": fresh("n")}}
    return cloud.admin.made(f"{NETWORK}/networks", wish)["id"]


def _subnet(network: str) -> dict:
    cidr = f"10.{next(_numbers)}.0.0/24"
    return {"subnet": {"network_id": network, "cidr": cidr, "ip_version": 4}}


def _port(cloud: Cloud) -> str:
    return cloud.admin.made(f"{NETWORK}/ports", {"port": {"network_id": _net(cloud)}})["id"]


def _keypair(cloud: Cloud) -> str:
    return cloud.admin.made(f"{COMPUTE}/os-keypairs", {"keypair": {"name": fresh("k")}})["name"]


def _new_server(cloud: Cloud) -> dict:
    return {
        "server": {
            "name": fresh("s"),
            "imageRef": cloud.image_id(),
            "flavorRef": "42",
            "networks": [{"uuid": _net(cloud)}],
        }
    }


def _server(cloud: Cloud) -> str:
    made = cloud.admin.made(f"{COMPUTE}/servers", _new_server(cloud))
    return cloud.settled(cloud.admin, made["id"])["id"]


def made(cloud: Cloud, path: str, key: str, **wish: object) -> str:
    """Make something of identity, and return its id."""
    return cloud.admin.made(f"{IDENTITY}/{path}", {key: {"name": fresh(key), **wish}})["id"]


def _domain(cloud: Cloud) -> str:
    return made(cloud, "domains", "domain", enabled=False)


def _group(cloud: Cloud) -> str:
    return made(cloud, "groups", "group", domain_id="default")


def _member(cloud: Cloud, *, joined: bool) -> str:
    path = f"{IDENTITY}/groups/{_group(cloud)}/users/{_user(cloud)}"
    assert not joined or cloud.admin("PUT", path).status == 204
    return path


def _service(cloud: Cloud) -> str:
    return made(cloud, "services", "service", type="metering")


def _endpoint(cloud: Cloud) -> dict:
    return {"service_id": _service(cloud), "interface": "public", "url": "http://a.example"}


def _region(cloud: Cloud) -> str:
    body = {"region": {"id": fresh("region")}}
    return cloud.admin.made(f"{IDENTITY}/regions", body)["id"]


def _new_role(cloud: Cloud) -> str:
    return made(cloud, "roles", "role")


def _implication(cloud: Cloud, *, there: bool) -> str:
    path = f"{IDENTITY}/roles/{_new_role(cloud)}/implies/{_new_role(cloud)}"
    assert not there or cloud.admin("PUT", path).status == 201
    return path


def _tag(cloud: Cloud, *, there: bool) -> str:
    path = f"{IDENTITY}/projects/{_project(cloud)}/tags/x"
    assert not there or cloud.admin("PUT", path).status == 201
    return path


def _credential(cloud: Cloud) -> str:
    wish = {"credential": _cert(cloud)}
    return cloud.admin.made(f"{IDENTITY}/credentials", wish)["id"]


def _cert(cloud: Cloud) -> dict:
    return {"type": "cert", "blob": "text", "user_id": admin_id(cloud)}


def _app_credential(cloud: Cloud) -> dict:
    path = f"{IDENTITY}/users/{admin_id(cloud)}/application_credentials"
    rule = {"service": "compute", "method": "GET", "path": f"/v2.1/{fresh('x')}"}
    wish = {"application_credential": {"name": fresh("c"), "access_rules": [rule]}}
    return cloud.admin.made(path, wish)


def _unused_rule(cloud: Cloud) -> str:
    made = _app_credential(cloud)
    path = f"{IDENTITY}/users/{admin_id(cloud)}/application_credentials/{made['id']}"
    assert cloud.admin("DELETE", path).status == 204
    return f"{IDENTITY}/users/{admin_id(cloud)}/access_rules/{made['access_rules'][0]['id']}"


def _admin_project(cloud: Cloud) -> str:
    token = {"X-Subject-Token": cloud.admin.token}
    shown = cloud.admin("GET", f"{IDENTITY}/auth/tokens", headers=token)
    return shown.body["token"]["project"]["id"]


def _ec2(cloud: Cloud) -> str:
    path = f"{IDENTITY}/users/{admin_id(cloud)}/credentials/OS-EC2"
    reply = cloud.admin("POST", path, {"tenant_id": _admin_project(cloud)})
    assert reply.status == 201, reply
    return f"{path}/{reply.body['credential']['access']}"


def _new_trust(cloud: Cloud) -> dict:
    return {
        "trust": {
            "trustor_user_id": admin_id(cloud),
            "trustee_user_id": _user(cloud),
            "project_id": _admin_project(cloud),
            "impersonation": False,
            "roles": [{"name": "member"}],
        }
    }


def _trust(cloud: Cloud) -> str:
    return cloud.admin.made(f"{IDENTITY}/OS-TRUST/trusts", _new_trust(cloud))["id"]


FEDERATION = f"{IDENTITY}/OS-FEDERATION"
PROVIDER = {"identity_provider": {"enabled": True}}
OTHER_PROVIDER = {"identity_provider": {"description": "changed"}}


def _mapping() -> dict:
    remote = [{"type": "name"}]
    return {"mapping": {"rules": [{"local": [{"user": {"name": "{0}"}}], "remote": remote}]}}


def _put(cloud: Cloud, path: str, body: dict) -> str:
    reply = cloud.admin("PUT", path, body)
    assert reply.status == 201, reply
    return path


def _provider(cloud: Cloud) -> str:
    return _put(cloud, f"{FEDERATION}/identity_providers/{fresh('idp')}", PROVIDER)


def _mapped(cloud: Cloud) -> str:
    return _put(cloud, f"{FEDERATION}/mappings/{fresh('m')}", _mapping())


def _protocol(cloud: Cloud) -> dict:
    return {"protocol": {"mapping_id": _mapped(cloud).rpartition("/")[2]}}


def _spoken(cloud: Cloud) -> str:
    return _put(cloud, f"{_provider(cloud)}/protocols/openid", _protocol(cloud))


def _webhook(cloud: Cloud) -> str:
    reply = cloud.admin("POST", "/v1/webhooks", _new_webhook())
    assert reply.status == 201, reply
    return f"/v1/webhooks/{reply.body['webhook']['id']}"


def _new_webhook() -> dict:
    return {"name": fresh("w"), "url": "https://1.1.1.1/hook", "enabled": False}


# Whose role, on what: paths of grants beside those of users on projects.
HOLDERS = {"users": _user, "groups": _group}
TARGETS = {
    "projects/{}": lambda c: f"projects/{_project(c)}",
    "domains/{}": lambda c: f"domains/{_domain(c)}",
    "system": lambda _: "system",
}


def grants() -> Iterator[tuple[str, Example]]:
    """Yield an example of each way to give and to take a role."""
    inherited = "/inherited_to_projects"
    for target, holder, (before, after), method in itertools.product(
        TARGETS, HOLDERS, (("", ""), ("OS-INHERIT/", inherited)), ("PUT", "DELETE")
    ):
        if (target == "system" and before) or (target, holder, before) == (
            "projects/{}", "users", "",
        ):  # fmt: skip
            continue

        def wish(
            cloud: Cloud, target=target, holder=holder, before=before, after=after, method=method
        ) -> Wish:
            held = f"{HOLDERS[holder](cloud)}/roles/{_role(cloud)}"
            path = f"{IDENTITY}/{before}{TARGETS[target](cloud)}/{holder}/{held}{after}"
            assert method == "PUT" or cloud.admin("PUT", path).status == 204
            return path, None

        yield f"{method} /identity/v3/{before}{target}/{holder}/{{}}/roles/{{}}{after}", wish


EXAMPLES: dict[str, Example] = {
    "POST /identity/v3/projects": lambda _: (
        f"{IDENTITY}/projects", {"project": {"name": fresh("p")}}),
    "PATCH /identity/v3/projects/{}": lambda c: (
        f"{IDENTITY}/projects/{_project(c)}", {"project": {"description": "changed"}}),
    "DELETE /identity/v3/projects/{}": lambda c: (f"{IDENTITY}/projects/{_project(c)}", None),
    "POST /identity/v3/users": lambda _: (
        f"{IDENTITY}/users", {"user": {"name": fresh("u"), "password": "pw"}}),
    "PATCH /identity/v3/users/{}": lambda c: (
        f"{IDENTITY}/users/{_user(c)}", {"user": {"email": "a@b.example"}}),
    "DELETE /identity/v3/users/{}": lambda c: (f"{IDENTITY}/users/{_user(c)}", None),
    "PUT /identity/v3/projects/{}/users/{}/roles/{}": lambda c: (_grant(c), None),
    "DELETE /identity/v3/projects/{}/users/{}/roles/{}": lambda c: (_granted(c), None),
    "POST /compute/v2.1/servers": lambda c: (f"{COMPUTE}/servers", _new_server(c)),
    "PUT /compute/v2.1/servers/{}": lambda c: (
        f"{COMPUTE}/servers/{_server(c)}", {"server": {"name": fresh("s")}}),
    "DELETE /compute/v2.1/servers/{}": lambda c: (f"{COMPUTE}/servers/{_server(c)}", None),
    "POST /compute/v2.1/servers/{}/action": lambda c: (
        f"{COMPUTE}/servers/{_server(c)}/action", {"os-stop": None}),
    "POST /compute/v2.1/flavors": lambda _: (f"{COMPUTE}/flavors", _flavor()),
    "DELETE /compute/v2.1/flavors/{}": lambda c: (
        f"{COMPUTE}/flavors/{c.admin.made(f'{COMPUTE}/flavors', _flavor())['id']}", None),
    "POST /compute/v2.1/os-keypairs": lambda _: (
        f"{COMPUTE}/os-keypairs", {"keypair": {"name": fresh("k")}}),
    "DELETE /compute/v2.1/os-keypairs/{}": lambda c: (
        f"{COMPUTE}/os-keypairs/{_keypair(c)}", None),
    "POST /image/v2/images": lambda _: (
        f"{IMAGE}/images",
        {"name": fresh("i"), "disk_format": "raw", "container_format": "bare"}),
    "DELETE /image/v2/images/{}": lambda c: (f"{IMAGE}/images/{_image(c)}", None),
    "PUT /image/v2/images/{}/tags/{}": lambda c: (f"{IMAGE}/images/{_image(c)}/tags/x", None),
    "DELETE /image/v2/images/{}/tags/{}": lambda c: (_tagged(c), None),
    "POST /network/v2.0/networks": lambda _: (
        f"{NETWORK}/networks", {"network": {"name": fresh("n")}}),
    "DELETE /network/v2.0/networks/{}": lambda c: (f"{NETWORK}/networks/{_bare(c)}", None),
    "POST /network/v2.0/subnets": lambda c: (f"{NETWORK}/subnets", _subnet(_bare(c))),
    "DELETE /network/v2.0/subnets/{}": lambda c: (
        f"{NETWORK}/subnets/{c.admin.made(f'{NETWORK}/subnets', _subnet(_bare(c)))['id']}", None),
    "POST /network/v2.0/ports": lambda c: (
        f"{NETWORK}/ports", {"port": {"network_id": _net(c)}}),
    "DELETE /network/v2.0/ports/{}": lambda c: (f"{NETWORK}/ports/{_port(c)}", None),
    "POST /v1/actions": lambda _: ("/v1/actions", {"type": "CreateNetwork", "name": fresh("n")}),
    "PUT /compute/v2.1/os-quota-sets/{}": lambda c: (
        f"{COMPUTE}/os-quota-sets/{_project(c)}", {"quota_set": {"instances": 7}}),
    "DELETE /compute/v2.1/os-quota-sets/{}": lambda c: (
        f"{COMPUTE}/os-quota-sets/{_project(c)}", None),
    "PUT /compute/v2.1/os-quota-class-sets/{}": lambda _: (
        f"{COMPUTE}/os-quota-class-sets/default", {"quota_class_set": {"key_pairs": -1}}),
    "PUT /network/v2.0/quotas/{}": lambda c: (
        f"{NETWORK}/quotas/{_project(c)}", {"quota": {"port": 7}}),
    "DELETE /network/v2.0/quotas/{}": lambda c: (f"{NETWORK}/quotas/{_project(c)}", None),
    "POST /identity/v3/domains": lambda _: (
        f"{IDENTITY}/domains", {"domain": {"name": fresh("d")}}),
    "PATCH /identity/v3/domains/{}": lambda c: (
        f"{IDENTITY}/domains/{_domain(c)}", {"domain": {"description": "changed"}}),
    "DELETE /identity/v3/domains/{}": lambda c: (f"{IDENTITY}/domains/{_domain(c)}", None),
    "POST /identity/v3/groups": lambda _: (
        f"{IDENTITY}/groups", {"group": {"name": fresh("g"), "domain_id": "default"}}),
    "PATCH /identity/v3/groups/{}": lambda c: (
        f"{IDENTITY}/groups/{_group(c)}", {"group": {"description": "changed"}}),
    "DELETE /identity/v3/groups/{}": lambda c: (f"{IDENTITY}/groups/{_group(c)}", None),
    "PUT /identity/v3/groups/{}/users/{}": lambda c: (_member(c, joined=False), None),
    "DELETE /identity/v3/groups/{}/users/{}": lambda c: (_member(c, joined=True), None),
    "POST /identity/v3/services": lambda _: (
        f"{IDENTITY}/services", {"service": {"name": fresh("s"), "type": "metering"}}),
    "PATCH /identity/v3/services/{}": lambda c: (
        f"{IDENTITY}/services/{_service(c)}", {"service": {"description": "changed"}}),
    "DELETE /identity/v3/services/{}": lambda c: (f"{IDENTITY}/services/{_service(c)}", None),
    "POST /identity/v3/endpoints": lambda c: (
        f"{IDENTITY}/endpoints", {"endpoint": _endpoint(c)}),
    "PATCH /identity/v3/endpoints/{}": lambda c: (
        f"{IDENTITY}/endpoints/{made(c, 'endpoints', 'endpoint', **_endpoint(c))}",
        {"endpoint": {"url": "http://b.example"}}),
    "DELETE /identity/v3/endpoints/{}": lambda c: (
        f"{IDENTITY}/endpoints/{made(c, 'endpoints', 'endpoint', **_endpoint(c))}", None),
    "POST /identity/v3/regions": lambda _: (
        f"{IDENTITY}/regions", {"region": {"id": fresh("r")}}),
    "PUT /identity/v3/regions/{}": lambda _: (
        f"{IDENTITY}/regions/{fresh('r')}", {"region": {"description": "new"}}),
    "PATCH /identity/v3/regions/{}": lambda c: (
        f"{IDENTITY}/regions/{_region(c)}", {"region": {"description": "changed"}}),
    "DELETE /identity/v3/regions/{}": lambda c: (f"{IDENTITY}/regions/{_region(c)}", None),
    "POST /identity/v3/roles": lambda _: (f"{IDENTITY}/roles", {"role": {"name": fresh("r")}}),
    "PATCH /identity/v3/roles/{}": lambda c: (
        f"{IDENTITY}/roles/{_new_role(c)}", {"role": {"description": "changed"}}),
    "DELETE /identity/v3/roles/{}": lambda c: (f"{IDENTITY}/roles/{_new_role(c)}", None),
    "PUT /identity/v3/roles/{}/implies/{}": lambda c: (_implication(c, there=False), None),
    "DELETE /identity/v3/roles/{}/implies/{}": lambda c: (_implication(c, there=True), None),
    "PUT /identity/v3/projects/{}/tags": lambda c: (
        f"{IDENTITY}/projects/{_project(c)}/tags", {"tags": ["a", "b"]}),
    "DELETE /identity/v3/projects/{}/tags": lambda c: (
        _tag(c, there=True).removesuffix("/x"), None),
    "PUT /identity/v3/projects/{}/tags/{}": lambda c: (_tag(c, there=False), None),
    "DELETE /identity/v3/projects/{}/tags/{}": lambda c: (_tag(c, there=True), None),
    "POST /identity/v3/credentials": lambda c: (
        f"{IDENTITY}/credentials", {"credential": _cert(c)}),
    "PATCH /identity/v3/credentials/{}": lambda c: (
        f"{IDENTITY}/credentials/{_credential(c)}", {"credential": {"blob": "other"}}),
    "DELETE /identity/v3/credentials/{}": lambda c: (
        f"{IDENTITY}/credentials/{_credential(c)}", None),
    "POST /identity/v3/users/{}/credentials/OS-EC2": lambda c: (
        _ec2(c).rpartition("/")[0], {"tenant_id": _admin_project(c)}),
    "DELETE /identity/v3/users/{}/credentials/OS-EC2/{}": lambda c: (_ec2(c), None),
    "POST /identity/v3/users/{}/application_credentials": lambda c: (
        f"{IDENTITY}/users/{admin_id(c)}/application_credentials",
        {"application_credential": {"name": fresh("c")}}),
    "DELETE /identity/v3/users/{}/application_credentials/{}": lambda c: (
        f"{IDENTITY}/users/{admin_id(c)}/application_credentials/{_app_credential(c)['id']}",
        None),
    "DELETE /identity/v3/users/{}/access_rules/{}": lambda c: (_unused_rule(c), None),
    "POST /identity/v3/OS-TRUST/trusts": lambda c: (
        f"{IDENTITY}/OS-TRUST/trusts", _new_trust(c)),
    "DELETE /identity/v3/OS-TRUST/trusts/{}": lambda c: (
        f"{IDENTITY}/OS-TRUST/trusts/{_trust(c)}", None),
    "PUT /identity/v3/OS-FEDERATION/identity_providers/{}": lambda _: (
        f"{FEDERATION}/identity_providers/{fresh('idp')}", PROVIDER),
    "PATCH /identity/v3/OS-FEDERATION/identity_providers/{}": lambda c: (
        _provider(c), OTHER_PROVIDER),
    "DELETE /identity/v3/OS-FEDERATION/identity_providers/{}": lambda c: (_provider(c), None),
    "PUT /identity/v3/OS-FEDERATION/mappings/{}": lambda _: (
        f"{FEDERATION}/mappings/{fresh('m')}", _mapping()),
    "PATCH /identity/v3/OS-FEDERATION/mappings/{}": lambda c: (_mapped(c), _mapping()),
    "DELETE /identity/v3/OS-FEDERATION/mappings/{}": lambda c: (_mapped(c), None),
    "PUT /identity/v3/OS-FEDERATION/identity_providers/{}/protocols/{}": lambda c: (
        f"{_provider(c)}/protocols/openid", _protocol(c)),
    "PATCH /identity/v3/OS-FEDERATION/identity_providers/{}/protocols/{}": lambda c: (
        _spoken(c), _protocol(c)),
    "DELETE /identity/v3/OS-FEDERATION/identity_providers/{}/protocols/{}": lambda c: (
        _spoken(c), None),
    "POST /v1/webhooks": lambda _: ("/v1/webhooks", _new_webhook()),
    "PATCH /v1/webhooks/{}": lambda c: (_webhook(c), {"name": fresh("w")}),
    "POST /v1/webhooks/{}/redeliver": lambda c: (f"{_webhook(c)}/redeliver", {"after": 0}),
    "DELETE /v1/webhooks/{}": lambda c: (_webhook(c), None),
    **dict(grants()),
}  # fmt: skip


def ids_in(value: object) -> list[object]:
    """Return all ids in a body, in order."""
    if isinstance(value, dict):
        own = [v for k, v in value.items() if k in {"id", "request_id", "name"}]
        return own + [i for v in value.values() for i in ids_in(v)]
    if isinstance(value, list):
        return [i for v in value for i in ids_in(v)]
    return []


def words_in(value: object) -> list[str]:
    """Return all keys in a body."""
    if isinstance(value, dict):
        return [*value, *(word for v in value.values() for word in words_in(v))]
    if isinstance(value, list):
        return [word for v in value for word in words_in(v)]
    return []


# Keystone shows the secret of an EC2 key whenever it is asked for it.
SHOWN_AGAIN = {"POST /identity/v3/users/{}/credentials/OS-EC2": {"secret"}}


@pytest.mark.parametrize("route", EXAMPLES)
def test_the_same_again_is_the_same_reply_and_nothing_new(cloud: Cloud, route: str):
    admin, key = cloud.admin, fresh("key")
    method = route.partition(" ")[0]
    path, body = EXAMPLES[route](cloud)
    first = ask(admin, method, path, body, Idempotency_Key=key)
    assert first.status < 300, first
    before = admin("GET", "/v1/status").body["engine"]["ordinal"]

    again = ask(admin, method, path, body, Idempotency_Key=key)

    after = admin("GET", "/v1/status").body["engine"]["ordinal"]
    assert again.status == first.status, again
    if first.raw:
        assert ids_in(again.body) == ids_in(first.body)
        once = {"private_key", "secret"} & set(words_in(first.body)) - SHOWN_AGAIN.get(route, set())
        assert not once & set(words_in(again.body))
    records = admin("GET", f"/v1/events?after={before}").body["events"]
    ours = [e for e in records if e["user_id"] == admin_id(cloud) and e["kind"] == "request"]
    assert ours == [], after
    other = ask(admin, method, f"{path}?other=1", body, Idempotency_Key=key)
    assert (other.status, b"was used for another request" in other.raw) == (409, True), other


def admin_id(cloud: Cloud) -> str:
    token = {"X-Subject-Token": cloud.admin.token}
    shown = cloud.admin("GET", f"{IDENTITY}/auth/tokens", headers=token)
    return shown.body["token"]["user"]["id"]


def test_another_body_under_a_key_is_refused(admin: Api):
    key = fresh("key")
    path = f"{NETWORK}/networks"
    first = ask(admin, "POST", path, {"network": {"name": "one"}}, Idempotency_Key=key)

    other = ask(admin, "POST", path, {"network": {"name": "two"}}, Idempotency_Key=key)

    assert (first.status, other.status) == (201, 409)
    again = ask(admin, "POST", path, {"network": {"name": "one"}}, Idempotency_Key=key)
    assert again.body == first.body


def test_a_refusal_is_repeated(admin: Api):
    key, flavor = fresh("key"), _flavor()
    made = admin.made(f"{COMPUTE}/flavors", flavor)
    taken = {"flavor": flavor["flavor"] | {"id": made["id"]}}
    first = ask(admin, "POST", f"{COMPUTE}/flavors", taken, Idempotency_Key=key)
    assert admin("DELETE", f"{COMPUTE}/flavors/{made['id']}").status == 202

    again = ask(admin, "POST", f"{COMPUTE}/flavors", taken, Idempotency_Key=key)

    assert (first.status, again.status) == (409, 409)


def test_many_at_once_under_one_key_make_one_thing(admin: Api):
    key, body = fresh("key"), {"network": {"name": fresh("n")}}
    with ThreadPoolExecutor(16) as pool:
        replies = list(
            pool.map(
                lambda _: ask(admin, "POST", f"{NETWORK}/networks", body, Idempotency_Key=key),
                range(32),
            )
        )

    assert {reply.status for reply in replies} == {201}
    assert len({reply.body["network"]["id"] for reply in replies}) == 1
    name = body["network"]["name"]
    found = admin("GET", f"{NETWORK}/networks?name={name}").body["networks"]
    assert len(found) == 1


def test_a_key_belongs_to_its_user(cloud: Cloud):
    key, path = fresh("key"), f"{NETWORK}/networks"
    replies = [
        ask(api, "POST", path, {"network": {"name": name}}, Idempotency_Key=key)
        for api, name in ((cloud.admin, "mine"), (cloud.demo, "theirs"))
    ]

    assert [reply.status for reply in replies] == [201, 201]


def test_what_is_gone_is_answered_with_the_ids_it_had(admin: Api):
    key, wish = fresh("key"), _flavor()
    first = ask(admin, "POST", f"{COMPUTE}/flavors", wish, Idempotency_Key=key)
    ident = first.body["flavor"]["id"]
    assert admin("DELETE", f"{COMPUTE}/flavors/{ident}").status == 202

    again = ask(admin, "POST", f"{COMPUTE}/flavors", wish, Idempotency_Key=key)

    assert again.status == first.status
    assert ident in str(again.body)


def test_content_that_is_sent_again_is_compared(cloud: Cloud):
    admin, key = cloud.admin, {"Idempotency-Key": fresh("key")}
    content = b"\0" * (2 << 20)
    path = f"{IMAGE}/images/{_image(cloud)}/file"
    headers = key | {"Content-Type": "application/octet-stream"}
    assert admin("PUT", path, raw=content, headers=headers).status == 204

    again = admin("PUT", path, raw=content, headers=headers)
    other = admin("PUT", path, raw=content[1:], headers=headers)

    assert (again.status, other.status) == (204, 409)


def test_a_patch_is_done_once(cloud: Cloud):
    admin, key = cloud.admin, {"Idempotency-Key": fresh("key")}
    path = f"{IMAGE}/images/{_image(cloud)}"
    headers = key | {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    step = {"op": "add", "path": "/color", "value": "red"}
    first, again, other = (
        admin("PATCH", path, raw=json.dumps(steps).encode(), headers=headers)
        for steps in ([step], [step], [step | {"value": "blue"}])
    )

    assert (first.status, again.status, other.status) == (200, 200, 409)
    assert (first.body["color"], again.body) == ("red", first.body)


def test_a_trial_uses_up_no_key(admin: Api):
    key, body = fresh("key"), {"network": {"name": fresh("n")}}
    path = f"{NETWORK}/networks"
    tried = ask(admin, "POST", path, body, Idempotency_Key=key, X_Cumulog_Dry_Run="1")
    other = ask(admin, "POST", path, {"network": {}}, Idempotency_Key=key)

    assert (tried.status, other.status) == (200, 201)
    assert tried.body["dry_run"] is True


def test_a_repetition_is_told_as_one(cloud: Cloud):
    from tests.api.test_audit import entries

    key, body = fresh("key"), {"network": {"name": fresh("n")}}
    path = f"{NETWORK}/networks"
    first, again = (
        ask(cloud.admin, "POST", path, body, Idempotency_Key=key, User_Agent=fresh("agent"))
        for _ in range(2)
    )

    told, repeated = (
        entries(cloud.admin, reply.headers["x-openstack-request-id"])[0] for reply in (first, again)
    )
    assert (told["repeated"], repeated["repeated"]) == (False, True)
    assert told["ordinal"] == repeated["ordinal"] > 0


# Tried in tests of their own; and to end a token twice is to come with one that has ended.
OTHERWISE = {
    "DELETE /identity/v3/auth/tokens",
    "PATCH /image/v2/images/{}",
    "PUT /image/v2/images/{}/file",
    # An invoice is of a month that is over: tests/docs/test_a_month.py issues those of one.
    "POST /v1/invoices/{}/issue",
}


def test_every_mutating_route_is_tried_twice():
    routes = {named(method, prefix, path) for prefix, method, path, _ in MUTATING}

    assert set(EXAMPLES) | OTHERWISE == routes
    assert any(ANY_ACTION in route.actions for *_, route in MUTATING)
