"""What the edge counts, in Prometheus' text format. No project or resource is a label."""

import resource

from api.edge import Edge


def exposition(edge: Edge) -> str:
    """Return the metrics of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    lines = [
        "# HELP cumulog_api_requests_total Answered HTTP requests.",
        "# TYPE cumulog_api_requests_total counter",
        *(
            f'cumulog_api_requests_total{{api="{api}",method="{method}",status="{status}"}} {count}'
            for (api, method, status), count in sorted(edge.answered.items())
        ),
        "# HELP cumulog_api_request_seconds_total Time from request to answer, summed.",
        "# TYPE cumulog_api_request_seconds_total counter",
        *(
            f'cumulog_api_request_seconds_total{{api="{api}"}} {seconds:.6f}'
            for api, seconds in sorted(edge.seconds.items())
        ),
        "# HELP cumulog_projection_ordinal Last ordinal that this node's read model shows.",
        "# TYPE cumulog_projection_ordinal gauge",
        f"cumulog_projection_ordinal {edge.position()}",
        "# HELP cumulog_bus_connected Whether the bus is connected.",
        "# TYPE cumulog_bus_connected gauge",
        f"cumulog_bus_connected {int(edge.bus.connected)}",
        "# HELP process_cpu_seconds_total CPU time of this process.",
        "# TYPE process_cpu_seconds_total counter",
        f"process_cpu_seconds_total {used.ru_utime + used.ru_stime:.6f}",
    ]
    return "\n".join(lines) + "\n"
