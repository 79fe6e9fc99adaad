"""A row of the journal: one image, one classifier, what was served and what the replay said."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from slipway.client.result import Result
from slipway.operations.journal.pictures import Picture
from slipway.operations.journal.tapped import TappedAnswer

Parity: TypeAlias = Literal["equal", "differs", "other_bundle", "not_comparable", "not_replayed"]
PARITIES: tuple[Parity, ...] = get_args(Parity)
SCORE_TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class Row:
    """One row, before it is written. `request`, `image` and `classifier` are its key."""

    request: str
    """Id that the gateway drew."""
    image: int
    """Place of the image in its request, from 0."""
    classifier: str
    model: str
    """The ensemble that was asked."""
    client_id: str
    """Id that the client gave its request; may be empty."""
    time_s: float
    sampled_with: float
    arm: str
    bundle: str | None
    """Id of the bundle that answered; where the client did not ask for it, of the one that was asked again."""
    replayed_bundle: str | None
    status: int
    label: str | None
    class_id: int | None
    score: float | None
    probability: NDArray[np.float32] | None
    embedding: NDArray[np.float32] | None
    picture: Picture
    bytes: int
    sha256: str | None
    """sha256 of the image; None if no copy is kept."""
    parity: Parity


def parity(served: TappedAnswer, replayed: Result | None) -> Parity:
    """Compare what was served with what the same image got again.

    Another bundle claims nothing, and neither does an answer of which the client asked no label, score or status.
    """
    if replayed is None or replayed.status is None:
        return "not_replayed"
    if served.bundle is None:
        return "not_comparable"
    if served.bundle != replayed.bundle:
        return "other_bundle"
    again = [(one.label, one.score, one.class_id) for one in replayed.candidates]
    if replayed.label is not None:
        again.insert(0, (replayed.label, replayed.score or 0.0, replayed.class_id or 0))
    compared = []
    if served.status is not None:
        compared.append(served.status == replayed.status)
    if served.labels is not None:
        compared.append(served.labels == tuple(label for label, _, _ in again))
    if served.scores is not None:
        compared.append(_close(served.scores, [score for _, score, _ in again], padded=served.labels is None))
    if served.class_ids is not None and served.labels is not None:
        compared.append(served.class_ids == tuple(class_id for _, _, class_id in again))
    if not compared:
        return "not_comparable"
    return "equal" if all(compared) else "differs"


def _close(served: tuple[float, ...], again: list[float], *, padded: bool) -> bool:
    """Whether scores agree; without labels nobody knows where the padding of zeros begins."""
    if padded:
        again = [*again, *[0.0] * (len(served) - len(again))]
    return len(served) == len(again) and bool(np.allclose(served, again, rtol=0, atol=SCORE_TOLERANCE))


def row_of(
    served: TappedAnswer,
    replayed: Result | None,
    *,
    key: tuple[str, int, str],
    model: str,
    client_id: str,
    time_s: float,
    sampled_with: float,
    arm: str,
    picture: Picture,
    content: bytes,
    sha256: str | None,
) -> Row:
    """The row of one image. What the client did not ask for is taken from the replay."""
    again = replayed if replayed is not None and replayed.status is not None else None
    status = served.status if served.status is not None else again.status if again else None
    labels, scores, class_ids = served.labels, served.scores, served.class_ids
    accepted = status == 0
    embedding = again.embedding if again and accepted else None
    return Row(
        request=key[0],
        image=key[1],
        classifier=key[2],
        model=model,
        client_id=client_id,
        time_s=time_s,
        sampled_with=sampled_with,
        arm=arm,
        bundle=served.bundle or (again.bundle if again else None),
        replayed_bundle=again.bundle if again else None,
        status=-1 if status is None else status,
        label=(labels[0] if labels else None) if labels is not None else again.label if again else None,
        class_id=(class_ids[0] if class_ids else None) if class_ids is not None else again.class_id if again else None,
        score=(scores[0] if scores else None) if scores is not None else again.score if again else None,
        probability=again.probability if again and accepted else None,
        embedding=embedding,
        picture=picture,
        bytes=len(content),
        sha256=sha256,
        parity=parity(served, replayed),
    )
