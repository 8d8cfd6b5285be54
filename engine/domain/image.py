"""Images: from a name that waits for content to content that was checked."""

import msgspec

from engine.domain.context import Context
from engine.domain.host import hosts_up
from engine.domain.state import Cell, drop_member
from schemas import image as s
from schemas.envelope import Fact
from schemas.errors import (
    Conflict,
    Duplicate,
    Forbidden,
    IncorrectImageState,
    InvalidInput,
    NotFound,
    Unavailable,
    UnknownReference,
)
from schemas.operation import (
    Operation,
    OperationCancelled,
    OperationFailed,
    OperationStarted,
    OperationSucceeded,
    ReportOperation,
)
from schemas.units import MINUTE, Micros

type Decision = tuple[list[Fact], dict[str, object]]

CHECK_DEADLINE: Micros = 10 * MINUTE
# Of all properties of an image together: each change is recorded with the whole image.
PROPERTIES_BYTES_MAX = 512 * 2**10


def create_image(cell: Cell, ctx: Context, action: s.CreateImage) -> Decision:
    """Make an image that waits for content."""
    if action.visibility == "public" and not ctx.may("image:images:publicize"):
        raise Forbidden("making an image public needs the role admin")
    if action.image_id is not None and action.image_id in cell.state.images:
        raise Duplicate(f"an image with the id {action.image_id} exists")
    _bounded(action.properties)
    image = s.Image(
        image_id=action.image_id or ctx.new_id(),
        name=action.name,
        project_id=ctx.need_project(),
        user_id=ctx.actor.user_id,
        disk_format=action.disk_format,
        visibility=action.visibility,
        container_format=action.container_format,
        min_disk_gib=action.min_disk_gib,
        min_memory_mib=action.min_memory_mib,
        protected=action.protected,
        tags=action.tags,
        properties=action.properties,
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    return [s.ImageCreated(image=image)], {"image_id": image.image_id}


def upload_image(cell: Cell, ctx: Context, action: s.UploadImage) -> Decision:
    """Take the bytes in and have a host check what they are."""
    image = own_image(cell, ctx, action.image_id)
    if image.status != "queued":
        raise IncorrectImageState(f"the image is {image.status}, content is taken while queued")
    if any(other.blob_id == action.blob_id for other in cell.state.images.values()):
        # Two holders would let either read, or delete, what is the other's.
        raise Conflict("the content is another image's already")
    hosts = hosts_up(cell, "storage")
    if not hosts:
        raise Unavailable("no host is up that could check the image's content")
    operation = Operation(
        operation_id=ctx.new_id(),
        kind="check",
        resource_kind="image",
        resource_id=image.image_id,
        host_id=hosts[0].host_id,
        executor="storage",
        generation=1,
        accepted_at=ctx.now,
        deadline=ctx.now + CHECK_DEADLINE,
        request_id=ctx.request_id,
        project_id=image.project_id,
        trace=ctx.trace,
    )
    uploaded = s.ImageUploaded(
        image_id=image.image_id,
        operation_id=operation.operation_id,
        blob_id=action.blob_id,
        size_bytes=action.size_bytes,
        md5=action.md5,
        sha512=action.sha512,
    )
    return [uploaded, OperationStarted(operation=operation)], {
        "image_id": image.image_id,
        "operation_id": operation.operation_id,
    }


def update_image(cell: Cell, ctx: Context, action: s.UpdateImage) -> Decision:
    """Change what is given."""
    image = own_image(cell, ctx, action.image_id)
    if (
        action.visibility == "public"
        and image.visibility != "public"
        and not ctx.may("image:images:publicize")
    ):
        raise Forbidden("making an image public needs the role admin")
    _bounded(action.properties or {})
    given = {
        name: value
        for name in (
            "name",
            "visibility",
            "protected",
            "min_disk_gib",
            "min_memory_mib",
            "tags",
            "properties",
        )
        if (value := getattr(action, name)) is not None
    }
    changed = msgspec.structs.replace(image, updated_at=ctx.now, **given)
    return [s.ImageUpdated(image=changed)], {"image_id": image.image_id}


def _bounded(properties: dict[str, str]) -> None:
    size = sum(len(name.encode()) + len(value.encode()) for name, value in properties.items())
    if size > PROPERTIES_BYTES_MAX:
        raise InvalidInput(
            f"the image's properties have {size} bytes together; at most {PROPERTIES_BYTES_MAX}"
        )


def delete_image(cell: Cell, ctx: Context, action: s.DeleteImage) -> Decision:
    """Remove an image that is not protected."""
    image = own_image(cell, ctx, action.image_id)
    if image.protected:
        raise Forbidden("the image is protected; clear `protected` before deleting it")
    facts: list[Fact] = [
        OperationCancelled(
            operation_id=operation.operation_id,
            generation=operation.generation,
            cause="the image was deleted",
        )
        for operation in cell.state.operations.values()
        if operation.resource_id == image.image_id
    ]
    return [*facts, s.ImageDeleted(image_id=image.image_id, blob_id=image.blob_id)], {}


def checked(cell: Cell, ctx: Context, operation: Operation, report: ReportOperation) -> list[Fact]:
    """Return what follows from the report on an image's content."""
    image = cell.state.images[operation.resource_id]
    if report.succeeded:
        return [
            OperationSucceeded(
                operation_id=operation.operation_id, generation=operation.generation
            ),
            s.ImageActivated(image_id=image.image_id, virtual_size_bytes=report.virtual_size_bytes),
        ]
    return [
        OperationFailed(
            operation_id=operation.operation_id,
            generation=operation.generation,
            cause=report.cause,
        ),
        rejected(image, report.cause),
    ]


def rejected(image: s.Image, reason: str) -> s.ImageRejected:
    """Return the fact that an upload was thrown away."""
    return s.ImageRejected(
        image_id=image.image_id, blob_id=image.blob_id or "", reason=reason or "not checked"
    )


def own_image(cell: Cell, ctx: Context, image_id: str) -> s.Image:
    """Return an image that the actor may change.

    Raises:
        NotFound: there is none that the actor may see.
        Forbidden: it is another project's public image.
    """
    image = cell.state.images.get(image_id)
    if image is None or not (ctx.owns(image.project_id) or image.visibility == "public"):
        raise NotFound(f"there is no image {image_id}")
    if not ctx.owns(image.project_id):
        raise Forbidden("the image belongs to another project; only its owner may change it")
    return image


def bootable_image(cell: Cell, ctx: Context, image_id: str) -> s.Image:
    """Return an image that a server of the actor can boot from.

    Raises:
        UnknownReference: there is none, or it has no checked content.
    """
    image = cell.state.images.get(image_id)
    if image is None or not (ctx.owns(image.project_id) or image.visibility == "public"):
        raise UnknownReference(f"there is no image {image_id}")
    if image.status != "active":
        raise UnknownReference(f"the image {image_id} is {image.status}, not active")
    return image


# Evolve


def evolve_image(image: s.Image | None, fact: s.ImageFact, at: Micros) -> s.Image | None:
    """Fold one fact into an image; None means that there is none (any more)."""
    match fact:
        case s.ImageCreated() | s.ImageUpdated():
            return fact.image
        case s.ImageDeleted():
            return None
        case _:
            assert image is not None, f"{type(fact).__name__} about an image that is not there"
            return _evolve_existing(image, fact, at)


def _evolve_existing(
    image: s.Image, fact: s.ImageUploaded | s.ImageActivated | s.ImageRejected, at: Micros
) -> s.Image:
    match fact:
        case s.ImageUploaded():
            return msgspec.structs.replace(
                image,
                status="saving",
                blob_id=fact.blob_id,
                size_bytes=fact.size_bytes,
                md5=fact.md5,
                sha512=fact.sha512,
                message="",
                updated_at=at,
            )
        case s.ImageActivated():
            return msgspec.structs.replace(
                image,
                status="active",
                virtual_size_bytes=fact.virtual_size_bytes,
                updated_at=at,
            )
        case s.ImageRejected():
            return msgspec.structs.replace(
                image,
                status="queued",
                blob_id=None,
                size_bytes=None,
                md5=None,
                sha512=None,
                message=fact.reason,
                updated_at=at,
            )


def image_changed(cell: Cell, fact: s.ImageFact, at: Micros) -> None:
    images = cell.state.images
    image_id = (
        fact.image.image_id if isinstance(fact, s.ImageCreated | s.ImageUpdated) else fact.image_id
    )
    old = images.get(image_id)
    new = evolve_image(old, fact, at)
    if new is None:
        if old is not None:
            del images[image_id]
            drop_member(cell.index.project_images, old.project_id, image_id)
        return
    images[image_id] = new
    if old is None:
        cell.index.project_images.setdefault(new.project_id, set()).add(image_id)
