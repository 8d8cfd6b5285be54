"""The fold: from facts to state, one function per fact type.

A fact without a function here stops the fold: skipping what is not understood would silently lose
part of the truth.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Struct

from engine.domain import (
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
from engine.domain.state import Answered, Cell
from engine.domain.usage import CHANGES, count
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
from schemas.envelope import Accepted, Fact, Record, Refused, fact_types
from schemas.units import DAY, MINUTE, Micros, Ordinal

# How long a repeated request id gets its old answer; edges give up long before.
ANSWERED_FOR: Micros = 2 * MINUTE
KEYED_FOR: Micros = DAY

EVOLVE: dict[type, Callable[[Cell, Any, Micros], None]] = {
    si.DomainCreated: identity.domain_saved,
    si.DomainUpdated: identity.domain_saved,
    si.DomainDeleted: identity.domain_deleted,
    si.ProjectCreated: identity.project_saved,
    si.ProjectUpdated: identity.project_saved,
    si.ProjectDeleted: identity.project_deleted,
    si.UserCreated: identity.user_saved,
    si.UserUpdated: identity.user_saved,
    si.UserDeleted: identity.user_deleted,
    si.GroupCreated: identity.group_saved,
    si.GroupUpdated: identity.group_saved,
    si.GroupDeleted: identity.group_deleted,
    si.GroupMemberAdded: identity.group_member_added,
    si.GroupMemberRemoved: identity.group_member_removed,
    si.TokenRevoked: identity.token_revoked,
    si.PasswordPolicySet: identity.password_policy_set,
    si.RoleCreated: identity.role_saved,
    si.RoleUpdated: identity.role_saved,
    si.RoleDeleted: identity.role_deleted,
    si.RoleImplied: identity.role_implied,
    si.RoleImplicationEnded: identity.role_implication_ended,
    si.RoleGranted: identity.role_granted,
    si.RoleRevoked: identity.role_revoked,
    si.AccessRuleCreated: identity.access_rule_created,
    si.AccessRuleDeleted: identity.access_rule_deleted,
    si.ApplicationCredentialCreated: identity.application_credential_created,
    si.ApplicationCredentialDeleted: identity.application_credential_deleted,
    si.CredentialCreated: identity.credential_saved,
    si.CredentialUpdated: identity.credential_saved,
    si.CredentialDeleted: identity.credential_deleted,
    si.TrustCreated: identity.trust_created,
    si.TrustUsed: identity.trust_used,
    si.TrustDeleted: identity.trust_deleted,
    si.RegionSaved: identity.region_saved,
    si.RegionDeleted: identity.region_deleted,
    si.ServiceSaved: identity.service_saved,
    si.ServiceDeleted: identity.service_deleted,
    si.EndpointSaved: identity.endpoint_saved,
    si.EndpointDeleted: identity.endpoint_deleted,
    si.IdentityProviderSaved: identity.identity_provider_saved,
    si.IdentityProviderDeleted: identity.identity_provider_deleted,
    si.MappingSaved: identity.mapping_saved,
    si.MappingDeleted: identity.mapping_deleted,
    si.ProtocolSaved: identity.protocol_saved,
    si.ProtocolDeleted: identity.protocol_deleted,
    si.FederatedUserSignedIn: identity.federated_user_signed_in,
    sc.FlavorCreated: compute.flavor_created,
    sc.FlavorDeleted: compute.flavor_deleted,
    sc.KeypairCreated: compute.keypair_created,
    sc.KeypairDeleted: compute.keypair_deleted,
    sc.ServerCreated: compute.server_created,
    sc.ServerPlaced: compute.server_placed,
    sc.ServerBuildStarted: compute.server_changed,
    sc.ServerRenamed: compute.server_changed,
    sc.ServerStartRequested: compute.server_changed,
    sc.ServerStarted: compute.server_changed,
    sc.ServerStopRequested: compute.server_changed,
    sc.ServerStopped: compute.server_changed,
    sc.ServerRebootRequested: compute.server_changed,
    sc.ServerRebooted: compute.server_changed,
    sc.ServerResizeRequested: compute.server_resized,
    sc.ServerResized: compute.server_resized,
    sc.ServerResizeConfirmed: compute.server_resized,
    sc.ServerResizeRevertRequested: compute.server_resized,
    sc.ServerResizeReverted: compute.server_resized,
    sc.ServerTaskFailed: compute.server_resized,
    sc.ServerFailed: compute.server_changed,
    sc.ServerDeleteRequested: compute.server_changed,
    sc.ServerDeleted: compute.server_deleted,
    sm.ImageCreated: image.image_changed,
    sm.ImageUploaded: image.image_changed,
    sm.ImageActivated: image.image_changed,
    sm.ImageRejected: image.image_changed,
    sm.ImageUpdated: image.image_changed,
    sm.ImageDeleted: image.image_changed,
    sn.NetworkCreated: network.network_created,
    sn.NetworkDeleted: network.network_deleted,
    sn.SubnetCreated: network.subnet_created,
    sn.SubnetDeleted: network.subnet_deleted,
    sn.PortCreated: network.port_created,
    sn.PortUpdated: network.port_updated,
    sn.PortDeleted: network.port_deleted,
    sn.SecurityGroupCreated: network.group_created,
    sn.SecurityGroupDeleted: network.group_deleted,
    sh.HostRegistered: host.host_registered,
    sh.HostMarked: host.host_marked,
    sh.HostDriftDetected: host.host_drift_detected,
    so.OperationStarted: operation.operation_started,
    so.OperationSucceeded: operation.operation_ended,
    so.OperationFailed: operation.operation_ended,
    so.OperationCancelled: operation.operation_ended,
    so.OperationTimedOut: operation.operation_ended,
    sb.PriceListPublished: billing.price_list_published,
    sb.PriceListWithdrawn: billing.price_list_withdrawn,
    st.MeterDefined: metering.meter_defined,
    st.MeterDeleted: metering.meter_deleted,
    sl.AlarmDefined: alarm.alarm_defined,
    sl.AlarmRaised: alarm.alarm_rang,
    sl.AlarmCleared: alarm.alarm_rang,
    sl.AlarmDeleted: alarm.alarm_deleted,
    sr.SamplesRolledUp: samples.samples_rolled_up,
    sb.CustomerSaved: billing.customer_saved,
    sb.ProjectAssigned: billing.project_assigned,
    sb.CreditGranted: billing.credit_granted,
    sb.BillingSet: billing.billing_set,
    sb.PeriodClosed: billing.period_closed,
    sb.InvoiceIssued: billing.invoice_issued,
    sb.InvoiceVoided: billing.invoice_voided,
    sb.LineCorrected: billing.line_corrected,
    sb.BudgetCreated: billing.budget_created,
    sb.BudgetDeleted: billing.budget_deleted,
    sb.BudgetPassed: billing.budget_passed,
    sq.QuotaSet: quota.quota_set,
    sq.QuotaReset: quota.quota_reset,
    sq.QuotaClassSet: quota.quota_class_set,
    sw.WebhookCreated: webhook.webhook_saved,
    sw.WebhookUpdated: webhook.webhook_saved,
    sw.WebhookDisabled: webhook.webhook_disabled,
    sw.WebhookRedeliveryRequested: webhook.webhook_redelivery_requested,
    sw.WebhookDeleted: webhook.webhook_deleted,
    se.LeaderElected: leader.leader_elected,
    se.LogRolled: leader.log_rolled,
    sp.PolicySet: policy.policy_set,
}
assert set(EVOLVE) == set(fact_types().values()), "every fact has its function"


class FoldActor(Struct, frozen=True):
    """Of an actor, only what idempotency needs."""

    user_id: str = ""
    project_id: str = ""


class FoldRequest(Struct, frozen=True):
    """Of a request, only what idempotency needs: decoding the rest would cost most of a replay."""

    request_id: str
    actor: FoldActor = FoldActor()
    key: str | None = None
    digest: str = ""


class FoldRecord(Struct, frozen=True):
    """A record as the fold reads it."""

    request: FoldRequest
    verdict: Accepted | Refused
    facts: tuple[Fact, ...]


class FoldCommit(Struct, frozen=True):
    """A commit as the fold reads it."""

    first: Ordinal
    at: Micros
    records: tuple[FoldRecord, ...]


_decode = msgspec.json.Decoder(FoldCommit).decode


class UnknownFact(msgspec.ValidationError):
    """A fact whose tag this version has no meaning for: nothing after it can be understood."""

    def __init__(self, ordinal: Ordinal, tag: str) -> None:
        super().__init__(
            f"the fact at ordinal {ordinal} is a {tag!r}, which this version of Cumulog does not "
            "know: a newer version wrote it. Run that version or a later one; to skip the fact "
            "would lose part of the truth."
        )
        self.ordinal = ordinal
        self.tag = tag


class _Tagged(Struct, frozen=True):
    type: str = ""


class _TaggedRecord(Struct, frozen=True):
    facts: tuple[_Tagged, ...] = ()


class _TaggedCommit(Struct, frozen=True):
    first: Ordinal
    records: tuple[_TaggedRecord, ...]


def decode_for_fold(data: bytes) -> FoldCommit:
    """Return a commit as the fold reads it.

    Raises:
        UnknownFact: it holds a fact that this version does not know.
        msgspec.ValidationError: a value is malformed.
    """
    try:
        return _decode(data)
    except msgspec.ValidationError as error:
        explain(data, error)
        raise


def explain(data: bytes, error: msgspec.ValidationError) -> None:
    """Say of a commit that cannot be decoded which fact is unknown, or where it lies.

    Raises:
        UnknownFact: it holds a fact that this version does not know.
    """
    try:
        commit = msgspec.json.decode(data, type=_TaggedCommit)
    except msgspec.MsgspecError:
        return
    known = fact_types()
    ordinal = commit.first
    for record in commit.records:
        for fact in record.facts:
            ordinal += 1
            if fact.type not in known:
                raise UnknownFact(ordinal, fact.type) from error
        ordinal += 1
    error.add_note(f"in the commit that begins at ordinal {commit.first}")


def key_of(user_id: str, project_id: str, key: str) -> str:
    """Return what an idempotency key is remembered under: it belongs to one actor."""
    return f"{user_id}/{project_id}/{key}"


def apply_record(cell: Cell, record: FoldRecord | Record, at: Micros) -> Ordinal:
    """Fold one record; return the ordinal of its last fact, or of its request if it has none."""
    state = cell.state
    usage = cell.index.usage
    for fact in record.facts:
        kind = type(fact)
        if kind in CHANGES:
            count(usage, CHANGES[kind](state, fact))
        EVOLVE[kind](cell, fact, at)
    state.at = at
    state.ordinal += 1 + len(record.facts)
    _remember(cell, record, at)
    return state.ordinal


def _remember(cell: Cell, record: FoldRecord | Record, at: Micros) -> None:
    state, request = cell.state, record.request
    queue = cell.answered_queue
    while queue and queue[0][0] < at - ANSWERED_FOR:
        state.answered.pop(queue.popleft()[1], None)
    while cell.keyed_queue and cell.keyed_queue[0][0] < at - KEYED_FOR:
        state.keyed.pop(cell.keyed_queue.popleft()[1], None)
    if request.request_id in state.answered:
        return  # Refused for an id that is another's: the first answer stays the answer.
    answered = Answered(
        ordinal=state.ordinal,
        at=at,
        digest=request.digest,
        request_id=request.request_id,
        verdict=record.verdict,
    )
    state.answered[request.request_id] = answered
    queue.append((at, request.request_id))
    if request.key is not None:
        key = key_of(request.actor.user_id, request.actor.project_id, request.key)
        # A refused repetition under another body must not replace the first answer.
        if key not in state.keyed:
            state.keyed[key] = answered
            cell.keyed_queue.append((at, key))


def apply_commit(cell: Cell, commit: FoldCommit) -> None:
    """Fold one commit.

    Raises:
        ValueError: it does not follow the last one.
    """
    if commit.first != cell.state.ordinal + 1:
        raise ValueError(f"commit begins at {commit.first}, expected {cell.state.ordinal + 1}")
    for record in commit.records:
        apply_record(cell, record, commit.at)


def fold(messages: Iterable[bytes]) -> Cell:
    """Fold the log's messages, from the first one on, into a fresh state.

    Raises:
        UnknownFact: it holds a fact that this version does not know.
        msgspec.ValidationError: a value is malformed.
        ValueError: a commit is missing.
    """
    cell = Cell()
    for data in messages:
        apply_commit(cell, decode_for_fold(data))
    return cell
