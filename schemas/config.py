"""What each process is told at its start."""

from typing import Literal

from msgspec import Struct

from schemas.ids import Cell, HostId

REGION = "RegionOne"

type LogLevel = Literal["debug", "info", "warning", "error"]


class Config(Struct, frozen=True, kw_only=True):
    """A process's place in a cell. Read from ``DIR/run/<process>.json``, mode 0600.

    Paths are absolute. ``listen`` is host:port of the public API. ``driver`` says whether the host
    is real or simulated. ``nats_password`` is this process's own; it never goes on a command line.
    """

    state_dir: str
    cell: Cell = "embedded"
    node: str = "node-1"
    host_id: HostId = "host-1"
    nats_url: str = ""  # of a cluster, those of all its nodes, separated by commas
    nats_user: str = ""
    nats_password: str = ""
    nats_ca: str = ""  # who vouches for the broker (PEM file); "": no TLS, on the loopback only
    replicas: int = 1  # on how many nodes of the broker each stream lies: 1 or 3
    listen: str = "127.0.0.1:8780"
    public_url: str = ""  # as clients reach it, when not http://<listen>
    driver: Literal["libvirt", "simulated"] = "libvirt"
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    # Image content is checked against its format; off only for suites that upload noise.
    check_images: bool = True
    log_level: LogLevel = "info"  # of each process' own log; "debug" has a line for each read
    # Holds the token that who scrapes /metrics must show ("": anybody may).
    metrics_token_file: str = ""
    heartbeat_s: float = 2.0
    host_silent_s: float = 15.0
    history_silent_s: float = 10.0  # who answers about history gives a sign of life each second
    reconcile_s: float = 60.0
    image_bytes_max: int = 64 * 2**30
    body_bytes_max: int = 1 * 2**20
    # The edge (docs/operations.md). Who may say for whom a request is made (X-Forwarded-*).
    trusted_proxies: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    # What a client may ask of one edge; 0: no limit. Failed sign-ins only are counted.
    requests_per_address_s: float = 500.0
    requests_per_project_s: float = 2000.0
    sign_ins_per_address_min: float = 60.0
    # How many connections may be open, and how many of one address (0: no limit).
    connections_max: int = 4096
    requests_max: int = 2048  # answered at once; event streams do not count
    connections_address_max: int = 256
    # How long a client may take for a request's head, keep a connection that it does not use, and
    # leave an answer unread.
    head_s: float = 10.0
    keep_alive_s: float = 30.0
    unread_s: float = 60.0
    # How long the edge goes on listening after it was told to stop; /readyz says so meanwhile.
    drain_s: float = 0.0
    tls_certificate: str = ""  # PEM files; both, or HTTP without TLS
    tls_key: str = ""
    tls_authority: str = ""  # who vouches for it, where clients of this machine do not know
    tls_minimum: Literal["1.2", "1.3"] = "1.2"
    cors_origins: tuple[str, ...] = ()  # of pages that may read answers; never "*"
    head_bytes_max: int = 128 * 2**10  # and of a body, what is read at once
    url_bytes_max: int = 16 * 2**10
    # Where a token may be posted to after signing in by an identity provider: dashboards' own
    # addresses for that, whole, as https://dashboard.example.org/auth/websso/.
    trusted_dashboards: tuple[str, ...] = ()
    # How old the key that signs tokens may become (0: it is rotated by hand). A token is good for
    # 12 hours, and as long as its key is among the last three.
    token_keys_hours: float = 0.0
    snapshot_ordinals: int = 50_000
    segment_ordinals: int = 500_000
    segment_age_s: float = 300.0
    # A second place for sealed segments: s3://bucket/prefix or file:///folder ("": none), and a
    # file (JSON) with what an S3 store is to be told: keys, region, endpoint.
    history_store: str = ""
    history_store_options: str = ""
    # What one question in SQL may take (docs/history.md).
    sql_memory_mib: int = 512
    sql_s: float = 30.0
    sql_rows_max: int = 1_000_000
    sql_answer_mib: int = 256
    # How often the log's end is signed, and a second directory for what was signed ("": none).
    checkpoint_s: float = 3600.0
    checkpoint_copy: str = ""
    # Webhooks: networks (CIDR) that may be sent to although they are not public; how long a
    # receiver has to answer; how often an event is tried, after which pauses; and after how many
    # events in a row that were not taken a webhook is disabled.
    webhook_allow: tuple[str, ...] = ()
    webhook_timeout_s: float = 10.0
    webhook_attempts: int = 12
    webhook_backoff_s: float = 1.0
    webhook_backoff_max_s: float = 300.0
    webhook_give_up: int = 20
