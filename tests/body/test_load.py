"""Body files: the layout's variants, and what a person is told of a file that is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from published_models import published
from typer.testing import CliRunner

from svad_ray.body.flame import load_flame
from svad_ray.body.load import body_from_arrays, content_id, load_body, read_npz
from svad_ray.errors import InputError, WeightsMissing


@pytest.fixture
def arrays(recorded, golden_folder: Path) -> dict[str, np.ndarray]:
    return read_npz(golden_folder / "body_smplx.npz")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="open body"):
        load_body(tmp_path / "SMPLX_NEUTRAL.npz")


def test_files_that_are_no_body_are_told(tmp_path: Path, arrays) -> None:
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(InputError, match="cannot be read"):
        load_body(broken)
    np.savez(tmp_path / "part.npz", v_template=arrays["v_template"])
    with pytest.raises(InputError, match="lacks f, shapedirs"):
        load_body(tmp_path / "part.npz")


def test_another_skeleton_is_told(arrays) -> None:
    table = arrays["kintree_table"][:, :24]
    with pytest.raises(InputError, match="24 joints"):
        body_from_arrays(arrays | {"kintree_table": table})


def test_pickled_extras_of_licensed_files_are_not_opened(tmp_path: Path, arrays) -> None:
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays, joint2num=np.array({"pelvis": 0}, dtype=object))
    assert load_body(tmp_path / "SMPLX_NEUTRAL.npz").name == "SMPLX_NEUTRAL"


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, arrays) -> None:
    path = tmp_path / "body.npz"
    np.savez(path, **arrays)
    first = load_body(path)
    assert load_body(path) is first
    np.savez(path, **(arrays | {"v_template": arrays["v_template"] + 1}))
    assert load_body(path).id != first.id


def test_the_first_releases_ten_and_ten_columns(arrays) -> None:
    columns = np.concatenate([arrays["shapedirs"][..., :10], arrays["shapedirs"][..., 300:310]], -1)
    body = body_from_arrays(arrays | {"shapedirs": columns})
    np.testing.assert_array_equal(body.shapedirs, arrays["shapedirs"][..., :10])
    np.testing.assert_array_equal(body.exprdirs, arrays["shapedirs"][..., 300:310])


def test_empty_slots_are_dropped(arrays) -> None:
    body = body_from_arrays(arrays)
    assert body.shapedirs.shape[-1] == 100 and body.exprdirs.shape[-1] == 50
    assert body_from_arrays(arrays | {"posedirs": np.zeros_like(arrays["posedirs"])}).posedirs is None


def test_the_id_follows_the_content(arrays) -> None:
    assert content_id(arrays) == content_id(dict(arrays)) and len(content_id(arrays)) == 12
    assert content_id(arrays) != content_id(arrays | {"weights": arrays["weights"][:, ::-1]})


def test_double_precision_keeps_the_tables(golden_body) -> None:
    double = golden_body.to(torch.float64)
    assert double.v_template.dtype == double.hands_mean.dtype == torch.float64
    assert double.tables is golden_body.tables and double.id == golden_body.id
    assert double.joint_template.dtype == torch.float64


def test_named_vertices_outside_the_body_are_told(arrays) -> None:
    with pytest.raises(InputError, match="nose"):
        body_from_arrays(arrays, vertex_ids={"nose": 9120})


def test_the_makers_pickle_is_the_same_body(tmp_path: Path, arrays) -> None:
    first = load_body(published(arrays, tmp_path / "SMPLX_NEUTRAL.pkl"))
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays)
    second = load_body(tmp_path / "SMPLX_NEUTRAL.npz")
    assert first.id == second.id
    for name in ("posedirs", "exprdirs", "lbs_weights", "hands_mean"):
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=0, atol=0)


def convert(*arguments: object):
    from svad_ray.cli import app

    return CliRunner().invoke(app, ["models", "convert", *map(str, arguments)])


def test_pickles_become_npz_files_that_load_alike(tmp_path: Path, arrays, golden_folder: Path) -> None:
    body = published(arrays, tmp_path / "SMPLX_MALE.pkl")
    done = convert(body)
    assert done.exit_code == 0 and f"SMPL-X, {len(arrays['v_template'])} vertices" in done.output
    assert load_body(tmp_path / "SMPLX_MALE.npz").id == load_body(body).id
    with np.load(golden_folder / "body_flame.npz") as file:
        head = published({key: file[key] for key in file.files}, tmp_path / "FLAME_NEUTRAL.pkl")
    assert convert(head, "--out", tmp_path / "head.npz").exit_code == 0
    torch.testing.assert_close(load_flame(tmp_path / "head.npz").shapedirs, load_flame(head).shapedirs, rtol=0, atol=0)


FAULTS = {
    "weights of other vertices": ({"weights": slice(0, -1)}, r"weights of \(639, 55\)"),
    "correctives of other joints": ({"posedirs": (slice(None), slice(None), slice(0, 207))}, "posedirs of"),
    "vertices cut off": ({name: slice(0, 600) for name in ("v_template", "shapedirs", "posedirs", "weights")}, "J_regressor of"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_arrays_that_do_not_fit_together_are_told(tmp_path: Path, arrays, fault: str) -> None:
    cuts, says = FAULTS[fault]
    with pytest.raises(InputError, match=says):
        load_body(published(arrays | {name: arrays[name][cut] for name, cut in cuts.items()}, tmp_path / "SMPLX_NEUTRAL.pkl"))


def test_what_cannot_be_converted_leaves_nothing(tmp_path: Path, arrays) -> None:
    whole = published(arrays, tmp_path / "whole.pkl").read_bytes()
    (tmp_path / "cut.pkl").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "nan.pkl").write_bytes(published(arrays | {"weights": arrays["weights"] * np.nan}, tmp_path / "nan.pkl").read_bytes())
    published({"v_template": arrays["v_template"]}, tmp_path / "part.pkl", more=False)
    for name, says in (("cut", "cannot be read"), ("nan", "no numbers"), ("part", "kintree_table"), ("absent", "no file")):
        done = convert(tmp_path / f"{name}.pkl")
        assert done.exit_code != 0 and says in str(done.exception), name
    assert not list(tmp_path.glob("*.npz"))
