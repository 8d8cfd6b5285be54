"""Webhooks: what a project subscribes to. Where an address leads is looked at outside."""

from msgspec.structs import replace

from engine.domain.context import Context
from engine.domain.state import Cell, drop_member
from schemas import webhook as s
from schemas.envelope import Fact
from schemas.errors import Conflict, InvalidInput, NotFound
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]

# Each is a reader of its own.
WEBHOOKS_MAX = 20


def create_webhook(cell: Cell, ctx: Context, action: s.CreateWebhook) -> Decision:
    """Subscribe the caller's project."""
    project_id = ctx.actor.project_id
    if not project_id:
        raise InvalidInput("a webhook needs a token scoped to a project")
    if len(cell.index.project_webhooks.get(project_id, ())) >= WEBHOOKS_MAX:
        raise Conflict(f"a project has at most {WEBHOOKS_MAX} webhooks")
    _need_own_key(cell, project_id, action.secret.key_id)
    webhook = s.Webhook(
        webhook_id=ctx.new_id(),
        project_id=project_id,
        user_id=ctx.actor.user_id,
        name=action.name,
        url=action.url,
        secret=action.secret,
        types=action.types,
        enabled=action.enabled,
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    return [s.WebhookCreated(webhook=webhook)], {"webhook_id": webhook.webhook_id}


def update_webhook(cell: Cell, ctx: Context, action: s.UpdateWebhook) -> Decision:
    """Change what is given."""
    old = _own(cell, ctx, action.webhook_id)
    if action.secret is not None:
        _need_own_key(cell, old.project_id, action.secret.key_id)
    given = {
        "name": action.name,
        "url": action.url,
        "secret": action.secret,
        "types": action.types,
        "enabled": action.enabled,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    new = replace(old, **changed)
    if new.enabled:
        new = replace(new, cause="")
    if new == old:
        return [], {"webhook_id": old.webhook_id}
    fact = s.WebhookUpdated(webhook=replace(new, updated_at=ctx.now))
    return [fact], {"webhook_id": old.webhook_id}


def delete_webhook(cell: Cell, ctx: Context, action: s.DeleteWebhook) -> Decision:
    """Unsubscribe."""
    webhook = _own(cell, ctx, action.webhook_id)
    return [s.WebhookDeleted(webhook_id=webhook.webhook_id)], {}


def redeliver_webhook(cell: Cell, ctx: Context, action: s.RedeliverWebhook) -> Decision:
    """Have something sent again."""
    webhook = _own(cell, ctx, action.webhook_id)
    fact = s.WebhookRedeliveryRequested(webhook_id=webhook.webhook_id, after=action.after)
    return [fact], {"webhook_id": webhook.webhook_id}


def give_up_webhook(cell: Cell, _ctx: Context, action: s.GiveUpWebhook) -> Decision:
    """Disable what nobody receives, unless it is gone or was changed meanwhile."""
    webhook = cell.state.webhooks.get(action.webhook_id)
    if webhook is None or not webhook.enabled or webhook.updated_at != action.updated_at:
        return [], {}
    return [s.WebhookDisabled(webhook_id=webhook.webhook_id, cause=action.cause)], {}


def webhooks_go(cell: Cell, project_id: str) -> list[Fact]:
    """Return the facts that a project's end means for its webhooks."""
    ids = sorted(cell.index.project_webhooks.get(project_id, ()))
    return [s.WebhookDeleted(webhook_id=webhook_id) for webhook_id in ids]


def _own(cell: Cell, ctx: Context, webhook_id: str) -> s.Webhook:
    webhook = cell.state.webhooks.get(webhook_id)
    if webhook is None or not ctx.owns(webhook.project_id):
        raise NotFound(f"there is no webhook {webhook_id!r}")
    return webhook


def _need_own_key(cell: Cell, project_id: str, key_id: str) -> None:
    """Refuse what another's key seals: the courier would sign with what it holds.

    Raises:
        InvalidInput: the key is not the project's.
    """
    if key_id != cell.state.projects[project_id].secrets_key_id:
        raise InvalidInput("the secret is not sealed by the project's key")


# Evolve


def webhook_saved(cell: Cell, fact: s.WebhookCreated | s.WebhookUpdated, at: Micros) -> None:
    webhook = fact.webhook
    cell.state.webhooks[webhook.webhook_id] = webhook
    cell.index.project_webhooks.setdefault(webhook.project_id, set()).add(webhook.webhook_id)


def webhook_disabled(cell: Cell, fact: s.WebhookDisabled, at: Micros) -> None:
    webhooks = cell.state.webhooks
    webhooks[fact.webhook_id] = disabled(webhooks[fact.webhook_id], fact, at)


def disabled(webhook: s.Webhook, fact: s.WebhookDisabled, at: Micros) -> s.Webhook:
    """Return the webhook as it is after it was given up."""
    return replace(webhook, enabled=False, cause=fact.cause, updated_at=at)


def webhook_redelivery_requested(
    cell: Cell, fact: s.WebhookRedeliveryRequested, at: Micros
) -> None:
    pass  # what was sent is not the engine's to know


def webhook_deleted(cell: Cell, fact: s.WebhookDeleted, at: Micros) -> None:
    webhook = cell.state.webhooks.pop(fact.webhook_id)
    drop_member(cell.index.project_webhooks, webhook.project_id, webhook.webhook_id)
