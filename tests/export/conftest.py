"""A small avatar whose posing can be followed by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from svad_ray.body.names import JOINT_NAMES, PARENTS
from svad_ray.motion import blank_track
from svad_ray.subject import Avatar

RIGID = 24  # so many first Gaussians hang on one joint each


def random_avatar(count: int, *, seed: int = 0) -> Avatar:
    rng = np.random.default_rng(seed)
    joints = np.stack([rng.choice(len(JOINT_NAMES), 6, replace=False) for _ in range(count)])
    weights = rng.dirichlet(np.ones(6) * 0.5, count)
    weights[:RIGID] = [1, 0, 0, 0, 0, 0]
    moved = rng.choice(count, count // 3, replace=False)
    tensors = {
        "means": rng.normal(0, 0.5, (count, 3)).astype(np.float32),
        "quats": Rotation.random(count, random_state=seed).as_quat(scalar_first=True).astype(np.float32),
        "scales": rng.uniform(1e-4, 0.02, (count, 3)).astype(np.float32),
        "opacities": rng.uniform(0.02, 0.98, count).astype(np.float32),
        "colors": rng.uniform(0, 1, (count, 3)).astype(np.float32),
        "lbs_joints": joints.astype(np.uint8),
        "lbs_weights": weights.astype(np.float32),
        "rest_joints": rng.normal(0, 0.5, (len(JOINT_NAMES), 3)).astype(np.float32),
        "hands_mean": rng.normal(0, 0.2, (2, 45)).astype(np.float32),
        "parents": np.asarray(PARENTS, np.int32),
        "expr_index": moved.astype(np.int32),
        "expr_dirs": rng.normal(0, 0.01, (len(moved), 3, 10)).astype(np.float32),
    }
    return Avatar("gaussian", tensors, blank_track(np.zeros((1, 55, 3)), fps=25.0))


@pytest.fixture(scope="session")
def avatar_of() -> Callable[..., Avatar]:
    return random_avatar


@pytest.fixture
def avatar() -> Avatar:
    return random_avatar(240)
