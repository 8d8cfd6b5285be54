"""Paths into facts lead to numbers, truths and texts, and never to secrets."""

import pytest

from schemas import compute as c
from schemas import image as i
from schemas.paths import NoSuchPath, leaf, reader
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
