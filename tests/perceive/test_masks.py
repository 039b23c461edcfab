"""Mask arithmetic against closed forms and SciPy."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from svad_ray.stages.perceive.crops import Roi
from svad_ray.stages.perceive.masks import _axis_distance, _coarse_limb_distance, connected_to, guided_upsample, limb_distance, person_mask


def test_distance_to_a_segment():
    distance = _axis_distance(np.array([10.5, 20.5]), np.array([30.5, 20.5]), 40, 50)
    assert distance[20, 15] == 0
    np.testing.assert_allclose(distance[25, 20], 5)
    np.testing.assert_allclose(distance[23, 34], 5)  # 3-4-5 beyond the end
    np.testing.assert_allclose(_axis_distance(np.array([5.5, 5.5]), np.array([5.5, 5.5]), 10, 10)[8, 9], 5)


def test_limbs_reach_the_body_and_not_the_neighbour(standing):
    distance = limb_distance(standing, 360, 240)
    assert distance[140, 120] < 0.5 and distance[30, 120] < 1 and distance[337, 144] < 0.05
    assert distance[300, 10] > 1 and distance[180, 235] > 1


def test_coarse_distance_is_the_distance(standing):
    coarse, full = _coarse_limb_distance(standing, 359, 238), limb_distance(standing, 359, 238)
    assert coarse.shape == full.shape
    assert np.abs(coarse - full).max() < 0.12 and abs(float((coarse - full).mean())) < 0.01  # largest at the kink on an axis


def test_guided_filter_equals_its_definition():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    mask = rng.random((40, 50)).astype(np.float32)
    guide = np.round(image @ np.array([0.299, 0.587, 0.114])) / 255

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(values.astype(np.float64), 7, mode="mirror")

    slope = (mean(guide * mask) - mean(guide) * mean(mask)) / (mean(guide**2) - mean(guide) ** 2 + 1e-3)
    expected = mean(slope) * guide + mean(mean(mask) - slope * mean(guide))
    np.testing.assert_allclose(guided_upsample(image, mask, radius=3), expected.clip(0, 1), atol=5e-3)


def test_guided_filter_moves_a_coarse_border_to_the_image_edge():
    truth = np.zeros((160, 160), np.float32)
    cv2.circle(truth, (80, 80), 50, 1, -1)
    image = np.repeat((60 + 130 * truth).astype(np.uint8)[..., None], 3, -1)
    coarse = cv2.GaussianBlur(np.roll(truth, 4, 1), (0, 0), 3)  # soft, and four pixels beside the edge
    fine = guided_upsample(image, coarse, radius=8)
    wrong, before = ((values > 0.5) != (truth > 0.5) for values in (fine, coarse))
    assert wrong.sum() < 0.1 * before.sum()


def test_components_without_a_seed_go():
    mask = np.zeros((30, 40), np.float32)
    mask[2:10, 2:10] = mask[15:25, 20:30] = mask[28, 38] = 1
    seeds = np.zeros_like(mask, bool)
    seeds[20, 25] = seeds[0, 0] = True  # the second seed lies outside the mask
    labels, _ = ndimage.label(mask > 0.5)
    np.testing.assert_array_equal(connected_to(mask, seeds), labels == labels[20, 25])
    assert not connected_to(mask, np.zeros_like(seeds)).any()


def test_a_neighbours_piece_is_dropped_and_the_person_stays(standing):
    points, height, width = standing, 360, 240
    body = (limb_distance(points, height, width) < 0.45).astype(np.float32)
    stain = np.zeros_like(body)
    stain[250:330, 5:50] = 1
    image = np.repeat((40 + 180 * np.maximum(body, stain)).astype(np.uint8)[..., None], 3, -1)
    roi = Roi(np.array([120.0, 190.0]), 400.0)
    own = cv2.warpAffine(np.maximum(body, stain), roi.matrix(256), (256, 256))
    mask = person_mask(image, points, own, roi) > 0.5
    assert not mask[260:330, 5:40].any()
    person = body > 0.5
    assert (mask & person).sum() / (mask | person).sum() > 0.93
