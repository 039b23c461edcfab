"""Every class that a recipe names runs, is asked as its recipe says, and follows seed and prompt."""

import inspect

import diffusers
import numpy as np
import pytest
import tiny_pictures as tiny

from svad_ray.config import PictureConfig
from svad_ray.errors import InputError
from svad_ray.stages.picture import draw as module
from svad_ray.stages.picture.draw import Draw
from svad_ray.stages.picture.recipes import RECIPES
from svad_ray.subject import Photo

FOLDERS = {"FluxPipeline": tiny.flux, "QwenImagePipeline": tiny.qwen, "Flux2KleinPipeline": tiny.klein, "ZImagePipeline": tiny.z_image}
INJECTED = ("QwenImageEditPipeline", "QwenImageEditPlusPipeline")  # their processor cannot be loaded without torchvision


@pytest.fixture
def photo():
    return Photo("p", np.random.default_rng(0).integers(0, 255, (96, 64, 3), dtype=np.uint8), "")


def heard(monkeypatch, pipe):
    """What the pipeline is called with; it is called all the same."""
    said, real = {}, type(pipe).__call__

    def call(self, **given):
        said.update(given)
        return real(self, **given)

    call.__signature__ = inspect.signature(real)
    monkeypatch.setattr(type(pipe), "__call__", call)
    return said


def test_every_recipe_is_tried_here():
    assert set(RECIPES) == {*FOLDERS, *INJECTED} and all(hasattr(diffusers, name) for name in RECIPES)


@pytest.mark.parametrize("name", FOLDERS)
def test_pipelines_from_their_folders(name, tmp_path, photo, monkeypatch):
    tiny.seeded(FOLDERS[name]).save_pretrained(tmp_path)
    draw = Draw(PictureConfig(weights=str(tmp_path), height=64, width=96, steps=2))
    draw.setup()
    recipe, said, shares = RECIPES[name], heard(monkeypatch, draw.pipe), []
    first = draw("a tall man", seed=1, progress=shares.append)
    assert first.shape == (64, 96, 3) and first.dtype == np.uint8 and first.std() > 1 and shares == [0.5, 1.0]
    assert said[recipe.guided_by] == recipe.guidance and said["num_inference_steps"] == 2 and "head and feet" in said["prompt"]
    assert np.array_equal(first, draw("a tall man", seed=1)) and not np.array_equal(first, draw("a tall man", seed=2))
    if recipe.edits:
        monkeypatch.setattr(module, "_EDIT_PIXELS", 96 * 64)
        assert draw("a hat", photo).shape == (96, 64, 3)
    else:
        with pytest.raises(InputError, match="does not edit"):
            draw("a hat", photo)


@pytest.mark.slow
@pytest.mark.parametrize("name", INJECTED)
def test_qwen_edits(name, photo, monkeypatch):
    draw = Draw(PictureConfig(steps=2))
    draw.name, draw.recipe, draw.pipe = name, RECIPES[name], tiny.seeded(tiny.qwen_edit, getattr(diffusers, name))
    draw.pipe.set_progress_bar_config(disable=True)
    monkeypatch.setattr(module, "_EDIT_PIXELS", 96 * 64)
    said = heard(monkeypatch, draw.pipe)
    made = draw("a hat", photo)
    assert made.shape == (96, 64, 3) and made.std() > 1
    assert said["true_cfg_scale"] == 4.0 and said["negative_prompt"] == " " and "Keep the same person" in said["prompt"]
    other = Photo("q", np.zeros((96, 64, 3), np.uint8), "")
    assert not np.array_equal(made, draw("a hat", other)), "the photo counts"
    with pytest.raises(InputError, match="draws none from a prompt alone"):
        draw("a man")


def test_a_damaged_folder_says_so(tmp_path):
    tiny.seeded(tiny.z_image).save_pretrained(tmp_path)
    (tmp_path / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be read as ZImagePipeline"):
        Draw(PictureConfig(weights=str(tmp_path))).setup()


def test_published_numbers():
    flux = RECIPES["FluxPipeline"]
    assert (flux.steps, flux.guidance) == (50, 3.5)
