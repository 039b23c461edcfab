"""A motion on a person: soles on the floor and everything inside the picture, measured on the fully posed body."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from svad_ray.body import load_body
from svad_ray.body.names import JOINT_NAMES
from svad_ray.errors import InputError
from svad_ray.motion import arms, blank_track, level_camera, load_motion, retarget, turn, walk
from svad_ray.motion.labels import posed


def vertices(track, body) -> np.ndarray:
    """(T, V, 3) of the whole model, pose correctives left out as in placing."""
    names = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "leye_pose", "reye_pose", "transl")
    real = body.v_template.dtype
    pose = {name: torch.as_tensor(getattr(track, name), dtype=real) for name in names}
    betas = torch.as_tensor(track.betas, dtype=real).expand(len(track), -1)
    return replace(body, posedirs=None).forward(betas=betas, **pose).vertices.numpy()


def pixels(points, viewmat, K) -> np.ndarray:
    camera = points @ viewmat[:3, :3].T + viewmat[:3, 3]
    assert (camera[..., 2] > 0).all()
    return (camera @ K.T)[..., :2] / camera[..., 2:]


@pytest.fixture
def person(body):
    rng = np.random.default_rng(0)
    return replace(blank_track(np.zeros((1, 55, 3)), fps=25.0), betas=rng.normal(0, 0.5, 10).astype(np.float32), body_id=body.id)


@pytest.mark.parametrize("motion", [lambda: turn(9), lambda: walk(14), lambda: arms(12)], ids=["turn", "walk", "arms"])
def test_soles_stand_on_the_floor_in_every_frame(motion, person, body):
    placed = retarget(motion(), person=person, body=body)
    lowest = vertices(placed, body)[..., 1].min(1)
    assert np.abs(lowest).max() < 0.02  # a thinned set of points decides
    assert placed.body_id == body.id
    np.testing.assert_array_equal(placed.betas, person.betas)


def test_a_motion_that_leaves_the_floor_keeps_its_jump(person, body):
    height = np.array([0, 0.1, 0.4, 0.1, 0])
    jump = blank_track(np.zeros((5, 55, 3)), transl=np.stack([height * 0, height, height * 0], 1), fps=25.0)
    lowest = vertices(retarget(jump, person=person, body=body), body)[..., 1].min(1)
    assert abs(lowest[0]) < 0.02
    np.testing.assert_allclose(lowest / lowest[2], height / 0.4, atol=0.06)


@pytest.mark.parametrize("size", [256, 640])
def test_the_camera_sees_every_point_with_the_margin(person, body, size):
    margin = 0.08
    placed = retarget(arms(10), person=person, body=body, size=size, margin=margin)
    at = pixels(vertices(placed, body), placed.viewmats[0], placed.Ks[0])
    slack = 0.02 * size  # between the thinned points
    assert at.min() > margin * size - slack and at.max() < size - margin * size + slack
    touched = min(at[..., 1].min() - margin * size, at[..., 0].min() - margin * size)
    assert touched < slack  # the nearest such camera: the person fills the picture
    assert placed.image_size == (size, size) and len(placed.viewmats) == 10


def test_the_camera_is_level_and_the_nearest_that_sees_all():
    points = np.random.default_rng(2).normal(0, [0.4, 0.8, 0.3], (500, 3))
    viewmat, margin = level_camera(points, margin=0.1), 0.1
    np.testing.assert_array_equal(viewmat[:3, :3], np.diag([1, -1, -1]))
    K = np.array([[1.6, 0, 0.5], [0, 1.6, 0.5], [0, 0, 1]])
    at = pixels(points, viewmat.astype(float), K)
    np.testing.assert_allclose([at[:, 1].min(), at[:, 1].max()], [margin, 1 - margin], atol=1e-5)
    assert at[:, 0].min() >= margin and at[:, 0].max() <= 1 - margin


def test_root_paths_scale_with_the_legs(person, body):
    path = np.stack([np.linspace(0, 1, 4), np.zeros(4), np.zeros(4)], 1)
    motion = blank_track(np.zeros((4, 55, 3)), transl=path, fps=25.0)
    joints = body.joint_template + body.joint_shapedirs[..., :10] @ torch.as_tensor(person.betas, dtype=body.v_template.dtype)
    ratio = float((joints[1, 1] - joints[7, 1]) / (body.joint_template[1, 1] - body.joint_template[7, 1]))
    placed = retarget(motion, person=person, body=body)
    np.testing.assert_allclose(placed.transl[:, 0], path[:, 0] * ratio, rtol=1e-4)


def test_a_shape_of_another_body_is_refused(person, body):
    with pytest.raises(InputError, match="other"):
        retarget(turn(2), person=replace(person, body_id="other"), body=body)


LIMBS = ("knee", "ankle", "foot", "elbow", "wrist", "shoulder")  # joints at the far ends of bones that every body has alike


def bones(body, joints: np.ndarray) -> np.ndarray:
    """(T, 21, 3) directions from each joint's parent to it."""
    along = joints[:, 1:22] - joints[:, np.array(body.parents[1:22])]
    return along / np.linalg.norm(along, axis=-1, keepdims=True)


@pytest.mark.models
@pytest.mark.parametrize("name", ["walk", "arms"])
def test_limbs_point_the_same_way_on_another_body(body, name):
    """Poses are copied joint by joint: from the licensed layout's body to the open one limbs differ by no more than their rest poses do."""
    found = []
    for one in (body, load_body()):
        nobody = replace(blank_track(np.zeros((1, 55, 3)), fps=25.0), body_id=one.id)
        joints = posed(one, retarget(load_motion(name, one), person=nobody, body=one)).joints[:, :55].numpy()
        found.append((bones(one, joints), bones(one, one.joint_template.numpy()[None])))
    (ours, ours_rest), (theirs, theirs_rest) = found
    apart, at_rest = (np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1))) for a, b in ((ours, theirs), (ours_rest, theirs_rest)))
    limbs = [i for i, joint in enumerate(JOINT_NAMES[1:22]) if joint.endswith(LIMBS)]
    assert np.ptp(ours[:, limbs], axis=0).max() > 0.3  # they do move
    assert apart[:, limbs].max() < 5
    np.testing.assert_allclose(apart, np.broadcast_to(at_rest, apart.shape), atol=0.1)  # and no bone by more than at rest


def test_offsets_of_the_person_are_felt(person, body):
    """A face offset moves joints by the regressor, and feet stay on the floor."""
    offset = np.zeros(tuple(body.v_template.shape), np.float32)
    offset[:] = [0, 0.05, 0]
    placed = retarget(walk(14), person=replace(person, face_offset=offset, joint_offset=np.zeros((55, 3), np.float32)), body=body)
    made = posed(replace(body, posedirs=None), placed)
    assert abs(made.vertices[..., 1].min().item()) < 0.02
    plain = posed(replace(body, posedirs=None), replace(placed, face_offset=None))
    torch.testing.assert_close(made.rest_joints - plain.rest_joints, torch.tensor([0, 0.05, 0.0]).expand_as(made.rest_joints), atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="face_offset of shape"):
        retarget(walk(2), person=replace(person, face_offset=offset[1:]), body=body)
