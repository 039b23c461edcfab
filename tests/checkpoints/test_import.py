"""Checkpoints are recognised by what they hold, wherever they lie, and laid out whole; nothing in them runs."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_trees import KEYS, hollow, save, write_flame
from typer.testing import CliRunner

from svad_ray.checkpoints.check import faults
from svad_ray.checkpoints.find import find, recognise
from svad_ray.checkpoints.layout import changed_since_import, lay_out, misnamed
from svad_ray.cli import app
from svad_ray.config import load_settings
from svad_ray.errors import InputError
from svad_ray.nets.headers import read_shapes

BUNDLE = {
    "animate/MusePose/denoising_unet.pth",
    "animate/MusePose/motion_module.pth",
    "animate/MusePose/pose_guider.pth",
    "animate/MusePose/reference_unet.pth",
    "animate/sd-image-variations-diffusers/unet/config.json",
    "animate/sd-image-variations-diffusers/unet/diffusion_pytorch_model.bin",
    "identity/GAGAvatar.pt",
    "perceive/dw-ll_ucoco_384.onnx",
    "perceive/yolox_l.onnx",
    "restore/RealESRGAN_x2plus.pth",
    "restore/checkpoint_BFRffusion_FFHQ.ckpt",
    "restore/detection_Resnet50_Final.pth",
    "restore/parsing_parsenet.pth",
}
EXAVATAR = {
    "body/SMPLX_NEUTRAL.npz",
    "fit/FLAME_NEUTRAL.pkl",
    "fit/SMPL-X__FLAME_vertex_ids.npy",
    "fit/deca_model.tar",
    "fit/smplx_flip_correspondences.npz",
    "fit/snapshot_6.pth.tar",
    "identity/FLAME_NEUTRAL.pkl",
}


def files_of(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_trees_are_laid_out_as_the_stages_load_them(bundle, exavatar, tmp_path):
    for tree in (bundle, exavatar):
        lay_out(find(tree), tmp_path)
    assert files_of(tmp_path) == BUNDLE | EXAVATAR | {"imported.json", "settings.yaml"}
    found = {stage: faults(tmp_path / stage) for stage in ("animate", "identity", "restore", "fit", "perceive")}
    wrong = {name: fault for stage in found.values() for name, fault in stage.items() if fault}
    assert wrong == {}
    assert {"checkpoint_BFRffusion_FFHQ.ckpt", "parsing_parsenet.pth", "detection_Resnet50_Final.pth", "RealESRGAN_x2plus.pth"} == found[
        "restore"
    ].keys()
    assert {"MusePose/denoising_unet.pth"} <= found["animate"].keys() and {"deca_model.tar", "snapshot_6.pth.tar"} <= found["fit"].keys()
    settings = load_settings(profile="paper", path=tmp_path / "settings.yaml")
    assert settings.animate.weights == str(tmp_path / "animate") and settings.fit.body == str(tmp_path / "body/SMPLX_NEUTRAL.npz")


def test_terms_are_told(exavatar, bundle):
    by_what = {one.what: one for tree in (bundle, exavatar) for one in find(tree)}
    assert by_what["ParseNet"].commercial and by_what["ParseNet"].licence == "MIT"
    assert not by_what["FLAME neutral"].commercial and not by_what["UNet of Stable Diffusion image variations"].commercial
    assert by_what["an avatar of ExAvatar"].targets == () and "not needed" in by_what["an avatar of ExAvatar"].reason
    assert by_what["FLAME of another kind"].targets == ()


def test_a_hub_cache_of_links_and_safetensors(tmp_path):
    from safetensors.torch import save_file

    blobs, snapshot = tmp_path / "hub/blobs", tmp_path / "hub/models--stabilityai--sd-vae-ft-mse/snapshots/1234"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    shapes = {"encoder.conv_in.weight": (8, 3, 3, 3), "decoder.conv_out.weight": (3, 8, 3, 3), "quant_conv.weight": (8, 8, 1, 1)}
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, blobs / "abc")
    (snapshot / "diffusion_pytorch_model.safetensors").symlink_to(blobs / "abc")
    (snapshot / "config.json").write_text("{}")
    lay_out(find(tmp_path / "hub"), tmp_path / "root", link=True)
    target = tmp_path / "root/animate/sd-vae-ft-mse/diffusion_pytorch_model.safetensors"
    assert target.is_symlink() and target.resolve() == blobs / "abc" and (target.parent / "config.json").exists()
    (snapshot / "config.json").unlink()
    (one,) = find(snapshot)
    assert one.targets == () and "config.json is not beside it" in one.reason


def test_a_pipeline_is_one_thing_and_its_index_comes_last(tmp_path):
    folder = tmp_path / "hub/wan"
    save({"a": torch.zeros(2)}, folder / "transformer/diffusion_pytorch_model.bin")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "WanAnimatePipeline"}))
    (folder / "run_me.py").write_text("raise SystemExit")
    (one,) = find(tmp_path / "hub")
    assert [place for _, place in one.targets] == ["wan-animate/transformer/diffusion_pytorch_model.bin", "wan-animate/model_index.json"]
    lay_out([one], tmp_path / "root")
    assert load_settings(path=tmp_path / "root/settings.yaml").animate.backend == "wan-animate"


def test_nothing_in_a_file_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    for name in ("a.pth", "b.pkl", "c.tar"):
        (tmp_path / name).write_bytes(pickle.dumps({"v_template": Evil(), "x": 1}))
    torch.save({"x": Evil()}, tmp_path / "d.pt")
    np.save(tmp_path / "e.npy", np.array({"a": Evil()}, object), allow_pickle=True)
    assert all(not one.what for one in find(tmp_path)) and not (tmp_path / "ran").exists()
    torch.load(tmp_path / "d.pt", weights_only=False)  # it would have run
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x80\x02}q", os.urandom(999)])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx", ".npz", ".npy", ".pkl"])
def test_damaged_files_are_unknown_and_said_so(tmp_path, suffix, content):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    one = recognise(path)
    assert one.what == "" and one.reason


def test_a_cut_off_safetensors_file_is_damaged(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(100)}, tmp_path / "a.safetensors")
    assert read_shapes(tmp_path / "a.safetensors") == {"a": (100,)}
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:-4])
    with pytest.raises(InputError, match=f"{len(whole) - 4} bytes instead of {len(whole)}"):
        read_shapes(tmp_path / "a.safetensors")


def test_what_only_names_tell_apart(bundle, tmp_path):
    reference = bundle / "MusePose/pretrained_weights/MusePose/reference_unet.pth"
    shutil.copy(reference, tmp_path / "net.pth")
    one = recognise(tmp_path / "net.pth")
    assert one.what == "" and "'reference_unet'" in one.reason and "'denoising_unet'" in one.reason
    motion = {f"down_blocks.0.motion_modules.0.temporal_transformer.{k}": hollow(s) for k, s in {"proj_in.weight": (320, 320)}.items()}
    table = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
    save(motion | {table: hollow((1, 128, 320))}, tmp_path / "of_musepose.pth")
    save(motion | {table: hollow((1, 32, 320))}, tmp_path / "of_another.pth")
    assert recognise(tmp_path / "of_musepose.pth").what == "MusePose motion modules"
    assert recognise(tmp_path / "of_another.pth").what == ""


def test_a_partial_network_is_recognised_and_found_out(tmp_path):
    shapes = json.loads((KEYS / "parsenet_keys.json").read_text())
    save({key: hollow(shape) for key, shape in shapes.items() if key != "encoder.1.conv1.conv2d.weight"}, tmp_path / "restore/parsing_parsenet.pth")
    assert recognise(tmp_path / "restore/parsing_parsenet.pth").what == "ParseNet"
    assert "encoder.1.conv1.conv2d.weight" in faults(tmp_path / "restore")["parsing_parsenet.pth"]


def test_again_it_does_what_is_left(exavatar, tmp_path):
    found = find(exavatar)
    states = [one.state for one in lay_out(found, tmp_path)]
    assert set(states) == {"copied"}
    assert {one.state for one in lay_out(found, tmp_path)} == {"there"}
    (tmp_path / "fit/deca_model.tar").unlink()
    (tmp_path / "fit/snapshot_6.pth.tar").write_bytes(b"mine")
    assert changed_since_import(tmp_path / "fit/snapshot_6.pth.tar") and not changed_since_import(tmp_path / "fit/FLAME_NEUTRAL.pkl")
    after = {one.place: one for one in lay_out(found, tmp_path)}
    assert after["fit/deca_model.tar"].state == "copied"
    assert after["fit/snapshot_6.pth.tar"].state == "kept" and (tmp_path / "fit/snapshot_6.pth.tar").read_bytes() == b"mine"


def test_an_interrupted_copy_leaves_nothing_half_written(exavatar, tmp_path):
    def stop(name, done):
        if name == "deca_model.tar":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lay_out(find(exavatar), tmp_path, progress=stop)
    left = files_of(tmp_path)
    assert left and "fit/deca_model.tar" not in left and not [name for name in left if Path(name).name.startswith(".")]
    lay_out(find(exavatar), tmp_path)
    assert files_of(tmp_path) == EXAVATAR | {"imported.json", "settings.yaml"}


def test_of_two_the_one_under_its_own_name(tmp_path):
    write_flame(tmp_path / "in/a/my_flame_neutral.pkl")
    write_flame(tmp_path / "in/b/FLAME_NEUTRAL.pkl")
    first, second = find(tmp_path / "in")
    assert first.targets == () and "b/FLAME_NEUTRAL.pkl is taken" in first.reason and second.targets


def test_weights_of_a_rule_stay_known_as_such(tmp_path):
    from svad_ray.models.brought import is_rule_made
    from svad_ray.nets.musepose.tiny import write_tiny

    folder = write_tiny(tmp_path / "in")
    laid = lay_out(find(folder), tmp_path / "root")
    assert is_rule_made(tmp_path / "root/animate") and {one.state for one in laid} == {"copied", "there"}
    assert sum(one.place.endswith("pose_guider.pth") for one in laid) == 1


def test_a_name_that_carries_its_hash(tmp_path):
    path = tmp_path / "rtmdet_m-00000000.pth"
    save({"bbox_head.rtm_cls.0.weight": hollow((1, 192, 1, 1))}, path)
    assert "00000000" in misnamed(path)
    (laid,) = lay_out(find(path), tmp_path / "root")
    assert laid.state == "damaged" and not (tmp_path / "root/perceive").exists()


def test_the_command(exavatar, tmp_path):
    def run(*words):
        return CliRunner().invoke(app, ["models", "import", *map(str, words)], env={"COLUMNS": "300"})

    told = run(exavatar, "--to", tmp_path / "root")
    assert told.exit_code == 0, told.output
    assert "snapshot_6.pth.tar" in told.output and "8 known" in told.output and "--profile paper --config" in told.output
    assert "(there)" in run(exavatar, "--to", tmp_path / "root").output
    assert run(exavatar, "--to", tmp_path / "dry", "--dry-run").exit_code == 0 and not (tmp_path / "dry").exists()
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", "--to", tmp_path / "root2").exit_code == 1
    with pytest.raises(InputError, match="there is no"):
        find(tmp_path / "nowhere")


def test_trees_that_cannot_be_walked(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    (tree / "locked").mkdir(parents=True)
    (tree / "round").symlink_to(tree)
    (tree / "dangling.pth").symlink_to("nowhere")
    os.mkfifo(tree / "pipe.pth")
    (tree / os.fsdecode(b"a\xff.pth")).write_bytes(b"x")
    torch.save({"some.weight": torch.zeros(3)}, tree / "stranger.pth")
    told = CliRunner().invoke(app, ["models", "import", str(tree), "--to", str(tmp_path / "root")], env={"COLUMNS": "300"})
    assert told.exit_code == 1 and "0 known, 2 unknown" in told.output and "some.weight" in told.output
    assert "weights_only" not in told.output and not (tmp_path / "root").exists()
    real = os.scandir

    def refused(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(InputError, match=r"locked cannot be listed: Permission denied"):
        find(tree)
