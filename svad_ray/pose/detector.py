"""YOLOX person boxes: letterbox in, decoding and suppression out. The network itself is whoever runs it.

Source: DWPose's ONNX variant (spec: generation 2b).
"""

from __future__ import annotations

import cv2
import numpy as np

SIZE = 640
ROWS = 8400  # cells of the three grids
_STRIDES = (8, 16, 32)
_GREY = 114
_CANDIDATE, _PERSON_SCORE = 0.1, 0.3
_IOU = 0.45


def letterbox(image: np.ndarray) -> tuple[np.ndarray, float]:
    """(H, W, 3) uint8 -> (3, 640, 640) float32 in 0..255, top left on grey, and the scale that it took."""
    height, width = image.shape[:2]
    ratio = min(SIZE / height, SIZE / width)
    size = max(1, int(width * ratio)), max(1, int(height * ratio))  # a strip thinner than a pixel keeps one
    small = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    padded = np.full((SIZE, SIZE, 3), _GREY, np.uint8)
    padded[: small.shape[0], : small.shape[1]] = small
    return np.ascontiguousarray(padded.transpose(2, 0, 1), np.float32), ratio


def grid() -> tuple[np.ndarray, np.ndarray]:
    """(8400, 2) cell corners in cells and (8400, 1) strides, in the network's order."""
    corners, strides = [], []
    for stride in _STRIDES:
        cells = SIZE // stride
        ys, xs = np.mgrid[:cells, :cells]
        corners.append(np.stack((xs, ys), -1).reshape(-1, 2))
        strides.append(np.full((cells * cells, 1), stride))
    return np.concatenate(corners), np.concatenate(strides)


def person_boxes(raw: np.ndarray, ratio: float) -> np.ndarray:
    """Raw output (8400, 85) -> (N, 4) boxes x1, y1, x2, y2 of people in pixels of the picture, best first; none gives (0, 4)."""
    raw = raw.astype(np.float64)
    corners, strides = grid()
    centre, size = (raw[:, :2] + corners) * strides, np.exp(raw[:, 2:4]) * strides
    boxes = np.concatenate((centre - size / 2, centre + size / 2), 1) / ratio
    scores = raw[:, 4] * raw[:, 5]  # objectness times class 0, the person; other classes never suppress it
    chosen = np.flatnonzero(scores > _CANDIDATE)
    boxes, scores = boxes[chosen], scores[chosen]
    kept = suppressed(boxes, scores)
    return boxes[kept][scores[kept] > _PERSON_SCORE]


def suppressed(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Numbers of the boxes that stay, best first. Areas count the last pixel too, as in the original."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1)
    order, kept = scores.argsort()[::-1], []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(int(first))
        overlap = np.maximum(0.0, np.minimum(boxes[first, 2:], boxes[rest, 2:]) - np.maximum(boxes[first, :2], boxes[rest, :2]) + 1).prod(1)
        order = rest[overlap / (areas[first] + areas[rest] - overlap) <= _IOU]
    return kept
