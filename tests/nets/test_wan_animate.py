"""The pose-and-face driven pipeline of diffusers, tiny and randomly initialised, written to a folder and read back."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, DDPMPipeline, UniPCMultistepScheduler, WanAnimatePipeline, WanAnimateTransformer3DModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from svad_ray.errors import ConfigError, InputError, WeightsMissing
from svad_ray.nets.wan_animate import WanOptions, generate, load_pipeline

OPTIONS = WanOptions(steps=2, segment=5, prompt="a person")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "person": 2, "<unk>": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    pipe = WanAnimatePipeline(
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>"),
        text_encoder=UMT5EncoderModel(UMT5Config(vocab_size=8, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)),
        vae=AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]),
        scheduler=UniPCMultistepScheduler(flow_shift=3.0, prediction_type="flow_prediction", use_flow_sigmas=True),
        image_processor=CLIPImageProcessor(crop_size=16, size=16),
        image_encoder=CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=4, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4, projection_dim=4
            )
        ),
        transformer=WanAnimateTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=36,
            latent_channels=16,
            out_channels=16,
            text_dim=32,
            freq_dim=256,
            ffn_dim=32,
            num_layers=2,
            image_dim=4,
            rope_max_seq_len=32,
            motion_encoder_channel_sizes={"4": 16, "8": 16, "16": 16},
            motion_encoder_size=16,
            motion_style_dim=8,
            motion_dim=4,
            motion_encoder_dim=16,
            face_encoder_hidden_dim=16,
            face_encoder_num_heads=2,
            inject_face_latents_blocks=2,
        ),
    )
    for part in (pipe.transformer, pipe.vae):  # the classes' own first weights are so small that no input would be seen in 8 bits
        for weight in part.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=(1 / weight[0].numel()) ** 0.5)
    path = tmp_path_factory.mktemp("wan")
    pipe.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pipe(folder):
    return load_pipeline(folder, dtype=torch.float32, device="cpu")


def given(count, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(0, 255, (*size, 3), np.uint8) for size in ((50, 40), (count, 32, 32), (count, 16, 16))]


@pytest.mark.parametrize("count", [1, 3, 7])
def test_as_many_frames_as_poses(pipe, count):
    made = generate(pipe, *given(count), width=16, height=32, options=OPTIONS)
    assert made.shape == (count, 32, 16, 3) and made.dtype == np.uint8 and made.std() > 0


def test_seed_pose_and_photo_matter(pipe):
    photo, poses, faces = given(5)
    made = generate(pipe, photo, poses, faces, width=16, height=16, options=OPTIONS)
    np.testing.assert_array_equal(made, generate(pipe, photo, poses, faces, width=16, height=16, options=OPTIONS))
    for change in ((255 - photo, poses, faces), (photo, 255 - poses, faces)):
        assert (made != generate(pipe, *change, width=16, height=16, options=OPTIONS)).any()
    assert (made != generate(pipe, photo, poses, faces, width=16, height=16, options=WanOptions(steps=2, segment=5, prompt="a person", seed=1))).any()


def test_faults_are_named(pipe, folder, tmp_path):
    photo, poses, faces = given(2)
    with pytest.raises(ConfigError, match="multiples of 16"):
        generate(pipe, photo, poses, faces, width=24, height=16, options=OPTIONS)
    with pytest.raises(ConfigError, match="4 n"):
        generate(pipe, photo, poses, faces, width=16, height=16, options=WanOptions(segment=6))
    with pytest.raises(InputError, match="2 poses and 1 faces"):
        generate(pipe, photo, poses, faces[:1], width=16, height=16, options=OPTIONS)
    with pytest.raises(WeightsMissing, match=r"model_index.json"):
        load_pipeline(tmp_path, dtype=torch.float32, device="cpu")
    index = json.loads((folder / "model_index.json").read_text())
    for name, said in (("NoSuchPipeline", "does not have"), (DDPMPipeline.__name__, "does not take image, pose_video, face_video")):
        (tmp_path / "model_index.json").write_text(json.dumps(index | {"_class_name": name}))
        with pytest.raises(InputError, match=said):
            load_pipeline(tmp_path, dtype=torch.float32, device="cpu")
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(InputError, match="names no pipeline"):
        load_pipeline(tmp_path, dtype=torch.float32, device="cpu")
