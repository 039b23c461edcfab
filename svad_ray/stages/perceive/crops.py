"""Square, turned regions of an image: how every landmark network here sees its subject. Pure geometry."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_MAX_STRIDE = 1.5  # crops that shrink more than this are made from an area-averaged copy, against aliasing


@dataclass(frozen=True)
class Roi:
    """A square region.

    Attributes:
        centre: (2,) pixels; pixel centres at half integers.
        side: Pixels.
        angle: Radians; the direction of the region's own right edge, measured from the image's x axis towards its y axis.
    """

    centre: np.ndarray
    side: float
    angle: float = 0.0

    @classmethod
    def upright_from(cls, centre: np.ndarray, top: np.ndarray, *, scale: float) -> Roi:
        """The region whose up direction points from ``centre`` to ``top``; side = ``scale`` times their distance."""
        up = np.asarray(top, float) - centre
        return cls(np.asarray(centre, float), max(scale * float(np.hypot(*up)), 1.0), float(np.arctan2(up[0], -up[1])))

    def matrix(self, size: int) -> np.ndarray:
        """(2, 3) affine from image pixels to a ``size`` x ``size`` crop, both with pixel centres at half integers."""
        scale = size / self.side
        cos, sin = np.cos(self.angle) * scale, np.sin(self.angle) * scale
        linear = np.array([[cos, sin], [-sin, cos]])
        return np.column_stack([linear, size / 2 - linear @ self.centre])

    def crop(self, image: np.ndarray, size: int) -> np.ndarray:
        """(size, size, C) float32 [0, 1] crop of an (H, W, C) uint8 image; black outside."""
        matrix, stride = self.matrix(size), int(self.side / size / _MAX_STRIDE)
        if stride >= 2 and min(image.shape[:2]) >= stride:
            small = cv2.resize(image, (image.shape[1] // stride, image.shape[0] // stride), interpolation=cv2.INTER_AREA)
            factor = np.array([image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]])
            image, matrix = small, np.column_stack([matrix[:, :2] * factor, matrix[:, 2]])
        return cv2.warpAffine(image, to_index_affine(matrix), (size, size), flags=cv2.INTER_LINEAR).astype(np.float32) / 255

    def to_image(self, points: np.ndarray, size: int) -> np.ndarray:
        """(N, 2) pixels of the crop to image pixels."""
        matrix = self.matrix(size)
        return (np.asarray(points, float) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T

    def paste(self, values: np.ndarray, height: int, width: int) -> np.ndarray:
        """(height, width) float32: a (size, size) map of the crop, put back where it belongs; 0 outside."""
        matrix = to_index_affine(self.matrix(values.shape[0]))
        return cv2.warpAffine(values.astype(np.float32), matrix, (width, height), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP).clip(0, 1)

    def rotate_back(self, vectors: np.ndarray) -> np.ndarray:
        """(N, 3) vectors in the crop's axes to the image's axes (z is untouched)."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = vectors.copy()
        turned[:, :2] = vectors[:, :2] @ np.array([[cos, sin], [-sin, cos]])
        return turned


def to_index_affine(matrix: np.ndarray) -> np.ndarray:
    """An affine between half-integer pixel centres as OpenCV wants it, whose pixel centres are integers."""
    linear, offset = matrix[:, :2], matrix[:, 2]
    return np.column_stack([linear, linear @ [0.5, 0.5] + offset - 0.5])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function without overflow."""
    return (1 / (1 + np.exp(-np.clip(x, -50, 50)))).astype(np.float32)
