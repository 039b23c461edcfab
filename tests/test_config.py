"""Settings: one place of defaults, plain errors, YAML as their written form."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from svad_ray.backends import STAGES, load, names
from svad_ray.config import PROFILES, Settings, dump_settings, for_all_stages, load_settings, override, parse_settings
from svad_ray.errors import BackendUnavailable, ConfigError, InputError, WeightsMissing


@given(st.integers(1, 500), st.integers(64, 1024), st.integers(0, 2**31), st.floats(0.5, 9.0))
def test_yaml_round_trip(tmp_path_factory, frames, size, seed, focal):
    settings = override(Settings(), {"animate.frames": frames, "animate.size": size, "animate.focal_factor": focal, **for_all_stages("seed", seed)})
    path = tmp_path_factory.mktemp("yaml") / "s.yaml"
    path.write_text(dump_settings(settings))
    assert load_settings(path=path) == settings


def test_last_writer_wins(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("threads: 3\nanimate: {frames: 10, size: 128}\n")
    settings = load_settings(path=path, sets=["animate.frames=20", "avatar.rates=[0.1, 0.2, 0.3]"])
    assert (settings.threads, settings.animate.frames, settings.animate.size) == (3, 20, 128)
    assert settings.avatar.rates == (0.1, 0.2, 0.3)
    assert settings.fit == Settings().fit


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("animate.framse=3", "frames"),
        ("avatar.gausians=3", "gaussians"),
        ("anymate.frames=3", "animate"),
        ("thread=2", "threads"),
        ("animate.backend.x=1", ""),
    ],
)
def test_an_unknown_key_names_the_nearest(text, nearest):
    with pytest.raises(ConfigError) as caught:
        load_settings(sets=[text])
    assert nearest in caught.value.remedy
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text", ["animate.frames=0", "animate.frames=many", "threads=-1", "identity.gate=none", "avatar.rates=[1, 2]", "noequals", "=3"]
)
def test_values_out_of_range_are_refused(text):
    with pytest.raises(ConfigError):
        load_settings(sets=[text])


@pytest.mark.parametrize("content", ["- a list\n", "{", "animate: 3\n", "profile: fancy\n"])
def test_bad_files(tmp_path, content):
    path = tmp_path / "s.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError):
        load_settings(path=path)


def test_a_missing_file_and_profile(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_settings(path=tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="no profile"):
        load_settings(profile="papre")


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Settings().animate.frames = 3


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_choose_known_backends(profile):
    settings = load_settings(profile=profile)
    assert all(settings.stage(stage).backend in names(stage) for stage in STAGES)
    assert yaml.safe_load(dump_settings(settings))["profile"] == profile


@pytest.mark.parametrize("stage", [s for s in STAGES if s != "avatar"])
def test_a_backend_of_the_paper_says_what_it_needs(stage, tmp_path):
    """Set up without its files it names them, where they come from, and what to choose instead."""
    settings = load_settings(profile="paper", sets=["fit.flame=require"])
    made = load(stage, settings.stage(stage).backend)(settings.stage(stage).model_copy(update={"weights": str(tmp_path)}))
    with pytest.raises((WeightsMissing, BackendUnavailable)) as caught:
        made.setup()
    assert "Expected:" in str(caught.value) or "install" in str(caught.value)


def test_an_unknown_backend_lists_the_known():
    with pytest.raises(ConfigError, match="reprojection or musepose"):
        load("animate", "magic")


def test_parse_is_strict_about_nesting():
    with pytest.raises(ConfigError):
        parse_settings({"animate": {"frames": {"deep": 1}}})


def test_off_is_a_word_and_true_is_not(tmp_path):
    """What messages advise can be typed: drift.measure=off."""
    assert load_settings(sets=["drift.measure=off"]).drift.measure == "off"
    (tmp_path / "s.yaml").write_text("drift: {measure: off}\nperceive: {largest: true}\n")
    read = load_settings(path=tmp_path / "s.yaml")
    assert read.drift.measure == "off" and read.perceive.largest is True
    assert load_settings(sets=["perceive.largest=True"]).perceive.largest is True
