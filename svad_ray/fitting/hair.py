"""Hair that falls: which pixels are hair, how far down it reaches beside the face, and a surface of its own behind and beside the neck.

A short haircut is a thicker scalp and needs none of this. Longer hair hides ears and neck and hangs from the widest part of the head. The
body below it is thinner, and its own surface swollen to the outline would be a thick neck. So the vertices of neck and upper back that hair
hides move out to a curtain as wide as the head, all the way round but in front, and are coloured as hair. From the front one sees how far
down the hair reaches beside the neck; where it reaches the shoulders it goes on behind them, and how far is a guess. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from svad_ray.body.model import Body
from svad_ray.body.names import JOINT_INDEX
from svad_ray.geometry.raster import project, to_camera

J = JOINT_INDEX
BAND = 0.01  # metres of height that are judged together
LEAST_SIDE = 0.008  # metres of hair beside the neck that count
LEAST_FALL = 0.04  # metres below the ears' middle from which hair falls
FROM_NECK = 0.004  # metres from the naked neck's rim: what is nearer may be skin in the shade
REACH = 0.09  # metres from the neck's rim that are looked at
NEAR_SHOULDER = 0.025  # metres above the shoulders: so low, and the hair goes on behind them
BEHIND = 0.13  # metres below the shoulder joints where long hair ends that one photo does not show
SIDES = (58.0, 72.0)  # degrees from the front between which the curtain leaves the skin
DRAWN_IN = 0.12  # share of its radius that a curtain loses further down
LIES_ON = 0.012  # metres that hair lies above what is below it
TEXELS = 30  # fewest pixels above the face from which hair has a colour
UNLIKE = 3.5  # standard deviations from the hair's colour at which a pixel is none


@dataclass(frozen=True)
class FallingHair:
    """Hair below the scalp.

    Attributes:
        offset: (V, 3) metres, from the naked rest surface to the hair's.
        share: (V,) in [0, 1], how much of a vertex is hair; the scalp itself is not counted.
    """

    offset: np.ndarray
    share: np.ndarray


def above_face(face_mesh: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: the person's pixels just above the face oval: hair, or a hat.

    Args:
        face_mesh: (468, 3) landmarks in pixels (10 = top of the face oval, 152 = chin). mask: (H, W) bool.
    """
    top, chin = face_mesh[10, :2], face_mesh[152, :2]
    axis = (top - chin) / max(float(np.linalg.norm(top - chin)) ** 2, 1e-6)
    y, x = np.where(mask)
    d = np.stack([x + 0.5, y + 0.5], 1) - chin
    up, across = d @ axis, np.abs(d @ np.array([-axis[1], axis[0]]))
    m = (up > 1.05) & (up < 1.6) & (across < 0.55)
    out = np.zeros(mask.shape, bool)
    out[y[m], x[m]] = True
    return out


def hair_pixels(image: np.ndarray, mask: np.ndarray, face_mesh: np.ndarray) -> np.ndarray | None:
    """(H, W) bool: the person's pixels that look like the hair above the face and hang together with it; None when hair cannot be told apart.

    A pixel is hair when its colour is nearer, in standard deviations, to the hair's than to the face's and the clothes'.

    Args:
        image: (H, W, 3) float in [0, 1]. mask: (H, W) bool. face_mesh: (468, 3) landmarks in pixels.
    """
    crown = above_face(face_mesh, mask)
    if crown.sum() < TEXELS:
        return None
    top, chin = face_mesh[10, :2], face_mesh[152, :2]
    height = float(np.linalg.norm(top - chin))
    hair = Colors(image[crown])
    others = [Colors(image[pool]) for pool in (_inner(face_mesh, mask), _block(chin, height, (1.0, 2.5), 0.8, mask)) if pool.sum() >= TEXELS]
    if any(hair.distance(other.mean[None])[0] < UNLIKE and other.distance(hair.mean[None])[0] < UNLIKE for other in others):
        return None
    own = hair.distance(image)
    like = mask & (own < UNLIKE) & np.all([own < other.distance(image) for other in others], 0)
    near = _block((top + chin) / 2, height, (-2.0, 3.0), 1.5, mask)
    like = cv2.morphologyEx((like & near).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, pieces = cv2.connectedComponents(like, connectivity=8)
    kept = [k for k in range(1, count) if (pieces[crown] == k).sum() > 0.1 * crown.sum()]
    return np.isin(pieces, kept)


class Colors:
    """A cloud of colours: distances in its standard deviations, brightness counting least because light changes it."""

    def __init__(self, pixels: np.ndarray) -> None:
        low, high = np.percentile(pixels.mean(1), [5, 95])
        kept = pixels[(pixels.mean(1) >= low) & (pixels.mean(1) <= high)].astype(np.float64)
        self.mean = kept.mean(0)
        shade = np.outer(np.ones(3), np.ones(3)) / 3
        self.inverse = np.linalg.inv(np.cov(kept.T) + 0.03**2 * np.eye(3) + 0.06**2 * shade)

    def distance(self, colors: np.ndarray) -> np.ndarray:
        """(...) of colours (..., 3)."""
        d = colors - self.mean
        return np.sqrt(np.einsum("...i,ij,...j->...", d, self.inverse, d))


def _inner(face_mesh: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: nose and cheeks."""
    out = np.zeros(mask.shape, np.uint8)
    hull = cv2.convexHull(face_mesh[[50, 280, 195, 2, 164, 205, 425], :2].astype(np.float32))
    cv2.fillConvexPoly(out, hull.astype(np.int32), 1)
    return (out > 0) & mask


def _block(at: np.ndarray, unit: float, down: tuple[float, float], beside: float, mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: the person between two distances ``down`` from the pixel ``at``, and as far as ``beside`` to each side, in units of pixels."""
    out = np.zeros(mask.shape, bool)
    y0, y1 = (int(np.clip(at[1] + f * unit, 0, len(mask))) for f in down)
    x0, x1 = (int(np.clip(at[0] + f * unit, 0, mask.shape[1])) for f in (-beside, beside))
    out[y0:y1, x0:x1] = True
    return out & mask


def falling_hair(body: Body, rest: np.ndarray, posed: np.ndarray, viewmat: np.ndarray, K: np.ndarray, hair: np.ndarray) -> FallingHair | None:
    """The surface of hair that falls below the ears, or None where the photo shows none.

    Args:
        rest, posed: (V, 3) the naked body in the zero pose and in the photo's pose.
        viewmat, K: The photo's camera. hair: (H, W) bool, from :func:`hair_pixels`.
    """
    camera = to_camera(posed, viewmat)
    uv = project(camera, K)
    head = _Head.of(body, rest)
    ends = [_lowest(body, rest, uv, float(K[0, 0]) / float(np.median(camera[head.skull, 2])), hair, head, sign) for sign in (1, -1)]
    falls = [end < head.ears[1] - LEAST_FALL for end in ends]
    if not any(falls):
        return None
    hem = float(np.mean([end for end, down in zip(ends, falls) if down]))
    long = hem < head.shoulder + NEAR_SHOULDER
    return _curtain(body, rest, head, head.joints - BEHIND if long else hem, falls)


@dataclass(frozen=True)
class _Head:
    """Where the head is, in the zero pose, metres.

    Attributes:
        middle: (3,) its axis at the height of the eyes. ears: (3,) the middle of both. skull: (V,) bool, above the eyes.
        width: From the axis to the skull's side. shoulder: Height of the shoulders beside the neck. joints: Height of the shoulder joints.
    """

    middle: np.ndarray
    ears: np.ndarray
    skull: np.ndarray
    width: float
    shoulder: float
    joints: float

    @classmethod
    def of(cls, body: Body, rest: np.ndarray) -> _Head:
        w, regions = body.lbs_weights.numpy(), body.tables.regions
        joints = body.J_regressor.numpy() @ rest
        eyes = (joints[J["left_eye"]] + joints[J["right_eye"]]) / 2
        head = w[:, [J["head"], J["jaw"]]].sum(1) > 0.5
        skull = head & regions["scalp"] & (rest[:, 1] > eyes[1])
        z = rest[skull, 2]
        middle = np.array([eyes[0], eyes[1], (z.min() + z.max()) / 2])
        ears = rest[regions["ears"]].mean(0) if regions["ears"].any() else middle
        out = np.abs(rest[:, 0] - eyes[0])
        width = float(out[skull].max())
        beside = (w[:, J["neck"]] + w[:, [J["left_collar"], J["right_collar"], J["spine3"]]].sum(1) > 0.5) & (np.abs(out - width) < 0.01)
        joint = float(joints[[J["left_shoulder"], J["right_shoulder"]], 1].mean())
        return cls(middle, ears, skull, width, float(rest[beside, 1].max()) if beside.any() else joint + 0.06, joint)


def _lowest(body: Body, rest: np.ndarray, uv: np.ndarray, pixels_per_metre: float, hair: np.ndarray, head: _Head, sign: int) -> float:
    """Height down to which hair shows beside head and neck on the side ``sign`` of x, metres; the ears' height when it shows nowhere."""
    part = body.lbs_weights.numpy()[:, [J["head"], J["jaw"], J["neck"]]].sum(1) > 0.5
    part &= ~body.tables.regions["ears"]
    end, missed = float(head.ears[1]), 0
    for y in np.arange(head.ears[1], head.shoulder - BAND, -BAND):
        ring = np.flatnonzero(part & (np.abs(rest[:, 1] - y) < BAND))
        if not len(ring):
            continue
        rim, other = uv[ring[np.argmax(sign * rest[ring, 0])]], uv[ring[np.argmin(sign * rest[ring, 0])]]
        across = (rim - other) / max(float(np.linalg.norm(rim - other)), 1e-6)
        steps = np.arange(FROM_NECK * pixels_per_metre, REACH * pixels_per_metre)
        at = np.round(rim + steps[:, None] * across - 0.5).astype(int)
        inside = (at >= 0).all(1) & (at[:, 0] < hair.shape[1]) & (at[:, 1] < hair.shape[0])
        on = np.zeros(len(at), bool)
        on[inside] = hair[at[inside, 1], at[inside, 0]]
        if on.sum() >= LEAST_SIDE * pixels_per_metre:
            end, missed = float(y), 0
        else:
            missed += 1
        if missed > 2:
            break
    return end


def _curtain(body: Body, rest: np.ndarray, head: _Head, hem: float, sides: list[bool]) -> FallingHair:
    """Neck, ears and upper back moved out to hair as wide as the skull, down to the height ``hem``."""
    w, regions = body.lbs_weights.numpy(), body.tables.regions
    d = rest - head.middle
    drop = np.clip(head.ears[1] - rest[:, 1], 0, None)
    narrower = 1 - DRAWN_IN * np.clip((drop - 0.06) / 0.12, 0, 1)
    goal, share = _round(d, head, rest, narrower, flat=regions["ears"])
    upper = w[:, [J["head"], J["jaw"], J["neck"]]].sum(1) > 0.5
    share *= upper
    if hem < head.shoulder:  # on over the back
        trunk = ~upper & (w[:, [J[n] for n in ("neck", "head", "spine3", "spine2", "left_collar", "right_collar")]].sum(1) > 0.5)
        across = np.abs(d[:, 0]) / (narrower * (head.width + LIES_ON))
        hangs = -narrower * _widest(rest, head, np.array([180.0])) * np.sqrt(np.clip(1 - across**2, 0, 1))
        goal[trunk] = d[trunk]
        goal[trunk, 2] = np.minimum(d[trunk, 2] - LIES_ON, hangs[trunk])
        share = np.where(trunk, (d[:, 2] < 0) * np.clip((1.05 - across) / 0.1, 0, 1), share)
    share *= (rest[:, 1] > hem) * (rest[:, 1] < head.ears[1] + 0.05)
    share[regions["face"] | regions["eyes"] | regions["inner_mouth"] | regions["lips"]] = 0
    for wanted, sign in zip(sides, (1, -1)):
        if not wanted:
            share *= np.clip(0.5 - sign * d[:, 0] / 0.04, 0, 1)
    return FallingHair(share[:, None] * (goal - d), share)


def _round(d: np.ndarray, head: _Head, rest: np.ndarray, narrower: np.ndarray, *, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) places ``d`` (from the head's axis) moved out to the skull's width, ``flat`` ones in too; (V,) how much curtain hangs there."""
    azimuth, radius = np.degrees(np.arctan2(d[:, 0], d[:, 2])), np.hypot(d[:, 0], d[:, 2])
    wide = _widest(rest, head, azimuth) * narrower
    scale = np.where(flat, wide, np.maximum(wide, radius)) / np.maximum(radius, 1e-6)
    share = np.clip((np.abs(azimuth) - SIDES[0]) / (SIDES[1] - SIDES[0]), 0, 1)
    return d * np.stack([scale, np.ones_like(scale), scale], 1), share


def _widest(rest: np.ndarray, head: _Head, azimuth: np.ndarray) -> np.ndarray:
    """(V,) metres: how far the skull reaches from the head's axis in each direction ``azimuth`` (V,) degrees."""
    p = rest[head.skull] - head.middle
    at, out = np.degrees(np.arctan2(p[:, 0], p[:, 2])), np.hypot(p[:, 0], p[:, 2])
    knots = np.arange(-180, 181, 10.0)
    most = np.array([out[np.abs((at - k + 180) % 360 - 180) < 12].max(initial=0) for k in knots])
    return np.interp(azimuth, knots, most)
