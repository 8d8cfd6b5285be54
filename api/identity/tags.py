"""Tags of projects."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from api.exchange import Answer, Call, json_answer
from api.identity.lists import link
from api.identity.projects import find_project
from api.routing import Routes
from api.writing import write
from schemas.errors import NotFound
from schemas.identity import Project, UpdateProject
from schemas.units import Text


class _Tags(Struct, frozen=True, forbid_unknown_fields=True):
    tags: Annotated[tuple[Text, ...], Meta(max_length=128)]


_tags = msgspec.json.Decoder(_Tags)


def _shown(call: Call, project_id: str, tags: tuple[str, ...], status: int = 200) -> Answer:
    links = link(call, f"projects/{project_id}/tags")
    return json_answer({"tags": list(tags), "links": links}, status)


async def list_tags(call: Call) -> Answer:
    """GET /projects/{id}/tags."""
    project = find_project(call)
    return _shown(call, project.project_id, project.tags)


async def replace_tags(call: Call) -> Answer:
    """PUT /projects/{id}/tags."""
    tags = (await call.decode(_tags)).tags
    project = find_project(call, "UpdateProject")
    await _set(call, project, tags)
    now = call.edge.reader.project(project.project_id)
    return _shown(call, project.project_id, tags if now is None else now.tags)


async def delete_tags(call: Call) -> Answer:
    """DELETE /projects/{id}/tags."""
    await _set(call, find_project(call, "UpdateProject"), ())
    return Answer(204)


async def check_tag(call: Call) -> Answer:
    """GET and HEAD /projects/{id}/tags/{tag}."""
    _need(find_project(call), call.args[1])
    return Answer(204)


async def add_tag(call: Call) -> Answer:
    """PUT /projects/{id}/tags/{tag}."""
    project = find_project(call, "UpdateProject")
    await _set(call, project, (*project.tags, call.args[1]))
    return json_answer({}, 201, headers=[(b"location", (call.base + call.path).encode("latin-1"))])


async def delete_tag(call: Call) -> Answer:
    """DELETE /projects/{id}/tags/{tag}."""
    project, tag = find_project(call, "UpdateProject"), call.args[1]
    _need(project, tag)
    await _set(call, project, tuple(one for one in project.tags if one != tag))
    return Answer(204)


def _need(project: Project, tag: str) -> None:
    if tag not in project.tags:
        raise NotFound(f"the project has no tag {tag[:64]!r}")


async def _set(call: Call, project: Project, tags: tuple[str, ...]) -> None:
    await write(call, UpdateProject(project_id=project.project_id, tags=tags))


def add(routes: Routes) -> None:
    """Route what this module answers."""
    every, one, read = "/v3/projects/{}/tags", "/v3/projects/{}/tags/{}", "identity:projects:read"
    routes.add("GET", every, list_tags, read)
    routes.add("PUT", every, replace_tags, "UpdateProject", body=_tags)
    routes.add("DELETE", every, delete_tags, "UpdateProject", status=204)
    routes.add("GET", one, check_tag, read, status=204)
    routes.add("PUT", one, add_tag, "UpdateProject", status=201)
    routes.add("DELETE", one, delete_tag, "UpdateProject", status=204)
