"""Images (OpenStack Image API v2)."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import Id, ImageId, OperationId, ProjectId, UserId
from schemas.units import DiskGib, Micros, SizeBytes, Text

type DiskFormat = Literal["qcow2", "raw"]
type ImageStatus = Literal["queued", "saving", "active"]
type Visibility = Literal["public", "private", "shared"]
ImageName = Annotated[str, Meta(max_length=255)]
BlobId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+\Z")]
MinMib = Annotated[int, Meta(ge=0, le=16 * 1024 * 1024)]


class Image(Struct, frozen=True, kw_only=True):
    """A disk to boot from. ``blob_id`` names its bytes in the blob store once they are in."""

    image_id: ImageId
    name: ImageName
    project_id: ProjectId
    user_id: UserId
    disk_format: DiskFormat
    visibility: Visibility = "shared"
    status: ImageStatus = "queued"
    container_format: str = "bare"
    min_disk_gib: DiskGib = 0
    min_memory_mib: MinMib = 0
    protected: bool = False
    tags: tuple[str, ...] = ()
    properties: dict[str, str] = {}
    blob_id: str | None = None
    size_bytes: int | None = None
    virtual_size_bytes: int | None = None
    md5: str | None = None
    sha512: str | None = None
    message: str = ""  # why the last upload was refused
    created_at: Micros
    updated_at: Micros


class CreateImage(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make an image that waits for its content. Public ones are for administrators."""

    name: ImageName = ""
    disk_format: DiskFormat
    image_id: Id | None = None
    container_format: Literal["bare"] = "bare"
    visibility: Visibility = "shared"
    min_disk_gib: DiskGib = 0
    min_memory_mib: MinMib = 0
    protected: bool = False
    tags: Annotated[tuple[Text, ...], Meta(max_length=128)] = ()
    properties: Annotated[
        dict[Text, Annotated[str, Meta(max_length=65535)]], Meta(max_length=128)
    ] = {}


class UploadImage(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The edge has stored the bytes under ``blob_id``; a host shall check what they are."""

    image_id: Id
    blob_id: BlobId
    size_bytes: SizeBytes
    md5: Annotated[str, Meta(min_length=32, max_length=32)]
    sha512: Annotated[str, Meta(min_length=128, max_length=128)]


class UpdateImage(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change what is given; None leaves a value as it is."""

    image_id: Id
    name: ImageName | None = None
    visibility: Visibility | None = None
    protected: bool | None = None
    min_disk_gib: DiskGib | None = None
    min_memory_mib: MinMib | None = None
    tags: Annotated[tuple[Text, ...], Meta(max_length=128)] | None = None
    properties: (
        Annotated[dict[Text, Annotated[str, Meta(max_length=65535)]], Meta(max_length=128)] | None
    ) = None


class DeleteImage(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove an image. Servers made from it keep running: hosts keep the base of their disks."""

    image_id: Id


type ImageAction = CreateImage | UploadImage | UpdateImage | DeleteImage


class ImageCreated(
    Struct, frozen=True, kw_only=True, tag="image.image.created.v1", tag_field="type"
):
    """An image waits for content. Not metered: it holds no bytes."""

    image: Image


class ImageUploaded(
    Struct, frozen=True, kw_only=True, tag="image.image.uploaded.v1", tag_field="type"
):
    """The bytes are stored and being checked. Not metered until they are found good."""

    image_id: ImageId
    operation_id: OperationId
    blob_id: str
    size_bytes: SizeBytes
    md5: str
    sha512: str


class ImageActivated(
    Struct, frozen=True, kw_only=True, tag="image.image.activated.v1", tag_field="type"
):
    """The content is what it says. Its ``size_bytes`` are metered from this commit's time on."""

    image_id: ImageId
    virtual_size_bytes: SizeBytes


class ImageRejected(
    Struct, frozen=True, kw_only=True, tag="image.image.rejected.v1", tag_field="type"
):
    """The content was not what it said, and is thrown away: the image waits again. Not metered."""

    image_id: ImageId
    blob_id: str
    reason: str


class ImageUpdated(
    Struct, frozen=True, kw_only=True, tag="image.image.updated.v1", tag_field="type"
):
    """The image as it is after the change. Metering goes on."""

    image: Image


class ImageDeleted(
    Struct, frozen=True, kw_only=True, tag="image.image.deleted.v1", tag_field="type"
):
    """The image is gone and its bytes may be removed. No longer metered."""

    image_id: ImageId
    blob_id: str | None


type ImageFact = (
    ImageCreated | ImageUploaded | ImageActivated | ImageRejected | ImageUpdated | ImageDeleted
)
