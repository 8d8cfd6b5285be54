"""Names on the bus. Every subject begins with the cell, so that cells can share a NATS account.

================================  ==========================================================
``<cell>.log.<number>``           commits (stream ``LOG-<cell>-<number>``, from 0001 on)
``<cell>.feed.<sequence>``        each commit once it is durable, for readers; may be missed
``<cell>.access.<edge>``          who asked what of an edge (stream ``ACCESS-<cell>``)
``<cell>.work.<host>.<executor>`` work items (stream ``WORK-<cell>``, memory)
``<cell>.submit.api``             requests of people, by edges that have verified the token
``<cell>.submit.agent.<host>``    reports of a host; the subject says which
``<cell>.submit.courier``         webhooks that the courier gives up
``<cell>.submit.history``         months that the archiver closes
``<cell>.submit.admin``           what the broker's administrator alone may ask for
``<cell>.courier.<question>``     how deliveries of webhooks stand
``<cell>.desired.<host>``         a host asks for its desired state
``<cell>.engine.<question>``      status, digest, dry run
``<cell>.heartbeat.<host>``       core NATS, never stored
``<cell>.projected.<node>``       a node's read models have reached an ordinal
``<cell>.proven.<node>``          and hold all that was in the log at a moment
``<cell>.ask.<host>.console``     an edge asks an agent for a console's text
``<cell>.metadata.<host>``        an agent asks an edge what to answer a guest
``<cell>.history.<question>``     usage, bills, verification
``<cell>.moment.<node>``          an edge asks its projector for a read model of the past
``<cell>.metrics.<process>``      an edge asks a projector or archiver for its numbers
``<cell>.ask.<host>.metrics``     an edge asks an agent for its numbers
================================  ==========================================================
"""

import msgspec

from schemas.ids import Cell, HostId

# As many streams of the log as the broker's permissions provide for.
LOG_STREAMS_MAX = 64


class Subjects(msgspec.Struct, frozen=True):
    """The subjects and stream names of one cell."""

    cell: Cell

    def log_subject(self, number: int) -> str:
        return f"{self.cell}.log.{number:04}"

    def log_stream_of(self, number: int) -> str:
        return f"LOG-{self.cell}-{number:04}"

    @property
    def log_all(self) -> str:
        return f"{self.cell}.log.*"

    @property
    def log(self) -> str:
        return self.log_subject(1)

    @property
    def log_stream(self) -> str:
        return self.log_stream_of(1)

    @property
    def access_stream(self) -> str:
        return f"ACCESS-{self.cell}"

    def access(self, edge: str) -> str:
        return f"{self.cell}.access.{edge}"

    @property
    def work_stream(self) -> str:
        return f"WORK-{self.cell}"

    @property
    def work_all(self) -> str:
        return f"{self.cell}.work.*.*"

    def work(self, host: HostId, executor: str) -> str:
        return f"{self.cell}.work.{host}.{executor}"

    @property
    def submit_api(self) -> str:
        return f"{self.cell}.submit.api"

    @property
    def submit_agents(self) -> str:
        return f"{self.cell}.submit.agent.*"

    def submit_agent(self, host: HostId) -> str:
        return f"{self.cell}.submit.agent.{host}"

    @property
    def submit_courier(self) -> str:
        return f"{self.cell}.submit.courier"

    @property
    def submit_history(self) -> str:
        return f"{self.cell}.submit.history"

    @property
    def submit_admin(self) -> str:
        return f"{self.cell}.submit.admin"

    def courier(self, question: str) -> str:
        return f"{self.cell}.courier.{question}"

    def desired(self, host: HostId) -> str:
        return f"{self.cell}.desired.{host}"

    def engine(self, question: str) -> str:
        return f"{self.cell}.engine.{question}"

    def heartbeat(self, host: HostId) -> str:
        return f"{self.cell}.heartbeat.{host}"

    def projected(self, node: str) -> str:
        return f"{self.cell}.projected.{node}"

    def proven(self, node: str) -> str:
        return f"{self.cell}.proven.{node}"

    def console(self, host: HostId) -> str:
        return f"{self.cell}.ask.{host}.console"

    def metrics(self, process: str) -> str:
        return f"{self.cell}.metrics.{process}"

    def agent_metrics(self, host: HostId) -> str:
        return f"{self.cell}.ask.{host}.metrics"

    def metadata(self, host: HostId) -> str:
        return f"{self.cell}.metadata.{host}"

    def history(self, question: str) -> str:
        return f"{self.cell}.history.{question}"

    def moment(self, node: str) -> str:
        return f"{self.cell}.moment.{node}"

    @property
    def lease_bucket(self) -> str:
        return f"LEASE-{self.cell}"

    @property
    def keys_bucket(self) -> str:
        return f"KEYS-{self.cell}"
