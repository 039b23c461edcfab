"""The avatar folder explains itself, stays small and comes back exactly."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from svad_ray.errors import InputError, StoreError
from svad_ray.store import load_avatar, save_avatar
from svad_ray.subject import Avatar


def avatar(track, count: int) -> Avatar:
    rng = np.random.default_rng(1)
    tensors = {
        name: rng.random((count, width), np.float32) for name, width in {"means": 3, "quats": 4, "scales": 3, "colors": 3, "lbs_weights": 6}.items()
    }
    tensors |= {"opacities": np.full(count, 0.95, np.float32), "lbs_joints": rng.integers(0, 55, (count, 6), np.uint8)}
    tensors |= {"expr_index": np.arange(count // 5, dtype=np.int32), "expr_dirs": rng.random((count // 5, 3, 10), np.float32)}
    return Avatar("gaussian", tensors, track(1, rng), {"seed": 0, "models": {"mediapipe": "0.10.21"}})


def test_round_trip_and_size(same, track, tmp_path):
    saved = avatar(track, 50_000)
    save_avatar(saved, tmp_path / "out" / "avatar")
    assert same(saved, load_avatar(tmp_path / "out" / "avatar"))
    assert same(saved, load_avatar(tmp_path / "out"))
    assert sum(f.stat().st_size for f in (tmp_path / "out" / "avatar").iterdir()) < 20e6


def test_description_agrees_with_the_arrays(track, tmp_path):
    save_avatar(avatar(track, 100), tmp_path)
    head = json.loads((tmp_path / "avatar.json").read_text())
    with safe_open(tmp_path / "avatar.safetensors", "np") as stored:
        assert set(stored.keys()) == set(head["tensors"])
        assert all(list(stored.get_slice(name).get_shape()) == entry["shape"] for name, entry in head["tensors"].items())
    assert head["tensors"]["means"]["meaning"]


def test_bad_folders_are_told_plainly(track, tmp_path):
    with pytest.raises(InputError, match="no avatar"):
        load_avatar(tmp_path)
    save_avatar(avatar(track, 10), tmp_path)
    (tmp_path / "avatar.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="cannot be read"):
        load_avatar(tmp_path)


def test_unwritable(track, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        save_avatar(avatar(track, 10), tmp_path / "file" / "avatar")
