"""Prompts to photos: framing, gates with bounded tries, plain errors, provenance. What draws is a stub, named as code of one's own."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from svad_ray.cli import app
from svad_ray.config import PictureConfig, load_settings
from svad_ray.errors import BackendUnavailable, ConfigError, InputError, QualityRejected, WeightsMissing
from svad_ray.local import LocalRunner
from svad_ray.pictures import check_request, made_photo
from svad_ray.stages.picture.draw import Draw, chosen, edit_size
from svad_ray.stages.picture.prompts import MAX_PROMPT, checked, framed
from svad_ray.store import ArtefactStore

STUB = Path(__file__).parent / "picture_stub.py"


@pytest.fixture
def weights(tmp_path):
    """A folder of the stub whose pictures show a person from seed 2 on."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StubPipeline"}))
    (folder / "person_from").write_text("2")
    return folder


def sets(weights, *more):
    return [f"picture.weights={weights}", f"picture.pipeline={STUB}:StubPipeline", "picture.trust_code=true", *more]


def calls(weights):
    return [json.loads(line) for line in (weights / "calls.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def perceive():
    from svad_ray.stages.base import make

    return make("perceive", load_settings().perceive)


@pytest.mark.slow
@pytest.mark.models
def test_the_first_picture_with_a_person_counts(weights, perceive, tmp_path):
    settings = load_settings(sets=sets(weights, "picture.licence=Apache-2.0"))
    run = LocalRunner(ArtefactStore(tmp_path / "work"), settings)
    photo = made_photo("a  woman in a red\ncoat.", None, settings, run, perceive=perceive)
    assert photo.image.shape == (1024, 768, 3) and "try 3 with seed 2" in photo.notes[0]
    assert [call["seed"] for call in calls(weights)] == [0, 1, 2]
    first = calls(weights)[0]
    assert "full-body photograph of a woman in a red coat, one person alone" in first["prompt"] and not first["edits"]
    assert (first["steps"], first["guidance"]) == (28, 6.0)
    assert photo.origin["prompt"] == "a woman in a red coat." and photo.origin["commercial_use"] and photo.origin["edited_from"] is None
    again = LocalRunner(ArtefactStore(tmp_path / "work"), settings)
    assert np.array_equal(made_photo("a woman in a red coat.", None, settings, again, perceive=perceive).image, photo.image)
    assert len(calls(weights)) == 3, "what was drawn is kept"
    edited = made_photo("a green coat", photo, settings, again, perceive=perceive)
    assert calls(weights)[-1]["edits"] and "Keep the same person" in calls(weights)[-1]["prompt"]
    assert edited.origin["edited_from"]["sha256"] == photo.sha256


@pytest.mark.models
def test_no_person_is_a_plain_error_after_bounded_tries(weights, perceive, tmp_path):
    settings = load_settings(sets=sets(weights, "picture.tries=2"))
    run = LocalRunner(ArtefactStore(tmp_path / "work"), settings)
    with pytest.raises(QualityRejected, match="none of 2 pictures of 'a teapot'") as caught:
        made_photo("a teapot", None, settings, run, perceive=perceive)
    assert "seed 0: no person" in str(caught.value) and "seed 1: no person" in str(caught.value) and len(calls(weights)) == 2


@pytest.mark.parametrize("prompt", ["", "  \n", "...", "a" * 10_000, "word " * (MAX_PROMPT // 5 + 1)])
def test_prompts_that_cannot_be_drawn(prompt):
    with pytest.raises(InputError) as caught:
        checked(prompt)
    assert caught.value.remedy and len(str(caught.value)) < 300


def test_framing_asks_for_the_whole_person():
    assert "head and feet inside the frame" in framed("Anna", edit=False)
    assert framed("Make it blue.", edit=True).startswith("Make it blue. Keep the same person")


def test_the_folder_decides_and_says_what_is_missing(tmp_path, weights):
    with pytest.raises(WeightsMissing, match=r"(?s)FLUX\.1-dev .*picture\.weights=FOLDER") as caught:
        check_request("a man", PictureConfig())
    assert "Qwen/Qwen-Image (Apache-2.0)" in str(caught.value).replace("\n", " ")
    with pytest.raises(InputError, match=r"StubPipeline.*") as caught:
        chosen(PictureConfig(weights=str(weights)))
    assert "FluxPipeline" in str(caught.value) and "picture.trust_code" in str(caught.value)
    (weights / "model_index.json").write_text("{")
    with pytest.raises(InputError, match="names no pipeline"):
        chosen(PictureConfig(weights=str(weights)))


def test_code_of_ones_own_runs_only_when_it_is_trusted(weights, tmp_path):
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass P: pass\n")
    config = PictureConfig(weights=str(weights), pipeline=f"{evil}:P")
    with pytest.raises(ConfigError, match="trust_code=true"):
        Draw(config).setup()
    with pytest.raises(ConfigError, match="trust_code=true"):
        check_request("a man", config)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError, match="has no pipeline 'P'"):
        Draw(config.model_copy(update={"trust_code": True})).setup()
    assert (tmp_path / "ran").exists()
    with pytest.raises(InputError, match="no Python file"):
        Draw(PictureConfig(weights=str(weights), pipeline=f"{tmp_path}/none.py:P", trust_code=True)).setup()


def test_options_that_this_machine_cannot_do(weights):
    import importlib.util

    import torch

    config = PictureConfig(weights=str(weights), pipeline=f"{STUB}:StubPipeline", trust_code=True)
    if not torch.cuda.is_available():
        with pytest.raises(BackendUnavailable, match="there is none"):
            Draw(config.model_copy(update={"offload": "model"})).setup()
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(BackendUnavailable, match="bitsandbytes"):
            Draw(config.model_copy(update={"quantize": "nf4"})).setup()


def test_terms_of_the_model(weights):
    def terms(name, **more):
        (weights / "model_index.json").write_text(json.dumps({"_class_name": name}))
        return Draw.described(PictureConfig(weights=str(weights), **more))

    assert not terms("FluxPipeline").commercial and "non-commercial" in terms("FluxPipeline").weights_licence
    assert terms("QwenImageEditPlusPipeline").commercial and terms("ZImagePipeline").weights_licence == "Apache-2.0"
    assert not terms("Flux2KleinPipeline").commercial and terms("Flux2KleinPipeline", licence="Apache-2.0").commercial
    assert not terms("QwenImagePipeline", licence="research only").commercial


def test_edited_pictures_keep_their_proportions():
    assert edit_size(1024, 1024) == (1024, 1024) and edit_size(2048, 1024) == (1440, 736) and min(edit_size(64, 4000)) >= 32


def run_app(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_commands_refuse_before_any_work(tmp_path):
    for words, kind in (
        (("create", "--out", tmp_path / "o", "--prompt", ""), InputError),
        (("create", "--out", tmp_path / "o", "--prompt", "x" * 10_000), InputError),
        (("create", "--out", tmp_path / "o", "--prompt", "a man"), WeightsMissing),
        (("create", "--out", tmp_path / "o"), InputError),
        (("create", "photo.jpg", "--out", tmp_path / "o", "--prompt", "a man"), InputError),
        (("edit", "photo.jpg", "--out", tmp_path / "o", "--prompt", "blue"), WeightsMissing),
    ):
        done = run_app(*words)
        assert type(done.exception) is kind, (words, done.exception)
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
@pytest.mark.models
def test_from_a_prompt_to_an_avatar_and_an_edit_of_it(weights, tmp_path):
    small = ("animate.frames=12", "animate.size=128", "avatar.iterations=20", "avatar.gaussians=2000", "fit.iterations=5", "restore.budget_s=0")
    small += ("animate.keypoint_iterations=20", "animate.silhouette_iterations=5", "animate.clothe_iterations=10", "animate.supersample=1")
    words = [word for value in sets(weights, *small) for word in ("--set", value)]
    done = run_app("create", "--prompt", "a man in a blue shirt", "--out", tmp_path / "a", "--consent", "nobody's likeness", *words)
    assert done.exit_code == 0, done.exception
    facts = json.loads((tmp_path / "a/avatar/avatar.json").read_text())["facts"]["provenance"]
    assert facts["photo"]["origin"]["prompt"] == "a man in a blue shirt" and not facts["commercial_use"]
    assert "picture: as you say in picture.licence" in facts["commercial_reason"] and (tmp_path / "a/photo.png").exists()
    assert "a man in a blue shirt" in (tmp_path / "a/report.html").read_text()
    done = run_app("edit", tmp_path / "a", "--prompt", "a red shirt", "--out", tmp_path / "b", *words)
    assert done.exit_code == 0, done.exception
    origin = json.loads((tmp_path / "b/avatar/avatar.json").read_text())["facts"]["provenance"]["photo"]["origin"]
    assert "nobody's likeness" in origin["edited_from"]["notes"][0] and calls(weights)[-1]["edits"]


def test_a_stage_that_is_gone_leaves_no_mark(tmp_path):
    """What drew the photo is let go of before the next stage is made, which may lie where it lay."""
    from svad_ray.backends import EMBEDDED, load

    class Short:
        version, backend = 1, load("restore", EMBEDDED["restore"]).backend

        def __init__(self):
            self.config, self.is_ready = PictureConfig(), False

        def setup(self):
            self.is_ready = True

    run = LocalRunner(ArtefactStore(tmp_path), load_settings())
    for i in range(20):
        stage = Short()
        assert run.whole("short", stage, lambda step, stage=stage: stage.is_ready, inputs=[str(i)]).value
        del stage
