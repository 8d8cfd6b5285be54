"""Read model of webhooks: what each project subscribes to."""

from engine.domain.webhook import disabled
from projections.store import Table, Writer
from schemas import webhook as s
from schemas.units import Micros, Ordinal

NAME = "webhook"
VERSION = 1

WEBHOOKS = Table(
    "webhooks",
    s.Webhook,
    columns="id TEXT NOT NULL, project_id TEXT NOT NULL, name TEXT NOT NULL, "
    "created_at INTEGER NOT NULL",
    values=lambda w: (w.webhook_id, w.project_id, w.name, w.created_at),
    indexes=("(project_id, created_at, id)",),
)

STATEMENTS = WEBHOOKS.create


def _saved(
    writer: Writer, fact: s.WebhookCreated | s.WebhookUpdated, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(WEBHOOKS, fact.webhook, ordinal)


def _disabled(writer: Writer, fact: s.WebhookDisabled, ordinal: Ordinal, at: Micros) -> None:
    old = writer.need(WEBHOOKS, fact.webhook_id)
    writer.put(WEBHOOKS, disabled(old, fact, at), ordinal)


def _redelivery_requested(
    _writer: Writer, _fact: s.WebhookRedeliveryRequested, _ordinal: Ordinal, _at: Micros
) -> None:
    """The courier reads it in the timeline."""


def _deleted(writer: Writer, fact: s.WebhookDeleted, _ordinal: Ordinal, _at: Micros) -> None:
    writer.drop(WEBHOOKS, fact.webhook_id)


APPLY = {
    s.WebhookCreated: _saved,
    s.WebhookUpdated: _saved,
    s.WebhookDisabled: _disabled,
    s.WebhookRedeliveryRequested: _redelivery_requested,
    s.WebhookDeleted: _deleted,
}
