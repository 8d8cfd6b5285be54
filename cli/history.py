"""Commands that fold the log anew."""

from typing import Annotated

import typer

from cli.problem import USAGE, Problem
from cli.proofs import PROOF_S, show_proof
from cli.session import Session, command, single

replay_app = single()


@command(replay_app, "replay")
def replay(
    session: Session,
    *,
    verify_: Annotated[
        bool, typer.Option("--verify", help="Compare with what the engine holds.")
    ] = False,
) -> None:
    """Fold the whole log anew and compare with the engine's state. Exit code 1 if it differs."""
    if not verify_:
        raise Problem("say --verify", hint="It folds the log and compares.", exit_code=USAGE)
    session.client.timeout_s = PROOF_S
    show_proof(session, session.client.post("/v1/replay/verify", {}), "matches")
