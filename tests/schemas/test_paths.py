"""Paths into facts lead to numbers, truths and texts, and never to secrets."""

import copy
from pathlib import Path

import msgspec
import pytest

from schemas import compute as c
from schemas import image as i
from schemas.envelope import fact_types
from schemas.paths import NoSuchPath, leaf, narrowed, reader
from schemas.sealed import Sealed

FLAVOR = c.Flavor(flavor_id="f", name="f", vcpus=2, memory_mib=512, disk_gib=10)
SERVER = c.Server(
    server_id="s",
    name="web",
    project_id="p",
    user_id="u",
    flavor=FLAVOR,
    image_id=None,
    metadata={"role": "web"},
    user_data=Sealed(key_id="k", wrapped_key="", nonce="", ciphertext=""),
    created_at=5,
    updated_at=6,
)
CREATED = c.ServerCreated(server=SERVER)


@pytest.mark.parametrize(
    ("path", "kind", "value"),
    [
        ("server.flavor.vcpus", "number", 2),
        ("server.created_at", "number", 5),
        ("server.launched_at", "number", None),
        ("server.config_drive", "truth", False),
        ("server.status", "text", "BUILD"),
        ("server.image_id", "text", None),
        ("server.metadata.role", "text", "web"),
        ("server.metadata.team", "text", None),
        ("server.fault.message", "text", None),  # nothing lies on the way
    ],
)
def test_what_a_path_leads_to(path, kind, value):
    assert leaf(c.ServerCreated, path) == kind
    assert reader(c.ServerCreated, path)(CREATED) == value


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("server", "neither a number"),
        ("server.flavour.vcpus", "server has no field 'flavour'"),
        ("boot", "the fact has no field 'boot'"),
        ("server.name.first", "server.name has no fields"),
        ("server.user_data.ciphertext", "server.user_data is sealed"),
        ("server.user_data", "neither a number"),
        ("server.port_ids", "neither a number"),
        ("server.metadata", "neither a number"),
        ("server.__class__", "no field"),
    ],
)
def test_where_no_path_leads(path, why):
    with pytest.raises(NoSuchPath, match=why):
        leaf(c.ServerCreated, path)


def test_a_field_that_may_be_missing_is_read_as_what_it_is():
    assert leaf(i.ImageCreated, "image.size_bytes") == "number"


EXAMPLES = [
    msgspec.json.decode(line)
    for line in (Path(__file__).parents[1] / "golden" / "facts.jsonl").read_text().splitlines()
]


def places(value, way=()):
    """Yield where there is anything in a JSON object."""
    for key, inner in value.items():
        yield (*way, key)
        if isinstance(inner, dict):
            yield from places(inner, (*way, key))


def variants(example):
    """Yield an example, and it without each of its parts, or with null there."""
    yield example
    for *way, last in places(example):
        for is_there in (False, True):
            other = copy.deepcopy(example)
            inner = other
            for key in way:
                inner = inner[key]
            inner.pop(last)
            if is_there:
                inner[last] = None
            yield other


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["type"])
def test_a_narrow_type_reads_what_the_whole_one_reads(example):
    """Of each fact, all that can be read, alone and together, whatever optional part is missing."""
    of = fact_types()[example["type"]]
    paths = []
    for path in (".".join(place) for place in places(example)):
        try:
            leaf(of, path)
        except NoSuchPath:
            continue
        paths.append(path)
    types = [(paths, narrowed(of, paths)), *(([path], narrowed(of, [path])) for path in paths)]
    for variant in variants(example):
        data = msgspec.json.encode(variant)
        try:
            whole = msgspec.json.decode(data, type=of)
        except msgspec.ValidationError:
            continue
        for read, narrow in types:
            found = msgspec.json.decode(data, type=narrow)
            for path in read:
                assert reader(of, path)(found) == reader(of, path)(whole), path


def test_a_narrow_type_holds_nothing_else_and_tells_what_it_is():
    narrow = narrowed(c.ServerCreated, ["server.flavor.vcpus", "server.project_id"])

    found = msgspec.json.decode(msgspec.json.encode(CREATED), type=narrow)
    assert msgspec.to_builtins(found) == {
        "type": "compute.server.created.v1",
        "server": {"project_id": "p", "flavor": {"vcpus": 2}},
    }
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"type":"compute.server.started.v1","server":{}}', type=narrow)
