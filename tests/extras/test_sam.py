"""Segment Anything on its package, with weights made by a rule: loading, batches, the recorded outputs, and the perceive stage's use of it."""

import json

import numpy as np
import pytest
import torch
from needed import needs

needs("segment_anything", extra="vision")

from rules import avatar_rule, golden_or_skip  # noqa: E402

from svad_ray.errors import InputError, WeightsMissing  # noqa: E402
from svad_ray.nets import sam as ours  # noqa: E402
from svad_ray.stages.perceive.embedded import MediaPipePerceive  # noqa: E402
from svad_ray.stages.perceive.sam import UNMASKED, UNPROMPTED, DWPoseSamPerceive  # noqa: E402

TINY = ours.SamSize("tiny.pth", 32, 1, 2, ())  # no block that sees the whole picture: those take seconds; the recorded outputs have them


def ruled(shapes):
    return {key: torch.from_numpy(np.asarray(avatar_rule(key, shape))) for key, shape in shapes.items()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The package's classes with a small image encoder."""
    folder = tmp_path_factory.mktemp("sam")
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in ours.build(TINY).state_dict().items()}
    torch.save(ruled(shapes), folder / TINY.file)
    patch = pytest.MonkeyPatch()
    patch.setitem(ours.SIZES, "tiny", TINY)
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(2)
    frames = [rng.integers(0, 256, (96, 64, 3), dtype=np.uint8), np.zeros((96, 64, 3), np.uint8)]
    prompts = [ours.prompt(rng.uniform(10, 60, (133, 2)), np.ones(133), height=96, width=64) for _ in frames]
    return frames, prompts


def test_batch_equals_loop(tiny, scene):
    frames, prompts = scene
    both, one = ours.load_sam(tiny, "tiny", batch=2), ours.load_sam(tiny, "tiny")
    found = both([*frames, frames[0]], [*prompts, None])
    for mask, frame, wanted in zip(found, frames, prompts):
        assert mask.shape == (96, 64) and (mask != one([frame], [wanted])[0]).mean() <= 1e-3
    assert found[0].any() and not found[2].any()


def test_stage_marks_or_says_why_not(tiny, scene):
    frames, _ = scene
    stage = DWPoseSamPerceive()
    stage.sam, stage.depth = ours.load_sam(tiny, "tiny"), None
    nobody = MediaPipePerceive._nobody(96, 64)
    points = np.random.default_rng(4).uniform(10, 60, (133, 2)).astype(np.float32)
    from dataclasses import replace

    somebody = replace(nobody, keypoints=points, scores=np.ones(133, np.float32), people=1, person_score=0.9)
    unsure = replace(somebody, scores=np.full(133, 0.3, np.float32))
    marked, lost, none = stage.refined([frames[0]] * 3, [somebody, unsure, nobody])
    assert marked.people == 1 and set(np.unique(marked.mask)) <= {0.0, 1.0} and marked.mask.any()
    assert lost.people == 0 and lost.person_score == 0 and lost.warnings == (UNPROMPTED,)
    assert none is nobody
    stage.sam.model.mask_threshold = 1e9
    assert stage.refined([frames[0]], [somebody])[0].warnings == (UNMASKED,)


def test_faults_are_named(tiny, tmp_path):
    with pytest.raises(WeightsMissing, match=r"sam_vit_h_4b8939.pth[\s\S]*perceive.sam=b"):
        ours.load_sam(tmp_path)
    whole = (tiny / TINY.file).read_bytes()
    path = tmp_path / TINY.file
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        ours.load_sam(tmp_path, "tiny")
    state = torch.load(tiny / TINY.file, weights_only=True)
    torch.save({key: value for key, value in state.items() if key != "mask_decoder.mask_tokens.weight"}, path)
    with pytest.raises(InputError, match=r"partial: 1 of .*mask_tokens"):
        ours.load_sam(tmp_path, "tiny")
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}, tmp_path / ours.SIZES["h"].file)
    with pytest.raises(InputError, match="network of size 'b'"):
        ours.load_sam(tmp_path)


@pytest.mark.slow
def test_equals_the_recorded_outputs(golden_avatar, tmp_path):
    with golden_or_skip(golden_avatar / "item6_sam_vitb.npz") as file:
        data = {key: file[key] for key in file.files}
    with golden_or_skip(golden_avatar / "item4_fitting.npz") as file:
        image = file["in_frames_rgb"][0]
    torch.save(ruled(json.loads(str(data["keys_json"]))), tmp_path / ours.SIZES["b"].file)
    sam, wanted = ours.load_sam(tmp_path, "b"), ours.Prompt(data["in_points"], data["in_box_xyxy"])
    embedding = sam.embed([image])[0]
    close(embedding.mean((1, 2)), data["embedding_ch_mean"])
    height, width = image.shape[:2]
    first, quality = sam.logits(embedding, wanted, height, width)
    close(first[0], data["pass1_lowres"])
    close(quality[0], data["pass1_iou"])
    second, quality = sam.logits(embedding, wanted, height, width, before=first)
    close(second[0], data["pass2_lowres"])
    close(quality[0], data["pass2_iou"])
    assert (sam.mask(embedding, wanted, height, width) == data["final_mask"]).mean() >= 0.999


def close(found, wanted):
    off = np.abs(found.numpy() - wanted).max() / np.abs(wanted).max()
    print(f"sam: {off:.1e} off")
    assert off <= 1e-4
