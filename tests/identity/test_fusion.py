"""The fusion of one frame against the recorded run of the published script, and its behaviour at the edges."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from svad_ray.errors import InputError
from svad_ray.stages.identity.fusion import face_hull, fuse_head, head_to_frame, hull_centre, shape_disparity

PART = "face_fusion_part.npz"


@pytest.fixture
def golden(golden_generation):
    path = golden_generation / PART
    if not path.exists():  # a full golden folder keeps the recording under another name
        pytest.skip(f"{PART} is not in {golden_generation}")
    return np.load(path)


KINDS = ["same", "disp", "border", "big", "outlier", "off", "edge"]


@pytest.mark.parametrize("row, kind", list(enumerate(KINDS)))
def test_frame_equals_the_recorded_one(golden, row, kind):
    assert golden["kinds"][row] == kind
    frame, landmarks, other = golden["frames_bgr"][row], golden["lm_orig"][row], golden["lm_new"][row]
    head = golden["head6_bgr_256"] if kind == "big" else golden["heads_bgr"][row]
    result = fuse_head(frame, head, landmarks, other)
    assert result.disparity == pytest.approx(golden["disparities"][row], abs=1e-12)
    if golden["changed"][row]:
        np.testing.assert_allclose(head_to_frame(landmarks, other), golden["matrices"][row], atol=1e-5)
        assert hull_centre(landmarks.astype(np.int32)) == tuple(golden["centers"][row])
        assert result.fused
        # recorded tolerance between versions of OpenCV: two grey levels
        assert np.abs(result.image.astype(int) - golden["fused_bgr"][row]).max() <= 2
    else:
        assert result.reason
        assert np.array_equal(result.image, frame)


def test_refusals_say_why(golden):
    reasons = {}
    for row, kind in enumerate(KINDS):
        reasons[kind] = fuse_head(golden["frames_bgr"][row], golden["heads_bgr"][row], golden["lm_orig"][row], golden["lm_new"][row]).reason
    assert "disparity 0.1278" in reasons["disp"]
    assert "leaves the image" in reasons["border"] and "leaves the image" in reasons["off"]


def test_the_order_of_colours_does_not_matter(golden):
    a = fuse_head(golden["frames_bgr"][0], golden["heads_bgr"][0], golden["lm_orig"][0], golden["lm_new"][0]).image
    b = fuse_head(
        golden["frames_bgr"][0][..., ::-1].copy(), golden["heads_bgr"][0][..., ::-1].copy(), golden["lm_orig"][0], golden["lm_new"][0]
    ).image
    assert np.array_equal(a, b[..., ::-1])


def test_one_frame_of_the_index_recording(golden_generation):
    golden = np.load(golden_generation / "face_fusion_index.npz")
    result = fuse_head(golden["frame_bgr"], golden["head_bgr"], golden["lm_orig"], golden["lm_new"])
    assert np.abs(result.image.astype(int) - golden["fused_bgr"]).max() <= 2


def face(size: int = 128) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    return np.stack([size / 2 + 30 * np.cos(t), size / 2 + 40 * np.sin(t) + 3 * np.cos(3 * t)], 1)


def test_disparity_ignores_similarity_and_has_a_closed_form():
    points = face()
    turned = 1.7 * points @ np.array([[0.8, -0.6], [0.6, 0.8]]) + [12, -5]
    assert shape_disparity(points, turned) == pytest.approx(0, abs=1e-12)
    # optimal residual of normalised shapes: 1 - (sum of singular values of A^T B)^2
    other = points + np.random.default_rng(0).normal(0, 2, points.shape)
    a, b = (x - x.mean(0) for x in (points, other))
    s = np.linalg.svd((a / np.linalg.norm(a)).T @ (b / np.linalg.norm(b)))[1].sum()
    assert shape_disparity(points, other) == pytest.approx(1 - s**2, abs=1e-9)
    assert shape_disparity(points, np.ones_like(points)) == 1.0


def test_only_the_face_changes():
    """Nothing outside the hull's box; between box and hull only the cloning's own rounding (recorded: 3 levels on smooth images)."""
    rng = np.random.default_rng(0)
    frame, head = (cv2.GaussianBlur(rng.integers(0, 255, (128, 128, 3)).astype(np.uint8), (0, 0), 4) for _ in range(2))
    result = fuse_head(frame, head, face(), face() * 0.9 + 4)
    assert result.fused
    change = np.abs(result.image.astype(int) - frame).max(2)
    hull = cv2.dilate(face_hull(face().astype(np.int32), (128, 128), 255), np.ones((3, 3))) > 0
    x, y, w, h = cv2.boundingRect(face().astype(np.int32))
    box = np.zeros_like(hull)
    box[y - 2 : y + h + 2, x - 2 : x + w + 2] = True
    assert change[~box].max() == 0
    assert change[~hull].max() <= 4
    assert change[hull].mean() > 3


def test_a_smaller_mask_value_takes_less_of_the_render():
    frame = np.full((128, 128, 3), 120, np.uint8)
    head = np.clip(120 + 60 * np.sin(np.arange(128) / 3)[None, :, None] + np.zeros((128, 1, 3)), 0, 255).astype(np.uint8)
    change = [np.abs(fuse_head(frame, head, face(), face(), mask_value=v).image.astype(int) - 120).mean() for v in (64, 180, 255)]
    assert change[0] < change[1] < change[2]
    assert change[1] / change[2] == pytest.approx(180 / 255, abs=0.05)  # the cloning weighs gradients by mask / 255


def test_mask_value_outside_a_byte_is_refused():
    with pytest.raises(InputError, match="300"):
        face_hull(face().astype(np.int32), (128, 128), 300)
