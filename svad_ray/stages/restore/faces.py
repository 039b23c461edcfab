"""Taking faces out of a frame, upright and 512 pixels wide, and putting them back into the enlarged frame.

Source: facexlib's FaceRestoreHelper as BFRffusion uses it (spec: generation 6); the gradient-domain paste is the SVAD paper's (section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 512
TEMPLATE = np.array(
    [(192.98138, 239.94708), (318.90277, 240.1936), (256.63416, 314.01935), (201.26117, 371.41043), (313.08905, 371.15118)], np.float64
)
"""Where eyes, nose and mouth corners of an aligned face are."""
SMALLEST_EYES = 5.0  # pixels between the eyes, below which a face is left alone
_BORDER_RGB = (132, 133, 135)
_PARTS = frozenset((*range(1, 14), 15))  # classes of ParseNet that are the face; hair, hat, necklace, neck and cloth are not
_BLUR, _SIGMA, _EDGE = 101, 11, 10


@dataclass(frozen=True)
class Aligned:
    """One face of a frame.

    Attributes:
        crop: (512, 512, 3) uint8 RGB. matrix: (2, 3), frame -> crop.
    """

    crop: np.ndarray
    matrix: np.ndarray


def eye_distance(points: np.ndarray) -> float:
    """Pixels between the eyes of (5, 2) landmarks."""
    return float(np.linalg.norm(points[0] - points[1]))


def align(frame: np.ndarray, points: np.ndarray) -> Aligned | None:
    """The face with (5, 2) landmarks of an (H, W, 3) uint8 RGB frame; None when its landmarks fit no upright face."""
    matrix = cv2.estimateAffinePartial2D(np.asarray(points, np.float64), TEMPLATE, method=cv2.LMEDS)[0]
    if matrix is None or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:, :2])) < 1e-12:
        return None
    return Aligned(cv2.warpAffine(frame, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_CONSTANT, borderValue=_BORDER_RGB), matrix)


def inverse(matrix: np.ndarray, scale: int) -> np.ndarray:
    """(2, 3) crop -> frame enlarged ``scale`` times, half an enlarged pixel further as the original puts it."""
    shift = 0.5 * scale if scale > 1 else 0.0
    return cv2.invertAffineTransform(matrix) * scale + np.array([[0.0, 0.0, shift], [0.0, 0.0, shift]])


def soft_mask(labels: np.ndarray) -> np.ndarray:
    """(512, 512) uint8 classes -> (512, 512) float64 weights of the restored face."""
    mask = np.where(np.isin(labels, list(_PARTS)), 255.0, 0.0)
    for _ in range(2):
        mask = cv2.GaussianBlur(mask, (_BLUR, _BLUR), _SIGMA)
    mask[:_EDGE] = mask[-_EDGE:] = mask[:, :_EDGE] = mask[:, -_EDGE:] = 0
    return mask / 255


def paste(frame: np.ndarray, faces: list[tuple[np.ndarray, np.ndarray, np.ndarray]], *, scale: int) -> np.ndarray:
    """The enlarged frame with restored faces blended in by their masks.

    Args:
        frame: (H, W, 3) uint8, enlarged already. faces: (restored crop, ``Aligned.matrix``, weights) of each, in their order. scale: Of the frame.

    Returns:
        (H, W, 3) uint8.
    """
    out: np.ndarray = frame
    size = frame.shape[1::-1]
    for crop, matrix, weights in faces:
        back = inverse(matrix, scale)
        weight = cv2.warpAffine(weights, back, size, flags=cv2.INTER_AREA)[..., None]
        out = weight * cv2.warpAffine(crop, back, size) + (1 - weight) * out
    return out.astype(np.uint8)


def paste_gradients(frame: np.ndarray, faces: list[tuple[np.ndarray, np.ndarray, np.ndarray]], *, scale: int) -> tuple[np.ndarray, list[str]]:
    """As ``paste``, by the gradients of the faces; a face whose mask leaves the frame is blended by its weights, and said so.

    Returns:
        The frame, and a reason for each face that could not be cloned.
    """
    reasons = []
    for crop, matrix, weights in faces:
        back = inverse(matrix, scale)
        mask = (cv2.warpAffine(weights, back, frame.shape[1::-1]) > 0.5).astype(np.uint8) * 255
        try:
            frame = _cloned(frame, cv2.warpAffine(crop, back, frame.shape[1::-1]), mask)
        except cv2.error as error:
            reasons.append(f"not cloned ({error.err or 'mask'}), blended instead")
            frame = paste(frame, [(crop, matrix, weights)], scale=scale)
    return frame, reasons


def _cloned(frame: np.ndarray, face: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Gradients of ``face`` inside the mask; raises cv2.error where the mask touches the border."""
    x, y, width, height = cv2.boundingRect(mask)
    if not width or x == 0 or y == 0 or x + width >= mask.shape[1] or y + height >= mask.shape[0]:
        raise cv2.error("the mask leaves the frame")
    return cv2.seamlessClone(face, frame, mask, (x + width // 2, y + height // 2), cv2.NORMAL_CLONE)
