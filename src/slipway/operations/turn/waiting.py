"""Whether a classifier's proposal or turn waits for a person, by the files that `slipway turn` leaves."""

from slipway.errors import SlipwayError
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.release.lock import holder_of
from slipway.operations.turn.proposal import FILE, Proposal
from slipway.operations.turn.record import FOLDER, LOCK, read_turn


def waits_for_a_person(settings: GatewaySettings, classifier: str) -> bool:
    """Whether the newest proposal has a reason and no turn since, or a turn is open and no `slipway turn run` works.

    A damaged file waits for a person too.
    """
    folder = settings.journal / FOLDER / classifier
    try:
        turn = read_turn(folder)
        if turn is not None and turn.outcome is None:
            return holder_of(settings.folder, file=LOCK) is None
        proposal = Proposal.read(folder / FILE) if (folder / FILE).exists() else None
    except (SlipwayError, OSError):
        return True
    if proposal is None or not proposal.reasons:
        return False
    return turn is None or (turn.ended or turn.opened) < proposal.time
