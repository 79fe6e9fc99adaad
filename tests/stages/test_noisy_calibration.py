"""Calibration with wrong labels among the given ones."""

import numpy as np
import pytest
from scipy.special import softmax

from slipway.evaluation.fit import fit_temperature
from slipway.training.search.cross_validation import fit_noisy_temperature


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_wrong_labels_do_not_make_the_network_less_sure(share: float) -> None:
    rng = np.random.default_rng(0)
    images, classes, temperature = 4000, 10, 1.5
    logits_nc = (4 * rng.normal(size=(images, classes))).astype(np.float32)
    truth_n = np.array([rng.choice(classes, p=row) for row in softmax(logits_nc / temperature, axis=1)])
    wrong_n = rng.random(images) < share
    given_n = np.where(wrong_n, rng.integers(classes, size=images), truth_n)
    found, noise = fit_noisy_temperature(logits_nc, given_n)
    assert found == pytest.approx(temperature, rel=0.07)
    assert noise == pytest.approx(share, abs=0.02)
    if share == 0.2:
        assert fit_temperature(logits_nc, given_n) > 1.5 * temperature
