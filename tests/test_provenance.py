"""What provenance says of commercial use: every backend as it is set up, and the body, have their say."""

from dataclasses import replace

import numpy as np
import pytest

from svad_ray.body import load_body
from svad_ray.config import load_settings
from svad_ray.deliver import chosen_backends, provenance
from svad_ray.subject import Photo

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def body():
    return load_body()


def said(settings, body):
    photo = Photo("p", np.zeros((8, 8, 3), np.uint8), "0" * 64)
    return provenance(photo, settings, chosen_backends(settings), consent="", warnings=(), body=body)


def test_the_embedded_profile_on_the_open_body_is_free(body):
    facts = said(load_settings(), body)
    assert facts["commercial_use"] is True and all(stage["how"] for stage in facts["stages"].values())


def test_a_licensed_body_is_not(body):
    facts = said(load_settings(), replace(body, name="SMPLX_NEUTRAL", licence="Max Planck SMPL-X model licence (non-commercial)"))
    assert facts["commercial_use"] is False and "body/SMPLX_NEUTRAL" in facts["commercial_reason"]


@pytest.mark.parametrize(
    ("sets", "free"),
    [
        (["fit.backend=smplx-exavatar"], True),
        (["fit.backend=smplx-exavatar", "fit.weights=somewhere"], False),
        (["fit.backend=smplx-exavatar", "fit.weights=somewhere", "fit.flame=off"], True),
        (["perceive.backend=dwpose-sam", "perceive.depth=small"], True),
        (["perceive.backend=dwpose-sam", "perceive.depth=large"], False),
        (["identity.backend=gagavatar"], False),
        (["avatar.backend=exavatar"], True),
    ],
)
def test_settings_decide(body, sets, free):
    facts = said(load_settings(sets=sets), body)
    assert facts["commercial_use"] is free, facts["commercial_reason"]
    assert free or sets[0].split("=")[1] in facts["commercial_reason"]
