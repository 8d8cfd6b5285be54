"""People of every kind that the policy tells apart, and one thing of each kind that is theirs."""

import asyncio
import http.client
import json
import tomllib
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from msgspec import Struct
from msgspec.structs import replace

from api.tokens import Token, TokenRing
from cli.rollover import admin_config, broker
from engine.bus.keys import Keys, TokenKeys
from tests.api.conftest import Api, Cloud, Reply, fresh

PERSONAS = (
    "unscoped", "reader", "member", "manager", "admin", "stranger",
    "d-reader", "d-manager", "d-admin", "o-manager",
    "s-reader", "s-member", "s-admin", "service",
)  # fmt: skip
ID = "/identity/v3"
TOKENS = f"{ID}/auth/tokens"
PASSWORD = "correct horse battery staple"

type Things = dict[str, str]


class Person:
    """Somebody with a token and a connection that is kept."""

    def __init__(self, url: str, token: str) -> None:
        self.token = token
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)

    def ask(self, method: str, path: str, body: str = "", *, kind: str = "") -> Reply:
        headers = {"X-Auth-Token": self.token, "Content-Type": kind or "application/json"}
        if path == TOKENS:
            headers["X-Subject-Token"] = self.token
        self._connection.request(method, path, body.encode() or None, headers)
        return Reply(self._connection.getresponse())

    def close(self) -> None:
        self._connection.close()


class Side(Struct):
    """A domain with a project in it, somebody who makes things there, and those things."""

    things: Things
    maker: Api


class People:
    """Everybody, by name, and what is ours, theirs, and nobody's."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        admin = cloud.admin
        self.roles = {
            role["name"]: role["id"] for role in admin("GET", f"{ID}/roles").body["roles"]
        }
        common = self._common()
        self.sides = {name: self._side(name, common) for name in ("ours", "theirs")}
        self.nothing = {
            name: str(uuid.uuid4()) if "name" not in name else fresh("nothing")
            for name in self.sides["ours"].things
        } | {"default": "default"}
        self.everyone: dict[str, Person] = {}
        self._selves: dict[str, str] = {}
        for name in PERSONAS:
            self._person(name)

    def _common(self) -> Things:
        """Return what is nobody's in particular."""
        admin = self.cloud.admin
        services = admin("GET", f"{ID}/services").body["services"]
        endpoints = admin("GET", f"{ID}/endpoints").body["endpoints"]
        regions = admin("GET", f"{ID}/regions").body["regions"]
        hosts = admin("GET", "/compute/v2.1/os-hypervisors").body["hypervisors"]
        return {
            "role": self.roles["member"],
            "flavor": "42",
            "default": "default",
            "nothing": str(uuid.uuid4()),
            "service": services[0]["id"],
            "endpoint": endpoints[0]["id"],
            "region": regions[0]["id"],
            "host": hosts[0]["hypervisor_hostname"],
        }

    def _side(self, name: str, common: Things) -> Side:
        admin = self.cloud.admin
        names = {f"{kind}_name": fresh(f"{kind}-{name}") for kind in ("project", "user", "group")}
        domain = admin.made(f"{ID}/domains", {"domain": {"name": fresh(f"domain-{name}")}})["id"]
        project = self._project(names["project_name"], domain)
        assert admin("PUT", f"{ID}/projects/{project}/tags/one").status == 201
        user = self._user(names["user_name"], domain)
        group = admin.made(
            f"{ID}/groups", {"group": {"name": names["group_name"], "domain_id": domain}}
        )["id"]
        assert admin("PUT", f"{ID}/groups/{group}/users/{user}").status == 204
        for holder in (f"users/{user}", f"groups/{group}"):
            for place in (f"{ID}/projects/{project}", f"{ID}/domains/{domain}"):
                self._grant(f"{place}/{holder}/roles", "member")
            for place in (f"projects/{project}", f"domains/{domain}"):
                path = f"{ID}/OS-INHERIT/{place}/{holder}/roles/{self.roles['member']}"
                assert admin("PUT", f"{path}/inherited_to_projects").status == 204
        maker = self._sign_in(user, {"project": {"id": project}})
        things = {"domain": domain, "project": project, "user": user, "usergroup": group}
        things |= names | common | self._of_project(maker) | self._of_user(maker, things)
        return Side(things=things, maker=maker)

    def _of_project(self, maker: Api) -> Things:
        cloud = self.cloud
        network = cloud.network(maker)
        server = cloud.server(maker, network["id"], metadata={"kind": "thing"})
        ports = maker("GET", f"/network/v2.0/ports?device_id={server['id']}").body["ports"]
        secgroup = maker("GET", "/network/v2.0/security-groups").body["security_groups"][0]
        image = maker("POST", "/image/v2/images", {"name": fresh("image"), "disk_format": "raw"})
        made = maker("GET", f"/v1/operations?resource_id={server['id']}").body["operations"][-1]
        done = f"/compute/v2.1/servers/{server['id']}/os-instance-actions"
        return {
            "server": server["id"],
            "key": "kind",
            "network": network["id"],
            "network_name": network["name"],
            "subnet": network["subnet"]["id"],
            "port": ports[0]["id"],
            "secgroup": secgroup["id"],
            "secrule": secgroup["security_group_rules"][0]["id"],
            "image": image.body["id"],
            "operation": made["operation"]["operation_id"],
            "webhook": self._webhook(maker),
            "request": maker("GET", done).body["instanceActions"][-1]["request_id"],
        }

    def _webhook(self, maker: Api) -> str:
        """Return one that sends nothing: what it would send is not the matter here."""
        wish = {"name": fresh("hook"), "url": "https://9.9.9.9/", "enabled": False}
        return maker.made("/v1/webhooks", wish)["id"]

    def _of_user(self, maker: Api, things: Things) -> Things:
        user, project, member = things["user"], things["project"], self.roles["member"]
        name = fresh("appcred")
        rule = {"service": "compute", "method": "GET", "path": "/v2.1/servers"}
        wish = {"name": name, "access_rules": [rule]}
        appcred = maker.made(
            f"{ID}/users/{user}/application_credentials", {"application_credential": wish}
        )
        ec2 = maker.made(f"{ID}/users/{user}/credentials/OS-EC2", {"tenant_id": project})
        credential = {"type": "cert", "blob": "{}", "user_id": user, "project_id": project}
        trust = {
            "trustor_user_id": user,
            "trustee_user_id": user,
            "impersonation": False,
            "project_id": project,
            "roles": [{"id": member}],
        }
        return {
            "appcred": appcred["id"],
            "appcred_name": name,
            "rule": appcred["access_rules"][0]["id"],
            "ec2": ec2["access"],
            "credential": maker.made(f"{ID}/credentials", {"credential": credential})["id"],
            "trust": maker.made(f"{ID}/OS-TRUST/trusts", {"trust": trust})["id"],
        }

    def _project(self, name: str, domain_id: str) -> str:
        wish = {"project": {"name": name, "domain_id": domain_id}}
        return self.cloud.admin.made(f"{ID}/projects", wish)["id"]

    def _user(self, name: str, domain_id: str) -> str:
        wish = {"user": {"name": name, "password": PASSWORD, "domain_id": domain_id}}
        return self.cloud.admin.made(f"{ID}/users", wish)["id"]

    def _grant(self, path: str, role: str) -> None:
        assert self.cloud.admin("PUT", f"{path}/{self.roles[role]}").status == 204

    def _sign_in(self, user_id: str, scope: object) -> Api:
        proof = {"methods": ["password"], "password": {"user": {"id": user_id}}}
        proof["password"]["user"]["password"] = PASSWORD  # type: ignore[index]
        reply = self.cloud.anyone("POST", TOKENS, {"auth": {"identity": proof, "scope": scope}})
        assert reply.status == 201, reply
        return Api(self.cloud.url, reply.headers["x-subject-token"])

    def _person(self, name: str) -> None:
        ours, theirs = self.sides["ours"], self.sides["theirs"]
        if name in {"member", "stranger"}:
            side = ours if name == "member" else theirs
            self._selves[name] = side.things["user"]
            self.everyone[name] = Person(self.cloud.url, side.maker.token)
            return
        kind, _, role = name.rpartition("-")
        home = {"": ours.things["domain"], "d": ours.things["domain"]}.get(kind)
        if kind == "o":
            home = theirs.things["domain"]
        user = self._user(fresh(name), home if home and name != "service" else "default")
        scope: Any = "unscoped"
        if name == "service":
            project = self._project(fresh("services"), "default")
            self._grant(f"{ID}/projects/{project}/users/{user}/roles", "service")
            scope = {"project": {"id": project}}
        elif kind == "s":
            self._grant(f"{ID}/system/users/{user}/roles", role)
            scope = {"system": {"all": True}}
        elif kind:
            self._grant(f"{ID}/domains/{home}/users/{user}/roles", role)
            scope = {"domain": {"id": home}}
        elif name != "unscoped":
            project = ours.things["project"]
            self._grant(f"{ID}/projects/{project}/users/{user}/roles", role)
            scope = {"project": {"id": project}}
        self._selves[name] = user
        self.everyone[name] = Person(self.cloud.url, self._sign_in(user, scope).token)

    def filled(self, text: str, things: Things, name: str) -> str:
        return Template(text).substitute(things | {"self": self._selves[name]})

    def each(self, work: Any) -> dict[str, Any]:
        """Return what comes of some work for everybody, at once."""
        with ThreadPoolExecutor(len(PERSONAS)) as pool:
            return dict(zip(PERSONAS, pool.map(work, PERSONAS), strict=True))

    def close(self) -> None:
        for person in self.everyone.values():
            person.close()


def bad_tokens(cloud: Cloud, token: str) -> dict[str, str]:
    """Return tokens that must count nowhere: each is one that counts, but for one thing."""
    told = admin_config("", "", str(cloud.up.state_dir))

    async def keys() -> TokenKeys:
        async with broker(told) as bus:
            return await Keys(bus).token_keys()

    kept = asyncio.run(keys())

    async def made() -> dict[str, str]:
        async def own() -> TokenKeys:
            return kept

        async def foreign() -> TokenKeys:
            return replace(kept, keys=(Fernet.generate_key(), Fernet.generate_key()))

        ring, other = TokenRing(own), TokenRing(foreign)
        await ring.refresh()
        await other.refresh()
        said = await ring.open(token)
        assert isinstance(said, Token)
        return {
            "expired": ring.seal(replace(said, expires_at=said.issued_at + 1)),
            "forged": token[:-8] + ("A" if token[-8] != "A" else "B") + token[-7:],
            "foreign_key": other.seal(said),
            "stranger_to_us": ring.seal(replace(said, user_id="0" * 32)),
        }

    return asyncio.run(made())


def table(path: Path) -> dict[str, Any]:
    """Return a file of expectations."""
    return tomllib.loads(path.read_text())


def body_shape(reply: Reply, things: Things) -> object:
    """Return a refusal's body without the ids that were asked for and the request's own."""
    text = reply.raw.decode()
    for value in sorted(things.values(), key=len, reverse=True):
        text = text.replace(value, "…") if len(value) > 6 else text
    request = reply.headers.get("x-openstack-request-id", "")
    text = text.replace(request, "…") if request else text
    try:
        return json.loads(text)
    except ValueError:
        return text
