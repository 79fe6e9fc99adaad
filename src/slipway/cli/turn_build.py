"""The first stages of a turn: new data, a new run from the old one, and the old test split."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from slipway.cli.turn_run import Turn, spec_by_hand, write_spec
from slipway.cli.up import Run, stages
from slipway.contract import GateError, SlipwayError, Spec, SpecError
from slipway.contract.evidence.gate import FAIL, FILE_NAME, PASS, OldTest
from slipway.operations.turn.record import TurnRecord
from slipway.system.text import command


class Stage(NamedTuple):
    """A verb that is called."""

    title: str
    why: str | None
    """Reason to run it; empty if the verb decides, None if it is current."""
    words: tuple[str, ...]
    is_judged: bool = False
    """Whether the files that the stage wrote decide, and not its exit code."""


class PersonNeededError(Exception):
    """A person has to do something; the text says what, with the exact command."""


def build_stages(turn: Turn, record: TurnRecord) -> Iterator[Stage]:
    """Yield the stages up to the gate; each is looked at once those before it have run.

    Raises:
        PersonNeededError: a person writes the spec of the new run, or accepts what the old test split cannot prove.
        GateError: the new run loses on the old test split.
    """
    run, old_run = turn.below(record.run), turn.below(record.old_run)
    data = run / "data"
    made = None if (data / "grown.json").is_file() else "none yet"
    yield Stage(
        "new data",
        made,
        (
            *("labels", "dataset", str(turn.gateway), "--classifier", turn.classifier),
            *("--data", str(old_run / "bundle"), "--out", str(data)),
        ),
    )
    if said := spec_by_hand(turn, record):
        raise PersonNeededError(said)
    spec_path = write_spec(turn, record)
    if turn.base_run is not None:
        yield Stage("head", "", ("head", str(spec_path), "--base", str(turn.base_run), "--out", str(run)))
    else:
        spec = Spec.read(spec_path)
        for stage in stages(Run(spec, spec_path, run, turn.stable, ("openvino",), ())):
            if stage[0] != "repository":  # the candidate has a repository of its own
                yield Stage(*stage)
    engine = turn.engine_of()
    named = ("--engine", engine) if engine else ()
    words = ("turn", "gate", str(old_run), str(run), *named)
    yield Stage("old test split", why_gate(old_run, run, engine), words, is_judged=True)
    if why := why_gate(old_run, run, engine):
        raise SpecError(f"{run}: the old test split was not compared: {why}")
    found = OldTest.read(run / FILE_NAME)
    if bound := require_kept(turn, record, found):
        bound.keep(turn.folder)
        if bound.accepted is not None:
            print(
                f"old test split: too few images to tell; accepted by {bound.accepted.by} for engine "
                f"{found.engine_sha256:.12} alone: {bound.accepted.reason}"
            )


def require_kept(turn: Turn, record: TurnRecord, found: OldTest) -> TurnRecord | None:
    """Return None if the old test split loses nothing; or the record, if a person accepts that it cannot prove that.

    Raises:
        GateError: it loses.
        PersonNeededError: it has too few images, and nobody accepts that.
    """
    said = "\n".join(found.lines())
    if found.verdict == FAIL:
        raise GateError(
            f"{record.run} loses on the old test split: {said}\nchange {turn.below(record.run) / 'spec.yaml'}, or "
            "raise its accuracy.max_loss_points"
        )
    if found.verdict == PASS:
        return None
    bound = record.accepts(found.engine_sha256)
    if bound is None:
        names = (turn.gateway, turn.fleet_file, turn.classifier)
        raise PersonNeededError(
            f"the old test split has too few images to prove that {record.run} loses nothing: {said}\n  accept it: "
            + command("slipway turn run", *names, "--accept", "REASON")
        )
    return bound


def why_gate(old_run: Path, run: Path, engine: str | None) -> str | None:
    """Return the reason to compare on the old test split; None if the engines that answer now were compared already."""
    from slipway.engines.old_test_split import open_run  # not at the top: --help needs no library

    if not (run / FILE_NAME).is_file():
        return "not compared yet"
    try:
        found = OldTest.read(run / FILE_NAME)
        old, new = (open_run(folder, engine) for folder in (old_run, run))
    except SlipwayError as error:
        return str(error)
    same = (found.old_engine_sha256, found.engine_sha256) == (old.engine_sha256, new.engine_sha256)
    return None if same else "other engines answer now"
