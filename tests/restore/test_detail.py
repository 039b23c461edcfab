"""Detail transfer and pasting: what must stay, stays; closed forms."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from svad_ray.stages.restore.detail import keep_low_frequencies, paste, pixel_box, resize


def noise(height: int = 64, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(60, 190, (height, width, 3)).astype(np.uint8)


def test_a_colour_cast_of_the_network_is_taken_out_and_its_detail_kept():
    original = np.full((64, 64, 3), 100, np.uint8)
    checker = 20 * (np.indices((64, 64)).sum(0) % 2 * 2 - 1)
    restored = (original + 30 + checker[..., None]).astype(np.uint8)
    out = keep_low_frequencies(restored, original, sigma=2.0).astype(int)
    assert np.abs(out.mean() - 100) < 1
    inner = out[8:-8, 8:-8, 0] - 100
    assert np.abs(inner - checker[8:-8, 8:-8]).max() <= 1


def test_coarse_structure_is_the_originals():
    original, restored = noise(), cv2.GaussianBlur(noise(), (0, 0), 1)[::-1].copy()
    out = keep_low_frequencies(restored, original, sigma=1.0)
    coarse = [cv2.GaussianBlur(x.astype(np.float32), (0, 0), 4) for x in (out, original, restored)]
    assert np.abs(coarse[0] - coarse[1]).mean() < 0.15 * np.abs(coarse[2] - coarse[1]).mean()


def test_equal_images_come_back_unchanged():
    assert np.array_equal(keep_low_frequencies(noise(), noise(), sigma=1.5), noise())


def test_paste_is_exact_in_the_middle_seamless_at_the_edge_and_untouched_outside():
    frame, crop = np.full((60, 60, 3), 50, np.uint8), np.full((30, 30, 3), 200, np.uint8)
    out = paste(frame, crop, (10, 20))
    assert (out[30:40, 20:30] == 200).all()
    outside = np.ones((60, 60), bool)
    outside[20:50, 10:40] = False
    assert (out[outside] == 50).all()
    assert out[20, 25, 0] < 80 and out[35, 10, 0] < 80
    assert (frame == 50).all()  # the given frame is not written to


def test_paste_does_not_fade_at_the_images_border():
    out = paste(np.zeros((40, 40, 3), np.uint8), np.full((20, 40, 3), 99, np.uint8), (0, 0))
    assert (out[0] == 99).all() and (out[:10, 0] == 99).all()
    assert out[19, 20, 0] < 20


@pytest.mark.parametrize(
    "box, expected",
    [
        ([10.2, 5.7, 30.1, 25.0], (10, 5, 31, 25)),
        ([-20, -3, 30, 25], (0, 0, 30, 25)),
        ([90, 5, 140, 30], (90, 5, 100, 30)),
        ([95, 5, 140, 30], None),
        ([-50, -50, -10, -10], None),
        ([200, 10, 240, 50], None),
    ],
)
def test_pixel_boxes_are_clipped_or_refused(box, expected):
    assert pixel_box(np.array(box, float), (60, 100)) == expected


def test_resize_keeps_the_mean_when_it_shrinks():
    image = noise()
    small = resize(image, (16, 20))
    assert small.shape == (16, 20, 3)
    assert np.abs(small.astype(float).mean() - image.mean()) < 0.6
    assert resize(image, (64, 80)) is image
