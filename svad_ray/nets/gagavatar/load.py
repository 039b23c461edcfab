"""``GAGAvatar.pt`` -> the network. Every tensor is expected by name and shape; nothing in the file is executed."""

from __future__ import annotations

from pathlib import Path

import torch

from svad_ray.errors import WeightsMissing
from svad_ray.models.brought import fingerprint, is_rule_made
from svad_ray.nets.checkpoint import fill, read_state
from svad_ray.nets.gagavatar.network import Facts, GAGAvatar
from svad_ray.nets.gagavatar.sizes import DinoSizes, Sizes

FILE = "GAGAvatar.pt"
_DROPPED = "percep_loss."  # networks of the training's losses
_DINO = "base_model.dino_model."


def load_gagavatar(path: str | Path, *, device: str = "cpu") -> GAGAvatar:
    """The network in float32, as it was trained and used.

    Args:
        path: The checkpoint, or the folder that holds ``GAGAvatar.pt``. It is ``{"meta_cfg": ..., "model": named tensors}``.

    Raises:
        WeightsMissing: It is not there.
        InputError: It is damaged, of another model, or lacks tensors; the message names them.
    """
    path = Path(path).expanduser()
    if path.is_dir() or not path.suffix:
        path = path / FILE
    state = read_state(path, missing=lambda: _missing(path), inside=("model",))
    state = {key: value for key, value in state.items() if not key.startswith(_DROPPED)}
    with torch.device("meta"):
        network = GAGAvatar(sizes_of(state))
    fill(network, state, path, what="GAGAvatar network")
    network.facts = Facts(is_rule_made(path.parent), fingerprint(path.parent), network.counted())
    return network.to(device).eval()


def sizes_of(state: dict[str, torch.Tensor]) -> Sizes:
    """Sizes from the shapes of a few tensors; the published ones where those are not there, so that ``fill`` names what is missing."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    plain, up = Sizes(), "upsampler."
    vertices, feature = _two(shapes.get("head_base"), (plain.vertices, plain.feature))
    a, b, c, d = (_at(shapes, f"base_model.projects.{i}.weight", 0, usual) for i, usual in enumerate(plain.levels))
    first = _at(shapes, f"{up}conv_body_first.weight", 0, plain.down[-1])
    steps = sum(f"{up}conv_body_down.{i}.conv2.weight" in shapes for i in range(16)) or len(plain.down) - 1
    widths = plain.down[::-1][1:]
    falling = [_at(shapes, f"{up}conv_body_down.{i}.conv2.weight", 0, widths[min(i, len(widths) - 1)]) for i in range(steps)]
    convs = [f"{up}stylegan_decoder.style_convs.{2 * i}.modulated_conv.weight" for i in range(steps)]
    later = [_at(shapes, key, 1, plain.decoder[min(i + 1, len(plain.decoder) - 1)]) for i, key in enumerate(convs)]
    decoder = (_at(shapes, f"{up}stylegan_decoder.style_conv1.modulated_conv.weight", 1, plain.decoder[0]), *later)
    style = _at(shapes, f"{up}final_linear.weight", 0, plain.style)
    return Sizes(_dino_sizes(shapes), (a, b, c, d), feature, vertices, 4 * 2**steps, (*falling[::-1], first), decoder, style)


def _dino_sizes(shapes: dict[str, tuple[int, ...]]) -> DinoSizes:
    """Heads follow from ViT-B's 64 channels a head."""
    plain = DinoSizes()
    dim, patch = (_at(shapes, f"{_DINO}patch_embed.proj.weight", axis, usual) for axis, usual in ((0, plain.dim), (3, plain.patch)))
    tokens = _at(shapes, f"{_DINO}pos_embed", 1, plain.side**2 + 1)
    depth = sum(f"{_DINO}blocks.{i}.norm1.weight" in shapes for i in range(64)) or plain.depth
    return DinoSizes(patch * round((tokens - 1) ** 0.5), patch, dim, max(1, dim // 64), depth)


def _at(shapes: dict[str, tuple[int, ...]], key: str, axis: int, usual: int) -> int:
    """One side of a tensor, or the usual one."""
    shape = shapes.get(key, ())
    return shape[axis] if len(shape) > axis else usual


def _two(shape: tuple[int, ...] | None, usual: tuple[int, int]) -> tuple[int, int]:
    return (shape[0], shape[1]) if shape is not None and len(shape) == 2 else usual


def _missing(path: Path) -> WeightsMissing:
    return WeightsMissing(
        f"the identity backend 'gagavatar' needs {path}, which is not there",
        expected=f"{FILE} from the GAGAvatar project, as its project states",
        remedy="put it there, or use the embedded backend: --set identity.backend=lifted-head",
    )
