"""Avatars and motions that cannot be used, as a person meets them: what was found, what was expected, what to do; never a traceback."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.spatial.transform import Rotation

from svad_ray import cli
from svad_ray.body.names import PARENTS
from svad_ray.deliver import danced
from svad_ray.errors import InputError
from svad_ray.motion import MOTIONS, blank_track, load_motion, save_track
from svad_ray.stages.avatar.asset import PosableAvatar
from svad_ray.store import load_avatar, save_avatar
from svad_ray.subject import Avatar

COUNT = 30


@pytest.fixture(scope="module")
def body(golden_body):
    return golden_body


@pytest.fixture
def avatar(body) -> Avatar:
    rng = np.random.default_rng(0)
    tensors = {
        "means": rng.normal(0, 0.3, (COUNT, 3)),
        "quats": Rotation.random(COUNT, random_state=0).as_quat(),
        "scales": rng.uniform(0.01, 0.02, (COUNT, 3)),
        "opacities": rng.uniform(0, 1, COUNT),
        "colors": rng.uniform(0, 1, (COUNT, 3)),
        "lbs_weights": rng.dirichlet(np.ones(4), COUNT),
        "rest_joints": body.joint_template.numpy(),
        "hands_mean": np.zeros((2, 45)),
        "expr_dirs": rng.normal(0, 0.01, (5, 3, 10)),
    }
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    tensors |= {"lbs_joints": rng.integers(0, 55, (COUNT, 4)).astype(np.uint8), "parents": np.asarray(PARENTS, np.int32)}
    tensors["expr_index"] = np.arange(5, dtype=np.int32)
    return Avatar("gaussian", tensors, replace(blank_track(np.zeros((1, 55, 3)), fps=25.0), body_id=body.id), {"provenance": {}})


@pytest.fixture
def folder(avatar, tmp_path):
    return save_avatar(avatar, tmp_path / "me" / "avatar")


def said_by(monkeypatch, capsys, *arguments: str) -> str:
    """What the command line prints before it ends with the exit code of unusable input."""
    monkeypatch.setattr(sys, "argv", ["svad-ray", *arguments])
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = "".join(capsys.readouterr())
    assert ended.value.code == 2 and "unexpected" not in said and "Try: " in said, said
    return said


def head(change):
    def edit(folder):
        values = json.loads((folder / "avatar.json").read_text())
        (folder / "avatar.json").write_text(json.dumps(change(values)))

    return edit


def half(folder):
    file = folder / "avatar.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def without(name):
    def edit(folder):
        arrays = {key: value.copy() for key, value in load_file(folder / "avatar.safetensors").items() if key != name}
        save_file(arrays, folder / "avatar.safetensors")

    return edit


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (half, ("cannot be read", "copy the avatar's folder again")),
        (lambda folder: (folder / "avatar.safetensors").write_bytes(b"\xff" * 999), ("cannot be read",)),
        (lambda folder: (folder / "avatar.safetensors").write_bytes(b""), ("cannot be read",)),
        (lambda folder: (folder / "avatar.json").write_text("{"), ("cannot be read",)),
        (lambda folder: (folder / "avatar.json").unlink(), ("there is no avatar", "svad-ray create")),
        (head(lambda values: [1]), ("describes no avatar",)),
        (head(lambda values: values | {"format": 2}), ("has format 2", "format 1", "update svad-ray")),
        (head(lambda values: values | {"format": 0}), ("has format 0", "version that made it")),
        (head(lambda values: {k: v for k, v in values.items() if k != "facts"}), ("not whole", "facts")),
        (head(lambda values: values | {"track": {}}), ("not whole",)),
        (without("track.betas"), ("not whole", "betas")),
    ],
)
@pytest.mark.parametrize("command", ["view", "animate"])
def test_damaged_folders(folder, monkeypatch, capsys, damage, words, command):
    damage(folder)
    said = said_by(monkeypatch, capsys, command, str(folder.parent))
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"means": None}, ("lacks means",)),
        ({"colors": np.zeros((3, 3), np.float32)}, ("colors (3, 3)",)),
        ({"opacities": np.full(COUNT, np.nan, np.float32)}, ("cannot be",)),
        ({"lbs_joints": np.full((COUNT, 4), 55, np.uint8)}, ("joints below 55",)),
        ({"expr_dirs": np.zeros((4, 3, 10), np.float32)}, ("expr_dirs (4, 3, 10)", "5 expr_index")),
        ({"expr_index": np.array([0, 1, 2, 3, COUNT], np.int32)}, ("cannot be",)),
    ],
)
def test_arrays_that_do_not_fit(avatar, tmp_path, change, words):
    tensors = {name: value for name, value in {**avatar.tensors, **change}.items() if value is not None}
    loaded = load_avatar(save_avatar(replace(avatar, tensors=tensors), tmp_path))
    with pytest.raises(InputError) as error:
        PosableAvatar(loaded)
    assert all(word in str(error.value) for word in words) and error.value.remedy


def test_an_avatar_of_another_body(avatar, body):
    stranger = replace(avatar, track=replace(avatar.track, body_id="0123456789ab"))
    with pytest.raises(InputError, match=r"belongs to body '0123456789ab'[\s\S]*--body FILE"):
        danced(stranger, "walk", body)


@pytest.mark.parametrize("size", [0, -5])
def test_a_camera_without_pixels(avatar, body, size):
    with pytest.raises(InputError, match=rf"{size} x {size} pixels[\s\S]*--size"):
        danced(avatar, "walk", body, size=size)


POSES, PATH = np.zeros((5, 165)), np.zeros((5, 3))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"poses": POSES, "trans": PATH[:4]}, ("5 poses", "(4, 3)")),
        ({"poses": POSES, "trans": PATH, "expression": np.zeros((4, 10))}, ("5 poses", "(4, 10)")),
        ({"poses": POSES, "trans": PATH, "expression": np.full((5, 10), np.nan)}, ("not finite",)),
        ({"poses": POSES + np.nan, "trans": PATH}, ("not finite", "cut out")),
        ({"poses": POSES[:0], "trans": PATH[:0]}, ("no frames",)),
        ({"poses": POSES[:, :60], "trans": PATH}, ("60 numbers a frame",)),
        ({"poses": np.full((5, 165), "x"), "trans": PATH}, ("holds no numbers",)),
        ({"poses": POSES, "trans": PATH, "fps": np.zeros(1)}, ("fps is 0.0",)),
        ({"body_pose": np.zeros((5, 63)), "left_hand_pose": np.zeros((4, 45))}, ("left_hand_pose", "5 frames")),
    ],
)
def test_foreign_motions(tmp_path, arrays, words):
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(InputError) as error:
        load_motion(tmp_path / "m.npz")
    assert all(word in str(error.value) for word in words) and error.value.remedy


def test_a_rate_in_an_array_of_one_is_a_rate(tmp_path):
    np.savez(tmp_path / "m.npz", poses=POSES, trans=PATH, fps=np.array([50.0]))
    assert load_motion(tmp_path / "m.npz").fps == 50


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transl": np.zeros((17, 3), np.float32)}, ("17 frames", "one row per frame")),
        ({"jaw_pose": np.full((20, 3), np.inf, np.float32)}, ("not finite",)),
        ({"svad_ray_track": np.int64(9)}, ("version 9", "update svad-ray")),
    ],
)
def test_own_tracks(tmp_path, change, words):
    save_track(MOTIONS["walk"](20), tmp_path / "ok.npz")
    np.savez(tmp_path / "m.npz", **{**np.load(tmp_path / "ok.npz"), **change})
    with pytest.raises(InputError) as error:
        load_motion(tmp_path / "m.npz")
    assert all(word in str(error.value) for word in words) and error.value.remedy


def test_a_file_that_is_no_motion(tmp_path):
    (tmp_path / "m.npz").write_text("hello")
    with pytest.raises(InputError, match="no zip archive") as error:
        load_motion(tmp_path / "m.npz")
    assert "pickle" not in str(error.value)
    shutil.rmtree(tmp_path)
    with pytest.raises(InputError, match="no motion"):
        load_motion(tmp_path / "m.npz")
