"""Skirts: found in the mask, a surface that encloses both legs, and skinning that does not tear it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from svad_ray.body.lbs import skin_points
from svad_ray.body.names import JOINT_INDEX as J
from svad_ray.fitting.clothed import clothed_surface
from svad_ray.fitting.loose import leg_gap, legs, loose_share, loose_weights, skirt_hem, skirt_shell
from svad_ray.fitting.silhouette import shaped
from svad_ray.fitting.state import pose_body
from svad_ray.geometry.raster import project, rasterize_mesh, to_camera

HEM = -0.62  # metres: below the knees


def view(body, state):
    rest = shaped(body, state.betas)
    skin = pose_body(body, body.J_regressor @ rest, state.pose, state.transl).skin
    posed = skin_points(rest, body.lbs_weights, skin)[0].numpy()
    surface = clothed_surface(body, state.betas.numpy(), None)
    mask = rasterize_mesh(to_camera(surface.posed(skin[0]), state.viewmats[0].numpy()), surface.faces, state.Ks[0].numpy(), *state.image_size).mask
    return rest.numpy(), posed, mask.astype(np.float32)


def skirted(body, rest, posed, mask, state, hem):
    """The mask with a straight skirt between the outer sides of the legs, from the hips down to the rest height ``hem``."""
    left, right = legs(body)
    uv = project(to_camera(posed, state.viewmats[0].numpy()), state.Ks[0].numpy())
    use = (left | right) & (rest[:, 1] > hem)
    rows = slice(int(uv[use, 1].min()), int(uv[use, 1].max()))
    out = mask.copy()
    out[rows, int(uv[use, 0].min()) : int(uv[use, 0].max())] = 1
    return out


def test_a_skirt_is_found_with_its_hem_and_trousers_are_none(body, standing):
    rest, posed, mask = view(body, standing)
    camera = standing.viewmats[0].numpy(), standing.Ks[0].numpy()
    assert skirt_hem(body, rest, posed, *camera, mask) is None
    assert abs(skirt_hem(body, rest, posed, *camera, skirted(body, rest, posed, mask, standing, HEM)) - HEM) < 0.05


def test_legs_that_nearly_touch_or_of_which_one_is_bent_are_no_skirt(body, standing):
    """A mask that closes what little the fit leaves open between the legs tells of a fit that is a little off."""
    camera = standing.viewmats[0].numpy(), standing.Ks[0].numpy()
    for joint, angle in (("hip", 0.08), ("knee", 0.9)):
        state = replace(standing, pose=standing.pose.clone())
        for side, sign in (("left", -1), ("right", 1)):
            if joint == "hip":
                state.pose[0, J[f"{side}_hip"], 2] += sign * angle
        if joint == "knee":
            state.pose[0, J["right_knee"], 0] += angle
            state.pose[0, J["right_hip"], 0] -= angle
        rest, posed, mask = view(body, state)
        assert skirt_hem(body, rest, posed, *camera, skirted(body, rest, posed, mask, state, -0.8)) is None, joint


def test_the_shell_closes_the_legs_and_lies_inside_nobody(body):
    rest = body.v_template.numpy()
    clothed = rest + skirt_shell(body, rest, HEM)
    height, gap = leg_gap(body, clothed)
    inside = (height > HEM + 0.03) & (height < -0.12)
    assert np.nanmax(gap[inside]) < 0.012 < np.nanmin(leg_gap(body, rest)[1][(height > HEM + 0.03) & (height < -0.3)])
    left, right = legs(body)
    outer = (left & (rest[:, 0] > 0.16)) | (right & (rest[:, 0] < -0.16))
    assert np.abs((clothed - rest)[outer, 0]).max() < 1e-6  # the outline from the front stays
    below = rest[:, 1] < HEM - 0.03
    assert np.abs((clothed - rest)[below]).max() == 0


def stride(body, rest, weights, angle=0.4):
    pose = torch.zeros(1, 55, 3)
    pose[0, J["left_hip"], 0], pose[0, J["right_hip"], 0] = -angle, angle
    skin = pose_body(body, body.J_regressor @ torch.as_tensor(rest), pose, torch.zeros(1, 3)).skin
    return lambda points: skin_points(torch.as_tensor(points, dtype=torch.float32), torch.as_tensor(weights, dtype=torch.float32), skin)[0].numpy()


def torn(body, rest, shell, mode):
    """How far a stride draws points of left and right apart that touch in the middle of the skirt's front: their mean distance, metres."""
    clothed = rest + shell
    weights = loose_weights(body, rest, shell, mode)
    moved = stride(body, rest, weights)(clothed)
    left, right = legs(body)
    front = (np.abs(clothed[:, 0]) < 0.012) & (clothed[:, 1] > HEM + 0.05) & (clothed[:, 1] < -0.3) & (np.linalg.norm(shell, axis=1) > 0.02)
    a, b = np.flatnonzero(front & left), np.flatnonzero(front & right)
    partner = b[((clothed[a][:, None] - clothed[b][None]) ** 2).sum(2).argmin(1)]
    return np.linalg.norm(moved[a] - moved[partner], axis=1).mean() - np.linalg.norm(clothed[a] - clothed[partner], axis=1).mean()


def test_a_stride_tears_the_skirt_ten_times_less(body):
    rest = body.v_template.numpy()
    shell = skirt_shell(body, rest, HEM).astype(np.float32)
    assert torn(body, rest, shell, "off") > 0.15
    assert torn(body, rest, shell, "auto") < 0.1 * torn(body, rest, shell, "off")


def test_trousers_keep_their_legs_and_coats_are_loose_when_asked(body):
    rest = body.v_template.numpy()
    trousers = np.zeros_like(rest)
    trousers[np.logical_or(*legs(body))] = [0, 0, 0.01]
    assert loose_share(body, rest, trousers, "auto").max() == 0 == loose_share(body, rest, trousers, "on").max()
    coat = np.zeros_like(rest)
    thigh = (rest[:, 1] < -0.1) & (rest[:, 1] > -0.3) & np.logical_or(*legs(body))
    coat[thigh] = [0, 0, 0.06]
    assert loose_share(body, rest, coat, "auto").max() == 0 and loose_share(body, rest, coat, "on")[thigh].min() > 0.9
    assert loose_share(body, rest, skirt_shell(body, rest, HEM), "off").max() == 0


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_loose_weights_are_weights(body, mode):
    rest = body.v_template.numpy()
    w = loose_weights(body, rest, skirt_shell(body, rest, HEM).astype(np.float32), mode)
    assert w.min() >= 0 and np.allclose(w.sum(1), 1, atol=1e-5)
    assert np.array_equal(w[rest[:, 1] > 0.2], body.lbs_weights.numpy()[rest[:, 1] > 0.2])
