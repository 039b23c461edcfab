"""What runs where, decided before Ray is asked."""

import os
import subprocess
import sys

import pytest

from svad_ray.cluster.config import POOLS, ClusterConfig, load_cluster_config, sized
from svad_ray.errors import ConfigError, InputError


@pytest.mark.parametrize("cpus", [2, 3, 4])
def test_two_cores_hold_every_pool_and_one_training_task(cpus):
    config = sized(ClusterConfig(), cpus=cpus)
    assert all(getattr(config, name).workers == 1 for name in POOLS)
    assert sum(getattr(config, name).cpus for name in POOLS) + config.train.cpus <= cpus


@pytest.mark.parametrize("cpus", [5, 8, 64, 1000])
def test_larger_machines_are_shared_out(cpus):
    config = sized(ClusterConfig(), cpus=cpus)
    used = sum(getattr(config, name).workers * getattr(config, name).cpus for name in POOLS)
    assert config.generate.workers >= config.fuse.workers >= 1
    assert used + config.train.cpus <= cpus and (cpus < 64 or used > 0.5 * cpus)


def test_given_numbers_stay():
    config = sized(load_cluster_config(values={"restore": {"workers": 7, "cpus": 2}}), cpus=2)
    assert (config.restore.workers, config.restore.cpus, config.generate.workers) == (7, 2, 1)


def test_yaml_and_values_are_merged_and_mistakes_are_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("train: {cpus: 4, gpus: 1}\nlabel: svad/pool=bulk\n")
    config = load_cluster_config(path, {"train": {"at_once": 2}})
    assert (config.train.cpus, config.train.at_once, config.train.bundle) == (4, 2, {"CPU": 4.0, "GPU": 1.0})
    assert config.label_selector == {"svad/pool": "bulk"} and ClusterConfig().label_selector == {}
    for text, kind, words in [
        ("trian: {cpus: 4}", ConfigError, "trian"),
        ("train: {cpus: -1}", ConfigError, "train.cpus"),
        ("- 1", ConfigError, "holds a list"),
        ("a: [", ConfigError, "not YAML"),
    ]:
        path.write_text(text)
        with pytest.raises(kind, match=words):
            load_cluster_config(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_cluster_config(tmp_path / "none.yaml")


def test_authentication_and_telemetry_do_not_depend_on_the_home_folder(tmp_path):
    program = "import os, svad_ray.cluster; print(os.environ['RAY_AUTH_MODE'], os.environ['RAY_USAGE_STATS_ENABLED'])"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["token", "0"]
    said = subprocess.run(
        [sys.executable, "-c", program], env={**clean, "RAY_AUTH_MODE": "disabled"}, capture_output=True, text=True, check=True
    ).stdout
    assert said.split()[0] == "disabled"
    assert not (tmp_path / ".ray").exists()


def test_a_cluster_is_not_started_with_another_authentication_than_rays(tmp_path):
    """Ray reads it at its import; a cluster of another kind would destroy every actor of this process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": str(tmp_path)}
    program = "import ray; from svad_ray.cluster.session import connect; connect()"
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True)
    assert done.returncode != 0 and "ray was imported before svad_ray.cluster" in done.stderr
