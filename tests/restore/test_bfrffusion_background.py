"""The frame is enlarged by our code or by the package ``realesrgan``, with the same result."""

import importlib.util

import numpy as np
import pytest
import torch
from rules import rule_made

from svad_ray.config import load_settings
from svad_ray.errors import BackendUnavailable
from svad_ray.nets.rrdbnet import RRDBNet
from svad_ray.nets.upscale import enlarge
from svad_ray.stages.restore.bfrffusion import X2PLUS, background

FRAME = np.random.default_rng(0).integers(0, 255, (40, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def net():
    return rule_made("rrdb_x2_2blocks", RRDBNet(scale=2, blocks=2))


@pytest.fixture
def folder(net, tmp_path):
    torch.save({"params": RRDBNet(scale=2, blocks=2).state_dict(), "params_ema": net.state_dict()}, tmp_path / X2PLUS)
    return tmp_path


def configured(folder, *more):
    sets = [f"restore.weights={folder}", "restore.faces.background=x2plus", "restore.faces.tile=16", *more]
    return background(load_settings(sets=sets).restore, device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_averaged_weights_of_the_file_enlarge_by_the_scale(net, folder, scale):
    out = configured(folder, f"restore.scale={scale}")(FRAME)
    assert out.shape == (40 * scale, 32 * scale, 3)
    np.testing.assert_array_equal(out, enlarge(net, FRAME, tile=16, batch=4, outscale=scale))


def test_the_package_gives_the_same_or_is_named_as_missing(folder):
    sets = ("restore.scale=2", "restore.faces.enlarger=realesrgan")
    if importlib.util.find_spec("realesrgan") is None:
        with pytest.raises(BackendUnavailable, match="not installed"):
            configured(folder, *sets)
        return
    assert np.abs(configured(folder, *sets)(FRAME).astype(int) - configured(folder, "restore.scale=2")(FRAME)).max() <= 1
