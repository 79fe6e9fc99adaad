"""Puts weights in force, and waits until Envoy has taken them up."""

import time

from slipway.contract import ServingError, SpecError
from slipway.operations.gateway.binary import ENVOY_LOG
from slipway.operations.gateway.routes import GRPC, HTTP, Traffic, check_traffic, write_routes
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.release.metrics import fetch, samples

IN_FORCE_S = 1.0
LOOK_S = 0.01
_UPDATES = r"\.rds\."
_CANDIDATE = rf"^cluster\.candidate_({GRPC}|{HTTP})\.membership_total$"
"""The gateway has this metric of each cluster that it knows."""
_TAKEN, _REJECTED = "envoy_http_rds_update_success", "envoy_http_rds_update_rejected"


def put_in_force(settings: GatewaySettings, traffic: Traffic) -> float:
    """Write `traffic` and wait until the running gateway has taken it up; returns how many seconds that took.

    Raises:
        ServingError: the gateway does not answer, and nothing was changed; or it did not take the change up within a
            second, or rejected it.
        SpecError: requests are to go to a candidate, and the settings have none, or the running gateway does not know
            it; nothing was changed.
    """
    if traffic.to_candidate:
        check_traffic(settings, traffic)
        _require_known_candidate(settings)
    taken, rejected = _updates(settings)
    started = time.monotonic()
    write_routes(settings, traffic)
    while True:
        taken_now, rejected_now = _updates(settings)
        seconds = time.monotonic() - started
        if rejected_now > rejected:
            raise ServingError(
                f"the gateway rejected the new weights; its log, {settings.folder / ENVOY_LOG}, says why"
            )
        if taken_now > taken:
            return seconds
        if seconds > IN_FORCE_S:
            raise ServingError(
                f"the gateway has not taken up the new weights within {IN_FORCE_S:g} s; they are in "
                f"{settings.folder}, and a gateway that is started again reads them"
            )
        time.sleep(LOOK_S)


def _require_known_candidate(settings: GatewaySettings) -> None:
    if len(list(samples(fetch(settings, _CANDIDATE)))) < len((GRPC, HTTP)):
        raise SpecError(
            "the running gateway does not know the candidate; let it read its settings again with candidate: in "
            "them, by slipway reload, or SIGUSR1 to a slipway gateway that runs alone"
        )


def _updates(settings: GatewaySettings) -> tuple[float, float]:
    found = {_TAKEN: 0.0, _REJECTED: 0.0}
    for sample in samples(fetch(settings, _UPDATES)):
        name = sample.name.removesuffix("_total")
        if name in found:
            found[name] += sample.value
    return found[_TAKEN], found[_REJECTED]
