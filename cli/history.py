"""Commands about sealed history, and those that fold the log anew."""

from typing import Annotated

import typer

from cli.output import Column, Output, when
from cli.problem import USAGE, Problem
from cli.proofs import PROOF_S, show_proof
from cli.session import Session, command, group, single

replay_app = single()
history_app = group("The log as sealed files: how far, which, whole?")

SEGMENT_COLUMNS: list[Column] = [
    ("FIRST", "first"),
    ("LAST", "last"),
    ("FROM", lambda row: when(row["first_at"])),
    ("TO", lambda row: when(row["last_at"])),
    ("COMMITS", "commits"),
    ("BYTES", "bytes"),
    ("SHA-256", lambda row: row["sha256"][:16] + "…"),
]


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


@command(history_app, "status")
def status(session: Session) -> None:
    """Show up to which ordinal the log is sealed, how much that is, and where the log ends."""
    session.show(session.client.get("/v1/history"))


@command(history_app, "segments")
def segments(session: Session) -> None:
    """List the files: Parquet, named by their first and last ordinal, in order."""
    session.show_all(session.client.get("/v1/history/segments")["segments"], SEGMENT_COLUMNS)


@command(history_app, "seal")
def seal(session: Session) -> None:
    """Seal what was acknowledged before this, without waiting for the time or the size."""
    session.client.timeout_s = PROOF_S
    told = session.client.post("/v1/history/seal", {})
    if session.output is Output.TABLE:
        session.say(f"sealed up to ordinal {told['ordinal']}, {len(told['segments'])} segments")
    else:
        session.show({"ordinal": told["ordinal"], "segments": len(told["segments"])})


@command(history_app, "verify")
def verify(session: Session) -> None:
    """Compare sealed history with the log, byte for byte. Exit code 1 if they differ.

    `cumulog audit verify` checks both against all that was signed; this shows that they are one.
    """
    session.client.timeout_s = PROOF_S
    show_proof(session, session.client.post("/v1/history/verify", {}), "agree")
