"""Commands of `cumulog audit` that prove something: the chain, checkpoints, keys, one record.

What a proof says decides the exit code: 1 if something does not hold.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import quoted
from cli.output import Output
from cli.problem import USAGE, Problem
from cli.session import Session

PROOF_S = 3600.0  # a long log takes its time


def verify(
    session: Session,
    *,
    export: Annotated[
        Path | None, typer.Option(help="Check this export of the log; no cloud is needed.")
    ] = None,
    proof: Annotated[
        Path | None, typer.Option(help="Check this proof of a record; no cloud is needed.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The public keys of `audit key`.")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Checkpoints you have kept, that an export must contain.")
    ] = None,
) -> None:
    """Check every byte of the log: its hash chain, its checkpoints, sealed history.

    The first ordinal that does not hold is named, and the exit code is then 1. An export and a
    proof are checked with nothing but themselves and the public key:

    \b
    cumulog audit verify
    cumulog audit verify --export log.jsonl.gz --key cell.pub
    cumulog audit verify --proof proof.json --key cell.pub
    """  # noqa: D301  # click's mark for lines that stay as they are
    if export is not None or proof is not None:
        from cli.integrity import verify_export, verify_proof

        if export is not None:
            show_proof(session, verify_export(export, key, checkpoints), "intact")
        if proof is not None:
            show_proof(session, verify_proof(proof, key), "proven")
        return
    if key is not None or checkpoints is not None:
        raise Problem("--key and --checkpoints go with --export or --proof", exit_code=USAGE)
    session.client.timeout_s = PROOF_S
    show_proof(session, session.client.post("/v1/audit/verify", {}), "intact")


def checkpoint(session: Session) -> None:
    """Sign how far the log has come, now. The archiver does it hourly and with every segment.

    Checkpoints lie in DIR/checkpoints/checkpoints.jsonl; `cumulog up --checkpoint-dir` keeps a
    second copy where you want it.
    """
    session.client.timeout_s = PROOF_S
    session.show(session.client.post("/v1/log/checkpoint", {}))


def key(
    session: Session,
    *,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Sign with a new key from now on; on this machine.")
    ] = False,
) -> None:
    """Print the public keys that checkpoints are checked with: keep them elsewhere.

    Every key that was ever signed with is among them, the newest last. --rotate makes a new one in
    the state directory and forgets the old private key.

    Example: cumulog audit key > cell.pub
    """
    if rotate:
        from cli.cloud import STATE_DIR
        from cli.state import State
        from engine.log.signing import SigningKeys

        state = State.at(session.state_dir or STATE_DIR)
        state.cell()
        keys = SigningKeys(state.root / "keys")
        told = {"key": keys.rotate(), "keys": keys.public_pem().decode()}
    else:
        told = session.client.get("/v1/log/key")
    if session.output is Output.TABLE:
        print(told["keys"], end="")
    else:
        session.show(told)


def proof(
    session: Session,
    what: Annotated[str, typer.Argument(help="A request's id, as req-…, or an ordinal.")],
) -> None:
    """Print the proof that one record is in the log: JSON, which shows nothing of other records.

    It holds the record, the hashes that lead from it to a signed checkpoint, and the checkpoint.

    Example: cumulog audit proof req-… > proof.json
    """
    session.client.timeout_s = PROOF_S
    print(json.dumps(session.client.get(f"/v1/log/proof/{quoted(what)}"), ensure_ascii=False))


COMMANDS: dict[str, Callable[..., None]] = {
    "verify": verify,
    "checkpoint": checkpoint,
    "key": key,
    "proof": proof,
}


def show_proof(session: Session, told: dict[str, Any], holds: str) -> None:
    """Show what was found; what the proof says under ``holds`` decides the exit code."""
    session.show(told)
    if told.get(holds) is None:
        raise Problem("there was nothing to compare with", hint="Is the engine up? Try again.")
    if told[holds] is not True:
        raise typer.Exit(1)
