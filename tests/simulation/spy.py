"""An agent's way to the engine: the product's own, with an ear in it."""

import zlib

import msgspec

from executors.run import BusUpstream
from schemas.operation import ReportOperation
from schemas.units import SECOND


class Upstream(BusUpstream):
    """Remembers what an agent reports, and checks what can only be seen at that moment."""

    def __init__(self, world, host, bus):
        super().__init__(bus, host.host_id)
        self._world = world
        self._host = host

    async def submit(self, report, request_id, trace=""):
        world, host = self._world, self._host
        if isinstance(report, ReportOperation):
            said = f"{report.operation_id} {report.succeeded} {report.cause}"
            world.trace("report", host.host_id, said)
            if not report.succeeded:
                self._need_no_traces(report)
        if hasattr(report, "observed_at"):
            report = self._misdated(report, request_id)
        return await super().submit(report, request_id, trace)

    def _need_no_traces(self, report):
        """A build that failed has left nothing, unless an earlier agent died over it."""
        if not self._host.calm:
            return
        for candidate in self._world.candidates.values():
            operation = candidate.folded.cell.state.operations.get(report.operation_id)
            if operation is not None and operation.kind == "build":
                if left := self._host.traces(operation.resource_id):
                    self._world.defect(f"a failed build left behind: {left}")
                return

    def _misdated(self, report, request_id):
        """Let some honest reports bear an impossible time, the same one whenever they are sent."""
        lot = zlib.crc32(request_id.encode())
        if lot % 100 >= self._world.plan.wrong_times * 100:
            return report
        times = (0, 1, report.observed_at + 60 * SECOND, report.observed_at - 3600 * SECOND)
        return msgspec.structs.replace(report, observed_at=times[lot // 100 % len(times)])
