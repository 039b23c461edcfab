"""Checkpoints of training frameworks: the tensors are had, and nothing that lies beside them runs."""

import os
import pickle
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from svad_ray.errors import InputError, WeightsMissing
from svad_ray.nets.checkpoint import read_state
from svad_ray.nets.foreign import inert_globals

KEYS = Path(__file__).parents[1] / "golden" / "keys"


class Buffer:
    """A logger's history, as a framework keeps it in its checkpoints."""

    def __init__(self):
        self.values = np.arange(3.0)


class Slotted:
    __slots__ = ("kept",)

    def __init__(self):
        self.kept = np.float64(2)


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder, *, hidden):
        self.call = (shutil.copytree, (str(KEYS), str(folder))) if hidden else (os.mkdir, (str(folder),))

    def __reduce__(self):
        return self.call


def missing():
    return WeightsMissing("not there")


def checkpoint(**beside):
    state = OrderedDict({"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.float16)})
    return {"meta": {"epoch": 3, "sigmas": np.ones(4), "kind": np.dtype("f4"), **beside}, "state_dict": state, "message_hub": Buffer()}


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "legacy"])
def test_the_tensors_are_had(tmp_path, zipped):
    whole = checkpoint(rows=[Slotted(), {1, 2}], scalar=np.float32(2), object=np.array([None, "x"], object))
    torch.save(whole, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"net.pth cannot be read"):
        read_state(tmp_path / "net.pth", missing=missing, inside=("state_dict",))
    state = read_state(tmp_path / "net.pth", missing=missing, inside=("state_dict",), beside=True)
    assert state.keys() == whole["state_dict"].keys()
    for key, value in whole["state_dict"].items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "legacy"])
def test_nothing_runs(tmp_path, zipped, hidden):
    attack, made = Attack(tmp_path / "made", hidden=hidden), tmp_path / "made"
    torch.save(checkpoint(attack=attack), tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    if hidden:
        assert any(name == "shutil.copytree" for _, name in inert_globals(tmp_path / "net.pth"))
        assert read_state(tmp_path / "net.pth", missing=missing, inside=("state_dict",), beside=True).keys() == {"a.weight", "a.bias"}
    else:  # torch refuses any file that names the modules of the system
        with pytest.raises(InputError, match="cannot be read"):
            read_state(tmp_path / "net.pth", missing=missing, inside=("state_dict",), beside=True)
    assert not made.exists()
    pickle.loads(pickle.dumps(attack))
    assert made.exists(), "the attack itself works"


def test_what_stands_in_is_not_left_behind(tmp_path):
    torch.save(checkpoint(), tmp_path / "net.pth")
    before = set(torch.serialization.get_safe_globals())  # kept as a set, whose order is not promised
    read_state(tmp_path / "net.pth", missing=missing, inside=("state_dict",), beside=True)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "legacy"])
def test_damaged_files_are_named(tmp_path, zipped):
    path = tmp_path / "net.pth"
    torch.save(checkpoint(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no checkpoint", whole[:20]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"net\.pth"):
            read_state(path, missing=missing, inside=("state_dict",), beside=True)
