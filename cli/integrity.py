"""Checks that need nothing but files: an export or a proof, and the public key."""

from pathlib import Path
from typing import Any

import msgspec

from cli.output import when
from cli.problem import USAGE, Problem
from engine.log.checkpoint import Checkpoint, CheckpointBroken, held
from engine.log.commit import ChainBroken
from engine.log.export import ExportReport, check_lines, read_lines
from engine.log.proof import ProofBroken, check_proof
from engine.log.signing import KeysUnreadable, PublicKeys, read_public


def verify_export(file: Path, key: Path | None, checkpoints: Path | None) -> dict[str, Any]:
    """Check an export; return what was found.

    Raises:
        Problem: a file cannot be read at all.
    """
    keys = _keys(key)
    known = () if checkpoints is None else _known(checkpoints, keys)
    if not file.is_file():
        raise Problem(f"there is no file {file}", exit_code=USAGE)
    try:
        report = check_lines(read_lines(file), keys, known)
    except ChainBroken as error:
        return {"intact": False, "ordinal": error.ordinal, "why": error.why}
    return {"intact": True, **report_of(report)}


def verify_proof(file: Path, key: Path | None) -> dict[str, Any]:
    """Check a proof; return what it proves.

    Raises:
        Problem: a file cannot be read at all.
    """
    keys = _keys(key)
    try:
        report = check_proof(_read(file), keys)
    except ProofBroken as error:
        return {"proven": False, "why": str(error)}
    if key is None:
        why = "it hangs together, but nobody vouches for it: name the public key with --key"
        return {"proven": False, "why": why}
    told = msgspec.to_builtins(report)
    for name in ("commit_at", "checkpoint_at"):
        told[name] = when(told[name])
    return {"proven": True, **told}


def report_of(report: ExportReport) -> dict[str, Any]:
    """Return a report as people and programs read it."""
    told: dict[str, Any] = {
        "commits": report.commits,
        "ordinals": report.ordinals,
        "last_hash": report.last_hash,
        "last_at": when(report.last_at),
        "checkpoints": report.checkpoints,
        "signatures": "checked" if report.signed else "not checked: no --key was given",
    }
    if report.losses:
        told["accepted_losses"] = [f"{first} to {last}" for first, last in report.losses]
    return told


def _known(path: Path, keys: PublicKeys | None) -> tuple[Checkpoint, ...]:
    try:
        return held(_read(path).splitlines(), keys).checkpoints
    except CheckpointBroken as error:
        raise Problem(f"{path}: {error}") from error


def _keys(path: Path | None) -> PublicKeys | None:
    if path is None:
        return None
    try:
        keys = read_public(_read(path))
    except KeysUnreadable as error:
        raise Problem(f"{path}: {error}", exit_code=USAGE) from error
    if not keys:
        raise Problem(f"{path} holds no public key", exit_code=USAGE)
    return keys


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}", exit_code=USAGE) from error
