"""Keeps the answers of the networks, so that a simulation can be repeated without them."""

import pickle
from collections.abc import Iterator
from pathlib import Path

from benchmarks.studies.watch.networks import Population, populations
from slipway.contract import DataError


def kept_populations(seed: int, path: Path | None) -> Iterator[Population]:
    """Read the populations of a seed from a file. If it is missing, they are made, and written to it at the end.

    Raises:
        DataError: the file is of another seed.
    """
    if path is not None and path.is_file():
        of_seed, found = pickle.loads(path.read_bytes())
        if of_seed != seed:
            raise DataError(f"{path}: answers of the seed {of_seed}, and {seed} is asked; give another file")
        yield from found
        return
    made = []
    for population in populations(seed):
        yield population
        made.append(population)
    if path is not None:
        path.write_bytes(pickle.dumps((seed, made)))
