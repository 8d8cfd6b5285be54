"""`cumulog status`: is all well?

On the machine that runs the cloud each process is looked at too; from elsewhere the API's word is
what there is.
"""

import shutil
from pathlib import Path
from typing import Any

from cli.cloud import STATE_DIR
from cli.output import Column, Output, when
from cli.problem import Problem
from cli.session import Session
from cli.state import PROCESSES, STANDBY, State
from cli.supervisor import BROKER, DISK_FREE_MIN


def show_status(session: Session) -> bool:
    """Print each part, its lag and the log's head; return whether all is well."""
    state = _local(session)
    parts = _processes(state) if state else []
    told, problem = _ask(session)
    free = shutil.disk_usage(state.root).free if state else DISK_FREE_MIN
    engine, hosts = told.get("engine", {}), told.get("hosts", [])
    well = (
        problem is None
        and free >= DISK_FREE_MIN
        and all(part["ok"] for part in parts)
        and "error" not in engine
        and all(host["status"] == "up" for host in hosts)
    )
    if session.output is not Output.TABLE:
        error = problem.line() if problem else None
        session.show({"ok": well, "parts": parts, "api": told, "error": error})
        return well
    details = _details(told)
    columns: list[Column] = [
        ("PART", "part"),
        ("STATE", "state"),
        ("PID", "pid"),
        ("MEMORY MIB", "memory_mib"),
        ("DETAIL", lambda part: details.get(part["part"], "")),
    ]
    if parts:
        session.show_all(parts, columns)
    for host in hosts:
        print(f"host {host['host_id']}: {host['status']}, {host['accelerator']}")
    if "projection" in told:
        head = told["projection"]
        print(f"log: ordinal {head['ordinal']}, {when(head['at'])}, hash {head['hash'][:16]}…")
    if problem is not None:
        print(f"API: {problem.line()}")
    if free < DISK_FREE_MIN:
        print(
            f"disk: {free // 2**20} MiB are free; nothing more can be taken on until there is room"
        )
    if "error" in engine:
        print(f"engine: {engine['error']}")
    print("All is well." if well else "Not all is well.")
    return well


def _details(told: dict[str, Any]) -> dict[str, str]:
    """Return what the API says of each part."""
    engine, head = told.get("engine", {}), told.get("projection", {})
    details = {}
    if "ordinal" in engine:
        leads = STANDBY if str(engine.get("node", "")).endswith(f"-{STANDBY}") else "engine"
        details[STANDBY] = details["engine"] = "follows the log, to take over"
        details[leads] = (
            f"epoch {engine.get('epoch')}, ordinal {engine['ordinal']}, "
            f"{engine.get('servers')} servers, {engine.get('operations')} operations under way"
        )
    if "ordinal" in head:
        details["projector"] = f"ordinal {head['ordinal']}, {told.get('lag', 0)} behind"
    return details


def _local(session: Session) -> State | None:
    """Return the state directory on this machine that is meant, if any is."""
    import os

    directory = session.state_dir or os.environ.get("CUMULOG_STATE_DIR")
    if directory is None and (session.os_cloud or os.environ.get("OS_CLOUD")):
        return None
    state = State.at(directory or STATE_DIR)
    if directory is not None:
        state.cell()  # it was named, so it must be there
    if not state.exists():
        return None
    session.state_dir = str(state.root)
    return state


def _processes(state: State) -> list[dict[str, Any]]:
    supervisor = state.supervisor()
    pids = {"up": supervisor["pid"] if supervisor else 0}
    pids |= {name: state.pid(name) for name in (BROKER, *PROCESSES)}
    if state.pid_file(STANDBY).exists():
        pids[STANDBY] = state.pid(STANDBY)
    return [
        {
            "part": name,
            "ok": (state_of := _state_of(pid)) == "running",
            "state": state_of,
            "pid": pid or None,
            "memory_mib": _memory_mib(pid) if pid else None,
        }
        for name, pid in pids.items()
    ]


def _state_of(pid: int) -> str:
    """Return whether a process runs; one that was stopped (SIGSTOP) answers nobody. proc(5)."""
    if not pid:
        return "down"
    try:
        code = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "down"
    return "stopped" if code in {"T", "t"} else "running"


def _memory_mib(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    resident = next((line.split()[1] for line in lines if line.startswith("VmRSS:")), "0")
    return int(resident) // 1024


def _ask(session: Session) -> tuple[dict[str, Any], Problem | None]:
    try:
        session.client.timeout_s = 10.0
        told: dict[str, Any] = session.client.get("/v1/status")
    except Problem as problem:
        return {}, problem
    return told, None
