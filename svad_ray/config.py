"""Configuration: frozen models with every default in exactly one place; YAML is only their written form.

A profile is a named choice of backends and numbers. Precedence, last wins: profile, YAML file, ``stage.key=value`` overrides.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from svad_ray.backends import EMBEDDED, STAGES
from svad_ray.errors import ConfigError, InputError

_FROZEN = ConfigDict(frozen=True, extra="forbid")
Export = Literal["ply", "gltf", "mesh", "turntable", "report"]  # what a delivery may hold besides the avatar folder


class StageConfig(BaseModel):
    """What every stage is configured with.

    Attributes:
        backend: Which backend does the work.
        seed: Of everything random in the stage.
        body: Path of an ``SMPLX_*.npz``; empty = the open body.
    """

    model_config = _FROZEN
    backend: str
    seed: int = Field(default=0, ge=0)
    body: str = ""


class PerceiveConfig(StageConfig):
    """What is seen of the person.

    Attributes:
        largest: Take the largest of several people. bust: Accept a half-body photo, marked as such.
        weights: Folder of the files of DWPose, mmpose, Segment Anything and Depth Anything.
        sam: Image encoder of Segment Anything: ViT-H, ViT-L or ViT-B.
        depth: Depth Anything V2 for ``Perception.depth``, which no stage of this version needs; base and large are for non-commercial use.
    """

    backend: str = EMBEDDED["perceive"]
    largest: bool = False
    bust: bool = False
    weights: str = ""
    sam: Literal["h", "l", "b"] = "h"
    depth: Literal["off", "small", "base", "large"] = "off"


class DiffusionConfig(BaseModel):
    """How a diffusion backend samples the clip.

    Attributes:
        steps: Denoising steps. guidance: Of classifier-free guidance; 1 = none.
        window, overlap: Frames denoised together, and shared with the next window; a pipeline of diffusers takes ``window`` as its segment.
        shorten: MusePose: end the last window with the last frame instead of filling it up with the last pose, which is quicker and differs
            slightly from the original.
        dtype: "auto" = float16 on a GPU, float32 on the CPU.
        decode_batch: Frames decoded at once; 1 takes the least memory. compile: Let torch compile the denoising network, which takes minutes before
            the first step and pays on a GPU with many clips.
        align: Bring the driving skeleton onto the photo's own key points: "photo", as "official" code does it with its faults, or "none".
    """

    model_config = _FROZEN
    steps: int = Field(default=20, ge=1)
    guidance: float = Field(default=3.5, ge=1)
    window: int = Field(default=48, ge=1, le=128)
    overlap: int = Field(default=4, ge=0)
    shorten: bool = False
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    decode_batch: int = Field(default=4, ge=1)
    compile: bool = False
    align: Literal["photo", "official", "none"] = "photo"


class AnimateConfig(StageConfig):
    """The turn-around clip.

    Attributes:
        motion: Built-in motion name or a motion file.
        frames: Length of the clip.
        size: Width and height of a frame, pixels.
        supersample: Rendered at this multiple of ``size``, then averaged.
        focal_factor: Assumed focal length of the photo over its longer side.
        keypoint_iterations, silhouette_iterations, clothe_iterations: Steps of the three parts of the photo fit.
        bust: The photo shows no legs; its lower border is no outline.
        loose: Loose clothes: "auto" gives skirts and open coats that the photo shows a surface of their own that follows both legs smoothly, "on"
            lets whatever else stands off hips and thighs follow them in the same way, "off" binds every vertex to its own leg.
        weights: Folder of a diffusion backend's checkpoints.
        diffusion: How such a backend samples.
    """

    backend: str = EMBEDDED["animate"]
    motion: str = "turn"
    frames: int = Field(default=189, ge=1)
    size: int = Field(default=512, ge=64, le=4096)
    supersample: int = Field(default=2, ge=1, le=4)
    focal_factor: float = Field(default=1.4, gt=0.3, lt=10)
    keypoint_iterations: int = Field(default=150, ge=1)
    silhouette_iterations: int = Field(default=60, ge=0)
    clothe_iterations: int = Field(default=120, ge=0)
    bust: bool = False
    loose: Literal["off", "auto", "on"] = "auto"
    weights: str = ""
    diffusion: DiffusionConfig = DiffusionConfig()


class IdentityConfig(StageConfig):
    """The photo's head in every frame; the backend "off" leaves the frames' own faces (an ablation), and the avatar says so.

    Attributes:
        gate: Which rule refuses a frame: the paper's (both eyes seen, landmark disparity) or the released code's.
        max_disparity: Procrustes disparity of the 68 landmarks above which a frame keeps its own face.
        landmarks: Whose 68 points: the face mesh's (Apache-2.0), or dlib's as the released code takes them (extra ``face``; its predictor was trained
            on pictures whose terms exclude commercial use).
        strength: 1 to 255; the head's gradients weigh this much over 255 (180 in the released code).
        weights: Folder of GAGAvatar's and FLAME's files.
        driver: Head track of the driving clip (``svad-ray track-head``, or the tracker's own ``smoothed.pkl``), whose expression, eyes and camera the
            GAGAvatar head takes; empty: it turns as the body's head does, with the photo's expression.
    """

    backend: str = EMBEDDED["identity"]
    gate: Literal["paper", "official"] = "paper"
    max_disparity: float = Field(default=0.01, gt=0)
    landmarks: Literal["mediapipe", "dlib"] = "mediapipe"
    strength: int = Field(default=180, ge=1, le=255)
    weights: str = ""
    driver: str = ""


class FaceRestoreConfig(BaseModel):
    """How the paper's restoration works on faces and frames.

    Attributes:
        steps: Denoising steps of a face. guidance: 1 = none, as published. batch: Faces at once.
        dtype: "auto" = float16 on a GPU, float32 on the CPU. confidence: Of the face detector, above which a face counts.
        paste: Restored faces are blended by their parsed parts, or cloned by gradients as the paper says.
        background: What enlarges the frame: "x2plus" and "x4plus" are Real-ESRGAN (its own file among ``restore.weights``, the embedded package),
            "auto" = x2plus where its file is, else x4plus; "lanczos" none.
        enlarger: Whose code runs Real-ESRGAN: ours, or the package ``realesrgan`` (extra of the same name), tile by tile, with the same result.
        tile, tile_batch: Pixels of a tile of the frame, and tiles at once.
    """

    model_config = _FROZEN
    steps: int = Field(default=50, ge=1, le=1000)
    guidance: float = Field(default=1.0, ge=1)
    batch: int = Field(default=4, ge=1)
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    confidence: float = Field(default=0.97, gt=0, lt=1)
    paste: Literal["parse", "poisson"] = "parse"
    background: Literal["auto", "x2plus", "x4plus", "lanczos"] = "auto"
    enlarger: Literal["own", "realesrgan"] = "own"
    tile: int = Field(default=400, ge=0)
    tile_batch: int = Field(default=4, ge=1)


class RestoreConfig(StageConfig):
    """Sharper frames; the backend "off" leaves them at their size as they are (an ablation), and the avatar says so.

    Attributes:
        budget_s: Seconds on two idle cores that the large network may take over the whole clip; the plan is made from recorded costs, so it
            does not depend on how busy the machine is.
        scale: Output size over input size.
        plain: What the rest gets: the compact network or Lanczos.
        weights: Folder of BFRffusion's checkpoints. faces: How BFRffusion restores.
    """

    backend: str = EMBEDDED["restore"]
    budget_s: float = Field(default=12.0, ge=0)
    scale: int = Field(default=1, ge=1, le=4)
    plain: Literal["compact", "lanczos"] = "compact"
    weights: str = ""
    faces: FaceRestoreConfig = FaceRestoreConfig()


class FitConfig(StageConfig):
    """The body fitted to all frames at once.

    Attributes:
        iterations: Gauss-Newton steps of the embedded fit, at most; it stops where nothing is gained.
        initial_weight: Per squared radian of deviation from the motion that drove the clip. The embedded generator draws
            that motion exactly, so it weighs like a deviation of a quarter of a degree; a diffusion model needs less.
        smooth_weight: Per squared centimetre of acceleration between frames, of the pelvis and of half a metre that hangs on a joint.
        max_residual: Median landmark residual, in shares of the person's size, above which the result is refused.
        weights: Of the paper's fit: folder of FLAME's files and of the tables that tie it to SMPL-X, under their original names. ``body`` is fitted.
        flame: Use FLAME where its files are, always, or never; without it face offsets and FLAME's terms drop out.
        schedule: ExAvatar's three epochs, or the one that SVAD's release ships, in which shapes and offsets stay as they began.
        initialiser: What the paper's fit begins with: the motion that drove the clip, or what Hand4Whole (and, with FLAME, DECA) see in the
            frames; their files lie among ``weights``.
        solver: "staged" finds places, turns and shape by Gauss-Newton on all frames at once and leaves the rest to a part of the
            schedule; "released" takes the whole schedule from the first poses on, as the original does.
        share: Of the schedule's steps that are taken; 0 = the solver's own, 0.1 and all.
        temporal_weight: Of the paper's temporal term, which no released code has.
        exact: The mesh term on every vertex, and the first poses posed anew at every step, as released; else on 400, and now and then.
    """

    backend: str = EMBEDDED["fit"]
    weights: str = ""
    flame: Literal["auto", "require", "off"] = "auto"
    schedule: Literal["exavatar", "svad_release"] = "exavatar"
    initialiser: Literal["track", "hand4whole"] = "track"
    solver: Literal["staged", "released"] = "staged"
    share: float = Field(default=0.0, ge=0, le=1)
    temporal_weight: float = Field(default=0.0, ge=0)
    exact: bool = False
    iterations: int = Field(default=20, ge=1)
    initial_weight: float = Field(default=50_000.0, ge=0)
    smooth_weight: float = Field(default=0.5, ge=0)
    max_residual: float = Field(default=0.10, gt=0)


class ExAvatarConfig(BaseModel):
    """The model ``exavatar``; ``avatar.iterations`` and ``avatar.photo_weight`` are its steps and the photo's weight.

    Attributes:
        levels: Midpoint subdivisions of the body; the original has 2.
        triplane: Side of the triplanes; the original has 128.
        rate: Learning rate of the networks; 0.001 as the original; more forgets the start.
        prefit, prefit_rate: Steps and first learning rate of the start: colours and sizes fitted to what the clip shows of the vertices, without a
            render. Not with ``official``.
        lpips: Use the perceptual terms.
        lpips_window: Pixels a side of the window of the person that they look at on a CPU, elsewhere every step; 0 = the whole person, as on a GPU
            and as the original does, which costs more than all the rest together.
        face_texture: Draw the face's unwrapped texture as the original does: "fit" = where the fit made one, "clip" = else unwrap it from the clip,
            which wants faces of a few hundred pixels, "off" = never.
        official: The original's order of work: a scene besides the person, five renders a step, whole frames, random first scales.
    """

    model_config = _FROZEN
    levels: int = Field(default=1, ge=0, le=3)
    triplane: int = Field(default=128, ge=4)
    rate: float = Field(default=0.001, gt=0)
    prefit: int = Field(default=200, ge=0)
    prefit_rate: float = Field(default=0.01, gt=0)
    lpips: bool = False
    lpips_window: int = Field(default=96, ge=0)
    face_texture: Literal["fit", "clip", "off"] = "fit"
    official: bool = False


class AvatarConfig(StageConfig):
    """The trained Gaussians.

    Attributes:
        gaussians: How many.
        iterations: Training steps, one frame each.
        head_density: How much denser the head is covered than the body.
        photo_weight: Weight of the photo among the generated frames.
        color_views: Frames that the first colours are taken from, the photo besides.
        rates: Learning rates of offset, log scales and colour.
        device: Where to train; "auto" = a GPU where there is one.
        precision: Of the networks' matrix products; "auto" = bfloat16 where the GPU or the CPU multiplies such numbers itself, else float32.
        loose: Which Gaussians follow both legs smoothly instead of their own; the same words as for ``animate``.
        exavatar: What only the model exavatar has.
    """

    backend: str = EMBEDDED["avatar"]
    gaussians: int = Field(default=50_000, ge=100)
    iterations: int = Field(default=300, ge=1)
    head_density: float = Field(default=4.0, ge=1)
    photo_weight: float = Field(default=1.0, ge=0)
    color_views: int = Field(default=24, ge=1)
    rates: tuple[float, float, float] = (0.02, 0.01, 0.03)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    loose: Literal["off", "auto", "on"] = "auto"
    exavatar: ExAvatarConfig = ExAvatarConfig()


class DriftConfig(BaseModel):
    """How the face's distance from the photo's is watched.

    Attributes:
        measure: "report" measures it before and after identity and restoration; "gate" also refuses a clip whose restored face is farther away
            than ``max_distance`` in the median; both need the extra ``face``.
        max_distance: Of dlib's embedding; the same person is below 0.6.
    """

    model_config = _FROZEN
    measure: Literal["off", "report", "gate"] = "off"
    max_distance: float = Field(default=0.6, gt=0)


class PhotosConfig(BaseModel):
    """How several photos of one person are taken together.

    Attributes:
        same_person: What is refused: "auto" = different clothes, and different faces where the extra ``face`` is installed; "faces" = the
            extra must be there; "off" = nothing is compared.
        max_face_distance: Of dlib's embedding; the same person is below 0.6.
    """

    model_config = _FROZEN
    same_person: Literal["auto", "faces", "off"] = "auto"
    max_face_distance: float = Field(default=0.6, gt=0)


class PictureConfig(BaseModel):
    """How a prompt becomes the photo, or an edit changes it.

    Attributes:
        weights: Folder of a diffusers pipeline that draws or edits, as docs/pictures.md lists them.
        licence: The terms of the model in it, where its class does not tell them.
        pipeline: "FILE.py:CLASS" of a pipeline of one's own for that folder (Step1X-Edit); its code is run, so ``trust_code`` has to be set as well.
        steps, guidance: Of the denoising; 0 and null = as published for the model.
        height, width: Of a drawn picture, pixels; an edited one keeps the photo's proportions.
        framing: Tell the model to show one whole person; off: the prompt alone.
        seed: Of the first try. tries: Pictures drawn until one shows one whole person.
        dtype: "auto" = bfloat16 on a GPU, float32 on the CPU.
        offload: Keep whole parts ("model") or single layers ("sequential") in the machine's memory while others work.
        quantize: Hold the large parts in four or eight bits (package bitsandbytes).
    """

    model_config = _FROZEN
    weights: str = ""
    licence: str = ""
    pipeline: str = ""
    trust_code: bool = False
    steps: int = Field(default=0, ge=0, le=1000)
    guidance: float | None = Field(default=None, ge=0)
    height: int = Field(default=1344, ge=64, le=4096, multiple_of=32)
    width: int = Field(default=768, ge=64, le=4096, multiple_of=32)
    framing: bool = True
    seed: int = Field(default=0, ge=0)
    tries: int = Field(default=4, ge=1, le=64)
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    offload: Literal["none", "model", "sequential"] = "none"
    quantize: Literal["none", "nf4", "int8"] = "none"


class MarkConfig(BaseModel):
    """What videos of the avatar show of their origin, besides the signed record in them.

    Attributes:
        label: Words in the lower left corner; empty = none.
        hidden: Carry the avatar's code in the brightness, where re-encoding leaves it (docs/provenance.md).
    """

    model_config = _FROZEN
    label: str = Field(default="", max_length=120)
    hidden: bool = False


class Settings(BaseModel):
    """All of a run.

    Attributes:
        profile: Which profile the values started from.
        threads: Threads of torch, OpenCV and the rasteriser; 0 = as many cores as the process may use.
        shard: Frames a block in the stages that work frame by frame; a killed run loses at most one block.
        offline: Never fetch a model package.
        cache_dir: Where model packages are kept; empty = the user's cache folder.
        signing: Folder of the key that exports are signed with; empty = the variable SVAD_SIGNING, else the user's configuration folder.
        mark: What videos show of their origin.
        drift: Whether the face's distance from the photo's is measured.
        picture: How a prompt becomes the photo.
        photos: What is asked of several photos.
    """

    model_config = _FROZEN
    profile: Literal["embedded", "paper"] = "embedded"
    threads: int = Field(default=0, ge=0)
    shard: int = Field(default=16, ge=1)
    offline: bool = False
    cache_dir: str = ""
    signing: str = ""
    mark: MarkConfig = MarkConfig()
    drift: DriftConfig = DriftConfig()
    picture: PictureConfig = PictureConfig()
    photos: PhotosConfig = PhotosConfig()
    perceive: PerceiveConfig = PerceiveConfig()
    animate: AnimateConfig = AnimateConfig()
    identity: IdentityConfig = IdentityConfig()
    restore: RestoreConfig = RestoreConfig()
    fit: FitConfig = FitConfig()
    avatar: AvatarConfig = AvatarConfig()

    def stage(self, name: str) -> StageConfig:
        """Configuration of one stage by name."""
        return getattr(self, name)


PROFILES: dict[str, dict[str, Any]] = {
    "embedded": {},
    "paper": {
        "perceive": {"backend": "dwpose-sam"},
        "animate": {"backend": "musepose"},
        "identity": {"backend": "gagavatar"},
        "restore": {"backend": "bfrffusion", "scale": 2},
        "fit": {"backend": "smplx-exavatar"},
        "avatar": {"backend": "exavatar"},
    },
}


def load_settings(*, profile: str | None = None, path: str | Path | None = None, sets: Iterable[str] = ()) -> Settings:
    """Settings from a profile, a YAML file and overrides.

    Args:
        profile: Name of a profile; None = the file's ``profile`` or "embedded".
        path: YAML file with any part of the settings.
        sets: Overrides "stage.key=value" or "key=value"; the value is read as YAML.

    Raises:
        ConfigError: An unknown key (the message names the nearest valid one), or a value out of range.
        InputError: The file cannot be read.
    """
    written = _read_yaml(Path(path)) if path is not None else {}
    name = profile or written.get("profile") or "embedded"
    if name not in PROFILES:
        raise ConfigError(f"there is no profile '{name}'", expected=" or ".join(PROFILES), remedy=_nearest(str(name), PROFILES))
    merged = _merge(_merge(PROFILES[name], written), {"profile": name})
    for text in sets:
        merged = _merge(merged, _override(text))
    return parse_settings(merged)


def parse_settings(values: Mapping[str, Any]) -> Settings:
    """Checked settings from nested plain values; errors as ``load_settings``."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _plain(error) from None


def dump_settings(settings: Settings) -> str:
    """YAML that ``load_settings`` reads back to equal settings."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def override(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """``settings`` with dotted keys replaced: ``{"animate.frames": 48}``."""
    merged: dict[str, Any] = settings.model_dump()
    for key, value in values.items():
        merged = _merge(merged, _nest(key, value))
    return parse_settings(merged)


def for_all_stages(key: str, value: Any) -> dict[str, Any]:
    """Dotted overrides that give every stage the same value (seed, body)."""
    return {f"{stage}.{key}": value for stage in STAGES}


class _Words(yaml.SafeLoader):
    """YAML in which only true and false are truth values, so that "off" and "on" are the words that they are in ``drift.measure``."""


_Words.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Words.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def load_yaml(text: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Words)  # a SafeLoader


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the configuration {path} cannot be read: {error}", remedy="check the path given to --config") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"the configuration {path} is not YAML: {error}", remedy="compare it with the output of `svad-ray config`") from error
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"the configuration {path} holds a {type(values).__name__}", expected="a mapping of stages to their values")
    return values or {}


def _override(text: str) -> dict[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"the override '{text}' has no '='", expected="stage.key=value", remedy="for example --set animate.frames=48")
    try:
        return _nest(key.strip(), load_yaml(value))
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of '{text}' is not YAML: {error}", expected="a number, true, false or a word") from error


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` written on it, mappings merged at every depth."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def _plain(error: ValidationError) -> ConfigError:
    """The first fault of a validation, in plain words."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    dotted = ".".join(where)
    if first["type"] == "extra_forbidden":
        valid = _fields_at(where[:-1])
        return ConfigError(f"unknown configuration key '{dotted}'", expected="one of " + ", ".join(valid), remedy=_nearest(where[-1], valid))
    return ConfigError(f"{dotted} = {first['input']!r} cannot be used", expected=first["msg"], remedy=f"change {dotted}")


def _fields_at(where: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in where:
        kind = model.model_fields[part].annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            model = kind
    return list(model.model_fields)


def _nearest(word: str, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.4)
    return f"did you mean '{close[0]}'?" if close else "see `svad-ray config` for every key"
