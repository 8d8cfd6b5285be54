"""A read-only cloud of a moment: laid down in a directory, and served from there.

Works on this machine's files, beside the running cloud that it is a past of.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.cloud import STATE_DIR
from cli.problem import USAGE, Problem
from cli.session import Session
from cli.state import State, write_private

if TYPE_CHECKING:
    from schemas.config import Config

LISTEN = "127.0.0.1:8790"
DIGITS_MAX = 16  # of an ordinal
NAME = "then"  # of the administrator's account in its clouds.yaml
THEN_FILE = "then.json"


@dataclass(frozen=True)
class Then:
    """What a directory holds: whose past, of which ordinal and time (microseconds)."""

    directory: Path
    source: Path
    ordinal: int
    at: int

    @classmethod
    def read(cls, directory: Path) -> "Then":
        """Return what was laid down in a directory.

        Raises:
            Problem: nothing was.
        """
        directory = directory.expanduser().resolve()
        try:
            told = json.loads((directory / THEN_FILE).read_text())
            return cls(directory, Path(told["source"]), int(told["ordinal"]), int(told["at"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Problem(
                f"{directory} holds no cloud of the past",
                hint="`cumulog replay --to MOMENT --into DIR` makes one.",
                exit_code=USAGE,
            ) from error


def lay_down(session: Session, to: str, into: Path) -> None:
    """Make a cloud of a moment in a new directory, and say how to use it."""
    from engine.log.port import LogError
    from projections.runner import read_model_path
    from projections.timemachine import copy
    from projections.timemachine.worker import log_of
    from schemas.errors import Rejected

    source = State.at(session.state_dir or STATE_DIR)
    config = _config(source, "projector")
    directory = into.expanduser().resolve()
    if directory.exists() and any(directory.iterdir()):
        raise Problem(f"{directory} is not empty", hint="Name a new one.", exit_code=USAGE)
    model, read = read_model_path(config), log_of(config)
    at = None if to.isascii() and to.isdecimal() and len(to) <= DIGITS_MAX else _time(to)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    try:
        ordinal = int(to) if at is None else copy.ordinal_at(model, read, at)
        moment = copy.lay_down(model, read, ordinal, directory / "read" / f"{NAME}.sqlite")
    except (Rejected, LogError) as error:
        shutil.rmtree(directory)  # it was empty
        if isinstance(error, Rejected):
            raise Problem(error.reason, hint=error.hint, exit_code=USAGE) from error
        raise Problem(f"the log cannot be read: {error}", hint="Is the cloud up?") from error
    told = {"source": str(source.root), "ordinal": moment.ordinal, "at": moment.at}
    write_private(directory / THEN_FILE, json.dumps(told) + "\n")
    then = Then.read(directory)
    _write_clouds(then, f"http://{LISTEN}")
    if session.output != "table":
        session.show(told | {"directory": str(directory)})
        return
    session.say(
        f"the cloud as of ordinal {moment.ordinal} is in {directory}\n\n"
        f"    cumulog replay --serve {directory} &\n"
        f"    export OS_CLIENT_CONFIG_FILE={directory}/clouds.yaml\n"
        f"    openstack --os-cloud {NAME} server list --all-projects"
    )


def serve(directory: Path, listen: str) -> None:
    """Serve a cloud of the past until told to stop; nothing can be changed in it."""
    from api.listening import HANDED
    from cli.serve import run_then
    from cli.up import check_listen, listening_on

    check_listen(listen)
    then = Then.read(directory)
    config = _config(State(then.source), "api")
    # Alone: two clouds at one address would be asked in turns, each of another moment.
    listening = listening_on(listen)
    address = f"{listen.rpartition(':')[0]}:{listening.getsockname()[1]}"
    os.environ[HANDED] = str(listening.detach())
    _write_clouds(then, f"http://{address}")
    run_then(then.directory, NAME, then.at, address, config)


def _config(source: State, process: str) -> "Config":
    """Return what a process of the present cloud was told.

    Raises:
        Problem: there is no cloud there.
    """
    import msgspec

    from schemas.config import Config

    source.cell()
    path = source.config_file(process)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Config)
    except OSError as error:
        raise Problem(
            f"cannot read {path}: {error.strerror}", hint="Is the cloud up?", exit_code=USAGE
        ) from error


def _time(text: str) -> int:
    """Return the microseconds of a time that is past.

    Raises:
        Problem: it is none, or yet to come.
    """
    from api.auth import now
    from api.times import time_asked
    from schemas.errors import InvalidInput

    try:
        at = time_asked(text, "--to")
    except InvalidInput as error:
        raise Problem(error.reason, hint="Or name an ordinal.", exit_code=USAGE) from error
    if at > now():
        raise Problem(f"{text} is yet to come", exit_code=USAGE)
    return at


def _write_clouds(then: Then, url: str) -> None:
    """Write the accounts of the present cloud, as they are reached in this one."""
    from cli.credentials import read_clouds
    from cli.output import as_yaml

    present: dict[str, Any] = read_clouds(State(then.source).clouds_file)
    clouds = {}
    for name, cloud in present.items():
        auth = cloud["auth"] | {"auth_url": f"{url}/identity/v3"}
        kept = {key: value for key, value in cloud.items() if key != "cacert"}
        clouds[name.replace("cumulog", NAME, 1)] = kept | {"auth": auth}
    head = f"# The cloud as of ordinal {then.ordinal}, read-only; written by `cumulog replay`.\n"
    write_private(then.directory / "clouds.yaml", head + as_yaml({"clouds": clouds}) + "\n")
