"""The MusePose stage on tiny rule-made weights: from a photo to a clip, its report, and what is said when something is missing."""

import re

import numpy as np
import pytest
import torch

from svad_ray.config import load_settings
from svad_ray.errors import ConfigError, SvadError, WeightsMissing
from svad_ray.nets.musepose.tiny import write_tiny
from svad_ray.stages.animate.driven import blocks, face_crop, framed
from svad_ray.stages.animate.musepose import MusePoseAnimate

SMALL = ["animate.backend=musepose", "animate.frames=5", "animate.size=64", "animate.diffusion.steps=2", "animate.diffusion.window=4"]
SMALL += ["animate.diffusion.overlap=1", "animate.silhouette_iterations=4", "animate.clothe_iterations=4", "animate.keypoint_iterations=20"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def photo():
    from svad_ray import models
    from svad_ray.evaluate.synthetic.demo import demo_person
    from svad_ray.photo import decode_photo

    try:
        for name in ("makehuman", "mediapipe"):
            models.ensure(name)
        return decode_photo(demo_person(0).png, name="demo")
    except SvadError as error:
        pytest.skip(f"model packages cannot be had here: {error.found}")


def settings(weights, *more):
    return load_settings(sets=[*SMALL, f"animate.weights={weights}", *more])


@pytest.mark.models
@pytest.mark.slow
def test_from_photo_to_report(photo, weights, tmp_path):
    from svad_ray.deliver import deliver_clip

    made = deliver_clip(photo, tmp_path / "out", settings(weights))
    assert made.frames == 5 and (tmp_path / "out" / "clip.mp4").stat().st_size > 1000 and (tmp_path / "out" / "clip.png").exists()
    page = (tmp_path / "out" / "report.html").read_text()
    top = page[: page.index('<section class="pair">')]
    assert re.search(r"weights of animate \(musepose\) are not real", top)
    (tmp_path / "moved").symlink_to(weights)  # the same files elsewhere: nothing is made again
    before = sorted((tmp_path / "out" / "work" / "animate").iterdir())
    deliver_clip(photo, tmp_path / "out", settings(tmp_path / "moved"))
    assert sorted((tmp_path / "out" / "work" / "animate").iterdir()) == before
    other = write_tiny(tmp_path / "other")
    torch.save({k: v * 1.1 for k, v in torch.load(other / "MusePose/pose_guider.pth").items()}, other / "MusePose/pose_guider.pth")
    deliver_clip(photo, tmp_path / "out", settings(other))
    assert len(list((tmp_path / "out" / "work" / "animate").iterdir())) == len(before) + 1


@pytest.mark.slow
@pytest.mark.models
def test_one_frame_and_frames_nobody_is_found_in(photo, weights):
    from svad_ray.stages.perceive.embedded import MediaPipePerceive

    perceive = MediaPipePerceive()
    perceive.setup()
    stage = MusePoseAnimate(settings(weights, "animate.frames=1").animate)
    stage.setup()
    made = stage(photo, perceive(photo))
    assert made.clip.frames.shape == (1, 64, 64, 3) and made.clip.masks.shape == (1, 64, 64)
    assert "no person was found" in made.clip.remarks[0] and 0.05 < (made.clip.masks > 0).mean() < 0.6


def test_no_folder_names_every_file():
    with pytest.raises(WeightsMissing) as error:
        MusePoseAnimate(load_settings(sets=SMALL).animate).setup()
    for word in ("denoising_unet.pth", "motion_module.pth", "sd-vae-ft-mse/config.json", "animate.weights=FOLDER"):
        assert word in str(error.value)


def test_a_size_that_the_autoencoder_cannot_make(weights):
    with pytest.raises(ConfigError, match="multiples of 8"):
        MusePoseAnimate(settings(weights, "animate.size=100").animate).setup()
    with pytest.raises(ConfigError, match=r"animate.diffusion.window"):
        settings(weights, "animate.diffusion.window=129")


def test_the_photo_is_framed_as_the_driving_person():
    image = np.zeros((200, 120, 3), np.uint8)
    image[50:150, 40:80] = 255
    mask = (image[..., 0] > 0).astype(np.float32)
    square, transform = framed(image, mask, 128)
    rows, columns = np.flatnonzero((square[..., 0] > 127).any(1)), np.flatnonzero((square[..., 0] > 127).any(0))
    assert np.ptp(rows) + 1 == pytest.approx(128 * 0.88, abs=1) and rows[0] + rows[-1] + 1 == pytest.approx(128, abs=1)
    assert columns[0] + columns[-1] + 1 == pytest.approx(128, abs=1)
    np.testing.assert_allclose(transform @ [60, 100, 1], [64, 64])


def test_a_face_crop_holds_the_face():
    from dataclasses import make_dataclass

    square = np.zeros((128, 128, 3), np.uint8)
    square[20:40, 60:80] = 200
    seen = make_dataclass("Seen", ["face_mesh"])
    mesh = np.array([[x, y, 0.0] for x in (60, 80) for y in (20, 40)])
    crop = face_crop(square, seen(mesh), np.array([[1.0, 0, 0], [0, 1.0, 0]]), side=90)
    inside = crop[..., 0] > 100
    assert inside[45, 45] and inside.mean() == pytest.approx(0.36, abs=0.04)
    assert not face_crop(square, seen(None), np.eye(2, 3)).any()


def test_doctor_says_what_is_missing_and_how_much_memory(weights):
    from svad_ray.doctor import examine

    found = {f.subject: f for f in examine(settings(weights))}
    assert found["stage: animate"].state == "ok" and "NOT REAL" in found["stage: animate"].found
    assert re.search(r"about [\d.]+ GiB at 64 pixels, window 4, float32 \(denoiser 4.9", found["memory: musepose"].found)
    (weights / "MusePose" / "motion_module.pth").rename(weights / "away")
    try:
        assert "MusePose/motion_module.pth (the MusePose project)" in {f.subject: f for f in examine(settings(weights))}["stage: animate"].remedy
    finally:
        (weights / "away").rename(weights / "MusePose" / "motion_module.pth")


@pytest.mark.slow
@pytest.mark.models
def test_blocks_come_one_by_one_and_are_the_clip(photo, weights, monkeypatch):
    """A block's frames, masks and remarks do not depend on where the clip is cut."""
    from svad_ray.stages.animate import driven
    from svad_ray.stages.perceive.embedded import MediaPipePerceive

    perceive = MediaPipePerceive()
    perceive.setup()
    seen = perceive(photo)
    stage = MusePoseAnimate(settings(weights, "animate.diffusion.steps=1").animate)
    stage.setup()
    whole = stage(photo, seen).clip
    monkeypatch.setattr(driven, "BLOCK", 2)
    parts = [part.clip for part in stage.stream(photo, seen)]
    assert [(part.first, len(part)) for part in parts] == [(0, 2), (2, 2), (4, 1)]
    for part in parts:
        same = whole.slice(part.first, part.first + len(part))
        np.testing.assert_array_equal(part.frames, same.frames)
        np.testing.assert_array_equal(part.masks, same.masks)
        np.testing.assert_array_equal(part.track.Ks, same.track.Ks)
        assert part.remarks == same.remarks


def test_batches_of_any_size_become_blocks():
    frames = np.arange(11 * 3, dtype=np.uint8).reshape(11, 1, 1, 3)
    for cut in ([11], [1] * 11, [4, 4, 3], [5, 1, 5]):
        batches = iter(np.split(frames, np.cumsum(cut)[:-1]))
        got = list(blocks(batches, 4))
        assert [first for first, _ in got] == [0, 4, 8] and [len(block) for _, block in got] == [4, 4, 3]
        np.testing.assert_array_equal(np.concatenate([block for _, block in got]), frames)
    assert list(blocks(iter(()), 4)) == []
