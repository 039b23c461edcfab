import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from svad_ray.fitting.face_shape import BIAS_MM, FARTHEST, face_offset, head_rotation, landmark_points, similarity

K = np.array([[700.0, 0, 256], [0, 700.0, 256], [0, 0, 1]])


def picture_of(points, turn=(0.0, 0.0, 0.0), scale=240.0, centre=(256.0, 80.0)):
    """Landmarks in the picture's axes under weak perspective."""
    turned = (points - points.mean(0)) @ Rotation.from_rotvec(turn).as_matrix().T
    return turned * scale * [1, -1, -1] + [*centre, 0.0]


def test_similarity_gives_back_what_was_done():
    rng = np.random.default_rng(0)
    points, turn = rng.normal(size=(12, 3)), Rotation.from_rotvec([0.3, -0.8, 0.2]).as_matrix()
    scale, rotation, shift = similarity(points, 2.5 * points @ turn.T + [1, 2, 3])
    assert np.isclose(scale, 2.5) and np.allclose(rotation, turn) and np.allclose(shift, [1, 2, 3])


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.2, 0.0, 0.0), (0.1, -0.4, 0.05)])
def test_a_turned_head_is_found_whatever_its_place(body, turn):
    points = landmark_points(body, body.v_template.numpy())
    found = head_rotation(body, picture_of(points, turn, centre=(256.0, 256.0)), K)
    assert np.allclose(found, Rotation.from_rotvec(turn).as_matrix(), atol=1e-6)


def test_a_head_above_the_camera_that_looks_level_is_seen_from_below(body):
    points = landmark_points(body, body.v_template.numpy())
    above = np.arctan2(176, 700)  # the ray through row 80 climbs by so much, and shows a level face tilted back by it
    found = head_rotation(body, picture_of(points, (-above, 0, 0)), K)
    assert np.allclose(found, np.eye(3), atol=1e-6)


def test_a_longer_nose_moves_the_nose_alone(body):
    rest = body.v_template.numpy()
    points = landmark_points(body, rest)
    seen = points + BIAS_MM / 1000
    seen[[29 - 17, 30 - 17], 2] += 0.006
    offset = face_offset(body, rest, picture_of(seen, (0.1, 0.2, 0.0)))
    step = landmark_points(body, rest + offset) - points
    assert step[30 - 17, 2] > 0.003 and np.abs(np.delete(step, np.s_[27 - 17 : 36 - 17], axis=0)).max() < 0.0025
    low = rest[:, 1] < points[:, 1].min() - 0.15
    assert np.abs(offset[low | body.tables.regions["ears"]]).max() < 0.002


def test_the_mean_mesh_changes_nothing_and_a_wild_one_little(body):
    rest = body.v_template.numpy()
    points = landmark_points(body, rest)
    assert np.abs(face_offset(body, rest, picture_of(points + BIAS_MM / 1000))).max() < 1e-6
    wild = points + np.random.default_rng(1).normal(size=points.shape) * 0.05
    assert np.linalg.norm(face_offset(body, rest, picture_of(wild)), axis=1).max() < 1.001 * FARTHEST
