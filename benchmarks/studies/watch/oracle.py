"""Finds how soon a detector that has seen images of the change could find it: a yardstick for a watch.

The oracle has a classifier of unchanged and changed images, which it was fitted to in five folds, so that it judges no
image that it has seen. Its bet on a row is the likelihood ratio that this classifier gives, divided by the mean over
all unchanged images: its reference is not finite. Its delay is not the least possible one, as another classifier may
know more. We do not expect a watch that knows nothing of the change to reach it.
"""

import numpy as np

from slipway.operations.watch.rows import Floats, Rows

FOLDS = 5
STRENGTH = 0.01
"""Inverse strength of regularisation. A weaker one is over-confident where the network has random weights."""
_LEAST = 1e-6


def ratios(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """Return the likelihood ratios of rows `[n, d]` before and `[m, d]` after a change, by a classifier of both."""
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
    """Return the oracle's factors of all rows, known and then foreign, of a stream with this share of foreign ones."""
    factors = 1 - share + share * np.concatenate([before, after])
    exact: Floats = factors / factors[: before.size].mean()
    return exact


def seen(rows: Rows, embeddings: Floats) -> Floats:
    """Return all features of the rows, `[n, d + 3]`."""
    own = [np.log1p(1e-6 - np.minimum(rows.confidence, 1)), rows.distance, rows.norm]
    return np.column_stack([embeddings, *own] if rows.brightness is None else [embeddings, *own, rows.brightness])
