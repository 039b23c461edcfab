"""The doctor names the packages beyond the core that the settings ask for, and asks for no others."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from svad_ray.config import load_settings
from svad_ray.doctor import examine


def extras(*sets):
    return {finding.subject: finding for finding in examine(load_settings(sets=sets)) if finding.subject.startswith("extra: ")}


def test_the_embedded_profile_needs_none():
    assert extras() == {}


@pytest.mark.parametrize(
    ("sets", "extra"),
    [
        (["perceive.backend=dwpose"], "onnx"),
        (["perceive.backend=mmpose"], "mmpose"),
        (["drift.measure=report"], "face"),
        (["identity.landmarks=dlib"], "face"),
        (["restore.backend=bfrffusion", "restore.faces.enlarger=realesrgan"], "realesrgan"),
    ],
)
def test_what_is_not_installed_is_named_with_its_command(monkeypatch, sets, extra):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in ("dlib", "mmpose", "onnxruntime", "realesrgan") else found(name, *rest)
    )
    (finding,) = extras(*sets).values()
    assert finding.subject == f"extra: {extra}" and finding.state == "missing" and f"pip install svad-ray[{extra}]" in finding.remedy


def test_what_is_installed_is_fine():
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed")
    assert extras("perceive.backend=dwpose")["extra: onnx"].state == "ok"


def findings(*sets, **options):
    return [finding for finding in examine(load_settings(sets=sets, **options)) if finding.subject.startswith(("files: ", "stage: ", "CUDA: "))]


def test_files_are_tried_before_the_first_second(tmp_path):
    from safetensors.torch import save_file

    shapes = json.loads((Path(__file__).parent / "golden/keys/parsenet_keys.json").read_text())
    hollow = {key: torch.zeros(1).expand(shape) if shape else torch.zeros(()) for key, shape in shapes.items()}
    torch.save(hollow, tmp_path / "parsing_parsenet.pth")
    sets = ("restore.backend=bfrffusion", f"restore.weights={tmp_path}")
    (fine,) = [f for f in findings(*sets) if f.subject == "files: restore"]
    assert fine.state == "ok" and fine.found.startswith("parsing_parsenet.pth: tensors as expected")
    hollow.pop("out_mask_conv.conv2d.weight")
    torch.save(hollow, tmp_path / "parsing_parsenet.pth")
    save_file({"another": torch.zeros(3)}, tmp_path / "RealESRGAN_x2plus.safetensors")
    _, *wrong = [f for f in findings(*sets) if f.subject == "files: restore"]
    said = " ".join(f.found for f in wrong)
    assert {f.state for f in wrong} == {"missing"} and "out_mask_conv.conv2d.weight" in said and "RRDBNet" in said
    assert all("--set restore.backend=realesrgan" in f.remedy for f in wrong)


def test_a_file_that_is_not_what_was_imported(tmp_path):
    from svad_ray.checkpoints.find import find
    from svad_ray.checkpoints.layout import lay_out

    (tmp_path / "in").mkdir()
    tensors = {"v_template": (5023, 3), "kintree_table": (2, 5)}
    np.savez(tmp_path / "in/FLAME_NEUTRAL.npz", **{name: np.zeros(shape) for name, shape in tensors.items()})
    np.save(tmp_path / "in/SMPL-X__FLAME_vertex_ids.npy", np.arange(5023))
    lay_out(find(tmp_path / "in"), tmp_path / "root")
    sets = ("fit.backend=smplx-exavatar", f"fit.weights={tmp_path / 'root/fit'}")
    assert "not what was imported" not in str(findings(*sets))
    np.save(tmp_path / "root/fit/SMPL-X__FLAME_vertex_ids.npy", np.arange(1, 5024))
    assert "SMPL-X__FLAME_vertex_ids.npy: it is not what was imported" in str(findings(*sets))


def test_a_body_is_tried(tmp_path):
    def body(path):
        (found,) = [f for f in examine(load_settings(sets=[f"animate.body={path}"])) if f.subject == "body"]
        return found

    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", v_template=np.zeros((3, 3)))
    assert body(tmp_path / "SMPLX_NEUTRAL.npz").state == "missing" and "lacks f, shapedirs" in body(tmp_path / "SMPLX_NEUTRAL.npz").found
    assert "there is no body file" in body(tmp_path / "none.npz").found
    assert "CC0" in next(f for f in examine(load_settings()) if f.subject == "body").found


def test_every_stage_says_its_terms_and_the_way_round():
    by_subject = {f.subject: f for f in findings(profile="paper")}
    assert "commercial use: no: FLAME" in by_subject["stage: identity"].found
    assert "GAGAvatar.pt (the GAGAvatar project)" in by_subject["stage: identity"].remedy
    assert "--set identity.backend=lifted-head" in by_subject["stage: identity"].remedy
    if not torch.cuda.is_available():
        assert "--set animate.backend=reprojection" in by_subject["CUDA: stages"].remedy
        assert not [f for f in findings() if f.subject == "CUDA: stages"]
