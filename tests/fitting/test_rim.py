"""The rim on the mask's border: masks drawn from the body itself, wider than it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from svad_ray.evaluate.metrics import silhouette_iou
from svad_ray.fitting.clothed import clothed_surface
from svad_ray.fitting.rim import border_distance, fit_rim
from svad_ray.fitting.silhouette import shaped
from svad_ray.fitting.state import pose_body
from svad_ray.geometry.mesh import vertex_normals
from svad_ray.geometry.raster import rasterize_mesh, to_camera


@pytest.fixture(scope="module")
def dressed(body):
    """(V, 3) two centimetres of cloth on torso and legs, none on arms, hands, feet and head."""
    w = body.lbs_weights.numpy()
    share = w[:, [0, 1, 2, 3, 4, 5, 6, 9]].sum(1, keepdims=True)
    return 0.02 * share * vertex_normals(body.v_template, torch.as_tensor(body.faces)).numpy()


@pytest.fixture
def drawn(body, standing):
    """Offsets -> the posed vertices in camera axes and their mask."""

    def draw(offset):
        surface = clothed_surface(body, standing.betas.numpy(), offset)
        rest = body.J_regressor @ shaped(body, standing.betas)
        posed = surface.posed(pose_body(body, rest, standing.pose, standing.transl).skin[0])
        camera = to_camera(posed, standing.viewmats[0].numpy())
        return camera, rasterize_mesh(camera, surface.faces, standing.Ks[0].numpy(), *standing.image_size).mask

    return draw


def test_distance_is_positive_inside_and_zero_at_the_border():
    mask = np.zeros((40, 60), np.float32)
    mask[10:30, 20:50] = 1
    d = border_distance(mask)
    assert d.shape == (80, 120)
    assert abs(d[40, 40] - 0.25) < 0.26 and abs(d[40, 39] + 0.25) < 0.26  # either side of column 20
    assert abs(d[40, 70] - 10) < 0.5 and abs(d[40, 10] + 15) < 0.5


def test_the_rim_finds_the_border_and_the_rest_stays(body, standing, drawn, dressed):
    nothing = np.zeros_like(dressed)
    _, mask = drawn(dressed)
    start = silhouette_iou(drawn(nothing)[1], mask)
    offset = fit_rim(body, standing, nothing, mask.astype(np.float32))
    assert start < 0.9
    assert silhouette_iou(drawn(offset)[1], mask) > 0.985
    length = np.linalg.norm(offset, axis=1)
    assert length.max() < 0.03
    belly = (np.abs(body.v_template.numpy()[:, 0]) < 0.03) & (dressed[:, 2] > 0.015)  # straight ahead: no rim tells anything there
    assert belly.any() and length[belly].max() < 0.015


def test_a_surface_on_the_border_does_not_move(body, standing, drawn, dressed):
    offset = fit_rim(body, standing, dressed, drawn(dressed)[1].astype(np.float32))
    assert np.linalg.norm(offset - dressed, axis=1).mean() < 0.001


def test_fingers_are_not_turned_inside_out(body, standing, drawn, dressed):
    """A mask that is three pixels wider at the hands, too: they move, and no face of theirs flips over."""
    mask = cv2.dilate(drawn(dressed)[1].astype(np.uint8), np.ones((7, 7), np.uint8)).astype(np.float32)
    offset = fit_rim(body, standing, np.zeros_like(dressed), mask)
    hands = (body.tables.regions["left_hand"] | body.tables.regions["right_hand"])[body.faces].all(1)
    rest = shaped(body, standing.betas).numpy()
    before, after = (np.cross(v[body.faces[:, 1]] - v[body.faces[:, 0]], v[body.faces[:, 2]] - v[body.faces[:, 0]]) for v in (rest, rest + offset))
    flipped = (before * after).sum(1) < 0
    assert flipped[hands].mean() < 0.03
    assert np.linalg.norm(offset, axis=1)[body.tables.regions["left_hand"]].max() > 0.003


def test_nothing_is_read_in_the_band_at_the_border(body, standing):
    """Legs are cut off by the picture's lower border, where the mask is wider than they are."""
    low = replace(standing, transl=standing.transl - torch.tensor([0.0, 0.5, 0.0]))
    surface = clothed_surface(body, low.betas.numpy(), None)
    posed = surface.posed(pose_body(body, body.J_regressor @ shaped(body, low.betas), low.pose, low.transl).skin[0])
    mask = rasterize_mesh(to_camera(posed, low.viewmats[0].numpy()), surface.faces, low.Ks[0].numpy(), *low.image_size).mask.astype(np.float32)
    assert mask[-1].any()
    mask[-14:] = cv2.dilate(mask, np.ones((1, 13), np.uint8))[-14:]
    nothing = np.zeros((len(body.v_template), 3), np.float32)
    free, kept = (np.linalg.norm(fit_rim(body, low, nothing, mask, ignore_border=ignore), axis=1).max() for ignore in (False, True))
    assert kept < 0.008 < 0.015 < free
