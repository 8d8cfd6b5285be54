"""The commands that run a cloud on this machine: up, status, destroy, serve.

Only their options are here; each imports what it does when it is called.
"""

import enum
from pathlib import Path
from typing import Annotated

import typer

from cli.session import Session, command, single

STATE_DIR = "./var"

StateDir = Annotated[
    str, typer.Option(envvar="CUMULOG_STATE_DIR", help="Where the cloud keeps all it has.")
]

up_app = single()
status_app = single()
destroy_app = single()
serve_app = single()


class Driver(enum.StrEnum):
    """What servers run on."""

    LIBVIRT = "libvirt"
    SIMULATED = "simulated"


class LogLevel(enum.StrEnum):
    """From which importance on processes write to their log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Accelerator(enum.StrEnum):
    """How guests are run: auto tries whether KVM really works."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


@up_app.command("up")
def up(
    *,
    state_dir: StateDir = STATE_DIR,
    listen: Annotated[str, typer.Option(help="HOST:PORT of the API.")] = "127.0.0.1:8780",
    ready_file: Annotated[
        str, typer.Option(help="Write addresses and process ids here once all is up.")
    ] = "",
    driver: Annotated[
        Driver | None, typer.Option(help="Real servers, or simulated ones; none: what can be.")
    ] = None,
    accelerator: Annotated[
        Accelerator, typer.Option(help="How guests run; auto probes KVM.")
    ] = Accelerator.AUTO,
    demo: Annotated[
        bool, typer.Option("--demo/--no-demo", help="Boot a first server and show what happened.")
    ] = False,
    image: Annotated[
        Path | None, typer.Option(help="The tiny guest's image; none: build it.")
    ] = None,
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="Keep a second copy of signed checkpoints here.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file: speak TLS, as who this says.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file: the certificate's key.")] = None,
    tls_authority: Annotated[
        Path | None, typer.Option(help="PEM file: who vouches for it, unless all know.")
    ] = None,
    public_url: Annotated[
        str, typer.Option(help="What clients reach the API as, if not by --listen.")
    ] = "",
    standby: Annotated[
        bool, typer.Option("--standby", help="Run a second engine that takes over at once.")
    ] = False,
    metrics_token_file: Annotated[
        Path | None, typer.Option(help="Ask for the token in this file at /metrics; none: open.")
    ] = None,
    webhook_allow: Annotated[
        list[str] | None,
        typer.Option(help="Let webhooks lead into this network too, as 10.0.0.0/8 (repeatable)."),
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(help="What DIR/log has; debug adds a line for each read.")
    ] = LogLevel.INFO,
) -> None:
    """Run the whole cloud on this machine, in the foreground.

    The first run makes it, every other one finds it. Ctrl-C stops the control plane; servers keep
    running, and the next `up` finds them again.
    """
    from cli.up import Options, replace_with

    replace_with(
        Options(
            state_dir=str(Path(state_dir).expanduser().absolute()),
            listen=listen,
            ready_file=str(Path(ready_file).absolute()) if ready_file else "",
            driver=driver.value if driver else "",
            demo=demo,
            image=str(image.absolute()) if image else "",
            standby=standby,
            settings={
                "accelerator": accelerator.value,
                "metrics_token_file": (
                    str(metrics_token_file.absolute()) if metrics_token_file else ""
                ),
                "webhook_allow": webhook_allow or [],
                "log_level": log_level.value,
                "checkpoint_copy": str(checkpoint_dir.absolute()) if checkpoint_dir else "",
                **_edge_settings(tls_certificate, tls_key, tls_authority, public_url),
            },
        )
    )


def _edge_settings(
    certificate: Path | None, key: Path | None, authority: Path | None, public_url: str
) -> dict[str, str]:
    """Return what was given of the API's settings; the rest is as ``cell.json`` has it.

    Raises:
        Problem: a certificate without a key, or the other way round, or an address that is none.
    """
    from cli.problem import USAGE, Problem

    if (certificate is None) != (key is None):
        raise Problem("--tls-certificate and --tls-key go together", exit_code=USAGE)
    if public_url and not public_url.startswith(("http://", "https://")):
        raise Problem(f"--public-url takes http(s)://…, not {public_url!r}", exit_code=USAGE)
    files = {"tls_certificate": certificate, "tls_key": key, "tls_authority": authority}
    given = {name: str(path.absolute()) for name, path in files.items() if path is not None}
    return given | ({"public_url": public_url} if public_url else {})


@command(status_app, "status")
def status(session: Session) -> None:
    """Show each part, its lag and the log's head. Exit code 0 only if all is well."""
    from cli.status import show_status

    if not show_status(session):
        raise typer.Exit(1)


@destroy_app.command("destroy")
def destroy(
    *,
    state_dir: StateDir = STATE_DIR,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove this machine's cloud: servers, disks, networks, the log, everything."""
    from cli.destroy import destroy_cloud

    destroy_cloud(state_dir, sure=yes)


@serve_app.command("serve")
def serve(
    process: Annotated[
        str,
        typer.Argument(
            help="engine, standby, projector, archiver, courier, agent or api.", metavar="PROCESS"
        ),
    ],
    *,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Run one process of a cloud in the foreground, as `up` has configured it."""
    from cli.serve import run_process

    run_process(process, state_dir)
