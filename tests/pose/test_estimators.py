"""DWPose's two files: small ONNX graphs of the right shapes stand for the networks, whose weights cannot be had."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from svad_ray.errors import InputError, WeightsMissing
from svad_ray.pose.estimators import DETECTOR_FILE, POSE_FILE, DWPose
from svad_ray.pose.simcc import centre_and_scale


def constant_net(path, given, outputs):
    """A file that takes ``given`` and always gives ``outputs``."""
    nodes = [helper.make_node("Constant", [], [f"out{i}"], value=numpy_helper.from_array(out)) for i, out in enumerate(outputs)]
    nodes.append(helper.make_node("Identity", ["in"], ["unused"]))
    made = [helper.make_tensor_value_info(f"out{i}", TensorProto.FLOAT, out.shape) for i, out in enumerate(outputs)]
    graph = helper.make_graph(nodes, "net", [helper.make_tensor_value_info("in", TensorProto.FLOAT, given)], made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def detections(*boxes):
    """Raw detector output that decodes to ``boxes`` (cx, cy, w, h in the 640 input, score), one cell of the coarsest grid each."""
    raw = np.zeros((1, 8400, 85), np.float32)
    for i, (cx, cy, width, height, score) in enumerate(boxes):
        row = 8400 - 400 + i  # cell (i, 0), stride 32
        raw[0, row, :4] = cx / 32 - i, cy / 32, np.log(width / 32), np.log(height / 32)
        raw[0, row, 4:6] = score, 1.0
    return raw


def classes(x, y):
    simcc_x, simcc_y = np.zeros((1, 133, 576), np.float32), np.zeros((1, 133, 768), np.float32)
    simcc_x[0, :, x], simcc_y[0, :, y] = 0.8, 0.6
    return [simcc_x, simcc_y]


@pytest.fixture
def folder(tmp_path):
    constant_net(tmp_path / DETECTOR_FILE, (1, 3, 640, 640), [detections((100, 200, 60, 150, 0.9), (400, 300, 200, 500, 0.8), (90, 80, 30, 30, 0.2))])
    constant_net(tmp_path / POSE_FILE, (1, 3, 384, 288), classes(288, 384))
    return tmp_path


def test_the_largest_person_and_its_centre(folder):
    frames = np.zeros((2, 320, 640, 3), np.uint8)  # letterbox scale 1
    points, scores = DWPose(folder)(frames)
    assert points.shape == (2, 133, 2) and points.dtype == np.float32
    np.testing.assert_allclose(points, np.broadcast_to([400, 300], points.shape), atol=1e-3)  # the middle class of both rows
    np.testing.assert_allclose(scores, 0.6)


def test_without_a_person_the_whole_picture_counts(folder):
    constant_net(folder / DETECTOR_FILE, (1, 3, 640, 640), [detections((100, 200, 60, 150, 0.2))])
    constant_net(folder / POSE_FILE, (1, 3, 384, 288), classes(0, 0))
    points, _ = DWPose(folder)(np.zeros((1, 200, 300, 3), np.uint8))
    centre, scale = centre_and_scale(np.array([0, 0, 300, 200]))
    np.testing.assert_allclose(points[0, 0], centre - scale / 2)


def test_no_frames(folder):
    points, scores = DWPose(folder)(np.zeros((0, 64, 64, 3), np.uint8))
    assert points.shape == (0, 133, 2) and scores.shape == (0, 133)


def test_faults_are_named(folder):
    (folder / POSE_FILE).rename(folder / "away")
    with pytest.raises(WeightsMissing, match=r"dw-ll_ucoco_384.onnx from the DWPose project \(Apache-2.0\)"):
        DWPose(folder)
    (folder / POSE_FILE).write_bytes((folder / DETECTOR_FILE).read_bytes())
    with pytest.raises(InputError, match=r"dw-ll_ucoco_384.onnx takes \[\(1, 3, 640, 640\)\]"):
        DWPose(folder)
    (folder / POSE_FILE).write_bytes((folder / "away").read_bytes()[:100])
    with pytest.raises(InputError, match=r"dw-ll_ucoco_384.onnx cannot be read"):
        DWPose(folder)


@pytest.mark.models
def test_the_embedded_backend_fills_the_same_interface():
    from svad_ray.errors import SvadError
    from svad_ray.evaluate.synthetic.demo import demo_person
    from svad_ray.photo import decode_photo
    from svad_ray.pose.estimators import MediaPipePose
    from svad_ray.stages.perceive.embedded import MediaPipePerceive

    perceive = MediaPipePerceive()
    try:
        perceive.setup()
        photo = decode_photo(demo_person(0).png, name="demo")
    except SvadError as error:
        pytest.skip(f"model packages cannot be had here: {error.found}")
    points, scores = MediaPipePose(perceive)([photo.image])
    assert points.shape == (1, 133, 2) and scores[0, :17].min() > 0.3
    assert points[0, 0, 1] < points[0, 11, 1] < points[0, 15, 1]  # nose above hip above ankle


@pytest.mark.models
def test_the_perceive_backend_takes_its_points_from_dwpose(folder):
    from svad_ray.config import PerceiveConfig
    from svad_ray.errors import SvadError
    from svad_ray.evaluate.synthetic.demo import demo_person
    from svad_ray.photo import decode_photo
    from svad_ray.stages.perceive.dwpose import DWPosePerceive

    with pytest.raises(WeightsMissing, match=r"yolox_l.onnx from the DWPose project"):
        DWPosePerceive().setup()
    perceive = DWPosePerceive(PerceiveConfig(backend="dwpose", weights=str(folder)))
    try:
        perceive.setup()
        photo = decode_photo(demo_person(0).png, name="demo")
    except SvadError as error:
        pytest.skip(f"model packages cannot be had here: {error.found}")
    seen = perceive(photo)
    np.testing.assert_allclose(seen.scores, 0.6)
    assert np.ptp(seen.keypoints, axis=0).max() == 0 and seen.mask.max() > 0.9 and seen.face_mesh is not None
    (frame,) = perceive.track(photo.image[None])
    np.testing.assert_array_equal(frame.keypoints, seen.keypoints)
