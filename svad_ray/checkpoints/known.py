"""What is recognised: by names and shapes of its tensors, and by its name only where several published files hold the same tensors."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field

from svad_ray.fitting.paper.companions import HEAD_FILE, MIRROR_FILE
from svad_ray.nets import deca, depth_anything, hand4whole, sam
from svad_ray.nets.bfrffusion import load as bfr
from svad_ray.nets.faces import parsenet, retinaface
from svad_ray.nets.gagavatar import load as gaga
from svad_ray.nets.headers import Shapes
from svad_ray.nets.musepose import load as musepose
from svad_ray.pose import estimators, mmpose
from svad_ray.stages.picture.recipes import RECIPES

Wanted = Mapping[str, tuple[int | None, ...]]
_CONTAINERS = ("state_dict.", "model.", "network.module.", "network.", "module.", "params_ema.", "params.")
_PROJECT = "as its project states"
_FLAME = "FLAME licence, non-commercial research"
_SMPLX = "SMPL-X licence, non-commercial research"
_RAIL = "CreativeML OpenRAIL-M"
_FREE = ("Apache-2.0", "MIT", "BSD-3-Clause")
X2PLUS = "RealESRGAN_x2plus.pth"


@dataclass(frozen=True)
class Known:
    """One published file.

    Attributes:
        what: Its name for people.
        places: Where it belongs below the models root, the stage first; empty: nothing here reads it, and ``note`` says why.
        source, licence: Who offers it, on which terms.
        tensors: Names, with * for anything, and shapes that it has; None: any size.
        if_there: Shapes that these tensors have where the file has them at all.
        never: Names that it does not have.
        words: Its path contains one of them; asked for only where other files hold the same tensors.
        beside: Files that belong to it and lie in its folder.
        note: What else to know.
    """

    what: str
    places: tuple[str, ...]
    source: str
    licence: str
    tensors: Wanted
    if_there: Wanted = field(default_factory=dict)
    never: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    note: str = ""

    @property
    def commercial(self) -> bool:
        """Do the terms of the file itself allow commercial use, as far as they are known?"""
        return self.licence in _FREE

    def fits(self, shapes: Shapes) -> bool:
        """Are these its tensors?"""
        return any(self._fits(view) for view in _views(shapes))

    def _fits(self, shapes: Shapes) -> bool:
        there = all(any(_same(shapes[name], shape) for name in _matching(shapes, key)) for key, shape in self.tensors.items())
        fitting = all(_same(shapes[name], shape) for key, shape in self.if_there.items() for name in _matching(shapes, key))
        return there and fitting and not any(_matching(shapes, key) for key in self.never)

    def named(self, path: str) -> bool:
        """Does its path say that it is this one of the files with these tensors?"""
        return not self.words or any(word in path.lower() for word in self.words)


def _views(shapes: Shapes) -> list[Shapes]:
    """As they lie there, and as they are called inside each container."""
    inside = [{name.removeprefix(c): shape for name, shape in shapes.items() if name.startswith(c)} for c in _CONTAINERS]
    return [shapes, *(view for view in inside if view)]


def _matching(shapes: Shapes, key: str) -> list[str]:
    if "*" not in key:
        return [key] if key in shapes else []
    return fnmatch.filter(shapes, key)


def _same(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(b is None or a == b for a, b in zip(shape, wanted))


_FOUR = (None, None, 3, 3)
_ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.weight"
_MOTION = "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"
_UNET: Wanted = {"conv_in.weight": (None, 4, 3, 3), _ATTENTION: (None, None)}
_DWPOSE_NET: Wanted = {"head.cls_x.weight": (576, None), "head.cls_y.weight": (768, None)}
_HEAD: Wanted = {"v_template": (5023, 3), "kintree_table": (2, 5)}
_BODY: Wanted = {"v_template": (10475, 3), "kintree_table": (2, 55), "shapedirs": (10475, 3, None)}
_EDGES: Wanted = {"lmk_face_idx": (51,), "lmk_b_coords": (51, 3)}


def _sam(size: sam.SamSize) -> Known:
    tensors: Wanted = {"image_encoder.pos_embed": (1, 64, 64, size.dim), "mask_decoder.iou_token.weight": (1, None)}
    return Known(f"Segment Anything, width {size.dim}", (f"perceive/{size.file}",), sam.SOURCE, sam.LICENCE, tensors)


def _depth(size: depth_anything.DepthSize, position: str, head: str) -> Known:
    tensors: Wanted = {position: (1, 1370, size.dim), head: (None, size.features, 3, 3)}
    what, place = f"Depth Anything V2, width {size.dim}", f"perceive/{size.file}"
    return Known(what, (place,), depth_anything.SOURCE, size.licence, tensors, words=("v2",))


def _smplx(gender: str) -> Known:
    words = (f"_{gender}.", f"/{gender}.")
    note = "named by body= or --body; settings.yaml names the neutral one"
    return Known(f"SMPL-X {gender}", (f"body/SMPLX_{gender.upper()}.npz",), "smpl-x.is.tue.mpg.de", _SMPLX, _BODY, words=words, note=note)


KNOWN: tuple[Known, ...] = (
    Known(
        "YOLOX-L person detector of DWPose",
        (f"perceive/{estimators.DETECTOR_FILE}",),
        estimators.SOURCE,
        "Apache-2.0",
        {"input.*": (None, 3, 640, 640), "output.*": (None, 8400, 85)},
        words=("yolox_l",),
    ),
    Known(
        "DWPose key points (ONNX)",
        (f"perceive/{estimators.POSE_FILE}",),
        estimators.SOURCE,
        "Apache-2.0",
        {"output.simcc_x": (None, 133, 576), "output.simcc_y": (None, 133, 768)},
        words=("dw-ll",),
    ),
    Known("DWPose key points", (f"perceive/{mmpose.DWPOSE_FILE}",), estimators.SOURCE, "Apache-2.0", _DWPOSE_NET, words=("dw-ll",)),
    Known("RTMPose-L whole body", (f"perceive/{mmpose.POSE_FILE}",), mmpose.SOURCE, "Apache-2.0", _DWPOSE_NET, words=("rtmpose-l",)),
    Known(
        "RTMDet-m person detector",
        ("perceive/rtmdet_m_8xb32-100e_coco-obj365-person-235e8209.pth",),
        mmpose.SOURCE,
        "Apache-2.0",
        {"bbox_head.rtm_cls.0.weight": (None, 192, 1, 1)},
    ),
    *(_sam(size) for size in sam.SIZES.values()),
    *(_depth(size, "pretrained.pos_embed", "depth_head.scratch.output_conv1.weight") for size in depth_anything.SIZES.values()),
    *(_depth(size, "backbone.embeddings.position_embeddings", "head.conv1.weight") for size in depth_anything.SIZES.values()),
    Known("MusePose denoising UNet", (f"animate/{musepose.DENOISING}",), "the MusePose project", _PROJECT, _UNET, words=("denoising_unet",)),
    Known("MusePose reference UNet", (f"animate/{musepose.REFERENCE}",), "the MusePose project", _PROJECT, _UNET, words=("reference_unet",)),
    Known(
        "MusePose motion modules",
        (f"animate/{musepose.MOTION}",),
        "the MusePose project",
        _PROJECT,
        {_MOTION: (None, None)},
        if_there={"*.pos_encoder.pe": (1, 128, None)},
        never=("conv_in.weight",),
    ),
    Known(
        "MusePose pose guider",
        (f"animate/{musepose.GUIDER}",),
        "the MusePose project",
        _PROJECT,
        {"conv_in.weight": (None, 3, 3, 3), "blocks.5.weight": _FOUR, "conv_out.weight": _FOUR},
    ),
    Known(
        "UNet of Stable Diffusion image variations",
        (f"animate/{musepose.BASE}/diffusion_pytorch_model.bin",),
        "lambdalabs/sd-image-variations-diffusers",
        _RAIL,
        _UNET,
        words=("sd-image-variations",),
        beside=("config.json",),
    ),
    Known(
        "image encoder of Stable Diffusion image variations",
        (f"animate/{musepose.ENCODER}/pytorch_model.bin",),
        "lambdalabs/sd-image-variations-diffusers",
        _RAIL,
        {"vision_model.embeddings.class_embedding": (None,), "visual_projection.weight": (None, None)},
        words=("sd-image-variations",),
        beside=("config.json",),
    ),
    Known(
        "Stable Diffusion autoencoder, fine-tuned on the squared error",
        (f"animate/{musepose.VAE}/diffusion_pytorch_model.bin",),
        "stabilityai/sd-vae-ft-mse",
        "MIT",
        {"encoder.conv_in.weight": (None, 3, 3, 3), "decoder.conv_out.weight": (3, None, 3, 3), "quant_conv.weight": (8, 8, 1, 1)},
        words=("sd-vae-ft-mse",),
        beside=("config.json",),
    ),
    Known(
        "GAGAvatar",
        (f"identity/{gaga.FILE}",),
        "the GAGAvatar project",
        _PROJECT,
        {"head_base": (None, None), "base_model.projects.0.weight": (None, None, 1, 1)},
    ),
    Known(
        "FLAME with eyes, of GAGAvatar",
        ("identity/FLAME_with_eye.pt",),
        "the GAGAvatar project",
        _FLAME,
        {"flame_model.v_template": (5023, 3), "lmk_embeddings.*": (None, None)},
    ),
    Known("FLAME neutral", ("identity/FLAME_NEUTRAL.pkl", "fit/FLAME_NEUTRAL.pkl"), "flame.is.tue.mpg.de", _FLAME, _HEAD, words=("flame_neutral",)),
    Known(
        "FLAME of another kind",
        (),
        "flame.is.tue.mpg.de",
        _FLAME,
        _HEAD,
        note="the neutral head of 2020 is used; if this is it, call it FLAME_NEUTRAL",
    ),
    Known(
        "FLAME landmarks of DECA",
        ("identity/landmark_embedding.npy", "fit/landmark_embedding.npy"),
        "the DECA project",
        deca.LICENCE,
        {"static_lmk_faces_idx": (None,), "dynamic_lmk_faces_idx": (None, None)},
        never=("v_template",),
    ),
    Known(
        "FLAME's inner landmarks", ("identity/flame_static_embedding.pkl", "fit/flame_static_embedding.pkl"), "the RingNet project", _FLAME, _EDGES
    ),
    Known(
        "FLAME's contour landmarks",
        ("identity/flame_dynamic_embedding.npy", "fit/flame_dynamic_embedding.npy"),
        "the RingNet project",
        _FLAME,
        {"lmk_face_idx": (79, 17), "lmk_b_coords": (79, 17, 3)},
    ),
    Known(
        "BFRffusion",
        (f"restore/{bfr.FILE}",),
        bfr.SOURCE,
        bfr.LICENCE,
        {"model.diffusion_model.time_embed.0.weight": (None, None), "control_model.time_embed.0.weight": (None, None)},
    ),
    Known(
        "RetinaFace, ResNet-50",
        (f"restore/{retinaface.FILE}",),
        retinaface.SOURCE,
        retinaface.LICENCE,
        {"*fpn.output1.0.weight": (256, 512, 1, 1), "*ClassHead.0.conv1x1.weight": (None, 256, 1, 1)},
    ),
    Known(
        "ParseNet",
        (f"restore/{parsenet.FILE}",),
        parsenet.SOURCE,
        parsenet.LICENCE,
        {"encoder.0.conv2d.weight": (64, 3, 3, 3), "out_mask_conv.conv2d.weight": (19, None, 3, 3)},
    ),
    Known(
        "Real-ESRGAN x2plus",
        (f"restore/{X2PLUS}",),
        "the Real-ESRGAN project",
        "BSD-3-Clause",
        {"conv_first.weight": (64, 12, 3, 3), "conv_hr.weight": (64, 64, 3, 3)},
    ),
    Known(
        "Real-ESRGAN with factor 4",
        (),
        "the Real-ESRGAN project",
        "BSD-3-Clause",
        {"conv_first.weight": (64, 3, 3, 3), "conv_hr.weight": (64, 64, 3, 3)},
        note="`svad-ray models pull realesrgan` has it",
    ),
    Known(
        "DECA",
        (f"fit/{deca.FILE}",),
        deca.SOURCE,
        deca.LICENCE,
        {"E_flame.encoder.conv1.weight": (64, 3, 7, 7), "E_flame.layers.2.weight": (236, 1024)},
    ),
    Known(
        "Hand4Whole",
        (f"fit/{hand4whole.FILE}",),
        hand4whole.SOURCE,
        hand4whole.LICENCE,
        {"body_rotation_net.body_conv.0.weight": (512, 2048, 1, 1), "box_net.deconv.0.weight": (2248, 256, 4, 4)},
    ),
    Known("SMPL-X vertices of FLAME", (f"fit/{HEAD_FILE}",), "the SMPL-X site", _SMPLX, {"array": (5023,)}, words=("flame_vertex_ids",)),
    Known("mirror of SMPL-X", (f"fit/{MIRROR_FILE}",), "the SMPL-X site", _SMPLX, {"closest_faces": (10475, 3), "bc": (10475, 3)}),
    _smplx("neutral"),
    _smplx("male"),
    _smplx("female"),
    Known(
        "an avatar of ExAvatar",
        (),
        "ExAvatar's training",
        _PROJECT,
        {"human_gaussian.triplane": (3, None, None, None), "human_gaussian.shape_param": (None,)},
        note="a result, not a model",
    ),
)
"""In the order in which they are tried; the first that fits is it."""


@dataclass(frozen=True)
class Pipeline:
    """A folder of diffusers, told by the class in its ``model_index.json``.

    Attributes:
        what: Its name for people. licence: On which terms. place: Where it goes below the models root; "" = its parts are looked at one by one.
    """

    what: str
    place: str
    licence: str = ""


PIPELINES: dict[str, Pipeline] = {
    **{name: Pipeline(recipe.model, f"pictures/{name}", recipe.licence) for name, recipe in RECIPES.items()},
    "WanAnimatePipeline": Pipeline("Wan-Animate", "wan-animate", "Apache-2.0"),
    "StableDiffusionImageVariationPipeline": Pipeline("Stable Diffusion image variations", ""),
}
