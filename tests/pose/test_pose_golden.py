"""Skeletons, alignment and the networks' surroundings against recorded numbers of the original code."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from svad_ray.pose import detector, simcc
from svad_ray.pose.align import align, canvas_size, frame_size
from svad_ray.pose.draw import draw_pose
from svad_ray.pose.openpose import OpenPose, from_ordered, network_size, to_network_size, with_neck


def recorded(path):
    if not path.exists():
        pytest.skip(f"{path.name} is not among the recorded files kept here; set SVAD_GOLDEN to a folder that has it")
    return np.load(path)


@pytest.mark.parametrize("name", ["a", "b", "a2", "b2"])
def test_drawing_is_the_same_to_the_pixel(golden_pose, name):
    data = recorded(golden_pose / "pose_draw.npz")
    pose = OpenPose(data[f"{name}_body"], data[f"{name}_subset"][0] >= 0, data[f"{name}_hands"], data[f"{name}_faces"][0])
    height, width = map(int, data[f"{name}_hw"])
    np.testing.assert_array_equal(draw_pose(pose, height, width), data[f"{name}_network_rgb"])
    np.testing.assert_array_equal(draw_pose(pose, height, width, face=True)[:, :, ::-1], data[f"{name}_canvas_face"])


@pytest.mark.parametrize("name", ["full", "missing", "no_hands_first", "degenerate"])
def test_official_alignment(golden_pose, name):
    data = recorded(golden_pose / f"pose_align_{name}.npz")
    reference = OpenPose(data["ref_body"], data["ref_subset"][0] >= 0, data["ref_hands"], data["ref_faces"][0])
    video = [
        OpenPose(body, subset[0] >= 0, hands, faces[0])
        for body, subset, hands, faces in zip(data["video_body"], data["video_subset"], data["video_hands"], data["video_faces"])
    ]
    sizes = tuple(map(int, data["ref_hw"])), tuple(map(int, data["video_hw"]))
    got = align(reference, video, reference_size=sizes[0], video_size=sizes[1], official=True)
    for key, want in zip(data["scale_names"], data["scales"]):
        assert got.scales[str(key).removeprefix("scale_")] == pytest.approx(want, abs=1e-9)
    for i, pose in enumerate(got.poses):
        np.testing.assert_allclose(pose.body, data["aligned_body"][i], atol=1e-9)
        np.testing.assert_allclose(pose.hands, data["aligned_hands"][i], atol=1e-9)
        np.testing.assert_allclose(pose.face, data["aligned_faces"][i][0], atol=1e-9)
        np.testing.assert_array_equal(pose.drawn, data["aligned_subset"][i][0] >= 0)
    assert canvas_size(sizes[1]) == tuple(data["canvas_hw"])
    height, width = frame_size(sizes[0])
    for i in (0, 4):
        frame = cv2.resize(draw_pose(got.poses[i], *canvas_size(sizes[1])), (width, height))
        np.testing.assert_array_equal(frame, data[f"frame{i}_rgb"])


def test_input_sizes(golden_pose):
    for height, width, resolution, *want in recorded(golden_pose / "pose_sizes.npz")["h_w_res_H_W"].tolist():
        assert network_size(height, width, resolution) == tuple(want)


def test_letterbox_and_boxes(golden_pose):
    data = recorded(golden_pose / "dwpose_detector.npz")
    for image, ratio, total in zip(("image", "image2"), data["letterbox_ratio"], data["letterbox_input_sum"]):
        tensor, got = detector.letterbox(data[image])
        assert got == pytest.approx(ratio, abs=1e-12) and tensor.sum(dtype=float) == total
    np.testing.assert_array_equal(tensor[:, :40], data["letterbox2_input_rows_0_40"])
    raw = np.zeros((8400, 85), np.float32)
    raw[data["raw_row_index"], :11] = data["raw_rows_f16_first11cols"]
    np.testing.assert_allclose(detector.person_boxes(raw, data["letterbox_ratio"][0]), data["boxes"], atol=1e-4)


def test_crops_and_key_points(golden_pose):
    data = recorded(golden_pose / "dwpose_pose.npz")
    placed = [simcc.centre_and_scale(box) for box in data["boxes"]]
    np.testing.assert_allclose([centre for centre, _ in placed], data["centers"], atol=1e-9)
    np.testing.assert_allclose([scale for _, scale in placed], data["scales"], atol=1e-9)
    np.testing.assert_allclose([simcc.crop_matrix(*one) for one in placed], data["warp_matrices"], atol=2e-5)
    for i in (0, 2):  # one grey level where rounding falls otherwise
        difference = np.abs(simcc.crop(data["image"], *placed[i]) - data[f"crop{i}_chw"])
        assert difference.max() < 2.1 / 57 and (difference > 0.01).mean() < 0.01
    points, scores = simcc.decode(data["simcc_x_1024"] / 1024.0, data["simcc_y_1024"] / 1024.0, data["centers"], data["scales"])
    np.testing.assert_allclose(points, data["keypoints133"], atol=1e-9)
    np.testing.assert_allclose(scores, data["scores133"], atol=1e-6)
    for i in range(len(points)):
        ordered, sure = with_neck(points[i], scores[i])
        np.testing.assert_allclose(ordered, data["keypoints134"][i], atol=1e-9)
        np.testing.assert_allclose(sure, data["scores134"][i], atol=1e-6)


@pytest.mark.parametrize("n", [0, 1])
def test_from_detector_to_drawing(golden_pose, n):
    data = recorded(golden_pose / "dwpose_to_openpose.npz")
    image = to_network_size(data[f"{n}_image"], int(data[f"{n}_res"]))
    height, width = image.shape[:2]
    assert (height, width) == tuple(data[f"{n}_net_input_hw"])
    np.testing.assert_array_equal(image[:16, :, ::-1], data[f"{n}_net_input_rows_0_16"])
    people = [from_ordered(data[f"{n}_kp134"][i], data[f"{n}_sc134"][i], width=width, height=height) for i in range(2)]
    np.testing.assert_allclose(np.concatenate([p.body for p in people]), data[f"{n}_candidate"], atol=1e-9)
    np.testing.assert_array_equal([p.drawn for p in people], data[f"{n}_subset"] >= 0)
    np.testing.assert_allclose(np.concatenate([[p.hands[i] for p in people] for i in (0, 1)]), data[f"{n}_hands"], atol=1e-9)
    np.testing.assert_allclose([p.face for p in people], data[f"{n}_faces"], atol=1e-9)
    # of several people the original draws the first one's body, and the first two hands of a list that is ordered by side
    drawn = draw_pose(replace(people[0], hands=data[f"{n}_hands"][:2]), height, width)
    np.testing.assert_array_equal(drawn[:, :, ::-1], data[f"{n}_map"])
