"""The timeline: one row an ordinal, every request with its verdict and every fact, as in the log.

It answers who did what, when, with which outcome, and what a resource has been through. A row says
which resource it is about and whose: ``REQUESTS`` and ``FACTS`` say how each type tells that. The
project of a row is the resource's, so that its owner finds all that happened to it; only a refused
request belongs to whoever asked, who may not have known whose the thing was.

A request's id is its own for ever. ``request_alarms`` has a row for each that came a second time:
with other content, or, from a person, with the same, which is then done twice. Agents' reports may
come again: told twice they change nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from projections.alarm import ALARMS
from projections.compute import SERVERS
from projections.image import IMAGES
from projections.network import NETWORKS, PORTS, SECURITY_GROUPS, SUBNETS
from projections.operation import OPERATIONS
from projections.store import Table
from projections.webhook import WEBHOOKS
from schemas import (
    access,
    alarm,
    billing,
    compute,
    engine,
    host,
    identity,
    image,
    metering,
    network,
    operation,
    policy,
    quota,
    samples,
)
from schemas import webhook as hook
from schemas.envelope import Refused, Request
from schemas.ids import SYSTEM_USER
from schemas.units import Micros, Ordinal

NAME = "timeline"
VERSION = 3


class About(NamedTuple):
    """Which resource a row is about. ``project_id`` None: look it up, or take the asker's."""

    kind: str
    id: str
    project_id: str | None = None


type Tell = Callable[[Any], About]


def _named(kind: str, field: str) -> Tell:
    """Tell by a field that holds the resource's id."""
    return lambda said: About(kind, getattr(said, field) or "")


def _whole(kind: str, field: str, id_field: str) -> Tell:
    """Tell by a field that holds the resource itself, its project included."""

    def tell(said: Any) -> About:
        resource = getattr(said, field)
        return About(kind, getattr(resource, id_field), getattr(resource, "project_id", None))

    return tell


def _unnamed(kind: str) -> Tell:
    """Tell the kind alone: what a request makes is named by the first fact about that kind."""
    return lambda _said: About(kind, "")


def _granting(said: Any) -> About:
    if said.project_id:
        return About("project", said.project_id)
    return About("domain", said.domain_id) if said.domain_id else About("system", "system")


def _grant(said: Any) -> About:
    about, project_id = _granting(said.grant), said.grant.project_id
    return About(about.kind, about.id, project_id) if project_id else about


def _of_project(
    said: quota.SetQuota | quota.ResetQuota | quota.QuotaSet | quota.QuotaReset,
) -> About:
    return About("quota", said.project_id, said.project_id)


def _operation(said: operation.OperationStarted) -> About:
    of = said.operation
    return About(of.resource_kind, of.resource_id, of.project_id)


_server = _named("server", "server_id")
_application_credential = _named("application_credential", "application_credential_id")
_image = _named("image", "image_id")
_webhook = _named("webhook", "webhook_id")
_alarm = _named("alarm", "alarm_id")
_by_operation = _named("operation", "operation_id")

REQUESTS: dict[type, Tell] = {
    identity.Bootstrap: _unnamed("domain"),
    identity.CreateProject: _unnamed("project"),
    identity.UpdateProject: _named("project", "project_id"),
    identity.DeleteProject: _named("project", "project_id"),
    identity.CreateUser: _unnamed("user"),
    identity.UpdateUser: _named("user", "user_id"),
    identity.DeleteUser: _named("user", "user_id"),
    identity.GrantRole: _granting,
    identity.RevokeRole: _granting,
    identity.RevokeToken: _named("token", "audit_id"),
    identity.CreateDomain: _unnamed("domain"),
    identity.UpdateDomain: _named("domain", "domain_id"),
    identity.DeleteDomain: _named("domain", "domain_id"),
    identity.CreateGroup: _unnamed("group"),
    identity.UpdateGroup: _named("group", "group_id"),
    identity.DeleteGroup: _named("group", "group_id"),
    identity.AddGroupMember: _named("group", "group_id"),
    identity.RemoveGroupMember: _named("group", "group_id"),
    identity.CreateRole: _unnamed("role"),
    identity.UpdateRole: _named("role", "role_id"),
    identity.DeleteRole: _named("role", "role_id"),
    identity.ImplyRole: _named("role", "prior_role_id"),
    identity.EndRoleImplication: _named("role", "prior_role_id"),
    identity.SetPasswordPolicy: lambda _said: About("password_policy", "policy"),
    identity.CreateApplicationCredential: _unnamed("application_credential"),
    identity.DeleteApplicationCredential: _application_credential,
    identity.DeleteAccessRule: _named("access_rule", "access_rule_id"),
    identity.CreateCredential: _unnamed("credential"),
    identity.UpdateCredential: _named("credential", "credential_id"),
    identity.DeleteCredential: _named("credential", "credential_id"),
    identity.CreateTrust: _unnamed("trust"),
    identity.UseTrust: _named("trust", "trust_id"),
    identity.DeleteTrust: _named("trust", "trust_id"),
    identity.CreateRegion: _unnamed("region"),
    identity.UpdateRegion: _named("region", "region_id"),
    identity.DeleteRegion: _named("region", "region_id"),
    identity.CreateService: _unnamed("service"),
    identity.UpdateService: _named("service", "service_id"),
    identity.DeleteService: _named("service", "service_id"),
    identity.CreateEndpoint: _unnamed("endpoint"),
    identity.UpdateEndpoint: _named("endpoint", "endpoint_id"),
    identity.DeleteEndpoint: _named("endpoint", "endpoint_id"),
    identity.CreateIdentityProvider: _named("identity_provider", "idp_id"),
    identity.UpdateIdentityProvider: _named("identity_provider", "idp_id"),
    identity.DeleteIdentityProvider: _named("identity_provider", "idp_id"),
    identity.CreateMapping: _named("mapping", "mapping_id"),
    identity.UpdateMapping: _named("mapping", "mapping_id"),
    identity.DeleteMapping: _named("mapping", "mapping_id"),
    identity.CreateProtocol: _named("identity_provider", "idp_id"),
    identity.UpdateProtocol: _named("identity_provider", "idp_id"),
    identity.DeleteProtocol: _named("identity_provider", "idp_id"),
    identity.SignInFederated: _unnamed("user"),
    compute.CreateFlavor: _unnamed("flavor"),
    compute.DeleteFlavor: _named("flavor", "flavor_id"),
    compute.CreateKeypair: _named("keypair", "name"),
    compute.DeleteKeypair: _named("keypair", "name"),
    compute.CreateServer: _unnamed("server"),
    compute.RenameServer: _server,
    compute.DeleteServer: _server,
    compute.StartServer: _server,
    compute.StopServer: _server,
    compute.RebootServer: _server,
    compute.ResizeServer: _server,
    compute.ConfirmServerResize: _server,
    compute.RevertServerResize: _server,
    compute.ReportServerState: _server,
    image.CreateImage: _unnamed("image"),
    image.UploadImage: _image,
    image.UpdateImage: _image,
    image.DeleteImage: _image,
    network.CreateNetwork: _unnamed("network"),
    network.DeleteNetwork: _named("network", "network_id"),
    network.CreateSubnet: _unnamed("subnet"),
    network.DeleteSubnet: _named("subnet", "subnet_id"),
    network.CreatePort: _unnamed("port"),
    network.DeletePort: _named("port", "port_id"),
    host.RegisterHost: _unnamed("host"),
    host.MarkHost: _named("host", "host_id"),
    host.ReportDrift: _unnamed("host"),
    operation.ReportOperation: _by_operation,
    operation.PassDeadline: _by_operation,
    billing.PublishPriceList: _named("price_list", "name"),
    billing.WithdrawPriceList: _named("price_list", "name"),
    metering.DefineMeter: _named("meter", "key"),
    metering.DeleteMeter: _named("meter", "key"),
    alarm.DefineAlarm: _unnamed("alarm"),
    alarm.DeleteAlarm: _alarm,
    alarm.ReportAlarm: _alarm,
    samples.ReportSamples: lambda said: About("server", said.rollups[0].server_id),
    billing.CreateCustomer: _unnamed("customer"),
    billing.UpdateCustomer: _named("customer", "customer_id"),
    billing.AssignProject: lambda said: About("project", said.project_id, said.project_id),
    billing.GrantCredit: _named("customer", "customer_id"),
    billing.SetBilling: lambda _said: About("billing", "settings"),
    billing.ClosePeriod: lambda said: About("period", said.closing.period),
    billing.IssueInvoice: _named("invoice", "invoice_id"),
    billing.VoidInvoice: _named("invoice", "invoice_id"),
    billing.CorrectLine: _named("invoice", "invoice_id"),
    billing.CreateBudget: _unnamed("budget"),
    billing.DeleteBudget: _named("budget", "budget_id"),
    billing.PassBudget: _named("budget", "budget_id"),
    quota.SetQuota: _of_project,
    quota.ResetQuota: _of_project,
    quota.SetQuotaClass: lambda _said: About("quota", "default"),
    hook.CreateWebhook: _unnamed("webhook"),
    hook.UpdateWebhook: _webhook,
    hook.DeleteWebhook: _webhook,
    hook.RedeliverWebhook: _webhook,
    hook.GiveUpWebhook: _webhook,
    engine.ElectLeader: _named("leader", "node"),
    engine.ConfirmLead: _named("leader", "node"),
    engine.RollLog: lambda said: About("log", str(said.number)),
    access.RefuseRequest: lambda said: About("", said.about[0] if said.about else ""),
    policy.SetPolicy: lambda _said: About("policy", "policy"),
}

FACTS: dict[type, Tell] = {
    identity.DomainCreated: _whole("domain", "domain", "domain_id"),
    identity.RoleCreated: _whole("role", "role", "role_id"),
    identity.ProjectCreated: _whole("project", "project", "project_id"),
    identity.ProjectUpdated: _whole("project", "project", "project_id"),
    identity.ProjectDeleted: lambda said: About("project", said.project_id, said.project_id),
    identity.UserCreated: _whole("user", "user", "user_id"),
    identity.UserUpdated: _whole("user", "user", "user_id"),
    identity.UserDeleted: _named("user", "user_id"),
    identity.RoleGranted: _grant,
    identity.RoleRevoked: _grant,
    identity.TokenRevoked: _named("token", "audit_id"),
    identity.DomainUpdated: _whole("domain", "domain", "domain_id"),
    identity.DomainDeleted: _named("domain", "domain_id"),
    identity.GroupCreated: _whole("group", "group", "group_id"),
    identity.GroupUpdated: _whole("group", "group", "group_id"),
    identity.GroupDeleted: _named("group", "group_id"),
    identity.GroupMemberAdded: _named("group", "group_id"),
    identity.GroupMemberRemoved: _named("group", "group_id"),
    identity.RoleUpdated: _whole("role", "role", "role_id"),
    identity.RoleDeleted: _named("role", "role_id"),
    identity.RoleImplied: _named("role", "prior_role_id"),
    identity.RoleImplicationEnded: _named("role", "prior_role_id"),
    identity.PasswordPolicySet: lambda _said: About("password_policy", "policy"),
    identity.AccessRuleCreated: _whole("access_rule", "access_rule", "access_rule_id"),
    identity.AccessRuleDeleted: _named("access_rule", "access_rule_id"),
    identity.ApplicationCredentialCreated: _whole(
        "application_credential", "application_credential", "application_credential_id"
    ),
    identity.ApplicationCredentialDeleted: _application_credential,
    identity.CredentialCreated: _whole("credential", "credential", "credential_id"),
    identity.CredentialUpdated: _whole("credential", "credential", "credential_id"),
    identity.CredentialDeleted: _named("credential", "credential_id"),
    identity.TrustCreated: _whole("trust", "trust", "trust_id"),
    identity.TrustUsed: _named("trust", "trust_id"),
    identity.TrustDeleted: _named("trust", "trust_id"),
    identity.RegionSaved: _whole("region", "region", "region_id"),
    identity.RegionDeleted: _named("region", "region_id"),
    identity.ServiceSaved: _whole("service", "service", "service_id"),
    identity.ServiceDeleted: _named("service", "service_id"),
    identity.EndpointSaved: _whole("endpoint", "endpoint", "endpoint_id"),
    identity.EndpointDeleted: _named("endpoint", "endpoint_id"),
    identity.IdentityProviderSaved: _whole("identity_provider", "provider", "idp_id"),
    identity.IdentityProviderDeleted: _named("identity_provider", "idp_id"),
    identity.MappingSaved: _whole("mapping", "mapping", "mapping_id"),
    identity.MappingDeleted: _named("mapping", "mapping_id"),
    identity.ProtocolSaved: _whole("identity_provider", "protocol", "idp_id"),
    identity.ProtocolDeleted: _named("identity_provider", "idp_id"),
    identity.FederatedUserSignedIn: _whole("user", "federated", "user_id"),
    compute.FlavorCreated: _whole("flavor", "flavor", "flavor_id"),
    compute.FlavorDeleted: _named("flavor", "flavor_id"),
    compute.KeypairCreated: _whole("keypair", "keypair", "name"),
    compute.KeypairDeleted: _named("keypair", "name"),
    compute.ServerCreated: _whole("server", "server", "server_id"),
    compute.ServerPlaced: _server,
    compute.ServerBuildStarted: _server,
    compute.ServerRenamed: _server,
    compute.ServerStartRequested: _server,
    compute.ServerStarted: _server,
    compute.ServerStopRequested: _server,
    compute.ServerStopped: _server,
    compute.ServerRebootRequested: _server,
    compute.ServerRebooted: _server,
    compute.ServerResizeRequested: _server,
    compute.ServerResized: _server,
    compute.ServerResizeConfirmed: _server,
    compute.ServerResizeRevertRequested: _server,
    compute.ServerResizeReverted: _server,
    compute.ServerTaskFailed: _server,
    compute.ServerFailed: _server,
    compute.ServerDeleteRequested: _server,
    compute.ServerDeleted: _server,
    image.ImageCreated: _whole("image", "image", "image_id"),
    image.ImageUploaded: _image,
    image.ImageActivated: _image,
    image.ImageRejected: _image,
    image.ImageUpdated: _whole("image", "image", "image_id"),
    image.ImageDeleted: _image,
    network.NetworkCreated: _whole("network", "network", "network_id"),
    network.NetworkDeleted: _named("network", "network_id"),
    network.SubnetCreated: _whole("subnet", "subnet", "subnet_id"),
    network.SubnetDeleted: _named("subnet", "subnet_id"),
    network.PortCreated: _whole("port", "port", "port_id"),
    network.PortUpdated: _whole("port", "port", "port_id"),
    network.PortDeleted: _named("port", "port_id"),
    network.SecurityGroupCreated: _whole("security_group", "group", "security_group_id"),
    network.SecurityGroupDeleted: _named("security_group", "security_group_id"),
    host.HostRegistered: _whole("host", "host", "host_id"),
    host.HostMarked: _named("host", "host_id"),
    host.HostDriftDetected: _named("host", "host_id"),
    operation.OperationStarted: _operation,
    operation.OperationSucceeded: _by_operation,
    operation.OperationFailed: _by_operation,
    operation.OperationCancelled: _by_operation,
    operation.OperationTimedOut: _by_operation,
    billing.PriceListPublished: _whole("price_list", "price_list", "name"),
    billing.PriceListWithdrawn: _named("price_list", "name"),
    metering.MeterDefined: _whole("meter", "meter", "key"),
    metering.MeterDeleted: _named("meter", "key"),
    alarm.AlarmDefined: _whole("alarm", "alarm", "alarm_id"),
    alarm.AlarmRaised: _alarm,
    alarm.AlarmCleared: _alarm,
    alarm.AlarmDeleted: _alarm,
    samples.SamplesRolledUp: lambda said: About("server", said.rollup.server_id, said.project_id),
    billing.CustomerSaved: _whole("customer", "customer", "customer_id"),
    billing.ProjectAssigned: lambda said: About("project", said.project_id, said.project_id),
    billing.CreditGranted: _whole("customer", "credit", "customer_id"),
    billing.BillingSet: lambda _said: About("billing", "settings"),
    billing.PeriodClosed: lambda said: About("period", said.closing.period),
    billing.InvoiceIssued: _named("invoice", "invoice_id"),
    billing.InvoiceVoided: _named("invoice", "invoice_id"),
    billing.BudgetCreated: _whole("budget", "budget", "budget_id"),
    billing.BudgetDeleted: _named("budget", "budget_id"),
    billing.BudgetPassed: _named("budget", "budget_id"),
    billing.LineCorrected: lambda said: About("invoice", said.correction.invoice_id),
    quota.QuotaSet: _of_project,
    quota.QuotaReset: _of_project,
    quota.QuotaClassSet: lambda _said: About("quota", "default"),
    hook.WebhookCreated: _whole("webhook", "webhook", "webhook_id"),
    hook.WebhookUpdated: _whole("webhook", "webhook", "webhook_id"),
    hook.WebhookDisabled: _webhook,
    hook.WebhookRedeliveryRequested: _webhook,
    hook.WebhookDeleted: _webhook,
    engine.LeaderElected: _named("leader", "node"),
    engine.LogRolled: lambda said: About("log", str(said.number)),
    policy.PolicySet: lambda _said: About("policy", "policy"),
}

OWNED: dict[str, Table[Any]] = {
    "server": SERVERS,
    "image": IMAGES,
    "network": NETWORKS,
    "subnet": SUBNETS,
    "port": PORTS,
    "security_group": SECURITY_GROUPS,
    "webhook": WEBHOOKS,
    "alarm": ALARMS,
}

COLUMNS = (
    "ordinal, kind, tag, resource_kind, resource_id, project_id, user_id, request_id, cause, at, "
    "outcome, code, body"
)
_TABLE = (
    "CREATE TABLE timeline (ordinal INTEGER PRIMARY KEY, kind TEXT NOT NULL, tag TEXT NOT NULL, "
    "resource_kind TEXT NOT NULL, resource_id TEXT NOT NULL, project_id TEXT NOT NULL, "
    "user_id TEXT NOT NULL, request_id TEXT NOT NULL, cause TEXT NOT NULL, at INTEGER NOT NULL, "
    "outcome TEXT NOT NULL, code TEXT NOT NULL, body BLOB NOT NULL, address TEXT NOT NULL)"
)
# One look into the index of request ids for each request, and no more unless that finds one. Bodies
# are JSON as text, although they lie in a BLOB.
_ALARM = """
CREATE TRIGGER timeline_request_again BEFORE INSERT ON timeline WHEN NEW.kind = 'request'
BEGIN
  INSERT INTO request_alarms
  SELECT NEW.ordinal, ordinal, NEW.request_id,
    CASE WHEN other THEN 'other_content' ELSE 'done_twice' END
  FROM (
    SELECT ordinal,
      json_extract(CAST(body AS TEXT), '$.request.digest')
        IS NOT json_extract(CAST(NEW.body AS TEXT), '$.request.digest') AS other
    FROM timeline WHERE request_id = NEW.request_id AND kind = 'request'
    ORDER BY ordinal LIMIT 1
  )
  WHERE other OR json_extract(CAST(NEW.body AS TEXT), '$.request.actor.kind') = 'user';
END
"""
STATEMENTS = (
    _TABLE,
    "CREATE INDEX timeline_resource ON timeline (resource_id)",
    "CREATE INDEX timeline_project ON timeline (project_id)",
    "CREATE INDEX timeline_request ON timeline (request_id) WHERE kind = 'request'",
    "CREATE INDEX timeline_cause ON timeline (cause) WHERE cause <> ''",
    "CREATE INDEX timeline_user ON timeline (user_id) WHERE kind = 'request'",
    # Of people's requests: what the cloud's own processes ask comes from no address.
    "CREATE INDEX timeline_address ON timeline (address) WHERE address <> ''",
    (
        "CREATE TABLE request_alarms (ordinal INTEGER PRIMARY KEY, first INTEGER NOT NULL, "
        "request_id TEXT NOT NULL, what TEXT NOT NULL)"
    ),
    _ALARM,
)
INSERT = "INSERT INTO timeline VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def request_body(request: msgspec.Raw, verdict: msgspec.Raw) -> bytes:
    """Return the body of a request's row: request and verdict, byte for byte."""
    return b'{"request":%b,"verdict":%b}' % (request, verdict)


class Recorded(NamedTuple):
    """A fact as it is and as it lies in the log."""

    fact: msgspec.Struct
    raw: msgspec.Raw


def rows(
    find: Callable[[Table[Any], str], Any],
    request: Request,
    verdict: object,
    body: bytes,
    facts: Sequence[Recorded],
    first: Ordinal,
    at: Micros,
) -> list[tuple[Any, ...]]:
    """Return a record's rows, in the order of ``COLUMNS``, and whence the request came.

    Must be called before the record's facts are applied: what a fact removes is found no more.

    Args:
        find: gives a resource of a table, as it was before this record.
        request: the wish.
        verdict: Accepted or Refused.
        body: the JSON of request and verdict together.
        facts: what followed.
        first: the request's ordinal; its facts take the next ones.
        at: the commit's time.
    """
    made: dict[tuple[str, str], str] = {}
    cause = request.cause or _cause(find, request)
    told = [_about(find, made, FACTS[type(said.fact)](said.fact)) for said in facts]
    refused = isinstance(verdict, Refused)
    about = _about(find, made, REQUESTS[type(request.action)](request.action))
    if not about.id:
        about = next((fact for fact in told if fact.kind == about.kind), about)
    if not about.id and about.kind == "host":
        about = About("host", request.actor.host_id or "", about.project_id)
    user_id = request.actor.user_id or (SYSTEM_USER if request.actor.kind == "system" else "")
    asker = request.actor.project_id
    project_id = asker if refused else about.project_id or asker
    common = (user_id, request.request_id, cause, at)
    result: list[tuple[Any, ...]] = [
        (
            first,
            "request",
            _tag(request),
            about.kind,
            about.id,
            project_id,
            *common,
            "refused" if refused else "accepted",
            verdict.code if isinstance(verdict, Refused) else "",
            body,
            request.client.address,
        )
    ]
    for ordinal, (said, fact) in enumerate(zip(facts, told, strict=True), first + 1):
        tag = type(said.fact).__struct_config__.tag
        owner = asker if fact.project_id is None else fact.project_id
        told_of = (tag, fact.kind, fact.id, owner, *common, "", "", said.raw, "")
        result.append((ordinal, "fact", *told_of))
    return result


def _tag(request: Request) -> str:
    """Return the action's name; of what an edge refused, that of what was wished for, if known."""
    action: Any = request.action
    if isinstance(action, access.RefuseRequest) and action.action:
        return action.action
    return type(action).__name__


def _cause(find: Callable[[Table[Any], str], Any], request: Request) -> str:
    """Return the person's request behind a report on an operation, or a passed deadline."""
    action: Any = request.action
    if isinstance(action, operation.ReportOperation | operation.PassDeadline):
        state = find(OPERATIONS, action.operation_id)
        return "" if state is None else state.operation.request_id
    return ""


def _about(
    find: Callable[[Table[Any], str], Any], made: dict[tuple[str, str], str], said: About
) -> About:
    """Fill in whose the resource is; an operation speaks of the resource it is about."""
    if said.kind == "operation":
        state = find(OPERATIONS, said.id)
        if state is None:
            return said
        of = state.operation
        return About(of.resource_kind, of.resource_id, of.project_id)
    if said.project_id is not None:
        made[said.kind, said.id] = said.project_id
        return said
    table = OWNED.get(said.kind)
    if table is None or not said.id:
        return said
    project_id = made.get((said.kind, said.id))
    if project_id is None:
        resource = find(table, said.id)
        project_id = None if resource is None else getattr(resource, "server", resource).project_id
    return About(said.kind, said.id, project_id)
