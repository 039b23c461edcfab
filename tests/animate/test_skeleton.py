"""The driving skeleton of a known motion, checked against the body's own projection."""

import numpy as np
import pytest

from svad_ray.errors import SvadError


@pytest.fixture(scope="module")
def turning():
    from svad_ray.body import load_body
    from svad_ray.motion import load_motion, retarget

    try:
        body = load_body()
    except SvadError as error:
        pytest.skip(f"the open body cannot be had here: {error.found}")
    motion = load_motion("turn", body)
    motion = motion.frames(np.linspace(0, len(motion) - 1, 5).round().astype(int))
    return body, retarget(motion, person=motion.frames(slice(0, 1)), body=body, size=256)


@pytest.mark.models
def test_joints_are_where_the_camera_sees_them(turning):
    from svad_ray.body.names import JOINT_INDEX
    from svad_ray.motion.labels import posed
    from svad_ray.stages.animate.skeleton import driving_poses

    body, track = turning
    poses, silhouettes = driving_poses(body, track)
    joints = posed(body, track).joints.numpy()
    for t, pose in enumerate(poses):
        camera = joints[t] @ track.viewmats[t][:3, :3].T + track.viewmats[t][:3, 3]
        pixels = camera[:, :2] / camera[:, 2:] * track.Ks[t][0, 0] + track.Ks[t][:2, 2]
        for place, name in ((2, "right_shoulder"), (7, "left_wrist"), (8, "right_hip"), (13, "left_ankle")):
            np.testing.assert_allclose(pose.body[place] * 256, pixels[JOINT_INDEX[name]], atol=0.01)
        shoulders = (pixels[JOINT_INDEX["left_shoulder"]] + pixels[JOINT_INDEX["right_shoulder"]]) / 2
        np.testing.assert_allclose(pose.body[1] * 256, shoulders, atol=0.01)
        x, y = (pose.body[11] * 256).astype(int)
        assert silhouettes[t][y, x] == 255 and silhouettes[t][2, 2] == 0


@pytest.mark.models
def test_who_turns_away_shows_no_face(turning):
    from svad_ray.stages.animate.skeleton import draw_poses, driving_poses

    poses, _ = driving_poses(*turning)
    front, back = poses[0], poses[2]
    assert front.drawn.all() and (front.face > 0).mean() > 0.8
    assert not back.drawn[[0, 14, 15]].any() and back.drawn[2:14].all() and (back.face == -1).mean() > 0.8
    assert front.body[2, 0] < front.body[5, 0] and back.body[2, 0] > back.body[5, 0]  # the right shoulder changes sides
    images = draw_poses(poses, 256, 256)
    assert images.shape == (5, 256, 256, 3) and (images.reshape(5, -1).max(1) > 0).all()
