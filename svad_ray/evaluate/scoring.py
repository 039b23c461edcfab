"""One picture against its truth: every chosen measure, and the record that says how it was taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from svad_ray.conventions import to_float
from svad_ray.errors import ConfigError, InputError
from svad_ray.evaluate.metrics import psnr, silhouette_iou, ssim

METRICS = ("psnr", "ssim", "lpips_alex", "lpips_vgg", "clip", "semantic_cosine", "identity", "iou")
DEFAULT = ("psnr", "ssim", "lpips_alex", "iou")
SMALLER_IS_BETTER = frozenset({"lpips_alex", "lpips_vgg", "identity", "flicker", "joints_mm"})
LIMITS = {"psnr": float("inf"), "ssim": 1.0, "lpips_alex": 0.0, "lpips_vgg": 0.0, "clip": 1.0, "semantic_cosine": 1.0, "identity": 0.0, "iou": 1.0}
"""What equal pictures give."""
SSIM_SAYS = "11 x 11 Gaussian, sigma 1.5, range 1, windows inside the picture"
MASK_MODES = ("none", "truth", "own", "union")
Distance = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Protocol:
    """How figures were taken; written with every row, so that no figure travels without it.

    Attributes:
        name, version: Which protocol; the version rises when the same pictures would give other figures.
        height, width: Of the pictures that were compared, pixels.
        background: What lies behind the person: "white", "black", "as given".
        mask_mode: Which mask cuts the person out first: "none"; "truth": the true one in both pictures, which forgives a wrong outline (ExAvatar);
            "own": each picture its own; "union": both pictures by either mask.
        crop: "none", or "person": the true person's box with a tenth round it.
        ssim: Convention. lpips_alex, lpips_vgg, clip, semantic_cosine, identity: The network of each, "" where it was not measured.
        poses: How test poses came about; in particular whether they were refined on the test pictures.
        placement: How the avatar was put before the true camera.
        photo: What the avatar was made from.
    """

    name: str
    version: int = 1
    height: int = 0
    width: int = 0
    background: str = "white"
    mask_mode: str = "none"
    crop: str = "none"
    ssim: str = SSIM_SAYS
    lpips_alex: str = ""
    lpips_vgg: str = ""
    clip: str = ""
    semantic_cosine: str = ""
    identity: str = ""
    poses: str = "not refined"
    placement: str = ""
    photo: str = ""

    def columns(self) -> dict[str, Any]:
        """Flat, for a row: ``protocol.<field>``."""
        return {f"protocol.{name}": value for name, value in asdict(self).items()}

    @classmethod
    def of_columns(cls, row: dict[str, Any]) -> Protocol:
        """The record that a row carries."""
        return cls(**{f.name: row[f"protocol.{f.name}"] for f in fields(cls)})

    def sentences(self) -> tuple[str, ...]:
        """For a person, under a table."""
        masks = {
            "none": "whole pictures as they are",
            "truth": "both pictures cut out by the true mask, which forgives a wrong outline",
            "own": "each picture cut out by its own mask",
            "union": "both pictures cut out by the union of the masks",
        }
        crop = {"none": "no crop", "person": "cropped to the true person and a tenth round"}[self.crop]
        nets = [text for text in (self.lpips_alex, self.lpips_vgg, self.clip, self.semantic_cosine, self.identity) if text]
        out = [f"{self.width} x {self.height} px on {self.background}; {masks[self.mask_mode]}; {crop}", f"SSIM: {self.ssim}"]
        out += [f"networks: {'; '.join(nets)}"] if nets else []
        return (*out, f"test poses {self.poses}", *((self.placement,) if self.placement else ()), *((self.photo,) if self.photo else ()))


@dataclass(frozen=True)
class Choice:
    """What to measure with.

    Attributes:
        metrics: Some of ``METRICS``.
        clip: Folder of a CLIP checkpoint; needed for the metric of that name.
        backbones: torchvision's files for LPIPS, by "alex" and "vgg"; without one the embedded copy is used.
    """

    metrics: tuple[str, ...] = DEFAULT
    clip: str = ""
    backbones: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.metrics if name not in METRICS]:
            raise ConfigError(f"there is no metric '{unknown[0]}'", expected=f"some of {', '.join(METRICS)}")

    @property
    def needs(self) -> tuple[str, ...]:
        """Model packages."""
        packages = {"lpips_alex": "lpips", "lpips_vgg": "lpips", "semantic_cosine": "efficientnet-lite0", "identity": "dlib"}
        return tuple(dict.fromkeys(packages[name] for name in self.metrics if name in packages))


class Scorer:
    """``Scorer(choice)(image, truth, ...)``: name -> figure. Networks are loaded once.

    Raises:
        WeightsMissing: CLIP was chosen without a checkpoint, or a model package cannot be had. BackendUnavailable: dlib is not installed.
    """

    def __init__(self, choice: Choice | None = None) -> None:
        self.choice = choice or Choice()
        self._nets: dict[str, Any] = {}
        for name in self.choice.metrics:
            if name.startswith("lpips"):
                from svad_ray.nets.lpips import Lpips

                kind = name.removeprefix("lpips_")
                file = self.choice.backbones.get(kind)
                self._nets[name] = Lpips(kind, backbone_file=Path(file) if file else None)
            elif name == "clip":
                from svad_ray.nets.clip_image import ClipSimilarity

                self._nets[name] = ClipSimilarity(self.choice.clip)
            elif name == "semantic_cosine":
                from svad_ray.nets.efficientnet_lite import SemanticCosine

                self._nets[name] = SemanticCosine()
            elif name == "identity":
                from svad_ray.evaluate.faces import FaceDistance

                self._nets[name] = FaceDistance()

    def described(self, protocol: Protocol, image: np.ndarray) -> Protocol:
        """``protocol`` with the networks' names and the size of an (H, W, 3) picture."""
        return replace(protocol, height=image.shape[0], width=image.shape[1], **{name: net.name for name, net in self._nets.items()})

    def __call__(
        self, image: np.ndarray, truth: np.ndarray, protocol: Protocol, *, mask: np.ndarray | None = None, true_mask: np.ndarray | None = None
    ) -> dict[str, float]:
        """The chosen figures; NaN where one cannot be taken (no mask, no face).

        Args:
            image, truth: (H, W, 3) uint8, or float in [0, 1].
            mask, true_mask: (H, W) bool, uint8 or float, of the person in each; needed as ``protocol.mask_mode`` and ``crop`` say.

        Raises:
            InputError: Sizes differ, or a mask is missing that the protocol needs.
        """
        a, b = (x.astype(np.float32) if x.dtype.kind == "f" else to_float(x) for x in (image, truth))
        if a.shape != b.shape or a.ndim != 3:
            raise InputError(f"a render of {a.shape} against a truth of {b.shape}", expected="two (H, W, 3) pictures of one size")
        a, b = masked(a, b, protocol, mask=mask, true_mask=true_mask)
        a, b = cropped(a, b, protocol, true_mask)
        out = {}
        for name in self.choice.metrics:
            if name == "iou":
                out[name] = float("nan") if mask is None or true_mask is None else silhouette_iou(mask, true_mask)
            else:
                out[name] = float({"psnr": psnr, "ssim": ssim, **self._nets}[name](a, b))
        return out


def masked(
    a: np.ndarray, b: np.ndarray, protocol: Protocol, *, mask: np.ndarray | None, true_mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Both pictures as the protocol's mask mode cuts them, on its background."""
    mode = protocol.mask_mode
    if mode not in MASK_MODES:
        raise ConfigError(f"there is no mask mode '{mode}'", expected=" or ".join(MASK_MODES))
    if mode == "none":
        return a, b
    if true_mask is None or (mask is None and mode != "truth"):
        raise InputError(
            f"the mask mode '{mode}' needs masks that are not there", expected="masks of renders and truth", remedy="use --mask-mode none"
        )
    true, own = _share(true_mask), true_mask if mask is None else _share(mask)
    first, second = {"truth": (true, true), "own": (own, true), "union": (np.maximum(own, true),) * 2}[mode]
    ground = {"white": 1.0, "black": 0.0}.get(protocol.background)
    if ground is None:
        raise ConfigError(f"masked pictures on the background '{protocol.background}'", expected="white or black")
    return tuple(x * m[..., None] + ground * (1 - m[..., None]) for x, m in ((a, first), (b, second)))  # type: ignore[return-value]


def cropped(a: np.ndarray, b: np.ndarray, protocol: Protocol, true_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Both pictures cut to the true person's box, if the protocol says so."""
    if protocol.crop == "none":
        return a, b
    if true_mask is None or not (_share(true_mask) > 0.5).any():
        raise InputError("the crop needs the true person's mask, which is missing or empty", remedy="use --crop none")
    ys, xs = np.nonzero(_share(true_mask) > 0.5)
    margin = round(0.1 * max(np.ptp(ys), np.ptp(xs)))
    rows = slice(max(0, ys.min() - margin), ys.max() + margin + 1)
    columns = slice(max(0, xs.min() - margin), xs.max() + margin + 1)
    return a[rows, columns], b[rows, columns]


def _share(mask: np.ndarray) -> np.ndarray:
    """(H, W) float32 in [0, 1]."""
    return to_float(mask) if mask.dtype == np.uint8 else mask.astype(np.float32)


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Metric names as typed: commas or repeats, "-" for "_", "all" for every one but CLIP."""
    flat = [name.strip().replace("-", "_") for text in names for name in text.split(",") if name.strip()]
    expanded = [m for name in flat for m in ([m for m in METRICS if m != "clip"] if name == "all" else [name])]
    return tuple(m for m in METRICS if m in expanded) + tuple(name for name in dict.fromkeys(expanded) if name not in METRICS)
