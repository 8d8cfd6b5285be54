"""What stands for a user: application credentials, keys and trusts."""

import json
from hashlib import sha256
from typing import Any

import pytest

from tests.api.conftest import Api, Cloud, fresh
from tests.api.test_directory import V3, made, my_id, role_id
from tests.api.test_tokens import TOKENS, me

SERVERS, NETWORKS = "/compute/v2.1/servers", "/network/v2.0/networks"


def owner(cloud: Cloud) -> tuple[Api, str]:
    api = cloud.stranger()
    return api, f"{V3}/users/{my_id(api)}"


def new_credential(api: Api, user: str, **more: object) -> dict[str, Any]:
    wish = {"name": fresh("credential"), **more}
    return api.made(f"{user}/application_credentials", {"application_credential": wish})


def by_credential(**data: object) -> dict:
    identity = {"methods": ["application_credential"], "application_credential": data}
    return {"auth": {"identity": identity}}


def using(cloud: Cloud, credential: dict) -> Api:
    body = by_credential(id=credential["id"], secret=credential["secret"])
    reply = cloud.anyone("POST", TOKENS, body)
    assert reply.status == 201, reply
    return Api(cloud.url, reply.headers["x-subject-token"])


def test_a_program_signs_in_with_an_application_credential(cloud: Cloud):
    api, user = owner(cloud)
    credential = new_credential(api, user, description="for tests")
    token = me(api)
    path = f"{user}/application_credentials/{credential['id']}"

    shown = api("GET", path).body["application_credential"]
    assert "secret" not in shown
    assert shown == {k: v for k, v in credential.items() if k != "secret"}
    assert {r["name"] for r in shown["roles"]} == {"member", "reader"}
    listed = api("GET", f"{user}/application_credentials?name={credential['name']}").body
    assert listed["application_credentials"] == [shown]
    secret = credential["secret"]
    for data in (
        {"id": credential["id"], "secret": secret},
        {"name": credential["name"], "user": {"id": token["user"]["id"]}, "secret": secret},
        {"name": credential["name"], "secret": secret,
         "user": {"name": token["user"]["name"], "domain": {"name": "Default"}}},
    ):  # fmt: skip
        reply = cloud.anyone("POST", TOKENS, by_credential(**data))
        assert reply.status == 201, reply
        body = reply.body["token"]
        assert body["methods"] == ["application_credential"]
        assert body["project"]["id"] == token["project"]["id"]
        assert body["application_credential"]["restricted"] is True
        program = Api(cloud.url, reply.headers["x-subject-token"])
        assert program("GET", TOKENS, headers={"X-Subject-Token": program.token}).body == reply.body
        assert program("GET", SERVERS).status == 200
    assert api("DELETE", path).status == 204
    assert program("GET", SERVERS).status == 401
    assert cloud.anyone("POST", TOKENS, by_credential(**data)).status == 401


def test_a_wrong_secret_is_told_what_a_wrong_password_is(cloud: Cloud):
    api, user = owner(cloud)
    credential = new_credential(api, user)
    ident, secret = credential["id"], credential["secret"]
    elsewhere = by_credential(id=ident, secret=secret)
    elsewhere["auth"]["scope"] = {"project": {"name": "demo", "domain": {"name": "Default"}}}

    for body in (
        by_credential(id=ident, secret="wrong"),
        by_credential(id="none", secret=secret),
        by_credential(name=credential["name"], user={"id": "none"}, secret=secret),
        elsewhere,
    ):
        reply = cloud.anyone("POST", TOKENS, body)
        assert reply.status == 401
        message = reply.body["error"]["message"]
        assert message.startswith("The user, password or scope is not right.")


def test_a_restricted_credential_makes_no_more_of_them(cloud: Cloud):
    api, user = owner(cloud)
    program = using(cloud, new_credential(api, user))
    free = using(cloud, new_credential(api, user, unrestricted=True))
    wish = {"application_credential": {"name": fresh("credential")}}

    assert program("POST", f"{user}/application_credentials", wish).status == 403
    tenant = {"tenant_id": me(api)["project"]["id"]}
    assert program("POST", f"{user}/credentials/OS-EC2", tenant).status == 403
    assert free("POST", f"{user}/application_credentials", wish).status == 201
    assert free("POST", f"{user}/credentials/OS-EC2", tenant).status == 201
    again = {"auth": {"identity": {"methods": ["token"], "token": {"id": free.token}}}}
    assert cloud.anyone("POST", TOKENS, again).status == 403


def test_access_rules_bind_what_a_credential_is_good_for(cloud: Cloud):
    api, user = owner(cloud)
    rules = [
        {"service": "compute", "method": "GET", "path": "/v2.1/servers"},
        {"service": "network", "method": "GET", "path": "/v2.0/networks/*"},
    ]
    credential = new_credential(api, user, access_rules=rules)
    program = using(cloud, credential)
    network = cloud.network(api, "10.121.0.0/24")

    assert program("GET", SERVERS).status == 200
    assert program("GET", f"{SERVERS}/none").status == 403
    assert program("POST", SERVERS, {"server": {}}).status == 403
    assert program("GET", f"{NETWORKS}/{network['id']}").status == 200
    assert program("GET", NETWORKS).status == 403
    assert program("GET", "/image/v2/images").status == 403
    assert program("GET", "/v1/events").status == 403
    headers = {"X-Subject-Token": program.token}
    assert api("GET", TOKENS, headers=headers).status == 404
    headers["OpenStack-Identity-Access-Rules"] = "1"
    shown = api("GET", TOKENS, headers=headers).body["token"]
    kept = shown["application_credential"]["access_rules"]
    assert [{k: v for k, v in r.items() if k != "id"} for r in kept] == rules

    listed = api("GET", f"{user}/access_rules").body["access_rules"]
    assert {r["id"] for r in listed} == {r["id"] for r in kept}
    rule = f"{user}/access_rules/{kept[0]['id']}"
    assert api("GET", rule).body["access_rule"]["path"] == "/v2.1/servers"
    assert api("DELETE", rule).status == 403
    again = new_credential(api, user, access_rules=[{"id": kept[0]["id"]}])
    assert [r["id"] for r in again["access_rules"]] == [kept[0]["id"]]
    for one in (credential, again):
        assert api("DELETE", f"{user}/application_credentials/{one['id']}").status == 204
    assert api("DELETE", rule).status == 204
    assert api("GET", rule).status == 404
    none = new_credential(api, user, access_rules=[])
    assert "access_rules" not in none
    assert using(cloud, none)("GET", "/image/v2/images").status == 200


def test_a_token_does_not_outlive_its_credential(cloud: Cloud):
    api, user = owner(cloud)
    end = me(api)["expires_at"].removesuffix("Z")
    credential = new_credential(api, user, expires_at=end)

    body = by_credential(id=credential["id"], secret=credential["secret"])
    assert credential["expires_at"] == end
    assert cloud.anyone("POST", TOKENS, body).body["token"]["expires_at"] == f"{end}Z"
    late = {"application_credential": {"name": fresh("c"), "expires_at": "2020-01-01T00:00:00"}}
    assert api("POST", f"{user}/application_credentials", late).status == 400
    late["application_credential"]["expires_at"] = "soon"
    assert api("POST", f"{user}/application_credentials", late).status == 400


def test_credentials_give_roles_that_their_user_has(cloud: Cloud):
    api, user = owner(cloud)
    reader = new_credential(api, user, roles=[{"name": "reader"}])

    program = using(cloud, reader)

    assert program("GET", SERVERS).status == 200
    assert program("POST", NETWORKS, {"network": {"name": "x"}}).status == 403
    for roles in ([{"name": "admin"}], [{"id": role_id(cloud, "admin")}], [{"name": "none"}], [{}]):
        wish = {"application_credential": {"name": fresh("c"), "roles": roles}}
        assert api("POST", f"{user}/application_credentials", wish).status == 400
    _, other = owner(cloud)
    wish = {"application_credential": {"name": fresh("c")}}
    assert api("POST", f"{other}/application_credentials", wish).status == 403
    assert api("GET", f"{other}/application_credentials").status == 403


# Keys


def test_ec2_keys(cloud: Cloud):
    api, user = owner(cloud)
    keys, project = f"{user}/credentials/OS-EC2", me(api)["project"]["id"]

    made_key = api.made(keys, {"tenant_id": project})

    assert made_key.keys() >= {"access", "secret", "tenant_id", "user_id", "trust_id"}
    assert api("GET", keys).body["credentials"] == [made_key]
    assert api("GET", f"{keys}/{made_key['access']}").body["credential"] == made_key
    ident = sha256(made_key["access"].encode()).hexdigest()
    shown = api("GET", f"{V3}/credentials/{ident}").body["credential"]
    assert (shown["type"], shown["project_id"]) == ("ec2", project)
    assert json.loads(shown["blob"])["secret"] == made_key["secret"]
    logged = cloud.admin("GET", f"/v1/events?resource_id={ident}").raw
    assert made_key["secret"].encode() not in logged
    stranger, _ = owner(cloud)
    assert stranger("GET", f"{V3}/credentials/{ident}").status == 404
    assert stranger("GET", f"{keys}/{made_key['access']}").status == 403
    assert cloud.admin("GET", f"{keys}/{made_key['access']}").body["credential"] == made_key
    assert api("DELETE", f"{keys}/{made_key['access']}").status == 204
    assert api("GET", f"{keys}/{made_key['access']}").status == 404
    elsewhere = me(cloud.demo)["project"]["id"]
    assert api("POST", keys, {"tenant_id": elsewhere}).status == 400


def test_keys_of_a_user_are_not_shown_to_what_stands_for_it(cloud: Cloud):
    api, user = owner(cloud)
    keys, every, project = f"{user}/credentials/OS-EC2", f"{V3}/credentials", me(api)["project"]
    wish, key = {"tenant_id": project["id"]}, {"Idempotency-Key": fresh("key")}
    own = api("POST", keys, wish, headers=key).body["credential"]
    ident = sha256(own["access"].encode()).hexdigest()
    trustee = cloud.stranger()
    free = using(cloud, new_credential(api, user, unrestricted=True))
    for acting in (
        using(cloud, new_credential(api, user)),
        entrusted(cloud, trustee, new_trust(cloud, api, trustee)),
        free,
    ):
        assert my_id(acting) == my_id(api)
        for path in (every, keys):
            assert acting("GET", path).body["credentials"] == []
        for path in (f"{every}/{ident}", f"{keys}/{own['access']}"):
            assert acting("GET", path).status == 404
        again = acting("POST", keys, wish, headers=key)
        assert own["secret"].encode() not in again.raw
        # Whoever knows a key, as its maker does, could sign for the user.
        blob = json.dumps({"access": own["access"], "secret": "known"})
        change = {"credential": {"blob": blob}}
        assert acting("PATCH", f"{every}/{ident}", change).status == 403

    made_one = free.made(keys, wish)
    assert free("GET", keys).body["credentials"] == [made_one]
    assert free("GET", f"{keys}/{made_one['access']}").body["credential"] == made_one
    assert {key["access"] for key in api("GET", keys).body["credentials"]} == {
        own["access"],
        made_one["access"],
    }
    assert api("GET", f"{keys}/{own['access']}").body["credential"] == own


def test_credentials_of_any_kind(cloud: Cloud):
    api, user = owner(cloud)
    ident = user.rpartition("/")[2]
    every = f"{V3}/credentials"

    made_one = api.made(every, {"credential": {"type": "cert", "blob": "a secret"}})

    path = f"{every}/{made_one['id']}"
    assert made_one["user_id"] == ident
    assert api("GET", path).body["credential"] == made_one
    assert api("GET", f"{every}?type=cert").body["credentials"] == [made_one]
    assert api("GET", f"{every}?type=ec2").body["credentials"] == []
    changed = api("PATCH", path, {"credential": {"blob": "another"}}).body["credential"]
    assert changed == made_one | {"blob": "another"}
    assert api("PATCH", path, {"credential": {"type": "other"}}).status == 400
    stranger, _ = owner(cloud)
    assert stranger("GET", f"{every}?user_id={ident}").body["credentials"] == []
    for method in ("GET", "DELETE"):
        assert stranger(method, path).status == 404
    other = {"credential": {"type": "cert", "blob": "x", "user_id": ident}}
    assert stranger("POST", every, other).status == 403
    assert cloud.admin("GET", f"{every}?user_id={ident}").body["credentials"] == [changed]
    assert api("DELETE", path).status == 204
    assert api("GET", path).status == 404


def test_an_ec2_blob_has_an_access_key_that_stays(cloud: Cloud):
    api, _ = owner(cloud)
    every, project = f"{V3}/credentials", me(api)["project"]["id"]
    blob = json.dumps({"access": fresh("access"), "secret": "s"})
    wish = {"type": "ec2", "project_id": project, "blob": blob}

    made_one = api.made(every, {"credential": wish})

    path = f"{every}/{made_one['id']}"
    assert api("POST", every, {"credential": wish}).status == 409
    assert api("POST", every, {"credential": wish | {"blob": "no json"}}).status == 400
    other = json.dumps({"access": "other", "secret": "s"})
    assert api("PATCH", path, {"credential": {"blob": other}}).status == 403


# Trusts


def new_trust(cloud: Cloud, trustor: Api, trustee: Api, **more: object) -> dict[str, Any]:
    wish = {
        "trustor_user_id": my_id(trustor),
        "trustee_user_id": my_id(trustee),
        "impersonation": True,
        "project_id": me(trustor)["project"]["id"],
        "roles": [{"name": "member"}],
    }
    return trustor.made(f"{V3}/OS-TRUST/trusts", {"trust": wish | more})


def by_trust(api: Api, trust: dict) -> dict:
    identity = {"methods": ["token"], "token": {"id": api.token}}
    return {"auth": {"identity": identity, "scope": {"OS-TRUST:trust": {"id": trust["id"]}}}}


def entrusted(cloud: Cloud, api: Api, trust: dict) -> Api:
    reply = cloud.anyone("POST", TOKENS, by_trust(api, trust))
    assert reply.status == 201, reply
    return Api(cloud.url, reply.headers["x-subject-token"])


@pytest.mark.parametrize("impersonation", [True, False])
def test_a_trustee_acts_for_the_trustor(cloud: Cloud, impersonation: bool):
    trustor, trustee = cloud.stranger(), cloud.stranger()
    trust = new_trust(cloud, trustor, trustee, impersonation=impersonation)
    path = f"{V3}/OS-TRUST/trusts/{trust['id']}"

    acting = entrusted(cloud, trustee, trust)

    token = me(acting)
    assert token["user"]["id"] == my_id(trustor if impersonation else trustee)
    assert token["project"] == me(trustor)["project"]
    assert token["OS-TRUST:trust"] == {
        "id": trust["id"],
        "impersonation": impersonation,
        "trustor_user": {"id": my_id(trustor)},
        "trustee_user": {"id": my_id(trustee)},
    }
    assert acting.made(NETWORKS, {"network": {"name": fresh("net")}})
    again = {"auth": {"identity": {"methods": ["token"], "token": {"id": acting.token}}}}
    assert cloud.anyone("POST", TOKENS, again).status == 403
    wish = {"application_credential": {"name": fresh("c")}}
    own = f"{V3}/users/{token['user']['id']}/application_credentials"
    assert acting("POST", own, wish).status == 403

    for party in (trustor, trustee):
        assert party("GET", path).body["trust"] == trust
    asked = f"{V3}/OS-TRUST/trusts?trustee_user_id={my_id(trustee)}"
    assert trustee("GET", asked).body["trusts"] == [trust]
    assert [r["name"] for r in trustor("GET", f"{path}/roles").body["roles"]] == ["member"]
    role = role_id(cloud, "member")
    assert trustor("GET", f"{path}/roles/{role}").body["role"]["id"] == role
    stranger = cloud.stranger()
    assert stranger("GET", path).status == 404
    assert stranger("GET", f"{V3}/OS-TRUST/trusts").status == 403
    assert trustee("DELETE", path).status == 403
    assert trustor("DELETE", path).status == 204
    assert acting("GET", SERVERS).status == 401
    assert trustor("GET", path).status == 404


def test_uses_of_a_trust_are_counted(cloud: Cloud):
    trustor, trustee = cloud.stranger(), cloud.stranger()
    trust = new_trust(cloud, trustor, trustee, remaining_uses=2)
    path = f"{V3}/OS-TRUST/trusts/{trust['id']}"

    first, second = (entrusted(cloud, trustee, trust) for _ in range(2))

    assert trustor("GET", path).body["trust"]["remaining_uses"] == 0
    assert cloud.anyone("POST", TOKENS, by_trust(trustee, trust)).status == 401
    assert [api("GET", SERVERS).status for api in (first, second)] == [200, 200]


def test_a_trust_is_used_by_its_trustee_until_it_ends(cloud: Cloud):
    trustor, trustee = cloud.stranger(), cloud.stranger()
    end = me(trustor)["expires_at"]
    trust = new_trust(cloud, trustor, trustee, expires_at=end)

    assert trust["expires_at"] == end
    assert me(entrusted(cloud, trustee, trust))["expires_at"] <= end
    for api in (trustor, cloud.stranger()):
        assert cloud.anyone("POST", TOKENS, by_trust(api, trust)).status == 401


def test_a_trust_gives_what_its_trustor_has(cloud: Cloud):
    trustor, trustee = cloud.stranger(), cloud.stranger()
    user = me(trustor)
    wish: dict[str, Any] = {
        "trustor_user_id": user["user"]["id"],
        "trustee_user_id": my_id(trustee),
        "impersonation": False,
        "project_id": user["project"]["id"],
        "roles": [{"name": "member"}],
    }
    path = f"{V3}/OS-TRUST/trusts"

    for more, status in (
        ({"roles": [{"name": "admin"}]}, 403),
        ({"roles": []}, 400),
        ({"project_id": me(cloud.demo)["project"]["id"]}, 403),
        ({"trustor_user_id": my_id(trustee)}, 403),
        ({"trustee_user_id": "nobody"}, 400),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 400),
        ({"remaining_uses": 0}, 400),
        ({"redelegation_count": 1}, 400),
        ({"allow_redelegation": True, "redelegation_count": 9}, 403),
    ):
        assert trustor("POST", path, {"trust": wish | more}).status == status, more
    taken = {"type": "RevokeRole", "user_id": user["user"]["id"], "role_id": "",
             "project_id": user["project"]["id"]}  # fmt: skip
    trust = new_trust(cloud, trustor, trustee)
    acting = entrusted(cloud, trustee, trust)
    taken["role_id"] = role_id(cloud, "member")
    assert cloud.admin("POST", "/v1/actions", taken).status == 200
    assert acting("GET", SERVERS).status == 401


def test_a_trust_is_handed_on(cloud: Cloud):
    trustor, trustee, third = (cloud.stranger() for _ in range(3))
    trust = new_trust(cloud, trustor, trustee, allow_redelegation=True, redelegation_count=1)
    acting = entrusted(cloud, trustee, trust)

    handed = new_trust(cloud, acting, third, redelegated_trust_id=trust["id"])

    assert handed["redelegated_trust_id"] == trust["id"]
    assert handed["trustor_user_id"] == my_id(trustor)
    last = entrusted(cloud, third, handed)
    assert me(last)["user"]["id"] == my_id(trustor)
    assert trustor("DELETE", f"{V3}/OS-TRUST/trusts/{trust['id']}").status == 204
    assert last("GET", SERVERS).status == 401


# The catalog


def test_what_is_added_to_the_catalog_is_in_tokens(cloud: Cloud):
    admin = cloud.admin
    region = admin.made(f"{V3}/regions", {"region": {"id": fresh("region"), "description": "d"}})
    inside = {"region": {"parent_region_id": region["id"]}}
    assert admin("PUT", f"{V3}/regions/{fresh('inside')}", inside).status == 201
    service = made(cloud, "service", type="toaster")
    wish = {
        "service_id": service["id"],
        "interface": "public",
        "region_id": region["id"],
        "url": "http://toaster.example/%(tenant_id)s/$(project_id)s",
    }
    endpoint = admin.made(f"{V3}/endpoints", {"endpoint": wish})
    own = cloud.sign_in("cumulog-demo")

    token = me(own)
    (found,) = [s for s in token["catalog"] if s["type"] == "toaster"]
    assert found["name"] == service["name"]
    project = token["project"]["id"]
    (place,) = found["endpoints"]
    assert place["url"] == f"http://toaster.example/{project}/{project}"
    assert (place["id"], place["region_id"]) == (endpoint["id"], region["id"])
    assert own("GET", f"{V3}/auth/catalog").body["catalog"] == token["catalog"]
    path = f"{V3}/endpoints/{endpoint['id']}"
    assert admin("GET", f"{V3}/endpoints?service_id={service['id']}").body["endpoints"] == [
        endpoint
    ]
    assert admin("PATCH", path, {"endpoint": {"enabled": False}}).status == 200
    (found,) = [s for s in me(own)["catalog"] if s["type"] == "toaster"]
    assert found["endpoints"] == []
    disabled = {"service": {"enabled": False}}
    assert admin("PATCH", f"{V3}/services/{service['id']}", disabled).status == 200
    assert "toaster" not in {s["type"] for s in me(own)["catalog"]}
    assert admin("DELETE", f"{V3}/regions/{region['id']}").status == 409
    assert admin("DELETE", f"{V3}/services/{service['id']}").status == 204
    assert admin("GET", path).status == 404


def test_what_the_cloud_itself_serves_stays_as_it_is(cloud: Cloud):
    admin = cloud.admin
    own = {"region": [{"id": "RegionOne"}]}
    own["service"] = [s for s in me(cloud.demo)["catalog"] if s["type"] in {"identity", "compute"}]
    own["endpoint"] = [e for service in own["service"] for e in service["endpoints"]]
    for kind, things in own.items():
        for one in things:
            path = f"{V3}/{kind}s/{one['id']}"
            shown = admin("GET", path).body[kind]
            assert shown in admin("GET", f"{V3}/{kind}s").body[f"{kind}s"]
            for method, body in (("DELETE", None), ("PATCH", {kind: {"description": "x"}})):
                reply = admin(method, path, body)
                assert reply.status == 403, reply
                assert "the cloud's own" in reply.body["error"]["message"]


def test_credentials_need_a_token_of_a_project(cloud: Cloud):
    name = fresh("user")
    user = made(cloud, "user", name=name, password="pw")
    api = cloud.login(name, "pw")
    wish = {"application_credential": {"name": fresh("c")}}

    reply = api("POST", f"{V3}/users/{user['id']}/application_credentials", wish)

    assert reply.status == 403
