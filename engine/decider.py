"""The decider: one request and the state in, a verdict with facts out. Pure.

Actions map to functions of ``engine.domain``. A refusal is a ``Rejected`` raised there; anything
else that is raised is a defect and stops the engine before anything is committed.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from engine.clocks import late_by_s, need_no_future
from engine.domain import (
    access,
    alarm,
    billing,
    compute,
    host,
    identity,
    image,
    leader,
    metering,
    network,
    operation,
    policy,
    quota,
    samples,
    webhook,
)
from engine.domain.context import Context
from engine.domain.fold import key_of
from engine.domain.state import Answered, Cell
from engine.policy import Policies, authorize, scope_of
from schemas import access as sa
from schemas import alarm as sl
from schemas import billing as sb
from schemas import compute as sc
from schemas import engine as se
from schemas import host as sh
from schemas import identity as si
from schemas import image as sm
from schemas import metering as st
from schemas import network as sn
from schemas import operation as so
from schemas import policy as sp
from schemas import quota as sq
from schemas import samples as sr
from schemas import webhook as sw
from schemas.envelope import Accepted, Actor, Record, Refused, Request, action_types, encode
from schemas.errors import IdReused, KeyReused, Rejected
from schemas.repetition import Keyed
from schemas.units import Micros

DECIDE: dict[type, Callable[[Cell, Context, Any], tuple[list[Any], dict[str, object]]]] = {
    si.Bootstrap: identity.bootstrap,
    si.CreateDomain: identity.create_domain,
    si.UpdateDomain: identity.update_domain,
    si.DeleteDomain: identity.delete_domain,
    si.CreateProject: identity.create_project,
    si.UpdateProject: identity.update_project,
    si.DeleteProject: identity.delete_project,
    si.CreateUser: identity.create_user,
    si.UpdateUser: identity.update_user,
    si.DeleteUser: identity.delete_user,
    si.CreateGroup: identity.create_group,
    si.UpdateGroup: identity.update_group,
    si.DeleteGroup: identity.delete_group,
    si.AddGroupMember: identity.add_group_member,
    si.RemoveGroupMember: identity.remove_group_member,
    si.RevokeToken: identity.revoke_token,
    si.SetPasswordPolicy: identity.set_password_policy,
    si.CreateRole: identity.create_role,
    si.UpdateRole: identity.update_role,
    si.DeleteRole: identity.delete_role,
    si.ImplyRole: identity.imply_role,
    si.EndRoleImplication: identity.end_role_implication,
    si.GrantRole: identity.grant_role,
    si.RevokeRole: identity.revoke_role,
    si.CreateApplicationCredential: identity.create_application_credential,
    si.DeleteApplicationCredential: identity.delete_application_credential,
    si.DeleteAccessRule: identity.delete_access_rule,
    si.CreateCredential: identity.create_credential,
    si.UpdateCredential: identity.update_credential,
    si.DeleteCredential: identity.delete_credential,
    si.CreateTrust: identity.create_trust,
    si.UseTrust: identity.use_trust,
    si.DeleteTrust: identity.delete_trust,
    si.CreateRegion: identity.create_region,
    si.UpdateRegion: identity.update_region,
    si.DeleteRegion: identity.delete_region,
    si.CreateService: identity.create_service,
    si.UpdateService: identity.update_service,
    si.DeleteService: identity.delete_service,
    si.CreateEndpoint: identity.create_endpoint,
    si.UpdateEndpoint: identity.update_endpoint,
    si.DeleteEndpoint: identity.delete_endpoint,
    si.CreateIdentityProvider: identity.create_identity_provider,
    si.UpdateIdentityProvider: identity.update_identity_provider,
    si.DeleteIdentityProvider: identity.delete_identity_provider,
    si.CreateMapping: identity.create_mapping,
    si.UpdateMapping: identity.update_mapping,
    si.DeleteMapping: identity.delete_mapping,
    si.CreateProtocol: identity.create_protocol,
    si.UpdateProtocol: identity.update_protocol,
    si.DeleteProtocol: identity.delete_protocol,
    si.SignInFederated: identity.sign_in_federated,
    sc.CreateFlavor: compute.create_flavor,
    sc.DeleteFlavor: compute.delete_flavor,
    sc.CreateKeypair: compute.create_keypair,
    sc.DeleteKeypair: compute.delete_keypair,
    sc.CreateServer: compute.create_server,
    sc.RenameServer: compute.rename_server,
    sc.DeleteServer: compute.delete_server,
    sc.StartServer: compute.start_server,
    sc.StopServer: compute.stop_server,
    sc.RebootServer: compute.reboot_server,
    sc.ResizeServer: compute.resize_server,
    sc.ConfirmServerResize: compute.confirm_server_resize,
    sc.RevertServerResize: compute.revert_server_resize,
    sc.ReportServerState: operation.report_server_state,
    sm.CreateImage: image.create_image,
    sm.UploadImage: image.upload_image,
    sm.UpdateImage: image.update_image,
    sm.DeleteImage: image.delete_image,
    sn.CreateNetwork: network.create_network,
    sn.DeleteNetwork: network.delete_network,
    sn.CreateSubnet: network.create_subnet,
    sn.DeleteSubnet: network.delete_subnet,
    sn.CreatePort: network.create_port,
    sn.DeletePort: network.delete_port,
    sh.RegisterHost: host.register_host,
    sh.MarkHost: host.mark_host,
    sh.ReportDrift: host.report_drift,
    so.ReportOperation: operation.report_operation,
    so.PassDeadline: operation.pass_deadline,
    sb.PublishPriceList: billing.publish_price_list,
    sb.WithdrawPriceList: billing.withdraw_price_list,
    st.DefineMeter: metering.define_meter,
    st.DeleteMeter: metering.delete_meter,
    sl.DefineAlarm: alarm.define_alarm,
    sl.DeleteAlarm: alarm.delete_alarm,
    sl.ReportAlarm: alarm.report_alarm,
    sr.ReportSamples: samples.report_samples,
    sb.CreateCustomer: billing.create_customer,
    sb.UpdateCustomer: billing.update_customer,
    sb.AssignProject: billing.assign_project,
    sb.GrantCredit: billing.grant_credit,
    sb.SetBilling: billing.set_billing,
    sb.ClosePeriod: billing.close_period,
    sb.IssueInvoice: billing.issue_invoice,
    sb.VoidInvoice: billing.void_invoice,
    sb.CorrectLine: billing.correct_line,
    sb.CreateBudget: billing.create_budget,
    sb.DeleteBudget: billing.delete_budget,
    sb.PassBudget: billing.pass_budget,
    sq.SetQuota: quota.set_quota,
    sq.ResetQuota: quota.reset_quota,
    sq.SetQuotaClass: quota.set_quota_class,
    sw.CreateWebhook: webhook.create_webhook,
    sw.UpdateWebhook: webhook.update_webhook,
    sw.DeleteWebhook: webhook.delete_webhook,
    sw.RedeliverWebhook: webhook.redeliver_webhook,
    sw.GiveUpWebhook: webhook.give_up_webhook,
    se.ElectLeader: leader.elect_leader,
    se.ConfirmLead: leader.confirm_lead,
    se.RollLog: leader.roll_log,
    sp.SetPolicy: policy.set_policy,
    sa.RefuseRequest: access.refuse_request,
}
assert set(DECIDE) == set(action_types().values()), "every action has its decision"

# What it remembers follows from the state, so decisions stay pure.
_policies = Policies()


def stamped(request: Request) -> Request:
    """Return the request with the digest of its content, which tells a repetition from an impostor.

    Content is what is asked and on whose behalf. Not the times and the client: a report that is
    sent again is sent at another time. Under a key the edge's digest stands: the same body sealed
    anew is another action.
    """
    if request.key is not None and request.digest:
        return request
    actor = request.actor
    content = encode((request.action, actor.user_id, actor.project_id, actor.host_id))
    return replace(request, digest=hashlib.sha256(content).hexdigest())


def repeated(cell: Cell, request: Request) -> Answered | None:
    """Return the earlier answer if this request was decided before, by its id or its key.

    A known id with other content is no repetition; ``decide`` refuses it, on the record.

    Raises:
        KeyReused: the key was used for another body.
    """
    answered = cell.state.answered.get(request.request_id)
    if answered is not None:
        return answered if answered.digest == request.digest else None
    if request.key is None:
        return None
    actor = request.actor
    return answered_under(
        cell,
        Keyed(
            user_id=actor.user_id,
            project_id=actor.project_id,
            key=request.key,
            digest=request.digest,
        ),
    )


def answered_under(cell: Cell, asked: Keyed) -> Answered | None:
    """Return the answer that a key stands for; None if it was not used, or is forgotten.

    Raises:
        KeyReused: it stands for that of another request.
    """
    answered = cell.state.keyed.get(key_of(asked.user_id, asked.project_id, asked.key))
    if answered is not None and answered.digest != asked.digest:
        raise KeyReused(f"the key {asked.key!r} was used for another request")
    return answered


def authenticate(cell: Cell, actor: Actor) -> frozenset[str]:
    """Return the roles an actor has now, whatever its request says.

    Raises:
        Unauthorized: the user or project is gone or disabled, or the token was ended.
    """
    if actor.kind != "user":
        return frozenset()
    return identity.actor_roles(cell, actor)


def decide(
    cell: Cell,
    request: Request,
    *,
    now: Micros,
    new_id: Callable[[], str],
    roles: frozenset[str],
    salt: str,
) -> Record:
    """Return the record of a request: accepted with its facts, or refused with the reason."""
    actor, kind = request.actor, type(request.action)
    rules, scope = _policies.of(cell.state.policy), scope_of(request.actor)
    rule = ""
    try:
        _need_own_id(cell, request)
        need_no_future(request, now)
        reach = authorize(rules, actor, roles, kind.__name__)
        rule = reach.rule
        ctx = Context(
            actor=actor,
            roles=roles,
            reach=reach,
            may=lambda action: rules.reach(action, scope, roles) is not None,
            now=now,
            request_id=request.request_id,
            new_id=new_id,
            trace=request.client.trace,
        )
        facts, reply = DECIDE[kind](cell, ctx, request.action)
        quota.need_room(cell, ctx, request.action, facts)
    except Rejected as rejected:
        return Record(salt=salt, request=request, verdict=refusal(rejected, rule))
    if late_s := late_by_s(request.action, now):
        reply = {**reply, "observed_s_ago": late_s}
    verdict = Accepted(reply=reply, rule=rule)
    return Record(salt=salt, request=request, verdict=verdict, facts=tuple(facts))


def _need_own_id(cell: Cell, request: Request) -> None:
    earlier = cell.state.answered.get(request.request_id)
    if earlier is not None:
        raise IdReused(
            f"the id {request.request_id} is that of another request, "
            f"answered at ordinal {earlier.ordinal}",
            ordinal=earlier.ordinal,
        )


def refusal(rejected: Rejected, rule: str = "") -> Refused:
    """Return a refusal as it is recorded and answered. ``rule`` let it pass, if it came so far.

    A refusal that names the rule behind it knows better.
    """
    return Refused(
        code=rejected.code,
        status=rejected.status,
        reason=rejected.reason,
        hint=rejected.hint,
        fields=rejected.fields,
        rule=str(rejected.fields.get("rule", rule)),
    )
