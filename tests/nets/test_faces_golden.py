"""RetinaFace and ParseNet against recorded outputs of the original code."""

import json

import numpy as np
import pytest
import torch
from rules import golden_or_skip, rule_made

from svad_ray.nets.faces import parsenet, retinaface


@pytest.fixture(scope="module")
def finder():
    def factor(key):
        return 1 / 64 if key == "body.conv1.weight" else 8.0 if key.startswith("ClassHead") and key.endswith("weight") else 1.0

    return rule_made("retinaface", retinaface.RetinaFace(), factor)


@pytest.fixture(scope="module")
def recorded(golden_generation):
    return golden_or_skip(golden_generation / "retinaface.npz")


def heads(net, bgr):
    x = torch.from_numpy(bgr.transpose(2, 0, 1)[None].astype(np.float32)) - torch.tensor(retinaface.MEAN_BGR)[:, None, None]
    with torch.inference_mode():
        return net(x)


@pytest.mark.parametrize("odd", [False, True])
def test_heads(finder, recorded, odd):
    prefix = "odd_" if odd else ""
    boxes, scores, points = heads(finder, recorded["odd_image_bgr" if odd else "image_bgr"])
    np.testing.assert_allclose(boxes, recorded[prefix + "loc"], atol=1e-5)
    np.testing.assert_allclose(scores, recorded[prefix + "conf_softmax"], atol=1e-5)
    np.testing.assert_allclose(points, recorded[prefix + "landm"], atol=1e-5)


def test_anchors_and_decoding(recorded):
    np.testing.assert_allclose(retinaface.priors(160, 128), recorded["priors"], atol=1e-7)
    np.testing.assert_allclose(retinaface.priors(157, 211), recorded["priors_157x211"], atol=1e-7)
    boxes, points = retinaface.decode(*(torch.from_numpy(recorded[name][0]) for name in ("loc", "landm")), retinaface.priors(160, 128))
    np.testing.assert_allclose(boxes, recorded["boxes_rel"], atol=1e-6)
    np.testing.assert_allclose(points, recorded["landms_rel"], atol=1e-6)


@pytest.mark.parametrize(
    ("image", "name", "confidence"),
    [("image_bgr", "det_conf097", 0.97), ("image_bgr", "det_conf050", 0.5), ("odd_image_bgr", "odd_det_conf097", 0.97)],
)
def test_faces(finder, recorded, image, name, confidence):
    (found,) = retinaface.detect(finder, recorded[image][None, ..., ::-1], confidence=confidence)
    assert found.shape == recorded[name].shape
    np.testing.assert_allclose(found, recorded[name], atol=2e-3)


def test_several_images_at_once_are_seen_as_one_by_one(finder, recorded):
    images = np.stack([recorded["image_bgr"], recorded["image_bgr"][::-1], np.zeros_like(recorded["image_bgr"])])
    together = retinaface.detect(finder, images)
    for image, found in zip(images, together):
        (alone,) = retinaface.detect(finder, image[None])
        np.testing.assert_allclose(found, alone, atol=1e-3)


def test_suppression(golden_generation):
    data = golden_or_skip(golden_generation / "retinaface_nms.npz")
    boxes, scores = data["dets"][:, :4], data["dets"][:, 4]
    np.testing.assert_array_equal(retinaface.suppress(boxes, scores, 0.4), data["keep_04"])
    np.testing.assert_array_equal(retinaface.suppress(boxes, scores, 0.2), data["keep_02"])
    assert len(retinaface.suppress(np.zeros((0, 4)), np.zeros(0))) == 0


def test_names_are_the_published_ones(golden_generation, keys_folder):
    with torch.device("meta"):
        finder, parser = retinaface.RetinaFace(), parsenet.ParseNet()
    published = json.loads((golden_generation / "retinaface_keys.json").read_text())
    assert {key: list(value.shape) for key, value in finder.state_dict().items()} == published
    published = json.loads((keys_folder / "parsenet_keys.json").read_text())
    assert {key: list(value.shape) for key, value in parser.state_dict().items()} == published and len(published) == 238


def test_parts_of_a_face(golden_generation):
    data, faces = golden_or_skip(golden_generation / "parsenet.npz"), golden_or_skip(golden_generation / "face_paste.npz")
    net = rule_made("parsenet", parsenet.ParseNet())
    face = faces["restored_face_bgr"][..., ::-1]
    x = torch.from_numpy(face.transpose(2, 0, 1)[None].astype(np.float32)) / 255
    with torch.inference_mode():
        logits, picture = net((x - 0.5) / 0.5)
    np.testing.assert_allclose(logits[0, :, ::8, ::8], data["mask_logits_sub8"], atol=1e-3)
    np.testing.assert_allclose(picture[0, :, ::8, ::8], data["img_out_sub8"], atol=1e-3)
    assert (parsenet.labels(net, face[None])[0] == data["labels"]).mean() >= 0.9995
