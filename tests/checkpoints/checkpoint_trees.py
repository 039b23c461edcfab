"""Trees of checkpoints as people have them: every tensor has its published name and shape, and no contents, so that files stay small."""

import json
import pickle
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from svad_ray.nets.deca.network import DecaEncoder
from svad_ray.nets.faces.retinaface import RetinaFace
from svad_ray.nets.gagavatar.network import GAGAvatar
from svad_ray.nets.gagavatar.sizes import Sizes
from svad_ray.nets.hand4whole.network import Hand4Whole
from svad_ray.nets.rrdbnet import RRDBNet

KEYS = Path(__file__).parents[1] / "golden" / "keys"


def hollow(shape) -> torch.Tensor:
    """A tensor of any size that takes four bytes in a file."""
    return torch.zeros(1).expand(tuple(shape)) if len(shape) else torch.zeros(())


def hollow_state(name: str) -> dict[str, torch.Tensor]:
    keys = json.loads((KEYS / f"{name}.json").read_text())
    return {key: hollow(entry["shape"] if isinstance(entry, dict) else entry) for key, entry in keys.items()}


def hollow_of(kind, *args, prefix: str = "", **options) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        module = kind(*args, **options)
    return {prefix + key: hollow(value.shape) for key, value in module.state_dict().items()}


def save(value, path: Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path, **options)


def write_onnx(path: Path, given, wanted: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in {"input": given, **wanted}.items()]
    weights = helper.make_tensor("w", TensorProto.FLOAT, (2, 3), [0.0] * 6)
    graph = helper.make_graph([helper.make_node("Identity", ["input"], [name]) for name in wanted], "net", value[:1], value[1:], [weights])
    onnx.save(helper.make_model(graph), path)


def write_flame(path: Path) -> None:
    rng = np.random.default_rng(0)
    parents = np.array([[2**32 - 1, 0, 1, 1, 1], range(5)], np.int64)
    arrays = {"v_template": rng.normal(size=(5023, 3)), "kintree_table": parents, "f": np.zeros((9976, 3), np.uint32)}
    arrays |= {"shapedirs": np.zeros((5023, 3, 20)), "posedirs": np.zeros((5023, 3, 36)), "J_regressor": np.zeros((5, 5023))}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(arrays | {"weights": np.full((5023, 5), 0.2)}, protocol=2))


def svad_bundle(root: Path) -> Path:
    """The tree of SVAD's release, as far as the stages here read it."""
    muse = root / "MusePose/pretrained_weights"
    denoising = hollow_state("musepose_keys_denoising_unet")
    save({k: v for k, v in denoising.items() if "motion_modules" not in k}, muse / "MusePose/denoising_unet.pth")
    save({k: v for k, v in denoising.items() if "motion_modules" in k}, muse / "MusePose/motion_module.pth")
    save(hollow_state("musepose_keys_reference_unet"), muse / "MusePose/reference_unet.pth")
    save(hollow_state("musepose_keys_pose_guider"), muse / "MusePose/pose_guider.pth", _use_new_zipfile_serialization=False)
    base = muse / "sd-image-variations-diffusers/unet"
    spatial = {k: v for k, v in denoising.items() if "motion_modules" not in k}
    save(spatial, base / "diffusion_pytorch_model.bin")
    (base / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768, "attention_head_dim": 8}))
    write_onnx(muse / "dwpose/yolox_l.onnx", (1, 3, 640, 640), {"output": (1, 8400, 85)})
    write_onnx(muse / "dwpose/dw-ll_ucoco_384.onnx", ("n", 3, 384, 288), {"simcc_x": ("n", 133, 576), "simcc_y": ("n", 133, 768)})
    save({"meta_cfg": {}, "model": hollow_of(GAGAvatar, Sizes())}, root / "GAGAvatar/assets/GAGAvatar.pt")
    restore = root / "BFRffusion/checkpoints"
    save({"state_dict": hollow_state("bfrffusion_keys"), "callbacks": {"best": np.float64(0.5)}}, restore / "checkpoint_BFRffusion_FFHQ.ckpt")
    save(hollow_state("parsenet_keys"), restore / "weights/parsing_parsenet.pth")
    save(hollow_of(RetinaFace, prefix="module."), restore / "weights/detection_Resnet50_Final.pth")
    save({"params_ema": hollow_of(RRDBNet, scale=2)}, restore / "weights/RealESRGAN_x2plus.pth")
    return root


def exavatar_tree(root: Path) -> Path:
    """What ExAvatar's instructions gather, as far as the stages here read it, and some of what they do not."""
    models = root / "fitting/common/utils/human_model_files"
    write_flame(models / "flame/FLAME_NEUTRAL.pkl")
    write_flame(models / "flame/FLAME_MALE.pkl")
    (models / "smplx").mkdir()
    np.save(models / "smplx/SMPL-X__FLAME_vertex_ids.npy", np.arange(5023))
    np.savez(models / "smplx/smplx_flip_correspondences.npz", closest_faces=np.zeros((10475, 3), int), bc=np.zeros((10475, 3)))
    arrays = {"v_template": np.zeros((10475, 3)), "kintree_table": np.zeros((2, 55)), "shapedirs": np.zeros((10475, 3, 20), np.float32)}
    np.savez_compressed(models / "smplx/SMPLX_NEUTRAL.npz", **arrays)
    deca = {"E_flame": hollow_of(DecaEncoder), "E_detail": {"layers.2.weight": hollow((128, 1024))}}
    save(deca, root / "fitting/tools/DECA/data/deca_model.tar")
    network = hollow_of(Hand4Whole, prefix="module.") | {"module.smplx_layer.v_template": hollow((10475, 3))}
    save({"epoch": 6, "network": network, "optimizer": {"state": {}}}, root / "fitting/tools/Hand4Whole/snapshot_6.pth.tar")
    save(
        {"network": {"human_gaussian.triplane": hollow((3, 32, 8, 8)), "human_gaussian.shape_param": hollow((100,))}}, root / "avatar/snapshot_4.pth"
    )
    return root
