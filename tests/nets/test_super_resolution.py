"""RRDBNet, SRVGGNetCompact and the tiled procedure against recorded outputs of the official classes."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rules import golden_or_skip, rule_tensor
from torch import nn

from svad_ray.errors import InputError, WeightsMissing
from svad_ray.nets.ncnn import FLAG_FLOAT16, FLAG_FLOAT32, read_ncnn
from svad_ray.nets.rrdbnet import RRDBNet, conv_names, load_rrdbnet, load_rrdbnet_ncnn, rrdbnet_from_state
from svad_ray.nets.srvgg import SRVGGNetCompact, load_srvgg_ncnn, srvgg_from_state
from svad_ray.nets.upscale import enlarge, forward_tiled

RRDB = {"rrdb_x1_2blocks": (1, 2), "rrdb_x2_2blocks": (2, 2), "rrdb_x4_2blocks": (4, 2), "rrdb_x2_23blocks": (2, 23), "rrdb_x4_23blocks": (4, 23)}
SRVGG = {
    "srvgg_general_x4v3": {"scale": 4, "features": 64, "convs": 32, "activation": "prelu"},
    "srvgg_small_x2_leaky": {"scale": 2, "features": 32, "convs": 4, "activation": "leakyrelu"},
    "srvgg_small_x4_relu": {"scale": 4, "features": 32, "convs": 4, "activation": "relu"},
}


def fill(net: nn.Module, name: str, factors=lambda key, shape: 1.0) -> nn.Module:
    state = {key: torch.from_numpy(rule_tensor(name, key, t.shape, factors(key, t.shape))) for key, t in net.state_dict().items()}
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def amplified(name: str, scale: int) -> RRDBNet:
    """The 2-block networks of the procedure's recording: stronger body, output in [0, 1]."""

    def factor(key: str, shape) -> float:
        if key == "conv_last.weight":
            return 0.2
        return 2.0 if key.startswith("body.") and key.endswith("weight") else 1.0

    net = fill(RRDBNet(scale=scale, blocks=2), name, factor)
    net.conv_last.bias.data = torch.tensor([0.5, 0.45, 0.55])
    return net


@pytest.mark.parametrize("name", RRDB)
def test_rrdbnet_equals_the_official_class(golden_generation, name):
    golden = np.load(golden_generation / "rrdbnet.npz")
    scale, blocks = RRDB[name]
    net = fill(RRDBNet(scale=scale, blocks=blocks), name)
    with torch.inference_mode():
        out = net(torch.from_numpy(golden["x"])).numpy()
    expected = golden[name.removeprefix("rrdb_")]
    assert out.shape == expected.shape
    assert np.abs(out - expected).max() < 1e-4


@pytest.mark.parametrize("name", SRVGG)
def test_srvgg_equals_the_official_class(golden_generation, name):
    golden = np.load(golden_generation / "srvgg.npz")
    net = fill(SRVGGNetCompact(**SRVGG[name]), name, lambda key, shape: 0.25 if len(shape) == 1 and key.endswith("weight") else 1.0)
    with torch.inference_mode():
        out = net(torch.from_numpy(golden["x"])).numpy()
    assert np.abs(out - golden[name]).max() < 1e-4


@pytest.fixture(scope="module")
def procedure(golden_generation):
    """Recordings of the official procedure: all of them, or the part that is kept here."""
    whole = golden_generation / "realesrganer.npz"
    return golden_or_skip(whole if whole.exists() else golden_generation / "realesrganer_part.npz")


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("batch", [1, 3])
def test_tiled_procedure_equals_the_official_one(procedure, scale, batch):
    net = amplified(f"rrdb_x{scale}_2blocks", scale)
    odd = procedure["odd_bgr"][..., ::-1]
    for key, tile in ((f"x{scale}_odd_tile32_pad10", 32), (f"x{scale}_odd_untiled", 0)):
        out = enlarge(net, odd, tile=tile, batch=batch)[..., ::-1]
        assert np.abs(out.astype(int) - procedure[key]).max() <= 1, key


def test_tiles_in_float_equal_the_official_ones(procedure):
    net = amplified("rrdb_x4_2blocks", 4)
    x = torch.from_numpy(procedure["image_bgr"][..., ::-1].transpose(2, 0, 1).copy())[None].float() / 255
    for key, tile in (("x4_tile32_pad10_float_chw_rgb", 32), ("x4_untiled_float_chw_rgb", 0)):
        out = forward_tiled(net, x, tile=tile, batch=4)[0, :, 100:140, 100:140].numpy()
        assert np.abs(out - procedure[key][:, :40, :40]).max() < 1e-5, key


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(("tile", "pre_pad", "outscale"), [(0, 0, None), (32, 0, None), (32, 10, None), (0, 10, None), (0, 0, 2), (0, 0, 3)])
def test_pre_pad_and_another_factor_equal_the_official_ones(procedure, scale, tile, pre_pad, outscale):
    name = f"x{scale}_outscale{outscale}" if outscale else f"x{scale}_{'tile32_pad10' if tile else 'untiled'}{'_prepad10' if pre_pad else ''}"
    if name not in procedure:
        pytest.skip(f"{name} is not in the part that is kept here; set SVAD_GOLDEN to a folder that has all")
    net, image = amplified(f"rrdb_x{scale}_2blocks", scale), procedure["image_bgr"][..., ::-1]
    out = enlarge(net, image, tile=tile, pre_pad=pre_pad, outscale=outscale, batch=4)[..., ::-1]
    assert np.abs(out.astype(int) - procedure[name]).max() <= (2 if outscale else 1)


def test_tiles_equal_the_whole_where_the_margin_covers_the_receptive_field():
    net = fill(SRVGGNetCompact(scale=2, features=8, convs=3), "halo")
    x = torch.rand(1, 3, 37, 41, generator=torch.Generator().manual_seed(0))
    whole = forward_tiled(net, x)
    torch.testing.assert_close(forward_tiled(net, x, tile=16, tile_pad=5), whole, atol=1e-6, rtol=0)
    assert (forward_tiled(net, x, tile=16, tile_pad=2) - whole).abs().max() > 1e-5


@settings(max_examples=20, deadline=None)
@given(scale=st.sampled_from([1, 2, 4]), blocks=st.integers(1, 3), features=st.integers(2, 9), grow=st.integers(1, 5))
def test_sizes_of_an_rrdbnet_are_read_off_its_weights(scale, blocks, features, grow):
    net = RRDBNet(scale=scale, blocks=blocks, features=features, grow=grow)
    twin = rrdbnet_from_state(net.state_dict())
    assert (twin.scale, len(twin.body), twin.conv_first.out_channels, twin.body[0].rdb1.conv1.out_channels) == (scale, blocks, features, grow)


def test_foreign_or_incomplete_weights_are_refused():
    state = RRDBNet(blocks=1, features=4, grow=2).state_dict()
    state.pop("conv_hr.bias")
    with pytest.raises(InputError, match=r"conv_hr\.bias"):
        rrdbnet_from_state(state)
    with pytest.raises(InputError, match="RRDBNet"):
        rrdbnet_from_state({"layer.weight": torch.zeros(3)})
    with pytest.raises(InputError, match="SRVGGNetCompact"):
        srvgg_from_state({"body.0.weight": torch.zeros(4, 3, 3, 3)})


def write_ncnn(folder: Path, layers: list[tuple[str, np.ndarray, np.ndarray | None]], *, half: bool) -> tuple[Path, Path]:
    """An ncnn pair written from the format's description."""
    lines, blob = ["7767517", f"{len(layers) + 1} {len(layers) + 1}", "Input in 0 1 data"], b""
    for i, (kind, weight, bias) in enumerate(layers):
        if kind == "PReLU":
            lines.append(f"PReLU p{i} 1 1 a{i} a{i + 1} 0={weight.size}")
            blob += weight.astype("<f4").tobytes()
            continue
        lines.append(f"Convolution c{i} 1 1 a{i} a{i + 1} 0={weight.shape[0]} 1={weight.shape[2]} 4=1 5=1 6={weight.size}")
        raw = weight.astype("<f2" if half else "<f4").tobytes()
        blob += struct.pack("<I", FLAG_FLOAT16 if half else FLAG_FLOAT32) + raw + b"\0" * (-len(raw) % 4) + bias.astype("<f4").tobytes()
    param, binary = folder / "net.param", folder / "net.bin"
    param.write_text("\n".join(lines) + "\n")
    binary.write_bytes(blob)
    return param, binary


@pytest.mark.parametrize("half", [False, True])
def test_ncnn_round_trip_of_a_compact_net(tmp_path, half):
    net = fill(SRVGGNetCompact(scale=2, features=5, convs=2), "ncnn")
    layers = [("PReLU" if m.weight.ndim == 1 else "Convolution", m.weight.numpy(), getattr(m, "bias", None)) for m in net.body]
    param, binary = write_ncnn(tmp_path, [(k, w, None if b is None else b.numpy()) for k, w, b in layers], half=half)
    twin = load_srvgg_ncnn(param, binary)
    for (key, mine), theirs in zip(twin.state_dict().items(), net.state_dict().values(), strict=True):
        stored = theirs.half().float() if half and mine.ndim == 4 else theirs
        assert torch.equal(mine, stored), key


def test_ncnn_round_trip_of_an_rrdbnet_has_an_odd_half_count(tmp_path):
    net = fill(RRDBNet(blocks=1, features=3, grow=1), "ncnn")
    state = net.state_dict()
    layers = [("Convolution", state[f"{n}.weight"].numpy(), state[f"{n}.bias"].numpy()) for n in conv_names(1)]
    assert any(w.size % 2 for _, w, _ in layers)  # the padding to four bytes is exercised
    twin = load_rrdbnet_ncnn(*write_ncnn(tmp_path, layers, half=True))
    assert twin.scale == 4
    assert all(torch.equal(twin.state_dict()[k], v.half().float() if v.ndim == 4 else v) for k, v in state.items())


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda p, b: b.write_bytes(b.read_bytes()[:-4]), "ends at byte"),
        (lambda p, b: b.write_bytes(b.read_bytes() + b"\0\0\0\0"), "accounts for"),
        (lambda p, b: b.write_bytes(struct.pack("<I", 0x000D4B38) + b.read_bytes()[4:]), "0x000D4B38"),
        (lambda p, b: p.write_text("hello\n"), "does not begin"),
        (lambda p, b: p.write_text(p.read_text() + "InnerProduct x 1 1 a b 0=3\n"), "InnerProduct"),
    ],
)
def test_broken_ncnn_files_are_refused_in_words(tmp_path, spoil, message):
    weight = np.ones((2, 3, 3, 3), np.float32)
    param, binary = write_ncnn(tmp_path, [("Convolution", weight, np.zeros(2, np.float32))], half=True)
    spoil(param, binary)
    with pytest.raises(InputError, match=message):
        read_ncnn(param, binary)


@pytest.mark.models
def test_the_packaged_realesrgan_weights_load_completely(realesrgan_folder):
    big = load_rrdbnet_ncnn(next(realesrgan_folder.rglob("realesrgan-x4plus.param")), next(realesrgan_folder.rglob("realesrgan-x4plus.bin")))
    small = load_srvgg_ncnn(next(realesrgan_folder.rglob("*animevideov3-x4.param")), next(realesrgan_folder.rglob("*animevideov3-x4.bin")))
    assert sum(p.numel() for p in big.parameters()) == 16_697_987
    assert sum(p.numel() for p in small.parameters()) == 621_424
    # A smooth image must come back as the same ramps, four times larger (the networks add some contrast). A shifted file would give noise,
    # and a wrong channel order a picture nearer to the reversed one.
    ramp = np.stack(np.meshgrid(np.linspace(40, 200, 24), np.linspace(60, 180, 24)), -1)
    image = np.dstack([ramp, np.full((24, 24), 120.0)]).astype(np.uint8)
    for net in (big, small):
        out = enlarge(net, image).astype(float)
        back = out.reshape(24, 4, 24, 4, 3).mean((1, 3))
        assert min(np.corrcoef(back[..., c].ravel(), image[..., c].ravel())[0, 1] for c in (0, 1)) > 0.98
        assert np.abs(back - image).mean() < np.abs(back[..., ::-1] - image).mean() / 3


def test_tiles_together_are_tiles_one_by_one():
    net = amplified("rrdb_x2_2blocks", 2)
    images = torch.rand(2, 3, 50, 38, generator=torch.Generator().manual_seed(0))
    serial = torch.cat([forward_tiled(net, image[None], tile=16, tile_pad=4) for image in images])
    torch.testing.assert_close(forward_tiled(net, images, tile=16, tile_pad=4, batch=5), serial, atol=1e-5, rtol=0)


def test_an_official_file_is_read(tmp_path):
    """Averaged parameters first; another network, a torn file and no file are named."""
    net = amplified("rrdb_x2_2blocks", 2)
    worse = {key: torch.zeros_like(value) for key, value in net.state_dict().items()}
    torch.save({"params": worse, "params_ema": net.state_dict()}, tmp_path / "x2.pth")
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    def missing():
        return WeightsMissing("no file")

    torch.testing.assert_close(load_rrdbnet(tmp_path / "x2.pth", missing=missing)(x), net(x))
    torch.save({"params_ema": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    (tmp_path / "torn.pth").write_bytes((tmp_path / "x2.pth").read_bytes()[:1000])
    for name, kind, says in (
        ("other", InputError, "do not belong to an RRDBNet"),
        ("torn", InputError, "cannot be read"),
        ("none", WeightsMissing, "no file"),
    ):
        with pytest.raises(kind, match=says):
            load_rrdbnet(tmp_path / f"{name}.pth", missing=missing)
