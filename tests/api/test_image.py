"""Images over HTTP: records, uploads that are checked, downloads, changes."""

import hashlib
import json
from collections.abc import Iterator

import pytest

from tests.api.conftest import Cloud, fresh

IMAGES = "/image/v2/images"
RAW = {"Content-Type": "application/octet-stream"}
V21 = "application/openstack-images-v2.1-json-patch"
V20 = "application/openstack-images-v2.0-json-patch"


def queued(cloud: Cloud, **more: object) -> dict:
    """Make an image without content."""
    wish = {"name": fresh("image"), "disk_format": "raw", "container_format": "bare"}
    reply = cloud.demo("POST", IMAGES, wish | more)
    assert reply.status == 201, reply
    assert reply.headers["location"] == f"{cloud.url}{IMAGES}/{reply.body['id']}"
    return reply.body


def test_an_image_from_queued_to_gone(cloud: Cloud):
    image = queued(cloud, **{"owner_specified.openstack.md5": "", "os_distro": "none"})
    path = f"{IMAGES}/{image['id']}"
    assert (image["status"], image["size"], image["checksum"]) == ("queued", None, None)
    assert image["visibility"] == "shared"
    assert image["os_distro"] == "none"
    assert image["file"] == f"/v2/images/{image['id']}/file"
    empty = cloud.demo("GET", f"{path}/file")
    assert (empty.status, empty.raw) == (204, b"")

    content = bytes(range(256)) * 4096 * 3

    def chunks() -> Iterator[bytes]:
        for at in range(0, len(content), 50_000):
            yield content[at : at + 50_000]

    sent = cloud.demo("PUT", f"{path}/file", raw=chunks(), headers=RAW)
    assert (sent.status, sent.raw) == (204, b"")

    shown = cloud.demo("GET", path).body
    assert shown["status"] == "active"
    assert shown["size"] == len(content)
    assert shown["checksum"] == hashlib.md5(content).hexdigest()
    assert shown["os_hash_value"] == hashlib.sha512(content).hexdigest()
    got = cloud.demo("GET", f"{path}/file")
    assert got.raw == content
    assert got.headers["content-md5"] == shown["checksum"]
    part = cloud.demo("GET", f"{path}/file", headers={"Range": "bytes=10-19"})
    assert (part.status, part.raw) == (206, content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(content)}"
    tail = cloud.demo("GET", f"{path}/file", headers={"Range": "bytes=-5"})
    assert tail.raw == content[-5:]
    beyond = cloud.demo("GET", f"{path}/file", headers={"Range": f"bytes={len(content)}-"})
    assert beyond.status == 416
    assert cloud.demo("PUT", f"{path}/file", raw=b"more", headers=RAW).status == 409

    blobs = set((cloud.up.state_dir / "blobs").iterdir())
    assert cloud.demo("DELETE", path).status == 204
    assert len(blobs - set((cloud.up.state_dir / "blobs").iterdir())) == 1
    assert cloud.demo("GET", path).status == 404
    assert cloud.demo("DELETE", path).status == 404


@pytest.mark.parametrize(
    ("headers", "status"), [({"Content-Type": "application/json"}, 415), ({}, 415)]
)
def test_content_is_an_octet_stream(cloud: Cloud, headers: dict, status: int):
    image = queued(cloud)

    reply = cloud.demo("PUT", f"{IMAGES}/{image['id']}/file", raw=b"{}", headers=headers)

    assert reply.status == status
    assert reply.body["code"] == "415 Unsupported Media Type"


@pytest.mark.parametrize("media", [V21, V20])
def test_images_are_changed_in_both_media_types(cloud: Cloud, media: str):
    image = queued(cloud, old="1")
    path = f"{IMAGES}/{image['id']}"

    def patch(*steps: tuple) -> int:
        body = []
        for op, where, *value in steps:
            step = {"op": op, "path": where} if media == V21 else {op: where}
            body.append(step | ({"value": value[0]} if value else {}))
        raw = json.dumps(body).encode()
        return cloud.demo("PATCH", path, raw=raw, headers={"Content-Type": media}).status

    changes = [
        ("replace", "/name", "new"), ("add", "/colour", "blue"), ("remove", "/old"),
        ("replace", "/tags", ["a", "b", "a"]), ("replace", "/min_ram", 5),
    ]  # fmt: skip
    assert patch(*changes) == 200
    shown = cloud.demo("GET", path).body
    assert (shown["name"], shown["colour"], shown["min_ram"]) == ("new", "blue", 5)
    assert shown["tags"] == ["a", "b"]
    assert "old" not in shown

    assert patch(("replace", "/nothing", "x")) == 409
    assert patch(("remove", "/nothing")) == 409
    assert patch(("replace", "/status", "active")) == 403
    assert patch(("replace", "/id", "x")) == 403
    assert patch(("remove", "/name")) == 403
    assert patch(("add", "/os_glance_x", "x")) == 403
    assert patch(("replace", "/colour", 5)) == 400
    assert patch(("replace", "/min_ram", "much")) == 400
    assert patch(("replace", "/visibility", "nonsense")) == 400
    assert patch(("replace", "/visibility", "public")) == 403
    assert patch(("replace", "name", "x")) == 400
    assert patch(("replace", "/name")) == 400
    assert cloud.demo("GET", path).body == shown
    wrong = cloud.demo("PATCH", path, [])
    assert wrong.status == 415


def test_protected_images_stay(cloud: Cloud):
    image = queued(cloud, protected=True)

    assert cloud.demo("DELETE", f"{IMAGES}/{image['id']}").status == 403


def test_tags(cloud: Cloud):
    path = f"{IMAGES}/{queued(cloud)['id']}"

    assert cloud.demo("PUT", f"{path}/tags/fine").status == 204
    assert cloud.demo("GET", path).body["tags"] == ["fine"]
    assert cloud.demo("DELETE", f"{path}/tags/fine").status == 204
    assert cloud.demo("DELETE", f"{path}/tags/fine").status == 404
    assert cloud.demo("PUT", f"{path}/tags/{'x' * 256}").status == 400


def test_lists_are_filtered_and_paged(cloud: Cloud):
    mark = fresh("mark")
    made = [queued(cloud, mark=mark, tags=[mark])["id"] for _ in range(3)]

    def ids(query: str) -> list[str]:
        reply = cloud.demo("GET", f"{IMAGES}?{query}")
        assert reply.status == 200, reply
        assert reply.body["schema"] == "/v2/schemas/images"
        return [i["id"] for i in reply.body["images"]]

    assert ids(f"mark={mark}") == made[::-1]
    assert ids(f"tag={mark}&sort=created_at:asc") == made
    assert ids(f"id=in:{made[0]},{made[1]}") == [made[1], made[0]]
    assert ids("id=in:") == []
    assert ids(f"mark={mark}&status=active") == []
    assert ids(f"mark={mark}&os_hidden=true") == []
    assert ids(f"mark={mark}&visibility=community") == []
    assert ids(f"mark={mark}&size_min=1") == []
    first = cloud.demo("GET", f"{IMAGES}?mark={mark}&limit=2").body
    assert first["next"].startswith("/v2/images?")
    second = cloud.demo("GET", f"/image{first['next']}").body
    assert [i["id"] for i in second["images"]] == made[:1]
    assert "next" not in second
    assert cloud.demo("GET", f"{IMAGES}?marker=nothing").status == 400
    assert cloud.demo("GET", f"{IMAGES}?sort=nonsense:asc").status == 400
    assert cloud.demo("GET", f"{IMAGES}?size_min=big").status == 400
    assert cloud.demo("GET", f"{IMAGES}?size_min={'9' * 5000}").status == 400


def test_others_see_public_images_only_and_change_none(cloud: Cloud):
    private = f"{IMAGES}/{queued(cloud)['id']}"
    public = f"{IMAGES}/{cloud.image_id()}"
    stranger = cloud.stranger()

    for method, more in (("GET", ""), ("DELETE", ""), ("GET", "/file"), ("PUT", "/tags/x")):
        assert stranger(method, private + more).status == 404
    assert stranger("PUT", f"{private}/file", raw=b"x", headers=RAW).status == 404
    assert stranger("GET", public).status == 200
    assert stranger("DELETE", public).status == 403
    assert stranger("PUT", f"{public}/file", raw=b"x", headers=RAW).status == 403
    patch = b'[{"op": "replace", "path": "/name", "value": "mine"}]'
    assert stranger("PATCH", public, raw=patch, headers={"Content-Type": V21}).status == 403
    listed = {i["id"] for i in stranger("GET", IMAGES).body["images"]}
    assert listed == {cloud.image_id()}


def test_what_older_clients_read_about_images(cloud: Cloud):
    schema = cloud.demo("GET", "/image/v2/schemas/image").body
    assert schema["name"] == "image"
    assert schema["additionalProperties"] == {"type": "string"}
    assert cloud.demo("GET", IMAGES).body["images"][0].keys() <= (
        schema["properties"].keys() | {"mark", "old", "colour", "os_distro"}
    )
    assert cloud.demo("GET", "/image/v2/schemas/images").body["name"] == "images"
    methods = cloud.demo("GET", "/image/v2/info/import").body["import-methods"]
    assert methods["value"] == []
