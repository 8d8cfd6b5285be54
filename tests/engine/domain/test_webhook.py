"""What a project may subscribe to, and when a webhook is given up."""

import pytest
from msgspec.structs import replace

from engine.domain.webhook import WEBHOOKS_MAX
from schemas import webhook as w
from schemas.envelope import Actor
from schemas.identity import DeleteProject
from tests.engine.world import SECRET, SYSTEM, World


@pytest.fixture
def world() -> World:
    return World()


def asked(world: World, actor: Actor) -> w.CreateWebhook:
    key = world.cell.state.projects[actor.project_id].secrets_key_id
    secret = replace(SECRET, key_id=key)
    return w.CreateWebhook(name="hook", url="https://example.org/", secret=secret)


def made(world: World, actor: Actor) -> w.Webhook:
    ident = world.ok(actor, asked(world, actor))["webhook_id"]
    return world.cell.state.webhooks[ident]


def test_a_secret_that_another_s_key_seals_is_refused(world: World):
    """The courier would sign with what somebody else has sealed, and so tell whether it is that."""
    demo, other = world.member("demo"), world.member("other")
    assert world.refused(demo, asked(world, other)).code == "InvalidInput"
    webhook = made(world, demo)
    stolen = asked(world, other).secret
    change = w.UpdateWebhook(webhook_id=webhook.webhook_id, secret=stolen)
    assert world.refused(demo, change).code == "InvalidInput"


def test_another_project_s_is_as_if_it_were_not_there(world: World):
    demo, other, reader = world.member("demo"), world.member("other"), world.member("r", "reader")
    mine = {"webhook_id": made(world, demo).webhook_id}
    for action in (w.UpdateWebhook(**mine, name="x"), w.DeleteWebhook(**mine)):
        assert world.refused(other, action).status == 404
    assert world.refused(other, w.RedeliverWebhook(**mine)).status == 404
    assert world.refused(reader, asked(world, reader)).status == 403
    given_up = w.GiveUpWebhook(**mine, cause="x", updated_at=0)
    assert world.refused(world.admin, given_up).status == 403


def test_a_project_has_so_many_and_no_more(world: World):
    demo = world.member("demo")
    ids = [made(world, demo).webhook_id for _ in range(WEBHOOKS_MAX)]
    assert world.refused(demo, asked(world, demo)).status == 409
    world.ok(demo, w.DeleteWebhook(webhook_id=ids[0]))
    made(world, demo)


def test_what_was_changed_since_is_not_given_up(world: World):
    demo = world.member("demo")
    webhook = made(world, demo)
    mine = {"webhook_id": webhook.webhook_id}
    world.ok(demo, w.UpdateWebhook(**mine, url="https://example.org/new"))
    late = w.GiveUpWebhook(**mine, cause="the old one is gone", updated_at=webhook.updated_at)
    assert world.submit(SYSTEM, late).facts == ()
    newest = world.cell.state.webhooks[webhook.webhook_id]
    due = w.GiveUpWebhook(**mine, cause="it is gone", updated_at=newest.updated_at)
    assert len(world.submit(SYSTEM, due).facts) == 1
    assert world.submit(SYSTEM, due).facts == ()  # told twice
    given_up = world.cell.state.webhooks[webhook.webhook_id]
    assert (given_up.enabled, given_up.cause) == (False, "it is gone")
    world.ok(demo, w.UpdateWebhook(**mine, enabled=True))
    again = world.cell.state.webhooks[webhook.webhook_id]
    assert (again.enabled, again.cause) == (True, "")


def test_a_change_that_changes_nothing_is_no_fact(world: World):
    demo = world.member("demo")
    webhook = made(world, demo)
    same = w.UpdateWebhook(webhook_id=webhook.webhook_id, name="hook", enabled=True)
    assert world.submit(demo, same).facts == ()


def test_webhooks_go_with_their_project(world: World):
    demo, other = world.member("demo"), world.member("other")
    made(world, demo)
    kept = made(world, other)
    world.ok(world.admin, DeleteProject(project_id=demo.project_id))
    assert list(world.cell.state.webhooks) == [kept.webhook_id]
    assert demo.project_id not in world.cell.index.project_webhooks
