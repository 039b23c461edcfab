"""Around RTMPose's network: the crop of a box in, 133 key points from its two rows of classes out.

Source: DWPose's ONNX variant (spec: generation 2b).
"""

from __future__ import annotations

import cv2
import numpy as np

WIDTH, HEIGHT = 288, 384
POINTS = 133
SPLIT = 2.0  # classes per pixel
_PADDING = 1.25
_MEAN, _STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def centre_and_scale(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(4,) x1, y1, x2, y2 -> (2,) centre and (2,) width and height in pixels, padded and grown to the network's shape."""
    box = np.asarray(box, np.float64)
    width, height = (box[2:] - box[:2]) * _PADDING
    shape = WIDTH / HEIGHT
    scale = (width, width / shape) if width > height * shape else (height * shape, height)
    return (box[:2] + box[2:]) / 2, np.array(scale)


def crop_matrix(centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(2, 3) affine from the picture to the network's input: three corresponding points, as the original takes them."""
    centre, middle = np.asarray(centre, np.float32), np.array([WIDTH / 2, HEIGHT / 2], np.float32)
    triangles = []
    for corner, width in ((centre, scale[0]), (middle, WIDTH)):
        above = (corner + np.array([0.0, -width / 2])).astype(np.float32)
        across = corner - above
        triangles.append(np.stack((corner, above, above + np.array([-across[1], across[0]], np.float32))))
    return cv2.getAffineTransform(*triangles)


def crop(image: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, 384, 288) float32, normalised channel by channel as they come."""
    cut = cv2.warpAffine(image, crop_matrix(centre, scale), (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    return ((cut - _MEAN) / _STD).transpose(2, 0, 1).astype(np.float32)


def decode(x: np.ndarray, y: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of classes -> (N, 133, 2) pixels of the picture and (N, 133) scores.

    Args:
        x: (N, 133, 576). y: (N, 133, 768). centre, scale: (N, 2), of the boxes.
    """
    at = np.stack((x.argmax(-1), y.argmax(-1)), -1).astype(np.float64)
    scores = np.minimum(x.max(-1), y.max(-1))
    at[scores <= 0] = -1
    points = at / SPLIT / np.array([WIDTH, HEIGHT]) * scale[:, None] + centre[:, None] - scale[:, None] / 2
    return points, scores
