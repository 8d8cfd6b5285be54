"""What guests are told, asked for on the bus as a host's agent asks."""

import base64
import contextlib
import json
from collections.abc import AsyncIterator

import msgspec
import pytest

from engine.bus.client import Bus
from schemas.work import MetadataAsk, MetadataReply
from tests.api.conftest import Cloud, fresh
from tests.cli.running import eventually


@pytest.fixture(scope="module")
def guest(cloud: Cloud) -> dict:
    """A server with a key and user data."""
    network = cloud.network(cloud.demo)
    name = fresh("pair")
    pair = cloud.demo.made("/compute/v2.1/os-keypairs", {"keypair": {"name": name}})
    server = cloud.server(
        cloud.demo,
        network["id"],
        name="Web Server_1",
        key_name=name,
        user_data=base64.b64encode(b"#!/bin/sh\n\x00\xff").decode(),
        metadata={"role": "web"},
    )
    address = server["addresses"][network["name"]][0]["addr"]
    return {"server": server, "network": network, "address": address, "pair": pair}


@contextlib.asynccontextmanager
async def agent(cloud: Cloud) -> AsyncIterator[Bus]:
    config = json.loads((cloud.up.state_dir / "run" / "agent.config.json").read_text())
    bus = await Bus.connect(
        config["nats_url"],
        user=config["nats_user"],
        password=config["nats_password"],
        name="test",
        cell=config["cell"],
    )
    try:
        yield bus
    finally:
        await bus.close()


async def ask(cloud: Cloud, guest: dict, path: str, **other: str) -> MetadataReply:
    question = MetadataAsk(
        network_id=other.get("network_id", guest["network"]["id"]),
        address=other.get("address", guest["address"]),
        path=path,
        method=other.get("method", "GET"),
    )
    async with agent(cloud) as bus:
        raw = await bus.request(
            bus.subjects.metadata("host-1"), msgspec.json.encode(question), timeout_s=10
        )
    return msgspec.json.decode(raw, type=MetadataReply)


async def test_a_guest_is_told_its_name_id_key_and_user_data(cloud: Cloud, guest: dict):
    server, key = guest["server"], guest["pair"]["public_key"]
    told = {
        "/latest/meta-data/instance-id": server["id"].encode(),
        "/2009-04-04/meta-data/hostname": b"web-server-1.novalocal",
        "/latest/meta-data/local-hostname": b"web-server-1.novalocal",
        "/latest/meta-data/local-ipv4": guest["address"].encode(),
        "/latest/meta-data/public-keys/0/openssh-key": key.encode(),
        "/latest/meta-data/public-keys/": f"0={guest['pair']['name']}".encode(),
        "/latest/user-data": b"#!/bin/sh\n\x00\xff",
        "/openstack/latest/user_data": b"#!/bin/sh\n\x00\xff",
    }
    for path, body in told.items():
        reply = await ask(cloud, guest, path)
        assert (reply.status, reply.body) == (200, body), path

    listing = (await ask(cloud, guest, "/latest/meta-data/")).body.decode().split("\n")
    assert {"instance-id", "hostname", "public-keys/", "placement/"} <= set(listing)
    document = json.loads((await ask(cloud, guest, "/openstack/latest/meta_data.json")).body)
    assert document["uuid"] == server["id"]
    assert document["meta"] == {"role": "web"}
    assert document["keys"][0]["data"] == key
    network = json.loads((await ask(cloud, guest, "/openstack/latest/network_data.json")).body)
    assert network["networks"][0]["network_id"] == guest["network"]["id"]
    assert network["links"][0]["mtu"] == 1450


@pytest.mark.parametrize(
    ("path", "other", "status"),
    [
        ("/latest/meta-data/nothing", {}, 404),
        ("/nothing", {}, 404),
        ("/openstack/nothing", {}, 404),
        ("/latest/meta-data/instance-id", {"address": "10.77.0.250"}, 404),
        ("/latest/meta-data/instance-id", {"network_id": "another"}, 404),
        ("/latest/user-data", {"method": "POST"}, 405),
    ],
)
async def test_a_guest_is_told_nothing_else(cloud: Cloud, guest: dict, path, other, status):
    assert (await ask(cloud, guest, path, **other)).status == status


async def test_a_question_that_cannot_be_read_is_answered(cloud: Cloud):
    async with agent(cloud) as bus:
        raw = await bus.request(bus.subjects.metadata("host-1"), b"nonsense", timeout_s=10)

    assert msgspec.json.decode(raw, type=MetadataReply).status == 400


async def test_what_guests_ask_is_told_to_their_project(cloud: Cloud, guest: dict):
    assert (await ask(cloud, guest, "/openstack/latest/meta_data.json")).status == 200
    path = f"/v1/audit?show=reads&resource_id={guest['server']['id']}"

    def told() -> bool:
        rows = cloud.demo("GET", path).body["requests"]
        return any(
            (row["api"], row["status"], row["address"]) == ("metadata", 200, guest["address"])
            for row in rows
        )

    eventually(told, "the guest's question is told")
