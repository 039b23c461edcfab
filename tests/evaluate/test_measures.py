"""Measures against other people's implementations, their limits, and the direction in which faults move them."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
import torch

from svad_ray.errors import ConfigError, InputError, SvadError, WeightsMissing
from svad_ray.evaluate.metrics import psnr, ssim, temporal_flicker
from svad_ray.evaluate.scoring import LIMITS, Choice, Protocol, Scorer, chosen
from svad_ray.nets.clip_image import ClipSimilarity
from svad_ray.nets.lpips import BACKBONES, Lpips


def person(size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A lopsided figure with a face-like pattern on white, and its mask."""
    y, x = np.mgrid[:size, :size] / size
    mask = ((((x - 0.45) / 0.22) ** 2 + ((y - 0.55) / 0.38) ** 2) < 1) | ((np.abs(x - 0.72) < 0.1) & (np.abs(y - 0.45) < 0.05))
    color = np.stack([0.5 + 0.3 * np.sin(40 * x + 9 * y), 0.4 + 0.2 * np.sin(31 * y), 0.3 + 0.4 * x], axis=2)
    return np.where(mask[..., None], color, 1.0).astype(np.float32), mask


def shifted(image):
    return np.roll(image, 3, axis=1)


def blurred(image):
    return cv2.GaussianBlur(image, (0, 0), 2.0)


def recoloured(image):
    return np.clip(image * np.float32([0.7, 0.95, 1.1]), 0, 1)


def mirrored(image):
    return np.ascontiguousarray(image[:, ::-1])


FAULTS = {f.__name__: f for f in (shifted, blurred, recoloured, mirrored)}


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(3)
    a = cv2.GaussianBlur(rng.random((61, 48, 3)), (0, 0), 1.5)
    return a, np.clip(a + 0.1 * rng.standard_normal(a.shape), 0, 1)


def test_psnr_and_ssim_equal_torchmetrics(pair):
    functional = pytest.importorskip("torchmetrics.functional.image")
    a, b = (torch.from_numpy(x.transpose(2, 0, 1).copy())[None] for x in pair)
    assert psnr(*pair) == pytest.approx(float(functional.peak_signal_noise_ratio(a, b, data_range=1.0)), abs=1e-5)  # its logarithm is float32
    _, whole = functional.structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
    assert ssim(*pair) == pytest.approx(float(whole[..., 5:-5, 5:-5].mean()), abs=1e-9)


def test_psnr_and_ssim_equal_scikit_image(pair):
    metrics = pytest.importorskip("skimage.metrics")
    assert psnr(*pair) == pytest.approx(metrics.peak_signal_noise_ratio(*pair, data_range=1), abs=1e-9)
    theirs = metrics.structural_similarity(*pair, channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert ssim(*pair) == pytest.approx(theirs, abs=1e-10)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    try:
        return Scorer(Choice(("psnr", "ssim", "lpips_alex", "semantic_cosine", "iou")))
    except SvadError as error:
        pytest.skip(f"a model package cannot be had: {error}")


@pytest.mark.models
def test_equal_pictures_give_the_limits(scorer):
    image, mask = person()
    figures = scorer(image, image.copy(), Protocol("test"), mask=mask, true_mask=mask)
    assert figures == pytest.approx({name: LIMITS[name] for name in figures}, abs=1e-6)


@pytest.mark.models
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_every_fault_moves_every_measure_the_right_way(scorer, fault):
    image, mask = person()
    outline = mask if fault in (blurred, recoloured) else fault(mask[..., None].astype(np.float32))[..., 0] > 0.5
    small = scorer(0.8 * image + 0.2 * fault(image), image, Protocol("test"), mask=mask, true_mask=mask)
    large = scorer(fault(image), image, Protocol("test"), mask=outline, true_mask=mask)
    assert large["psnr"] < small["psnr"] < math.inf
    assert large["ssim"] < small["ssim"] < 1
    assert large["lpips_alex"] > small["lpips_alex"] > 0
    assert large["semantic_cosine"] < 1 - 1e-3 and small["semantic_cosine"] < 1 - 1e-3  # it bears a shift better than a double picture
    assert large["iou"] < 1 if fault in (shifted, mirrored) else large["iou"] == 1


def test_flicker_is_blind_to_steady_errors_and_sees_trembling():
    rng = np.random.default_rng(0)
    truth = np.cumsum(0.01 * rng.standard_normal((6, 8, 8, 3)), axis=0) + 0.5
    assert temporal_flicker(truth, truth) == 0
    assert temporal_flicker(truth + 0.1, truth) == pytest.approx(0, abs=1e-12)
    tremble = truth + 0.05 * (-1.0) ** np.arange(6)[:, None, None, None]
    assert temporal_flicker(tremble, truth) == pytest.approx(0.1)
    assert temporal_flicker(truth + 0.01 * (-1.0) ** np.arange(6)[:, None, None, None], truth) == pytest.approx(0.02)
    with pytest.raises(InputError, match="one frame"):
        temporal_flicker(truth[:1], truth[:1])


def test_mask_modes_cut_what_they_say():
    image, mask = person()
    scored = Scorer(Choice(("psnr", "iou")))
    wrong = image.copy()
    wrong[:6] = 0.0  # a fault outside the person
    whole, cut = (scored(wrong, image, Protocol("t", mask_mode=mode), mask=mask, true_mask=mask)["psnr"] for mode in ("none", "truth"))
    assert whole < 30 and cut == math.inf
    fat = np.ones_like(mask)
    assert scored(wrong, image, Protocol("t", mask_mode="own"), mask=fat, true_mask=mask)["psnr"] == pytest.approx(whole)
    assert scored(wrong, image, Protocol("t", crop="person"), mask=mask, true_mask=mask)["psnr"] > whole
    with pytest.raises(InputError, match="needs masks"):
        scored(wrong, image, Protocol("t", mask_mode="truth"))
    with pytest.raises(ConfigError, match="mask mode"):
        scored(wrong, image, Protocol("t", mask_mode="some"), true_mask=mask)


def test_metric_names_are_read_as_people_type_them():
    assert chosen(["lpips-alex,psnr", "iou"]) == ("psnr", "lpips_alex", "iou")
    assert "clip" not in chosen(["all"]) and "clip" in chosen(["all", "clip"])
    with pytest.raises(ConfigError, match="fid"):
        Choice(chosen(["fid"]))


def test_a_protocol_survives_its_row():
    protocol = Protocol("x", 2, 8, 9, "black", "own", poses="refined")
    assert Protocol.of_columns({"psnr": 1.0, **protocol.columns()}) == protocol


def test_lpips_takes_torchvisions_backbone(tmp_path, monkeypatch):
    """The file of torchvision's keys that holds the package's own convolutions changes nothing; another one does; a foreign one is named."""
    try:
        plain = Lpips("alex")
    except SvadError as error:
        pytest.skip(f"the LPIPS package cannot be had: {error}")
    names = BACKBONES["alex"].torchvision
    state = {f"features.{n}.{part}": t for n, conv in zip(names, plain.convs) for part, t in zip(("weight", "bias"), conv)}
    torch.save(state | {"classifier.1.weight": torch.zeros(4, 4)}, tmp_path / "alexnet.pth")
    a, b = person(64)[0], shifted(person(64)[0])
    brought = Lpips("alex", backbone_file=tmp_path / "alexnet.pth")
    assert brought(a, b) == plain(a, b) and "alexnet.pth" in brought.name
    torch.save({key: 1.5 * value for key, value in state.items()}, tmp_path / "other.pth")
    assert Lpips("alex", backbone_file=tmp_path / "other.pth")(a, b) != plain(a, b)
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "foreign.pth")
    with pytest.raises(InputError, match=r"features\.0"):
        Lpips("alex", backbone_file=tmp_path / "foreign.pth")
    with pytest.raises(WeightsMissing, match="torchvision"):
        Lpips("alex", backbone_file=tmp_path / "absent.pth")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A tiny checkpoint of transformers' real class."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 64, "projection_dim": 16, "image_size": 32, "patch_size": 8}
    config = CLIPVisionConfig(**sizes, num_hidden_layers=2, num_attention_heads=2, hidden_act="gelu")
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    model = CLIPVisionModelWithProjection(config).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.1)
    model.save_pretrained(folder)
    return folder, model


def test_clip_is_transformers_own_computation(clip_folder):
    from PIL import Image
    from transformers import CLIPImageProcessor

    folder, model = clip_folder
    measure = ClipSimilarity(folder)
    a, b = person(80)[0], mirrored(person(80)[0])
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)

    def theirs(image):
        pixels = processor(images=Image.fromarray((image * 255 + 0.5).astype(np.uint8)), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            return model(pixel_values=pixels).image_embeds[0]

    x, y = theirs(a), theirs(b)
    assert measure(a, b) == pytest.approx(float(torch.nn.functional.cosine_similarity(x, y, dim=0)), abs=2e-3)
    with torch.no_grad():
        exact = model(pixel_values=measure.pixels(a)[None]).image_embeds[0].double().numpy()
    np.testing.assert_allclose(measure.embedding(a), exact, atol=1e-6)
    assert measure(a, a) == pytest.approx(1, abs=1e-9) and measure(a, b) < 1
    assert "tiny" in measure.name and "sha256" in measure.name


def test_open_clips_names_are_the_same_network(clip_folder, tmp_path):
    from safetensors.torch import save_file

    folder, model = clip_folder
    theirs = {}
    state = model.state_dict()
    for key, value in state.items():
        key = key.removeprefix("vision_model.")
        if key.startswith("encoder.layers."):
            number, _, rest = key.removeprefix("encoder.layers.").partition(".")
            for ours, name in (("layer_norm", "ln_"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("self_attn.out", "attn.out")):
                rest = rest.replace(ours, name)
            if "q_proj" in rest:
                parts = [state[f"vision_model.encoder.layers.{number}.{rest.replace('q_proj', f'{n}_proj')}"] for n in "qkv"]
                theirs[f"visual.transformer.resblocks.{number}.attn.in_proj_{rest.rsplit('.', 1)[1]}"] = torch.cat(parts)
            elif "k_proj" not in rest and "v_proj" not in rest:
                theirs[f"visual.transformer.resblocks.{number}.{rest}"] = value.clone()
    renamed = {
        "class_embedding": "embeddings.class_embedding", "positional_embedding": "embeddings.position_embedding.weight",
        "conv1.weight": "embeddings.patch_embedding.weight", "ln_pre.weight": "pre_layrnorm.weight", "ln_pre.bias": "pre_layrnorm.bias",
        "ln_post.weight": "post_layernorm.weight", "ln_post.bias": "post_layernorm.bias",
    }  # fmt: skip
    theirs |= {f"visual.{name}": state[f"vision_model.{ours}"].clone() for name, ours in renamed.items()}
    theirs["visual.proj"] = state["visual_projection.weight"].T.contiguous()
    theirs["logit_scale"] = torch.zeros(())
    save_file(theirs, tmp_path / "open_clip_model.safetensors")
    vision = {"layers": 2, "width": 128, "patch_size": 8, "image_size": 32, "mlp_ratio": 0.5}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 16, "vision_cfg": vision}}))
    a, b = person(80)[0], shifted(person(80)[0])
    assert ClipSimilarity(tmp_path)(a, b) == pytest.approx(ClipSimilarity(folder)(a, b), abs=1e-6)


def test_clip_is_never_another_network(tmp_path):
    with pytest.raises(WeightsMissing, match="no checkpoint was given"):
        Scorer(Choice(("clip",)))
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    with pytest.raises(WeightsMissing, match="holds no CLIP"):
        ClipSimilarity(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="dinov2"):
        ClipSimilarity(tmp_path)


@pytest.mark.models
def test_the_small_network_knows_a_cat():
    """ImageNet class 285 is the Egyptian cat, 281 and 282 are other cats: the weights are real and in their places."""
    data = pytest.importorskip("skimage.data")
    from svad_ray.nets.efficientnet_lite import MEAN, STD, SemanticCosine, squared

    try:
        measure = SemanticCosine()
    except SvadError as error:
        pytest.skip(f"the package cannot be had: {error}")
    cat, woman = data.cat() / 255.0, data.astronaut() / 255.0
    x = (squared(cat.astype(np.float32)) - np.float32(MEAN)) / np.float32(STD)
    with torch.inference_mode():
        best = measure.network(torch.from_numpy(x.transpose(2, 0, 1).copy())[None])[0].topk(3).indices.tolist()
    assert set(best) == {281, 282, 285}
    assert measure(woman, woman[:, ::-1]) > 0.9 > 0.5 > measure(woman, cat)


def test_a_damaged_small_network_is_refused(tmp_path):
    from svad_ray.nets.efficientnet_lite import FILE, load_efficientnet

    with pytest.raises(WeightsMissing, match="semantic_cosine"):
        load_efficientnet(tmp_path)
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / FILE)
    with pytest.raises(InputError, match="partial"):
        load_efficientnet(tmp_path)


@pytest.mark.models
@pytest.mark.slow
def test_the_face_distance_tells_people_apart():
    pytest.importorskip("dlib")
    data = pytest.importorskip("skimage.data")
    from svad_ray.evaluate.faces import FaceDistance
    from svad_ray.evaluate.synthetic import demo_person

    try:
        measure = FaceDistance()
    except SvadError as error:
        pytest.skip(f"dlib's models cannot be had: {error}")
    woman, other = data.astronaut() / 255.0, demo_person(0).photo.image / 255.0
    assert measure(woman, woman) == 0
    assert measure(woman, cv2.GaussianBlur(woman, (0, 0), 1.0)) < 0.4 < 0.6 < measure(woman, other)
    assert math.isnan(measure(woman, np.ones_like(woman)))
