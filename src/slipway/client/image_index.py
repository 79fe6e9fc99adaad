"""`ImageIndex`: the embeddings of a folder of images, and their nearest neighbours by exact search.

All heads of a base have the same embedding, so an index belongs to the base, whichever head it was asked of.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from slipway.client.result import Result
from slipway.contract.typed_file import Contract
from slipway.errors import ManifestError, SpecError, requiring
from slipway.system.files import complete_folder

FILE_NAME, EMBEDDINGS = "index.json", "embeddings.npy"
SAME_SPACE = 0.999
"""Least cosine of two embeddings of one image by one engine; between two engines it is lower."""


class IndexSettings(Contract):
    """`index.json`."""

    model: str
    """The classifier that was asked."""
    bundle: str
    """Id of the bundle that answered."""
    folder: str
    """The folder of the images, as it was given."""
    files: tuple[str, ...] = Field(min_length=2)
    """The images, relative to the folder, in the order of the rows."""
    skipped: dict[str, str] = Field(default={})
    """Images without an embedding, with the reason."""


@dataclass(frozen=True)
class Match:
    """An image of the index, and how much it is like another."""

    file: str
    similarity: float
    """Cosine of the embeddings, from which the mean of the index was taken: 1 for the same image, about 0 for any."""


class ImageIndex:
    """An index in memory.

    Args:
        embedding_nd: FP32 `[n, d]`, a row for each of `settings.files`.
    """

    def __init__(self, settings: IndexSettings, embedding_nd: NDArray[np.float32]) -> None:
        with requiring("scikit-learn", extra="train"):
            from sklearn.neighbors import NearestNeighbors
        self.settings, self.embedding_nd = settings, embedding_nd
        self._mean_d = embedding_nd.mean(axis=0)
        self._neighbours = NearestNeighbors(metric="cosine", algorithm="brute").fit(self._centred(embedding_nd))

    @classmethod
    def of(cls, answers: Iterable[tuple[str, Result]], *, model: str, folder: Path) -> Self:
        """The index of images that a server answered in full, by their names.

        Raises:
            SpecError: the classifier has no embedding, fewer than two images have one, or the bundle changed meanwhile.
        """
        rows: dict[str, NDArray[np.float32]] = {}
        skipped: dict[str, str] = {}
        bundles = set()
        for name, result in answers:
            if not result.ok:
                skipped[name] = str(result.error or result.status_name)
                continue
            if result.embedding is None:
                raise SpecError(f"{model} has no embedding, since its network has none; give a classifier that has one")
            if not np.isfinite(result.embedding).all():
                skipped[name] = "its embedding holds NaN or infinity"
                continue
            rows[name] = result.embedding
            bundles.add(result.bundle)
        if len(rows) < 2:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
            raise SpecError(
                f"{folder}: {len(rows)} image(s) with an embedding; an index needs two ({reasons or 'empty'})"
            )
        if len(bundles) > 1:
            raise SpecError(f"{model}: another bundle answered while the folder was read; build the index again")
        settings = IndexSettings(
            model=model, bundle=str(bundles.pop()), folder=str(folder), files=tuple(rows), skipped=skipped
        )
        return cls(settings, np.stack(list(rows.values())))

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises ManifestError: `path` holds no complete index."""
        if not (path / FILE_NAME).is_file():
            raise ManifestError(f"{path}: no {FILE_NAME} here; build an index with slipway index build")
        settings = IndexSettings.read(path / FILE_NAME)
        try:
            embedding_nd = np.load(path / EMBEDDINGS, allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            raise ManifestError(f"{path / EMBEDDINGS}: cannot be read ({error}); build the index again") from None
        if not isinstance(embedding_nd, np.ndarray) or embedding_nd.dtype != np.float32:
            raise ManifestError(f"{path / EMBEDDINGS}: not an array of FP32 numbers; build the index again")
        if embedding_nd.ndim != 2 or len(embedding_nd) != len(settings.files) or not embedding_nd.size:
            raise ManifestError(
                f"{path / EMBEDDINGS}: {list(embedding_nd.shape)} for {len(settings.files)} images; build it again"
            )
        if not np.isfinite(embedding_nd).all():
            raise ManifestError(f"{path / EMBEDDINGS}: holds NaN or infinity; build the index again")
        return cls(settings, embedding_nd)

    def write(self, path: Path) -> None:
        """Write the index to the folder `path`, whole or not at all; raises what `complete_folder` raises."""
        with complete_folder(path, kind="index") as staging:
            np.save(staging / EMBEDDINGS, self.embedding_nd)
            self.settings.write(staging / FILE_NAME)

    def check_same_space(self, embedding_d: NDArray[np.float32], row: int) -> None:
        """Raises SpecError: the image of a row has another embedding now, so the index is of another base or engine."""
        indexed_d = self.embedding_nd[row]
        if indexed_d.shape == embedding_d.shape:
            norms = float(np.linalg.norm(indexed_d) * np.linalg.norm(embedding_d))
            if norms == 0 or float(indexed_d @ embedding_d) / norms >= SAME_SPACE:
                return
        raise SpecError(
            f"{self.settings.files[row]}: another embedding than in the index, so the file changed, or the index is of "
            f"another base or engine (model {self.settings.model}, bundle {self.settings.bundle:.12}); build it again"
        )

    def like(self, embedding_d: NDArray[np.float32], *, count: int) -> list[Match]:
        """The images that are most like the one of an embedding, the best first."""
        count = min(count, len(self.settings.files))
        distances, rows = self._neighbours.kneighbors(self._centred(embedding_d[np.newaxis]), n_neighbors=count)
        return [Match(self.settings.files[row], 1 - float(d)) for d, row in zip(distances[0], rows[0], strict=True)]

    def duplicates(self, *, least: float) -> list[list[Match]]:
        """Groups of images that are alike, each to another of its group by at least `least`; each image with its
        greatest similarity, the best first."""
        from scipy.sparse.csgraph import connected_components

        near = self._neighbours.radius_neighbors_graph(radius=1 - least, mode="distance")
        near.data = 1 - near.data  # an explicit distance of 0 would be no edge
        _, group_of = connected_components(near, directed=False)
        best = np.asarray(near.max(axis=1).todense()).ravel()
        groups: dict[int, list[Match]] = {}
        for row, group in enumerate(group_of):
            groups.setdefault(int(group), []).append(Match(self.settings.files[row], float(best[row])))
        found = [sorted(group, key=lambda match: -match.similarity) for group in groups.values() if len(group) > 1]
        return sorted(found, key=lambda group: -group[0].similarity)

    def _centred(self, embedding_nd: NDArray[np.float32]) -> NDArray[np.float32]:
        """Subtract the mean, which all images have in common; otherwise all would be alike."""
        centred_nd: NDArray[np.float32] = embedding_nd - self._mean_d
        return centred_nd


def rows_that_exist(settings: IndexSettings) -> Sequence[int]:
    """The rows whose images are still in the folder."""
    return [row for row, name in enumerate(settings.files) if (Path(settings.folder) / name).is_file()]
