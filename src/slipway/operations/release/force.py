"""Puts weights in force, and waits until Envoy has taken them up."""

import time

from slipway.contract import ServingError
from slipway.operations.gateway.routes import Traffic, write_routes
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.release.metrics import fetch, samples

IN_FORCE_S = 1.0
LOOK_S = 0.01
_UPDATES = r"\.rds\."
_TAKEN, _REJECTED = "envoy_http_rds_update_success", "envoy_http_rds_update_rejected"


def put_in_force(settings: GatewaySettings, traffic: Traffic) -> float:
    """Write `traffic` and wait until the running gateway has taken it up; returns how many seconds that took.

    Raises:
        ServingError: the gateway does not answer, and nothing was changed; or it did not take the change up within a
            second, or rejected it.
        SpecError: requests are to go to a candidate, and the settings have none.
    """
    taken, rejected = _updates(settings)
    started = time.monotonic()
    write_routes(settings, traffic)
    while True:
        taken_now, rejected_now = _updates(settings)
        seconds = time.monotonic() - started
        if rejected_now > rejected:
            raise ServingError("the gateway rejected the new weights; its log, envoy.log, says why")
        if taken_now > taken:
            return seconds
        if seconds > IN_FORCE_S:
            raise ServingError(
                f"the gateway has not taken up the new weights within {IN_FORCE_S:g} s; they are in "
                f"{settings.folder}, and a gateway that is started again reads them"
            )
        time.sleep(LOOK_S)


def _updates(settings: GatewaySettings) -> tuple[float, float]:
    found = {_TAKEN: 0.0, _REJECTED: 0.0}
    for sample in samples(fetch(settings, _UPDATES)):
        name = sample.name.removesuffix("_total")
        if name in found:
            found[name] += sample.value
    return found[_TAKEN], found[_REJECTED]
