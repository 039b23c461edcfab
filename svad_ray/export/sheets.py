"""Pictures to judge by: contact sheets, keypoints and mask on a photo, a fitted body on a frame. All uint8 RGB in, uint8 RGB out."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from svad_ray.conventions import WHOLEBODY_BODY, WHOLEBODY_FACE, WHOLEBODY_FEET, WHOLEBODY_LEFT_HAND, WHOLEBODY_RIGHT_HAND

SHOWN_SCORE = 0.2  # keypoints below it are not drawn; the same threshold that the fit uses
PAPER = (255, 255, 255)
INK = (92, 92, 96)
OUTLINE = (255, 196, 0)
_SUBPIXEL = 4  # OpenCV draws at 1/16 pixel when coordinates carry 4 fractional bits

# COCO-WholeBody bones and their colours: the person's left side warm, the right side cool, the middle neutral.
_LEFT, _RIGHT, _MIDDLE, _FACE = (232, 93, 58), (37, 122, 196), (60, 168, 117), (250, 250, 250)
_BODY_BONES = [
    (5, 7, _LEFT), (7, 9, _LEFT), (11, 13, _LEFT), (13, 15, _LEFT), (15, 17, _LEFT), (15, 18, _LEFT), (15, 19, _LEFT),
    (6, 8, _RIGHT), (8, 10, _RIGHT), (12, 14, _RIGHT), (14, 16, _RIGHT), (16, 20, _RIGHT), (16, 21, _RIGHT), (16, 22, _RIGHT),
    (5, 6, _MIDDLE), (11, 12, _MIDDLE), (5, 11, _MIDDLE), (6, 12, _MIDDLE), (0, 1, _MIDDLE), (0, 2, _MIDDLE), (1, 3, _MIDDLE), (2, 4, _MIDDLE),
]  # fmt: skip
_FINGER_BONES = [(0 if k == 0 else 4 * finger + k, 4 * finger + k + 1) for finger in range(5) for k in range(4)]
# iBUG-68 contours, numbered inside the face: (first, last, closed).
_FACE_LINES = [
    (0, 16, False),
    (17, 21, False),
    (22, 26, False),
    (27, 30, False),
    (31, 35, False),
    (36, 41, True),
    (42, 47, True),
    (48, 59, True),
    (60, 67, True),
]


def contact_sheet(
    frames: Sequence[np.ndarray],
    *,
    labels: Sequence[str] = (),
    columns: int | None = None,
    cell: int = 192,
    gap: int = 6,
    paper: tuple[int, int, int] = PAPER,
) -> np.ndarray:
    """Frames in a grid, each fitted into a square cell with its label below.

    Args:
        frames: (H, W, 3) uint8 images, sizes may differ.
        labels: One per frame, or none at all.
        columns: Cells in a row; None = a grid about twice as wide as high.
        cell: Side of a cell, pixels. gap: Between cells, pixels. paper: Background colour.
    """
    if not len(frames):
        return np.full((cell, cell, 3), paper, np.uint8)
    columns = min(len(frames), columns or max(1, round((2 * len(frames)) ** 0.5)))
    rows = -(-len(frames) // columns)
    text = 18 if len(labels) else 0
    sheet = np.full((rows * (cell + text + gap) - gap, columns * (cell + gap) - gap, 3), paper, np.uint8)
    for number, frame in enumerate(frames):
        top, left = number // columns * (cell + text + gap), number % columns * (cell + gap)
        small = fit_inside(frame, cell)
        y, x = top + (cell - small.shape[0]) // 2, left + (cell - small.shape[1]) // 2
        sheet[y : y + small.shape[0], x : x + small.shape[1]] = small
    return _labelled(sheet, labels, columns, cell, gap) if text else sheet


def _labelled(sheet: np.ndarray, labels: Sequence[str], columns: int, cell: int, gap: int) -> np.ndarray:
    picture = Image.fromarray(sheet)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    for number, label in enumerate(labels):
        x = number % columns * (cell + gap) + cell / 2
        y = number // columns * (cell + 18 + gap) + cell + 9
        draw.text((x, y), label, fill=INK, font=font, anchor="mm")
    return np.asarray(picture)


def fit_inside(image: np.ndarray, side: int) -> np.ndarray:
    """The image scaled so that its longer side is ``side`` pixels (area average when shrinking)."""
    factor = side / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def evenly(count: int, shown: int) -> np.ndarray:
    """Numbers of ``shown`` frames spread evenly over ``count``, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(shown, count)).round().astype(int))


def draw_perception(
    image: np.ndarray, keypoints: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None, *, threshold: float = SHOWN_SCORE
) -> np.ndarray:
    """The photo, slightly dimmed outside the mask, with the mask's outline and the 133 COCO-WholeBody keypoints.

    Args:
        image: (H, W, 3) uint8. keypoints: (133, 2) pixels. scores: (133,). mask: (H, W) in [0, 1].
        threshold: Points that score less are left out.
    """
    out = image.copy() if mask is None else _dimmed_outside(image, mask)
    stroke = max(1.0, max(image.shape[:2]) / 400)
    if mask is not None:
        draw_outline(out, mask, width=stroke)
    seen = (scores >= threshold) & np.isfinite(keypoints).all(1)
    for a, b, colour in _BODY_BONES:
        _bone(out, keypoints, seen, a, b, colour, 2 * stroke)
    for part, colour in ((WHOLEBODY_LEFT_HAND, _LEFT), (WHOLEBODY_RIGHT_HAND, _RIGHT)):
        for a, b in _FINGER_BONES:
            _bone(out, keypoints, seen, part.start + a, part.start + b, colour, 0.7 * stroke)
    for a, b in _face_bones():
        _bone(out, keypoints, seen, a, b, _FACE, 0.7 * stroke)
    _dots(out, keypoints, seen, stroke)
    return out


def _dimmed_outside(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    kept = (0.45 + 0.55 * np.clip(mask, 0, 1)[..., None]).astype(np.float32)
    return (image * kept + 235 * (1 - kept)).astype(np.uint8)


def draw_outline(image: np.ndarray, mask: np.ndarray, *, width: float = 2.0, colour: tuple[int, int, int] = OUTLINE) -> None:
    """Draw, in place, the outline of where ``mask`` (H, W) in [0, 1] exceeds one half."""
    contours, _ = cv2.findContours((mask > 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.polylines(image, contours, True, colour, max(1, round(width)), cv2.LINE_AA)


def _face_bones() -> list[tuple[int, int]]:
    start = WHOLEBODY_FACE.start
    open_bones = [(start + k, start + k + 1) for first, last, _ in _FACE_LINES for k in range(first, last)]
    return open_bones + [(start + last, start + first) for first, last, closed in _FACE_LINES if closed]


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """OpenCV counts from the first pixel's centre; ours lies at (0.5, 0.5)."""
    x, y = np.rint((np.clip(point, -1e4, 1e4) - 0.5) * (1 << _SUBPIXEL)).astype(int)
    return int(x), int(y)


def _bone(image: np.ndarray, points: np.ndarray, seen: np.ndarray, a: int, b: int, colour: tuple[int, int, int], width: float) -> None:
    if seen[a] and seen[b]:
        cv2.line(image, _fixed(points[a]), _fixed(points[b]), colour, max(1, round(width)), cv2.LINE_AA, _SUBPIXEL)


def _dots(image: np.ndarray, points: np.ndarray, seen: np.ndarray, stroke: float) -> None:
    parts = [(WHOLEBODY_BODY, 2.4), (WHOLEBODY_FEET, 1.8), (WHOLEBODY_FACE, 0.8), (WHOLEBODY_LEFT_HAND, 1.0), (WHOLEBODY_RIGHT_HAND, 1.0)]
    for part, radius in parts:
        for point in points[part][seen[part]]:
            centre, size = _fixed(point), round(max(0.6, radius * stroke) * (1 << _SUBPIXEL))
            cv2.circle(image, centre, size + (4 << _SUBPIXEL) // 8, (20, 20, 24), -1, cv2.LINE_AA, _SUBPIXEL)
            cv2.circle(image, centre, size, (255, 255, 255), -1, cv2.LINE_AA, _SUBPIXEL)


def draw_fit(
    frame: np.ndarray,
    points: np.ndarray,
    viewmat: np.ndarray,
    K: np.ndarray,
    *,
    joints: np.ndarray | None = None,
    parents: Sequence[int] = (),
    colour: tuple[int, int, int] = (37, 122, 196),
) -> np.ndarray:
    """A frame with the fitted body over it: surface points as a transparent veil, and the skeleton when ``joints`` are given.

    Args:
        frame: (H, W, 3) uint8.
        points: (P, 3) metres, surface points (vertices) in the world.
        viewmat: (4, 4) world to camera. K: (3, 3) pixels.
        joints: (J, 3) metres with ``parents`` (J,), the root's parent negative.
    """
    veil = np.zeros(frame.shape[:2], np.uint8)
    pixels, visible = _projected(points, viewmat, K, frame.shape[:2])
    rows, columns = pixels[visible].astype(int).T[::-1]
    veil[rows, columns] = 255
    reach = max(3, round(max(frame.shape[:2]) / 85)) | 1  # closes the gaps between neighbouring vertices, not those between limbs
    veil = cv2.morphologyEx(veil, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))).astype(np.uint8, copy=False)
    out = frame.copy()
    out[veil > 0] = (0.55 * frame[veil > 0] + 0.45 * np.array(colour)).astype(np.uint8)
    draw_outline(out, veil / 255.0, width=max(1.0, max(frame.shape[:2]) / 400), colour=colour)
    if joints is not None:
        _skeleton(out, joints, parents, viewmat, K)
    return out


def _projected(points: np.ndarray, viewmat: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(P, 2) pixels, and which of them lie in front of the camera and inside the image."""
    camera = points @ viewmat[:3, :3].T + viewmat[:3, 3]
    front = camera[:, 2] > 1e-3
    depth = np.where(front, camera[:, 2], 1.0)
    pixels = camera[:, :2] / depth[:, None] * [K[0, 0], K[1, 1]] + K[:2, 2]
    inside = (pixels >= 0).all(1) & (pixels < [size[1], size[0]]).all(1)
    return pixels, front & inside


def _skeleton(image: np.ndarray, joints: np.ndarray, parents: Sequence[int], viewmat: np.ndarray, K: np.ndarray) -> None:
    pixels, visible = _projected(joints, viewmat, K, image.shape[:2])
    stroke = max(1.0, max(image.shape[:2]) / 400)
    for joint, parent in enumerate(parents[:22]):  # fingers and eyes would only clutter
        if parent >= 0:
            _bone(image, pixels, visible, parent, joint, (255, 255, 255), stroke)
    for point in pixels[:22][visible[:22]]:
        cv2.circle(image, _fixed(point), round(1.6 * stroke * (1 << _SUBPIXEL)), (20, 20, 24), -1, cv2.LINE_AA, _SUBPIXEL)
