"""Finding people: BlazePose's detector over the whole photo and over tiles of it.

Source: the anchor layout (2254 anchors on 28, 14 and 7 cells, fixed size) and the meaning of the outputs (box, then hip centre, then a point on the
circle round the person) follow the network file; the tiled second look is ours: on the whole photo the detector sees little but the largest person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svad_ray.nets.litert import LiteRTNet
from svad_ray.stages.perceive.crops import Roi, sigmoid

_GRIDS = ((28, 2), (14, 2), (7, 6))  # cells a side, anchors a cell
_SAME_PERSON = 0.3  # hip centres closer than this share of the circle's radius are one person
_TILE_SHARES = (0.5, 0.37)  # tile side over the longer photo side


@dataclass(frozen=True)
class Candidate:
    """A person that the detector proposes: score in [0, 1], hip centre and circle point (2,) in pixels."""

    score: float
    hip: np.ndarray
    circle: np.ndarray

    @property
    def radius(self) -> float:
        """Of the circle round the person, pixels."""
        return float(np.hypot(*(self.circle - self.hip)))

    @property
    def roi(self) -> Roi:
        """The region that the landmark network wants: the circle's square, a quarter larger."""
        return Roi.upright_from(self.hip, self.circle, scale=2.5)


def grid_anchors(grids: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(N, 2) anchor centres in [0, 1]: for every grid (cells a side, anchors a cell), row by row."""
    parts = []
    for cells, repeat in grids:
        centres = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)
        parts.append(np.repeat(grid, repeat, 0))
    return np.concatenate(parts)


def suppress(candidates: list[Candidate], *, share: float = _SAME_PERSON) -> list[Candidate]:
    """Non-maximum suppression: strongest first, without those whose hips lie within ``share`` of a stronger one's radius."""
    kept: list[Candidate] = []
    for one in sorted(candidates, key=lambda c: -c.score):
        if all(np.hypot(*(one.hip - other.hip)) > share * other.radius for other in kept):
            kept.append(one)
    return kept


class PersonDetector:
    """Proposes people.

    Args:
        net: pose_detection.tflite.
        threshold: Lowest score of a proposal.
    """

    def __init__(self, net: LiteRTNet, *, threshold: float = 0.4) -> None:
        self.net, self.threshold = net, threshold
        self._anchors = grid_anchors(_GRIDS)

    def detect(self, image: np.ndarray) -> list[Candidate]:
        """People in an (H, W, 3) uint8 image, strongest first: one look at the whole of it."""
        height, width = image.shape[:2]
        return suppress(self._look(image, Roi(np.array([width / 2, height / 2]), max(height, width))))

    def detect_tiled(self, image: np.ndarray) -> list[Candidate]:
        """``detect`` and further looks at overlapping tiles, which see smaller people too."""
        return suppress(self.detect(image) + [found for roi in tiles(*image.shape[:2]) for found in self._look(image, roi)])

    def _look(self, image: np.ndarray, roi: Roi) -> list[Candidate]:
        size = self.net.size
        out = self.net(roi.crop(image, size) * 2 - 1)
        scores = sigmoid(out["Identity_1"].reshape(-1))
        chosen = np.flatnonzero(scores > self.threshold)
        points = out["Identity"][chosen, 4:8].reshape(-1, 2, 2) / size + self._anchors[chosen, None]
        return [Candidate(float(scores[i]), *roi.to_image(pair * size, size)) for i, pair in zip(chosen, points)]


def tiles(height: int, width: int) -> list[Roi]:
    """Overlapping square tiles (half a side apart) of every size in ``_TILE_SHARES`` that cover the photo."""
    rois = []
    for share in _TILE_SHARES:
        side = share * max(height, width)
        for y in _starts(height, side):
            rois += [Roi(np.array([x + side / 2, y + side / 2]), side) for x in _starts(width, side)]
    return rois


def _starts(length: int, side: float) -> np.ndarray:
    if side >= length:
        return np.array([(length - side) / 2])
    return np.linspace(0, length - side, int(np.ceil(2 * (length - side) / side)) + 1)
