"""The contract: every registered backend is what the runner, the doctor and the documentation take it for."""

import inspect

import pytest

from svad_ray.backends import EMBEDDED, STAGES, load, registry
from svad_ray.config import Settings
from svad_ray.models import PACKAGES
from svad_ray.stages import base

PROTOCOLS = {
    "perceive": base.PerceiveStage,
    "animate": base.AnimateStage,
    "identity": base.IdentityStage,
    "restore": base.RestoreStage,
    "fit": base.FitStage,
    "avatar": base.AvatarStage,
}


def parameters(function) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize(("stage", "name"), registry())
def test_contract(stage, name):
    kind = load(stage, name)
    assert (kind.backend.stage, kind.backend.name) == (stage, name)
    assert isinstance(kind.version, int) and kind.version >= 1
    assert set(kind.backend.models) <= PACKAGES.keys()
    made = kind(Settings().stage(stage))
    assert isinstance(made, base.Stage) and made.config == Settings().stage(stage)
    assert kind().config == Settings().stage(stage), "the default configuration is the settings' own"


@pytest.mark.parametrize(("stage", "name"), registry())
def test_signatures_are_the_interface(stage, name):
    kind, wanted = load(stage, name), PROTOCOLS[stage]
    for method in [m for m in ("__call__", "reference", "plan") if m in vars(wanted)]:
        asked, given = parameters(getattr(wanted, method)), parameters(getattr(kind, method))
        assert given[: len(asked)] == asked, f"{kind.__name__}.{method}{given}"


def test_every_stage_has_an_embedded_and_a_paper_backend():
    assert set(EMBEDDED) == set(STAGES) and all((stage, name) in registry() for stage, name in EMBEDDED.items())
    assert {stage for stage, name in registry() if name != EMBEDDED[stage]} == set(STAGES)
