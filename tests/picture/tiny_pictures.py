"""Small pipelines of the real classes, weights at random: what they draw is noise, that they run is what counts."""

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

VISION = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>", "<|im_start|>", "<|im_end|>")
WORDS = ("<pad>", "<eos>", "<unk>", *VISION)
QWEN3 = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 32}
_HALVES = {"block_out_channels": (8, 8), "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 4}
_HALVES |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}


def tokenizer():
    """One token a letter, so that no template is shorter than what the pipelines cut off."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>", "additional_special_tokens": list(VISION)}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=77, **special)
    fast.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    return fast


class Processor:
    """What Qwen's edit pipelines ask of their processor, whose own class needs torchvision: text with the picture's tokens, and it."""

    def __init__(self) -> None:
        self.tokenizer = tokenizer()
        self.image_processor = transformers.Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56)

    def __call__(self, *, text, images, padding, return_tensors):
        if images is None:
            return self.tokenizer(text, padding=padding, return_tensors=return_tensors)
        seen = self.image_processor(images=images, return_tensors=return_tensors)
        (tokens,) = (seen["image_grid_thw"].prod(1) // 4).tolist()
        roomy = [one.replace("<|image_pad|>", "<|image_pad|>" * tokens) for one in text]
        return transformers.BatchFeature({**self.tokenizer(roomy, padding=padding, return_tensors=return_tensors), **seen})


def scheduler():
    return diffusers.FlowMatchEulerDiscreteScheduler()


def vae():
    plain = {"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.1, "scaling_factor": 0.5}
    return diffusers.AutoencoderKL(**_HALVES, **plain)


def flux():
    clip = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32, "projection_dim": 16}
    ids = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 2}
    sizes = {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "axes_dims_rope": (4, 4, 8),
    }
    return diffusers.FluxPipeline(
        scheduler=scheduler(),
        vae=vae(),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**clip, **ids)),
        tokenizer=tokenizer(),
        text_encoder_2=transformers.T5EncoderModel(transformers.T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=32)),
        tokenizer_2=tokenizer(),
        transformer=diffusers.FluxTransformer2DModel(patch_size=1, joint_attention_dim=16, pooled_projection_dim=16, guidance_embeds=True, **sizes),
    )


def klein():
    sizes = {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
    axes = {"axes_dims_rope": (4, 4, 4, 4), "timestep_guidance_channels": 16, "joint_attention_dim": 48}
    return diffusers.Flux2KleinPipeline(
        scheduler=scheduler(),
        vae=diffusers.AutoencoderKLFlux2(sample_size=32, **_HALVES),
        text_encoder=transformers.Qwen3ForCausalLM(transformers.Qwen3Config(num_hidden_layers=28, **QWEN3)),
        tokenizer=tokenizer(),
        transformer=diffusers.Flux2Transformer2DModel(patch_size=1, **sizes, **axes),
        is_distilled=True,
    )


def z_image():
    sizes = {"in_channels": 4, "dim": 32, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 16}
    return diffusers.ZImagePipeline(
        scheduler=scheduler(),
        vae=vae(),
        text_encoder=transformers.Qwen3Model(transformers.Qwen3Config(num_hidden_layers=2, **QWEN3)),
        tokenizer=tokenizer(),
        transformer=diffusers.ZImageTransformer2DModel(axes_dims=[4, 4, 8], axes_lens=[2048, 64, 64], **sizes),
    )


def _qwen_parts() -> dict:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2]}
    text = {key: value for key, value in QWEN3.items() if key != "head_dim"} | {"num_hidden_layers": 1, "rope_scaling": rope}
    text |= {"bos_token_id": 1, "eos_token_id": 1}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    ids = {"image_token_id": 4, "vision_start_token_id": 3, "vision_end_token_id": 5, "video_token_id": 6}
    sizes = {"in_channels": 16, "out_channels": 4, "num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "axes_dims_rope": (4, 4, 8)}
    latents = {"base_dim": 8, "z_dim": 4, "num_res_blocks": 1, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    return {
        "scheduler": scheduler(),
        "vae": diffusers.AutoencoderKLQwenImage(dim_mult=[1, 1, 1, 1], temperal_downsample=[False, True, True], **latents),
        "text_encoder": transformers.Qwen2_5_VLForConditionalGeneration(config),
        "tokenizer": tokenizer(),
        "transformer": diffusers.QwenImageTransformer2DModel(patch_size=2, joint_attention_dim=16, **sizes),
    }


def qwen():
    return diffusers.QwenImagePipeline(**_qwen_parts())


def qwen_edit(kind):
    return kind(**_qwen_parts(), processor=Processor())


def seeded(make, *args):
    torch.manual_seed(0)
    return make(*args)
