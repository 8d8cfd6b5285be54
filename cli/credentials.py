"""Which cloud to talk to, and as whom: clouds.yaml, OS_* variables, or a state directory.

The search is the one of OpenStack's clients, so that one clouds.yaml serves all of them.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.problem import USAGE, Problem

DEFAULT_CLOUD = "cumulog"


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """An account on a cloud. ``url`` is the root below which every service has its prefix."""

    url: str
    username: str = ""
    password: str = ""
    project: str = ""
    domain: str = "Default"
    token: str = ""
    authority: str = ""  # file of who vouches for the API; "": whom the system knows


def find_cloud(name: str | None, state_dir: str | None) -> Cloud:
    """Return the account that the options and the environment name.

    Order: --state-dir, --os-cloud, OS_CLOUD, OS_AUTH_URL and its kin, CUMULOG_STATE_DIR, and then
    the cloud ``cumulog`` of the first clouds.yaml that has it.
    """
    environment = os.environ
    if state_dir is not None:
        return _from_files([Path(state_dir) / "clouds.yaml"], name or DEFAULT_CLOUD)
    if name := name or environment.get("OS_CLOUD"):
        return _from_files(search_path(), name)
    if environment.get("OS_AUTH_URL"):
        return _from_environment()
    return _from_files(search_path(), DEFAULT_CLOUD)


def search_path() -> list[Path]:
    """Return where clouds.yaml may lie, nearest first."""
    environment = os.environ
    paths = [
        environment.get("OS_CLIENT_CONFIG_FILE"),
        environment.get("CUMULOG_STATE_DIR", "")
        and f"{environment['CUMULOG_STATE_DIR']}/clouds.yaml",
        "clouds.yaml",
        "var/clouds.yaml",
        "~/.config/openstack/clouds.yaml",
    ]
    return [Path(path).expanduser() for path in paths if path]


def _from_files(paths: list[Path], name: str) -> Cloud:
    known: list[str] = []
    for path in paths:
        try:
            clouds = read_clouds(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Problem(
                f"cannot read {path}: {error.strerror}",
                hint="Run the command as the user who started the cloud.",
                exit_code=USAGE,
            ) from error
        if name in clouds:
            return _from_entry(name, clouds[name], path)
        known += clouds
    where = ", ".join(str(path) for path in paths)
    raise Problem(
        f"no cloud {name!r} in {where}" + (f" (there are: {', '.join(known)})" if known else ""),
        hint="Start one with `script/up`, or name another with --os-cloud or --state-dir.",
        exit_code=USAGE,
    )


def read_clouds(path: Path) -> dict[str, Any]:
    """Return the clouds of a clouds.yaml by name.

    Raises:
        OSError: it cannot be read.
        Problem: it is not a clouds.yaml.
    """
    import yaml

    try:
        content = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        clouds = content["clouds"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise Problem(
            f"{path} is not a clouds.yaml: {' '.join(str(error).split())}", exit_code=USAGE
        ) from error
    return clouds if isinstance(clouds, dict) else {}


def _from_entry(name: str, entry: Any, path: Path) -> Cloud:
    auth = entry.get("auth", {}) if isinstance(entry, dict) else {}
    if "auth_url" not in auth:
        raise Problem(f"cloud {name!r} in {path} has no auth.auth_url", exit_code=USAGE)
    return Cloud(
        url=_root(str(auth["auth_url"])),
        username=str(auth.get("username", "")),
        password=str(auth.get("password", "")),
        project=str(auth.get("project_name", "")),
        domain=str(auth.get("user_domain_name", auth.get("user_domain_id", "Default"))),
        token=str(auth.get("token", "")),
        authority=str(entry.get("cacert") or ""),
    )


def _from_environment() -> Cloud:
    environment = os.environ
    return Cloud(
        url=_root(environment["OS_AUTH_URL"]),
        username=environment.get("OS_USERNAME", ""),
        password=environment.get("OS_PASSWORD", ""),
        project=environment.get("OS_PROJECT_NAME", ""),
        domain=environment.get("OS_USER_DOMAIN_NAME", "Default"),
        token=environment.get("OS_TOKEN", ""),
        authority=environment.get("OS_CACERT", ""),
    )


def _root(auth_url: str) -> str:
    return auth_url.split("/identity", 1)[0].rstrip("/")
