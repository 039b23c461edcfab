"""Would the stages take these files? Every tensor is expected by name and shape, by the stages' own loaders, and none of them is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from svad_ray.checkpoints.known import KNOWN, X2PLUS
from svad_ray.errors import BackendUnavailable, InputError, WeightsMissing
from svad_ray.fitting.paper import companions
from svad_ray.nets import deca, hand4whole
from svad_ray.nets.checkpoint import headers_only
from svad_ray.nets.depth_anything import SIZES as DEPTHS
from svad_ray.nets.headers import read_shapes
from svad_ray.nets.sam import SIZES as SAMS

_MUSEPOSE = "MusePose/denoising_unet.pth"


def faults(folder: str | Path) -> dict[str, str]:
    """File -> what is wrong with it, of every file of a stage's folder that is known here; "" when it is sound.

    A file that cannot be checked, because a package is not installed, is not among them.
    """
    root, loaders, out = Path(folder), _loaders(), {}
    for name, load in loaders.items():
        if (root / name).exists() or (root / name).with_suffix(".safetensors").exists():
            try:
                with headers_only():
                    load(root)
                out[name] = ""
            except BackendUnavailable:
                continue
            except (InputError, WeightsMissing) as error:
                out[name] = error.found
    return out | _by_shapes(root, loaders)


def _by_shapes(root: Path, loaders: Mapping[str, object]) -> dict[str, str]:
    """Files that no loader of this project reads by itself: do they hold what they are called?"""
    out = {}
    for known in KNOWN:
        for name in {place.partition("/")[2] for place in known.places} - loaders.keys():
            path = root / name
            if path.is_file():
                try:
                    out[name] = "" if known.fits(read_shapes(path)) else f"{path} is not {known.what}"
                except InputError as error:
                    out[name] = error.found
    return out


def _loaders() -> dict[str, Callable[[Path], object]]:
    from svad_ray.body.flame import load_flame
    from svad_ray.nets.bfrffusion import load as bfr
    from svad_ray.nets.depth_anything import load_depth
    from svad_ray.nets.faces import parsenet, retinaface
    from svad_ray.nets.gagavatar.load import FILE, load_gagavatar
    from svad_ray.nets.musepose.load import load_own, read_sizes
    from svad_ray.nets.sam import load_sam

    return {
        **{size.file: partial(load_sam, size=key, device="meta") for key, size in SAMS.items()},
        **{size.file: partial(load_depth, size=key, device="meta") for key, size in DEPTHS.items()},
        _MUSEPOSE: lambda root: load_own(root, read_sizes(root)),
        FILE: lambda root: load_gagavatar(root, device="meta"),
        "FLAME_NEUTRAL.pkl": load_flame,
        bfr.FILE: lambda root: bfr.load_networks(root, device="meta"),
        retinaface.FILE: lambda root: retinaface.load_retinaface(root / retinaface.FILE, device="meta"),
        parsenet.FILE: lambda root: parsenet.load_parsenet(root / parsenet.FILE, device="meta"),
        X2PLUS: _load_x2plus,
        deca.FILE: deca.load_deca,
        hand4whole.FILE: hand4whole.load_hand4whole,
        companions.HEAD_FILE: companions.load_companions,
    }


def _load_x2plus(root: Path) -> None:
    import torch

    from svad_ray.nets.rrdbnet import load_rrdbnet

    with torch.device("meta"):
        load_rrdbnet(root / X2PLUS, missing=lambda: WeightsMissing(f"there is no {root / X2PLUS}"))
