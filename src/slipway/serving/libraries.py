"""Whether this server has the libraries that the numbers of a lane's plans were made with."""

from pathlib import Path

from slipway.contract import Lane, ServingError
from slipway.contract.installed import Installed, differences
from slipway.system.text import command


def check_libraries(origin: Path, lane: Lane) -> None:
    """Compare TensorRT, DALI and nvImageCodec of the lane at `origin` with those that are installed.

    Raises:
        ServingError: one differs. A plan of another TensorRT does not load, and with another decoder the served pixels
            are not those that the plan was evaluated with.
    """
    broken = list(differences(lane.libraries, Installed.here())) if lane.needs_gpu else []
    if broken:
        release = () if lane.release is None else ("--release", lane.release)
        raise ServingError(
            f"{origin}: {'; '.join(broken)}; serve it in the release that compiled it ("
            f"{command('slipway container', 'serve', origin, *release, '--run')}), or compile it again in this one"
        )
