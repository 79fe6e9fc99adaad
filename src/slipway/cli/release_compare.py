"""Compares a candidate with stable on images of the journal, and asks people where the two differ."""

import argparse
from collections.abc import Collection
from dataclasses import asdict

from slipway.contract import SpecError
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.operations.journal.store import Store
from slipway.operations.release.comparing import Compared, ask_people, compare, require_rows
from slipway.operations.release.disagreements import Pair, pairs_of, tally, trained_on
from slipway.operations.release.lock import only_operator
from slipway.operations.release.trial import Trial
from slipway.system.json_line import print_json
from slipway.system.text import command

LOCK = "compare.lock"


def run(trial: Trial, arguments: argparse.Namespace) -> None:
    """Raises SpecError where nothing can be compared, and ServingError where the candidate does not answer."""
    if trial.settings.observe is None:
        raise SpecError(f"{arguments.gateway}: observe: not given, so no images are kept to compare; add observe: {{}}")
    pairs = pairs_of(trial.record)
    if not pairs:
        raise SpecError(
            "nothing to compare: an engine alone is tried, which its accuracy gate has compared, or the classifiers "
            "give an image several labels, of which the journal keeps the first"
        )
    ports = trial.require_candidate()
    told = {}
    with (
        only_operator(trial.settings.folder, "compare", file=LOCK),
        Store.of(trial.settings, make=False) as store,
    ):
        for pair in pairs:
            done = compare(
                store,
                pair,
                port=ports.grpc,
                images=arguments.images,
                without=_trained_on(trial, pair, may_be_unknown=arguments.training_unknown),
                per_second=arguments.per_second,
                say=lambda line: print(f"  {line}", flush=True),
            )
            require_rows(store, done, pair)
            asked = ask_people(store, pair, most=arguments.ask)
            told[pair.classifier] = {**asdict(done), "asked": asked}
            _say(store, pair, done, asked)
    judged = trial.judged()
    print(f"  {judged.judgement.verdict.value}: {judged.judgement.reason}")
    for name in (name for name, found in judged.tallies.items() if found.open):
        push, pull = (
            command(verb, arguments.gateway, "--classifier", name)
            for verb in ("slipway labels push", "slipway labels pull")
        )
        print(f"  next: {push}, and once people have answered: {pull}")
    print_json(arguments, {"classifiers": told, "judgement": judged.judgement.plain()})


def _trained_on(trial: Trial, pair: Pair, *, may_be_unknown: bool) -> Collection[str]:
    """Raises SpecError: the candidate's training data is unknown, and that is not allowed."""
    found = trained_on(trial.record, pair.classifier)
    if found is None and not may_be_unknown:
        raise SpecError(
            f"{pair.classifier}: the candidate's bundle has no {DATASET}, so images that it was trained on cannot be "
            "left out, and it would win by heart; if no image of the journal was trained on, say so: --training-unknown"
        )
    return found or ()


def _say(store: Store, pair: Pair, done: Compared, asked: int) -> None:
    left_out = {
        "are left out, since the candidate was trained on them": done.trained,
        "were removed meanwhile, or are damaged": done.gone,
        "got an error and are not compared": done.failed,
    }
    print(f"{pair.classifier}: {done.new:,} images compared now, {done.before:,} before; {asked:,} new questions")
    for what, count in left_out.items():
        if count:
            print(f"  {count:,} images {what}")
    print(f"  {tally(store, pair)}")
