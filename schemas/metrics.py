"""What processes count: every number's name, kind, labels and meaning, in one table.

Names end in their base unit. Invariant: no project, user or resource is a label; hosts are, since
they are the operator's own. A number that is not in the table is told to nobody, so the table is
the documentation (``docs/operations.md``) and the bound of how many series there can be.
"""

from typing import Literal

import msgspec
from msgspec import Struct

type MetricKind = Literal["counter", "gauge", "histogram", "info"]


class Metric(Struct, frozen=True):
    """One family: what Prometheus calls HELP, TYPE and labels, and who counts it."""

    kind: MetricKind
    labels: tuple[str, ...]
    counted_by: str
    help: str


class Sample(Struct, frozen=True, array_like=True):
    """One number, None if it is without bound: JSON has no other word for that.

    ``suffix`` is what a counter or histogram appends to its family's name.
    """

    suffix: str
    labels: dict[str, str]
    value: float | None


# What a process answers when asked for its numbers: samples by family.
type Told = dict[str, list[Sample]]

ALL = "each process"

METRICS: dict[str, Metric] = {
    # The log and the engine that leads
    "cumulog_log_last_sequence": Metric(
        "gauge", (), "engine", "Ordinal of the last request or fact that is durable."
    ),
    "cumulog_log_commits_total": Metric(
        "counter", (), "engine", "Commits that were acknowledged since the engine began to lead."
    ),
    "cumulog_log_append_duration_seconds": Metric(
        "histogram", (), "engine", "From sending a commit to its durable acknowledgement."
    ),
    "cumulog_log_gap_total": Metric(
        "counter",
        (),
        "projector, archiver",
        "Times that the log, as it was read, did not follow on what was read before.",
    ),
    "cumulog_chain_verified_sequence": Metric(
        "gauge", (), "archiver", "Ordinal up to which every hash was checked, and signed."
    ),
    "cumulog_engine_epoch": Metric("gauge", (), "engine", "Which leadership this is, from 1."),
    "cumulog_engine_waiting_requests": Metric(
        "gauge", (), "engine", "Requests that are decided and wait for their acknowledgement."
    ),
    "cumulog_request_decided_total": Metric(
        "counter", ("outcome",), "engine", "Requests that were recorded: accepted or refused."
    ),
    "cumulog_request_open": Metric(
        "gauge", ("type",), "engine", "Operations under way on hosts, by what is done."
    ),
    "cumulog_request_age_seconds": Metric(
        "gauge", ("type",), "engine", "Age of the oldest operation under way."
    ),
    "cumulog_executor_last_seen_seconds": Metric(
        "gauge", ("executor",), "engine", "Since a host's last heartbeat, or the lead's begin."
    ),
    "cumulog_schedule_decisions_total": Metric(
        "counter",
        ("result", "reason"),
        "engine",
        "Placements of servers: placed, or refused with the code of the refusal.",
    ),
    "cumulog_password_checks_total": Metric(
        "counter", (), "api", "Passwords that were checked: those of unknown users count as well."
    ),
    "cumulog_sign_in_lockouts_total": Metric(
        "counter", (), "api", "Times that a user was locked out for too many failed sign-ins."
    ),
    "cumulog_sign_ins_locked_out_total": Metric(
        "counter", (), "api", "Sign-ins that were refused because their user is locked out."
    ),
    "cumulog_policy_decisions_total": Metric(
        "counter", ("effect",), "engine, api", "What the policy allowed and what it denied."
    ),
    "cumulog_drift_total": Metric(
        "counter", ("kind",), "engine", "Differences that hosts found and put right."
    ),
    "cumulog_capacity_used": Metric(
        "gauge", ("resource",), "engine", "Room that servers hold on all hosts (vcpus, MiB, GiB)."
    ),
    "cumulog_capacity_limit": Metric(
        "gauge", ("resource",), "engine", "Room that all hosts have (vcpus, MiB, GiB)."
    ),
    "cumulog_quota_used": Metric(
        "gauge",
        ("resource",),
        "engine",
        "What all projects hold together of what quotas limit; added up every 15 seconds.",
    ),
    "cumulog_quota_limit": Metric(
        "gauge", ("resource",), "engine", "All projects' limits together; +Inf if one has none."
    ),
    # Read models and history
    "cumulog_projection_ordinal": Metric(
        "gauge", (), "api", "Last ordinal that this node's read model shows."
    ),
    "cumulog_projection_lag_events": Metric(
        "gauge",
        ("projection",),
        "projector, archiver",
        "Ordinals of the log that the projection does not hold yet.",
    ),
    "cumulog_projection_lag_seconds": Metric(
        "gauge",
        ("projection",),
        "projector, archiver",
        "How long ago the newest thing was written that the projection holds; 0 if it holds all.",
    ),
    "cumulog_resources": Metric(
        "gauge",
        ("kind", "state"),
        "projector",
        "Resources that there are, by state where they have one; counted anew every 15 seconds.",
    ),
    "cumulog_usage_rows_total": Metric(
        "counter", ("meter",), "archiver", "Rows of usage that were worked out to be answered."
    ),
    "cumulog_webhooks": Metric("gauge", (), "courier", "Webhooks that there are."),
    "cumulog_webhook_deliveries_total": Metric(
        "counter",
        ("result",),
        "courier",
        "Attempts that were delivered or failed, and events that were given up.",
    ),
    # Hosts
    "cumulog_agent_operations_total": Metric(
        "counter", ("kind", "result"), "agent", "Operations that this host has ended."
    ),
    "cumulog_agent_servers": Metric(
        "gauge", (), "agent", "Servers that shall run on this host, as far as it was told."
    ),
    # HTTP
    "http_server_request_duration_seconds": Metric(
        "histogram",
        ("api", "method", "status"),
        "api",
        "From a request to the end of its answer, by class of status (2xx, 4xx …).",
    ),
    "http_server_active_requests": Metric(
        "gauge", ("api",), "api", "Requests being answered, feeds included."
    ),
    "cumulog_api_requests_total": Metric(
        "counter", ("api", "method", "status"), "api", "Answered HTTP requests."
    ),
    "cumulog_api_request_seconds_total": Metric(
        "counter", ("api",), "api", "Time from request to answer, summed."
    ),
    "cumulog_api_connections": Metric("gauge", (), "api", "Open connections of clients."),
    "cumulog_api_connections_closed_total": Metric(
        "counter", ("why",), "api", "Connections that the edge closed: idle, too many."
    ),
    "cumulog_api_streams": Metric("gauge", (), "api", "Feeds that are being followed."),
    "cumulog_access_lost_total": Metric(
        "counter", (), "api", "Requests that are in no message of ACCESS: the broker was away."
    ),
    "cumulog_access_waiting_bytes": Metric(
        "gauge", (), "api", "Messages for ACCESS that wait for the broker."
    ),
    "cumulog_bus_connected": Metric("gauge", (), "api", "Whether the edge is on the bus."),
    # Processes
    "cumulog_process_up": Metric(
        "gauge", ("process",), "api", "Whether the process told its numbers when it was asked."
    ),
    "cumulog_build_info": Metric(
        "info", ("process", "version", "python"), ALL, "What runs; the value is 1."
    ),
    "process_cpu_seconds_total": Metric("counter", ("process",), ALL, "CPU time."),
    "process_resident_memory_bytes": Metric("gauge", ("process",), ALL, "Memory in use."),
    "process_virtual_memory_bytes": Metric("gauge", ("process",), ALL, "Address space."),
    "process_start_time_seconds": Metric("gauge", ("process",), ALL, "Start, since 1970."),
    "process_open_fds": Metric("gauge", ("process",), ALL, "Open files."),
    "process_max_fds": Metric("gauge", ("process",), ALL, "Open files at most."),
}

encode_told = msgspec.json.Encoder().encode
_told = msgspec.json.Decoder(dict[str, list[Sample]])


def decode_told(data: bytes) -> Told:
    """Return what a process answered.

    Raises:
        msgspec.DecodeError: it is none of its answers.
    """
    return _told.decode(data)
