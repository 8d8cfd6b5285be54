"""Commands about images."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import Client, quoted
from cli.output import Row
from cli.problem import USAGE, Problem
from cli.progress import Waiting, poll
from cli.resource import Resource, add_delete, add_reads
from cli.session import Session, command, group

IMAGES = Resource(
    word="image",
    path="/image/v2/images",
    key="",
    keys="images",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("STATUS", "status"),
        ("FORMAT", "disk_format"),
        ("SIZE", "size"),
        ("VISIBILITY", "visibility"),
    ],
)
CHECK_S = 300.0

image_app = group("Disks to boot from.")
add_reads(image_app, IMAGES)
add_delete(image_app, IMAGES)


@command(image_app, "create")
def create_image(
    session: Session,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    *,
    file: Annotated[Path, typer.Option(help="The disk's file.")],
    disk_format: Annotated[str, typer.Option(help="qcow2 or raw.")] = "qcow2",
    public: Annotated[bool, typer.Option(help="For every project (administrators).")] = False,
) -> None:
    """Upload an image and wait until its content has been found good.

    Example: cumulog image create debian-13 --file debian-13.qcow2
    """
    body = {"name": name, "disk_format": disk_format, "container_format": "bare"}
    if public:
        body["visibility"] = "public"
    with Waiting(f"image {name}") as waiting:
        image = upload_image(session.client, body, file, waiting.say)
    session.show(image)


def upload_image(
    client: Client, body: dict[str, Any], file: Path, say: Callable[[str], None]
) -> Row:
    """Make an image, send a file's bytes and return it once it is active.

    Raises:
        Problem: the file cannot be read, or its content is not what it says.
    """
    try:
        content = file.open("rb")
    except OSError as error:
        raise Problem(f"cannot read {file}: {error.strerror}", exit_code=USAGE) from error
    with content:
        size = file.stat().st_size
        image = client.post(IMAGES.path, body)
        say(f"sending {size / 2**20:.1f} MiB")
        client.upload(f"{IMAGES.path}/{quoted(image['id'])}/file", content, size)
        for _ in poll(CHECK_S):
            image = IMAGES.get(client, image["id"])
            if image["status"] == "active":
                return dict(image)
            if image["status"] == "queued":  # thrown away, waiting for a better upload
                reason = image.get("cumulog_message") or image.get("message") or "see the audit log"
                raise Problem(f"image {body['name']} was refused: {reason}")
            say("being checked")
    raise Problem(
        f"image {body['name']} was not checked within {CHECK_S:.0f} s",
        hint="`cumulog host list` tells whether a host is up to check it.",
    )
