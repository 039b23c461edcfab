"""The paper's restore stage on rule-made weights: whatever is in the frames, as many come out as went in, and each says what happened to it."""

import shutil

import numpy as np
import pytest
import torch

from svad_ray.config import load_settings
from svad_ray.errors import InputError, WeightsMissing
from svad_ray.nets.bfrffusion import load
from svad_ray.nets.bfrffusion.networks import Options, restore
from svad_ray.nets.faces import parsenet, retinaface
from svad_ray.stages.restore.bfrffusion import BFRffusionRestore, crops_of
from svad_ray.subject import BodyTrack, Clip

SIZE = 96


def track(frames, size=SIZE):
    zeros = {name: np.zeros((frames, 3), np.float32) for name in ("global_orient", "jaw_pose", "leye_pose", "reye_pose", "transl")}
    pose = {"body_pose": np.zeros((frames, 21, 3), np.float32), "expression": np.zeros((frames, 10), np.float32)}
    pose |= {name: np.zeros((frames, 15, 3), np.float32) for name in ("left_hand_pose", "right_hand_pose")}
    Ks = np.tile(np.array([[100, 0, size / 2], [0, 100, size / 2], [0, 0, 1]], np.float32), (frames, 1, 1))
    cameras = {"viewmats": np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1)), "Ks": Ks, "image_size": (size, size), "fps": 25.0, "body_id": "none"}
    return BodyTrack(betas=np.zeros(10, np.float32), **zeros, **pose, **cameras)


def clip(images):
    images = np.stack(images)
    return Clip(images, np.full(images.shape[:3], 255, np.uint8), track(len(images)), ("",) * len(images), 0)


def noise(seed):
    return np.random.default_rng(seed).integers(0, 255, (SIZE, SIZE, 3), np.uint8)


def grey(value=128):
    return np.full((SIZE, SIZE, 3), value, np.uint8)


def made(weights, *more):
    sets = [
        "restore.backend=bfrffusion",
        f"restore.weights={weights}",
        "restore.scale=2",
        "restore.faces.steps=1",
        "restore.faces.background=lanczos",
    ]
    stage = BFRffusionRestore(load_settings(sets=[*sets, *more]).restore)
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def confidence(bfr_weights):
    """A bound that leaves one face in each of the first two frames of noise, at most (the rule's detector sees many)."""
    net = retinaface.load_retinaface(bfr_weights / retinaface.FILE)
    scores = [np.sort(rows[:, 4])[::-1] for rows in retinaface.detect(net, np.stack([noise(0), noise(1)]), confidence=0.5)]
    return float(max(found[1] for found in scores))


@pytest.fixture(scope="module")
def stage(bfr_weights, confidence):
    return made(bfr_weights, f"restore.faces.confidence={confidence}")


def faces_of(remark):
    return int(remark.split()[0]) if remark[:1].isdigit() else 0


def test_frames_in_are_frames_out_whatever_they_show(stage):
    images = [noise(0), grey(), noise(1), grey(0)]
    out = stage(clip(images))
    assert (
        out.frames.shape == (4, 2 * SIZE, 2 * SIZE, 3) and out.masks.shape == (4, 2 * SIZE, 2 * SIZE) and out.track.image_size == (2 * SIZE, 2 * SIZE)
    )
    assert all(out.remarks) and sum(map(faces_of, out.remarks)) >= 1
    np.testing.assert_allclose(out.track.Ks[:, :2], 2 * track(4).Ks[:, :2])
    for image, frame, remark in zip(images, out.frames, out.remarks):
        plain = stage.enlarge(image)
        assert (np.abs(frame.astype(int) - plain).max() > 0) == bool(faces_of(remark)), remark


FACE = np.array([[-20.0, -12], [20, -12], [0, 11], [-17, 28], [17, 28]]) / 75  # of a face one pixel wide, round its middle


@pytest.mark.slow
@pytest.mark.parametrize("paste", ["parse", "poisson"])
def test_two_faces_a_small_one_one_at_the_border_and_one_that_is_none(bfr_weights, paste):
    """Three of five come back restored where they were; the face of 6 pixels and the one whose points fall together are left alone and counted."""
    frame = noise(7)
    places = [(30, 30, 40), (70, 60, 16), (96, 90, 30), (20, 80, 6)]  # x, y, width
    points = [FACE * width + [x, y] for x, y, width in places] + [np.full((5, 2), 50.0)]
    found, remark = crops_of(frame, points)
    assert remark == "3 faces restored, 2 too small" and [one.crop.shape for one in found] == [(512, 512, 3)] * 3
    stage = made(bfr_weights, "restore.scale=1", f"restore.faces.paste={paste}")
    restored, good = stage._restore([one.crop for one in found])
    out, _ = stage._frame(frame, [(face, one.matrix, np.ones_like(weights)) for (face, weights), one in zip(restored, found)])
    assert good.all() and out.shape == frame.shape and np.isfinite(out).all()
    changed = np.abs(out.astype(int) - frame).max(2) > 8
    for x, y, width in places[:3]:
        assert changed[y - width // 4 : y + width // 4, max(0, x - width // 4) : x + width // 4].mean() > 0.3, (x, y)
    assert not changed[76:84, 14:26].any()


@pytest.mark.slow
def test_a_block_is_a_part_of_the_clip(stage):
    """Other batches round a little differently; nothing else may depend on the block."""
    whole = clip([noise(seed) for seed in range(3)])
    together = stage(whole)
    parts = [stage(whole.slice(0, 1)), stage(whole.slice(1, 3))]
    assert together.remarks == (*parts[0].remarks, *parts[1].remarks)
    assert np.abs(together.frames.astype(int) - np.concatenate([part.frames for part in parts])).max() <= 1


@pytest.mark.slow
def test_faces_together_are_faces_one_by_one(bfr_weights, stage, confidence):
    alone = made(bfr_weights, f"restore.faces.confidence={confidence}", "restore.faces.batch=1")
    images = clip([noise(0), noise(1)])
    assert np.abs(stage(images).frames.astype(int) - alone(images).frames).max() <= 1


@pytest.mark.slow
def test_gradients_are_another_paste(bfr_weights, stage, confidence):
    other = made(bfr_weights, f"restore.faces.confidence={confidence}", "restore.faces.paste=poisson")
    images = clip([noise(0), noise(1)])
    for parse, poisson, remark in zip(stage(images).frames, other(images).frames, other(images).remarks):
        assert (poisson != parse).any() != ("not cloned" in remark), remark


def test_the_seed_and_the_guidance_count(stage):
    """On a face of 64 pixels, which the networks take as well."""
    face = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
    plain = Options(steps=1, seed=42)
    first = restore(stage.networks, face, plain)[0]
    np.testing.assert_array_equal(first, restore(stage.networks, face, plain)[0])
    for changed in (Options(steps=1, seed=43), Options(steps=1, seed=42, guidance=3.0), Options(steps=2, seed=42)):
        assert (restore(stage.networks, face, changed)[0] != first).any(), changed


@pytest.mark.slow
def test_a_face_that_becomes_no_numbers_is_kept(bfr_weights, confidence):
    broken = made(bfr_weights, f"restore.faces.confidence={confidence}")
    broken.networks.vae.post_quant_conv.bias.data.fill_(float("nan"))
    images = clip([noise(0), noise(1)])
    out = broken(images)
    assert any("kept as they were: the network gave no numbers" in remark for remark in out.remarks)
    for image, frame in zip(images.frames, out.frames):
        np.testing.assert_array_equal(frame, broken.enlarge(image))


def test_half_precision_is_near(bfr_weights, stage, confidence):
    half = made(bfr_weights, f"restore.faces.confidence={confidence}", "restore.faces.dtype=bfloat16")
    assert half.networks.dtype == torch.bfloat16
    face = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
    whole, short = (restore(one.networks, face, Options(steps=1, seed=42))[0].astype(int) for one in (stage, half))
    assert 0 < np.abs(whole - short).mean() < 8


@pytest.mark.slow
@pytest.mark.models
def test_the_background_comes_from_the_package_or_from_the_file(bfr_weights, tmp_path):
    from rules import rule_made

    from svad_ray.errors import SvadError
    from svad_ray.nets.rrdbnet import RRDBNet

    image = clip([grey(90)])
    try:
        package = made(bfr_weights, "restore.faces.background=auto", "restore.faces.confidence=0.999")
    except SvadError as error:
        pytest.skip(f"the Real-ESRGAN package cannot be had: {error}")
    assert np.abs(package.enlarge(image.frames[0]).astype(int) - 90).max() < 12
    for path in bfr_weights.iterdir():
        shutil.copy(path, tmp_path)
    torch.save({"params_ema": rule_made("rrdb_x2_2blocks", RRDBNet(scale=2, blocks=2)).state_dict()}, tmp_path / "RealESRGAN_x2plus.pth")
    own = made(tmp_path, "restore.faces.background=auto")
    assert (own.enlarge(image.frames[0]) != package.enlarge(image.frames[0])).any() and own.enlarge(image.frames[0]).shape == (2 * SIZE, 2 * SIZE, 3)


def test_what_is_missing_or_torn_is_named(bfr_weights, tmp_path):
    with pytest.raises(WeightsMissing, match="no folder of checkpoints"):
        BFRffusionRestore(load_settings(sets=["restore.backend=bfrffusion"]).restore).setup()
    for path in bfr_weights.iterdir():
        shutil.copy(path, tmp_path)
    with pytest.raises(WeightsMissing, match=r"RealESRGAN_x2plus\.pth"):
        made(tmp_path, "restore.faces.background=x2plus")
    for name in (load.FILE, parsenet.FILE, retinaface.FILE):
        (tmp_path / name).write_bytes((bfr_weights / name).read_bytes()[:5000])
        with pytest.raises(InputError, match=f"{name}.* cannot be read"):
            made(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(WeightsMissing, match=name):
            made(tmp_path)
        shutil.copy(bfr_weights / name, tmp_path)


@pytest.mark.slow
def test_another_models_tensors_are_named(bfr_weights, bfr_state, tmp_path):
    for path in bfr_weights.iterdir():
        shutil.copy(path, tmp_path)
    one = next(iter(bfr_state))
    for state, says in (
        ({**bfr_state, "extra.weight": torch.zeros(1)}, "extra.weight"),
        ({key: value for key, value in bfr_state.items() if key != "control_model.down1.op.bias"}, "down1.op.bias"),
        ({key: value for key, value in bfr_state.items() if key != one}, "partial"),
        ({**bfr_state, "cond_stage_model.learnable_param": torch.zeros(77, 32)}, "another shape"),
    ):
        torch.save(state, tmp_path / load.FILE)
        with pytest.raises(InputError, match=says):
            made(tmp_path)
    shutil.copy(bfr_weights / parsenet.FILE, tmp_path / retinaface.FILE)
    with pytest.raises(InputError, match=r"detection_Resnet50_Final.pth is"):
        made(tmp_path)
