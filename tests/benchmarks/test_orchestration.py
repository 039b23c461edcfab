"""The arithmetic of the orchestration benchmark, and that its scripted subjects really pass the product's pipeline."""

import numpy as np
import pytest

from benchmarks import orchestration, orchestration_kit


def test_steady_time_leaves_out_the_first_quarter():
    """8 blocks of 16 frames: a slow start, then one block every 0.32 s, which is 20 ms a frame."""
    times = [0.0, 5.0, *(5.0 + 0.32 * i for i in range(1, 7))]
    assert orchestration.steady_ms(times) == pytest.approx(0.32 * 5 / (5 * 16) * 1e3)


def test_quartiles_are_those_of_the_values():
    assert orchestration.quartiles([5.0, 1.0, 3.0, 2.0, 4.0]) == "3.0 (2.0 to 4.0)"


def test_a_line_that_is_being_written_is_not_read(tmp_path):
    log = tmp_path / "steps.log"
    log.write_text("10.5 0 aa\n11.5 1 aa\n12.")
    assert orchestration.read_steps(log) == [(10.5, 0, "aa"), (11.5, 1, "aa")]


def test_ways_take_turns_and_the_warm_up_is_left_out():
    order: list[str] = []
    ways = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    ms = orchestration.alternate(ways, 10)
    assert order == ["a", "b"] * 12
    assert {name: len(values) for name, values in ms.items()} == {"a": 10, "b": 10}


def test_scripted_subjects_go_through_the_whole_pipeline(tmp_path):
    from svad_ray.fulfil import fulfil
    from svad_ray.store import ArtefactStore

    request = orchestration_kit.request("person", count=20)
    marker = fulfil(request, str(tmp_path), kit=orchestration_kit.KIT)
    assert marker.facts["subject_id"] == "person"
    work = ArtefactStore(f"{tmp_path}/work")
    restored = [key for key in work.committed_keys() if key.stage == "restore"]
    assert len(restored) == 2, "20 frames are two blocks of at most 16"
    clips = sorted((work.get(key) for key in restored), key=lambda clip: clip.first)
    found = np.concatenate([clip.frames for clip in clips])
    assert (found == orchestration_kit.frames(20) ^ 85 ^ 255).all()


def test_a_photo_of_its_own_for_every_address():
    first, second = orchestration_kit.load("memory://a"), orchestration_kit.load("memory://b")
    assert first.sha256 != second.sha256 and (first.image != second.image).any()
