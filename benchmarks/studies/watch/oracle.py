"""How soon a detector that has seen images of the change could find it: a yardstick for what a watch can reach.

The oracle has a classifier of unchanged and changed images, which it was fitted to in five folds, so that it judges no
image that it has seen. Its bet on a row is the likelihood ratio that this classifier gives, divided by the mean over
all unchanged images: no reference is finite for it. It is not the least delay possible, as another classifier may tell
more; a watch that knows nothing of the change is not expected to reach it.
"""

import numpy as np

from slipway.operations.watch.rows import Floats, Rows

FOLDS = 5
STRENGTH = 0.01
"""Inverse strength of regularisation. A weaker one is over-confident where the network has random weights."""
_LEAST = 1e-6


def ratios(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """Likelihood ratios of rows `[n, d]` before and `[m, d]` after a change, as a classifier of both tells them."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, changed = np.concatenate([before, after]), np.repeat([False, True], [len(before), len(after)])
    # An image and its changed form are in one fold.
    folds = np.concatenate([np.arange(len(before)), np.arange(len(after))]) % FOLDS
    chance = np.empty(len(rows))
    for fold in range(FOLDS):
        fitted = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=1000))
        fitted.fit(rows[folds != fold], changed[folds != fold])
        chance[folds == fold] = fitted.predict_proba(rows[folds == fold])[:, 1]
    chance = np.clip(chance, _LEAST, 1 - _LEAST)
    odds = chance / (1 - chance) * len(before) / len(after)
    return odds[: len(before)], odds[len(before) :]


def mixed(before: Floats, after: Floats, *, share: float) -> Floats:
    """The oracle's factors of all rows, known and then foreign, of a stream with this share of foreign ones."""
    factors = 1 - share + share * np.concatenate([before, after])
    exact: Floats = factors / factors[: before.size].mean()
    return exact


def seen(rows: Rows, embeddings: Floats) -> Floats:
    """All that a row tells, `[n, d + 3]`."""
    own = [np.log1p(1e-6 - np.minimum(rows.confidence, 1)), rows.distance, rows.norm]
    return np.column_stack([embeddings, *own] if rows.brightness is None else [embeddings, *own, rows.brightness])
