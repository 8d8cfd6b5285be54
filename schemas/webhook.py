"""Webhooks: where a project's events are sent as they happen, and what of them.

How deliveries go (what was sent last, what failed) is no fact: only what changes a webhook is.
"""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.ids import Id, ProjectId, UserId
from schemas.sealed import Sealed
from schemas.units import Micros, Ordinal

URL_CHARS_MAX = 2048
# Of a type without "cumulog.": a service, a noun, a verb, or the beginning of it.
TypePrefix = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[a-z0-9_.]+\Z")]
Url = Annotated[str, Meta(min_length=8, max_length=URL_CHARS_MAX, pattern=r"^https?://[!-~]+\Z")]
Types = Annotated[tuple[TypePrefix, ...], Meta(max_length=64)]
WebhookName = Annotated[str, Meta(min_length=1, max_length=255)]


class Webhook(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One subscription of a project.

    ``types`` are the beginnings of the types that are sent, none meaning all. ``secret`` signs what
    is sent. ``cause`` says why it was disabled, if nobody asked for that.
    """

    webhook_id: str
    project_id: ProjectId
    user_id: UserId
    name: str
    url: str
    secret: Sealed
    types: tuple[str, ...] = ()
    enabled: bool = True
    cause: str = ""
    created_at: Micros
    updated_at: Micros


class CreateWebhook(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Send the project's events to an address, from what follows this request on."""

    name: WebhookName
    url: Url
    secret: Sealed
    types: Types = ()
    enabled: bool = True


class UpdateWebhook(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change a webhook; what is None stays. Enabled again, it goes on where it ended."""

    webhook_id: Id
    name: WebhookName | None = None
    url: Url | None = None
    secret: Sealed | None = None
    types: Types | None = None
    enabled: bool | None = None


class DeleteWebhook(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Send nothing any more."""

    webhook_id: Id


class RedeliverWebhook(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Send again what follows an ordinal; without one, what was given up."""

    webhook_id: Id
    after: Ordinal | None = None


class GiveUpWebhook(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The courier: its receiver takes nothing, or has said that it is gone. From the engine only.

    ``updated_at`` is of the webhook that was tried: one that was changed since is not meant.
    """

    webhook_id: Id
    cause: Annotated[str, Meta(max_length=512)]
    updated_at: Micros


type WebhookAction = (
    CreateWebhook | UpdateWebhook | DeleteWebhook | RedeliverWebhook | GiveUpWebhook
)


class WebhookCreated(
    Struct, frozen=True, kw_only=True, tag="webhook.webhook.created.v1", tag_field="type"
):
    """The project's events are sent, from the next ordinal on. Not metered."""

    webhook: Webhook


class WebhookUpdated(
    Struct, frozen=True, kw_only=True, tag="webhook.webhook.updated.v1", tag_field="type"
):
    """It is as said here from now on. Not metered."""

    webhook: Webhook


class WebhookDisabled(
    Struct, frozen=True, kw_only=True, tag="webhook.webhook.disabled.v1", tag_field="type"
):
    """Nothing is sent until somebody enables it: the receiver was given up. Not metered."""

    webhook_id: str
    cause: str


class WebhookRedeliveryRequested(
    Struct,
    frozen=True,
    kw_only=True,
    tag="webhook.webhook.redelivery_requested.v1",
    tag_field="type",
):
    """What follows ``after``, or without it what was given up, is sent again. Not metered."""

    webhook_id: str
    after: Ordinal | None


class WebhookDeleted(
    Struct, frozen=True, kw_only=True, tag="webhook.webhook.deleted.v1", tag_field="type"
):
    """It is gone, and what was to be sent with it. Not metered."""

    webhook_id: str


type WebhookFact = (
    WebhookCreated | WebhookUpdated | WebhookDisabled | WebhookRedeliveryRequested | WebhookDeleted
)
