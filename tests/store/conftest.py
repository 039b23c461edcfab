"""Comparing and making what the store keeps."""

from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from svad_ray.subject import BodyTrack


def bitwise_same(a, b) -> bool:
    """Equal in type, shape and every bit; written without the codec's help."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if is_dataclass(a):
        return all(bitwise_same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(bitwise_same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(bitwise_same(x, y) for x, y in zip(a, b))
    if isinstance(a, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes() or (a != a and b != b)
    return a == b


def random_track(frames: int, rng: np.random.Generator) -> BodyTrack:
    def some(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    pose = {"body_pose": some(frames, 21, 3), "left_hand_pose": some(frames, 15, 3), "right_hand_pose": some(frames, 15, 3)}
    small = {name: some(frames, 3) for name in ("global_orient", "jaw_pose", "leye_pose", "reye_pose", "transl")}
    cameras = {"viewmats": some(frames, 4, 4), "Ks": some(frames, 3, 3), "image_size": (24, 16), "fps": 25.0, "body_id": "abc"}
    return BodyTrack(betas=some(10), expression=some(frames, 10), vertex_offset=some(7, 3), **pose, **small, **cameras)


@pytest.fixture(scope="session")
def same():
    return bitwise_same


@pytest.fixture(scope="session")
def track():
    return random_track
