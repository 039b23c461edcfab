"""Switches of the ablations: valid settings, explicit in what is made, each another order."""

from __future__ import annotations

import numpy as np
import pytest

from svad_ray.config import Settings, load_settings, override
from svad_ray.deliver import switched_off
from svad_ray.evaluate.scoring import Choice
from svad_ray.protocols import ablations
from svad_ray.protocols.orders import Result
from svad_ray.protocols.synthetic import orders, view_name
from svad_ray.stages.off import NoIdentity, NoRestore
from svad_ray.subject import Clip


def order_of(settings):
    (order,) = orders("out", settings, Choice(), people="cast", seeds=[0], views=4, size=64)
    return order


def test_every_variant_is_a_setting_and_another_order():
    found = ablations.variants(Settings())
    assert [v.name for v in found] == [
        "full",
        "no identity",
        "no restoration",
        "no silhouette",
        "24 frames",
        "48 frames",
        "96 frames",
        "256 px",
        "384 px",
    ]
    keys = {order_of(override(Settings(), v.changes)).key for v in found}
    assert len(keys) == len(found)
    assert len(ablations.variants(Settings(), frames=[189, 10], sizes=[512])) == 5, "what the full pipeline does already is no variant"


def test_what_changes_no_figure_changes_no_key():
    same = override(Settings(), {"threads": 3, "offline": True, "cache_dir": "x", "shard": 4})
    assert order_of(same).key == order_of(Settings()).key
    assert order_of(Settings()).key != orders("out", Settings(), Choice(("psnr",)), people="cast", seeds=[0], views=4, size=64)[0].key


def test_a_stage_that_is_off_says_so():
    settings = load_settings(sets=["identity.backend=off", "restore.backend=off"])
    assert [text.split(" stage")[0] for text in switched_off(settings)] == ["The identity", "The restore"] and not switched_off(Settings())
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    clip = Clip(frames, frames[..., 0], None, ("", "said"))
    done = NoRestore()(NoIdentity()(clip, None), None)
    assert done.frames is frames and done.remarks == ("identity off; restoration off", "said; identity off; restoration off")


def test_the_tables_have_a_row_a_variant():
    found = [v for v in ablations.variants(Settings()) if v.name in ("full", "no identity", "24 frames")]
    results = {v.name: [ablations.labelled(Result("p", [{"subject": "p", "view": "front", "psnr": 20.0 + k}]), v.name)] for k, v in enumerate(found)}
    parts, clip = ablations.grids(found, results, Settings(), seed=0)
    assert [row[:2] for row in parts.rows] == [("full (189 frames, 512 px)", "20.00"), ("no identity", "21.00")]
    assert [row[:2] for row in clip.rows] == [("full (189 frames, 512 px)", "20.00"), ("24 frames", "22.00")]
    assert results["no identity"][0].rows[0]["variant"] == "no identity"


@pytest.mark.parametrize(("degrees", "name"), [(0, "front"), (-90, "left"), (270, "left"), (90, "right"), (180, "back"), (45, "45°")])
def test_views_have_names(degrees, name):
    assert view_name(degrees) == name
