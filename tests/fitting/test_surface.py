import numpy as np
import pytest
import torch

from svad_ray.body.names import JOINT_INDEX as J
from svad_ray.fitting.clothed import PARTS, clothed_surface
from svad_ray.fitting.silhouette import MaskTarget, OutlineRenderer, shaped, without_strays
from svad_ray.fitting.state import pose_body
from svad_ray.fitting.surface import clothe, mobility, ring_basis, usually_worn
from svad_ray.geometry.mesh import vertex_normals
from svad_ray.geometry.raster import rasterize_mesh, to_camera


def drawn_mask(body, state, offset):
    surface = clothed_surface(body, state.betas.numpy(), offset)
    skin = pose_body(body, body.J_regressor @ shaped(body, state.betas), state.pose, state.transl).skin[0]
    points = to_camera(surface.posed(skin), state.viewmats[0].numpy())
    return rasterize_mesh(points, surface.faces, state.Ks[0].numpy(), *state.image_size).mask


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def test_rings_are_a_partition_of_unity_but_for_cloth_that_hangs_off_behind(body):
    basis, stiffness = ring_basis(body)
    total = np.asarray(basis.sum(1)).ravel()
    z = vertex_normals(body.v_template, torch.as_tensor(body.faces)).numpy()[:, 2]
    assert basis.shape == (len(body.v_template), len(stiffness)) and basis.min() >= 0
    arms = body.lbs_weights.numpy()[:, [J["left_shoulder"], J["left_elbow"], J["right_shoulder"], J["right_elbow"]]].sum(1) > 0.99
    assert np.abs(total[arms] - 1).max() < 0.02
    torso = body.lbs_weights.numpy()[:, [J["pelvis"], J["spine1"], J["spine2"], J["left_hip"], J["right_hip"]]].sum(1) > 0.99
    assert np.abs(total[torso] - (1 - 0.4 * z[torso])).max() < 0.02


def test_shoes_and_hair_are_worn_where_they_belong(body):
    worn = usually_worn(body, shoe=0.014, hair=0.008)
    regions = body.tables.regions
    down = vertex_normals(body.v_template, torch.as_tensor(body.faces)).numpy()[:, 1] < -0.9
    sole, leather = (np.median(worn[regions["left_foot"] & where]) for where in (down, ~down))
    assert sole > 0.01 and 0.005 < leather < 0.75 * sole
    assert worn[regions["left_hand"]].max() < 1e-4
    assert np.median(worn[regions["scalp"] & ~regions["face"] & ~regions["ears"]]) > 0.006


def test_hands_and_face_hardly_move(body):
    free, _ = mobility(body)
    torso = body.lbs_weights.numpy()[:, J["spine2"]] > 0.8
    assert free[body.tables.regions["left_hand"]].mean() < 0.25 and free[body.tables.regions["face"]].mean() < 0.25
    assert free[torso].min() > 0.9


def test_the_soft_outline_covers_what_the_mesh_covers(body, standing):
    renderer, target = OutlineRenderer(body), MaskTarget(np.zeros(standing.image_size, np.float32), 512, standing.Ks[0])
    rest = shaped(body, standing.betas)
    skin = pose_body(body, body.J_regressor @ rest, standing.pose, standing.transl).skin[0]
    alpha = renderer.alpha(rest, vertex_normals(rest, renderer.faces), skin, standing.viewmats[0], target).numpy()
    assert overlap(alpha > 0.5, drawn_mask(body, standing, None)) > 0.94


@pytest.mark.slow
def test_the_clothed_outline_becomes_the_mask(body, standing):
    thick = np.zeros((len(body.v_template), 3), np.float32)
    torso = body.lbs_weights.numpy()[:, [J["pelvis"], J["spine1"], J["spine2"], J["spine3"]]].sum(1)
    normals = vertex_normals(shaped(body, standing.betas), torch.as_tensor(body.faces)).numpy()
    thick += 0.06 * torso[:, None] * normals
    mask = drawn_mask(body, standing, thick)
    before = overlap(drawn_mask(body, standing, None), mask)
    offset = clothe(body, standing, mask.astype(np.float32), iterations=80)
    assert overlap(drawn_mask(body, standing, offset), mask) > max(0.96, before + 0.02)
    along = (offset * normals).sum(1)
    back = (torso > 0.9) & (normals[:, 2] < -0.9)  # the belt carries to the back what the outline shows at the sides
    assert np.median(along[back]) > 0.01


def test_parts_of_the_surface_are_left_and_right(body):
    surface = clothed_surface(body, np.zeros(20), None)
    left, right = (surface.part == PARTS.index(f"{side}_hand") for side in ("left", "right"))
    assert surface.template[left, 0].min() > 0 > surface.template[right, 0].max()
    assert abs(left.sum() - right.sum()) < 0.02 * left.sum()


def test_strays_of_a_mask_are_left_out():
    drawn = np.zeros((200, 100), bool)
    drawn[50:150, 40:60] = True
    mask = np.zeros((200, 100), np.float32)
    mask[50:150, 38:66] = 0.8
    mask[90:100, 66:95] = 1  # somebody's arm: attached, but it reaches far away
    mask[10:20, 10:20] = 1
    kept = without_strays(mask, drawn, reach=0.1)
    assert kept[100, 38] == kept[100, 65] == np.float32(0.8) and kept[95, 69] == 1
    assert kept[95, 70:].max() == 0 and kept[:30].max() == 0 and kept.dtype == mask.dtype
    assert np.array_equal(without_strays(mask, np.zeros_like(drawn), reach=0.1), mask)


def test_without_a_step_people_wear_what_is_usual(body, standing):
    offset = clothe(body, standing, drawn_mask(body, standing, None).astype(np.float32), iterations=0)
    soles = body.tables.regions["left_foot"] & (vertex_normals(body.v_template, torch.as_tensor(body.faces)).numpy()[:, 1] < -0.9)
    assert np.isfinite(offset).all() and np.median(np.linalg.norm(offset[soles], axis=1)) > 0.01
