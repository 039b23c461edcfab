"""Energy by the machine's counters, and what runs cost as the speed table shows it."""

from __future__ import annotations

import json

import pytest

from svad_ray.errors import InputError
from svad_ray.evaluate.published import published
from svad_ray.ledger.status import SubjectStatus, write_status
from svad_ray.protocols.speed import UNREADABLE, costs_of, page_of
from svad_ray.usage import EnergyCounters, Meter, Usage, _rapl_counters, hardware


def counter(root, name, value, most=10_000_000):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{value}\n")
    (folder / "max_energy_range_uj").write_text(f"{most - 1}\n")


def test_packages_are_added_and_counters_start_again(tmp_path):
    counter(tmp_path, "intel-rapl:0", 9_000_000)
    counter(tmp_path, "intel-rapl:1", 1_000_000)
    counter(tmp_path, "intel-rapl:0:0", 5_000_000)  # the cores, which package 0 has in it
    counters = EnergyCounters(_rapl_counters(tmp_path))
    before = counters.read()
    counter(tmp_path, "intel-rapl:0", 2_000_000)
    counter(tmp_path, "intel-rapl:1", 1_500_000)
    assert counters.since(before) == pytest.approx(3.0 + 0.5)
    assert counters.said == "RAPL of 2 processors"


def test_no_counter_is_no_energy():
    assert EnergyCounters().since({}) is None and EnergyCounters().said == "not readable"
    assert Usage(1, 1, 1, 0, 5.0).plus(Usage(2, 1, 3, 0, None)).energy_j is None
    assert Usage(0, 0, 0).plus(Usage(2, 1, 3, 1.5, 4.0)) == Usage(2, 1, 3, 1.5, 4.0)
    assert Usage(1, 1, 1, 0, 5.0).plus(Usage(2, 1, 3, 0, 6.0)).energy_j == 11.0


def test_a_meter_reads_and_the_machine_has_a_name():
    usage = Meter().read()
    assert usage.wall_s >= 0 and usage.peak_gib > 0
    assert set(hardware()) == {"processor", "cores", "memory", "gpu", "energy"} and all(hardware().values())


def stage(seconds, **more):
    return {"wall_s": seconds, "cpu_s": seconds, "peak_gib": 1.0, "backend": "b", **more}


STAGES = {"perceive": 6.0, "animate": 54.0, "identity": 30.0, "restore": 12.0, "fit": 18.0, "avatar": 60.0}


def test_a_run_of_create_stands_beside_the_paper(tmp_path):
    machine = {"processor": "CPU", "cores": "2", "memory": "24 GiB", "gpu": "none", "energy": "RAPL"}
    stages = {name: stage(seconds, energy_j=10 * seconds) for name, seconds in STAGES.items()}
    (tmp_path / "usage.json").write_text(json.dumps({"format": 1, "hardware": machine, "stages": stages}))
    page = page_of(costs_of(str(tmp_path)), published("speed"))
    ours, paper = page.grids[0].rows
    assert ours[1:] == ("1.00", "0.50", "0.20", "0.30", "1.00", "3.00", "1.0", "none", "1.8")
    assert paper[1:7] == ("18.33", "3.02", "11.00", "60.55", "273.23", "366.13")
    assert "CPU, 2 cores, 24 GiB" in page.notes[0] and "A100" in page.notes[1]


def test_a_bulk_run_is_read_from_its_table(tmp_path):
    facts = {"stages": {name: stage(seconds) for name, seconds in STAGES.items()}}
    waiting = SubjectStatus("b", "b.png", "k2")
    write_status(str(tmp_path), [SubjectStatus("a", "a.png", "k1", "committed", facts=facts), waiting])
    costs = costs_of(str(tmp_path))
    assert costs.keys() == {"a"} and costs["a"].seconds["generate"] == 60 and costs["a"].seconds["total"] == 180
    assert page_of(costs, ()).grids[0].rows[0][-1] == UNREADABLE


def test_a_folder_without_costs_is_named(tmp_path):
    with pytest.raises(InputError, match="says nothing of its costs"):
        costs_of(str(tmp_path))
