"""Marks in videos: read back after H.264 at several qualities, twice, and at half the size; never seen where there is none."""

import cv2
import numpy as np
import pytest

from svad_ray.export import mark
from svad_ray.export.video import read_video, write_mp4

CODE = 0xC0FFEE42


@pytest.fixture(scope="module")
def frames():
    """A textured figure that moves on white, as an avatar's videos are."""
    rng = np.random.default_rng(0)
    cloth = cv2.resize(rng.integers(0, 256, (40, 20, 3), np.uint8), (96, 200), interpolation=cv2.INTER_LINEAR)
    out = np.full((12, 256, 256, 3), 255, np.uint8)
    for t in range(12):
        out[t, 40:240, 50 + 5 * t : 146 + 5 * t] = cloth
    return out


@pytest.fixture(scope="module")
def marked(frames):
    return np.stack(list(mark.marked(frames, code=CODE)))


def coded(frames, path, crf):
    write_mp4(iter(frames), path, 24.0, crf=crf)
    return read_video(path)[0]


def wrong_bits(frames):
    return round((1 - mark.find(frames, asked=CODE).share) * mark.BITS)


@pytest.mark.parametrize(("crf", "wrong"), [(18, 0), (23, 0), (28, 0), (33, 2)])
def test_h264_leaves_it(marked, tmp_path, crf, wrong):
    again = coded(marked, tmp_path / "a.mp4", crf)
    assert wrong_bits(again) <= wrong
    assert wrong or mark.find(again).code == CODE


def test_twice_and_at_half_the_size(marked, tmp_path):
    again = coded(coded(marked, tmp_path / "a.mp4", 18), tmp_path / "b.mp4", 28)
    assert mark.find(again).code == CODE
    half = np.stack([cv2.resize(frame, (128, 128), interpolation=cv2.INTER_AREA) for frame in again])
    assert mark.find(coded(half, tmp_path / "c.mp4", 23)).code == CODE


def test_nothing_is_found_where_nothing_is(frames, tmp_path):
    assert mark.find(frames).code is None and mark.find(coded(frames, tmp_path / "a.mp4", 23)).code is None
    noise = np.random.default_rng(1).integers(0, 256, (200, 64, 64, 3), np.uint8)
    assert not [frame for frame in noise if mark.find([frame]).code is not None] and mark.find([]).code is None


def test_it_is_a_level_or_two(frames, marked):
    assert np.abs(marked.astype(int) - frames).max() <= 3  # white and black give way by one level, then the pattern, then rounding


def test_the_code_is_the_photos():
    assert mark.code_of("c0ffee42" + "0" * 56) == CODE


@pytest.mark.parametrize("size", [(512, 512), (96, 200), (300, 120)])
def test_a_label_is_inside_the_picture_and_nothing_else_changes(size):
    plain = np.full((*size, 3), 200, np.uint8)
    out = mark.labelled(plain, "AI-generated from one photo")
    rows, columns = np.nonzero((out != plain).any(2))
    assert len(rows) and rows.min() > size[0] * 0.8 and columns.max() < size[1] and out.max() > 230 and out.min() < 80
