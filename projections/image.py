"""Read model of images, folded by the decider's own function."""

from engine.domain.image import evolve_image
from projections.store import Table, Writer
from schemas import image as s
from schemas.units import Micros, Ordinal

NAME = "image"
VERSION = 1

IMAGES = Table(
    "images",
    s.Image,
    columns="id TEXT NOT NULL, project_id TEXT NOT NULL, name TEXT NOT NULL, "
    "status TEXT NOT NULL, visibility TEXT NOT NULL, disk_format TEXT NOT NULL, "
    "size_bytes INTEGER, protected INTEGER NOT NULL, created_at INTEGER NOT NULL, "
    "updated_at INTEGER NOT NULL",
    values=lambda i: (
        i.image_id,
        i.project_id,
        i.name,
        i.status,
        i.visibility,
        i.disk_format,
        i.size_bytes,
        i.protected,
        i.created_at,
        i.updated_at,
    ),
    indexes=("(project_id)", "(visibility)"),
)

STATEMENTS = IMAGES.create


def _image_changed(writer: Writer, fact: s.ImageFact, ordinal: Ordinal, at: Micros) -> None:
    if isinstance(fact, s.ImageCreated | s.ImageUpdated):
        image_id = fact.image.image_id
    else:
        image_id = fact.image_id
    image = evolve_image(writer.find(IMAGES, image_id), fact, at)
    if image is None:
        writer.drop(IMAGES, image_id)
    else:
        writer.put(IMAGES, image, ordinal)


APPLY = {
    s.ImageCreated: _image_changed,
    s.ImageUploaded: _image_changed,
    s.ImageActivated: _image_changed,
    s.ImageRejected: _image_changed,
    s.ImageUpdated: _image_changed,
    s.ImageDeleted: _image_changed,
}
