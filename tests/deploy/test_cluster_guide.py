"""docs/cluster.md against the product: its configuration, commands, metrics and files exist."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S)
    for line in block.splitlines()
    if line.strip() and not line.startswith(("#", "export"))
]


def test_the_cluster_configuration_shown_is_complete_and_its_defaults_are_named_rightly():
    pytest.importorskip("ray")
    from svad_ray.cluster.config import ClusterConfig, Training

    written = yaml.safe_load(re.search(r"```yaml\n(.*?)```", TEXT, re.S)[1])
    config = ClusterConfig.model_validate(written)
    assert set(written) == set(ClusterConfig.model_fields), "every key is shown"
    assert config.generate.timeout_s == ClusterConfig().generate.timeout_s
    assert (config.train.timeout_s, config.train.checkpoint_s) == (Training().timeout_s, Training().checkpoint_s)
    assert config.app == ClusterConfig().app and config.status_every_s == ClusterConfig().status_every_s


def test_every_svad_ray_command_parses():
    from typer.main import get_command

    from svad_ray.cli import app

    shown = [shlex.split(command) for command in COMMANDS if command.startswith("svad-ray batch")]
    assert shown
    batch = get_command(app).commands["batch"]
    for words in shown:
        batch.make_context("batch", words[2:])


def test_every_ray_command_parses():
    pytest.importorskip("ray")
    from ray.scripts.scripts import cli

    starts = [shlex.split(command)[2:] for command in COMMANDS if command.startswith("ray start")]
    assert len(starts) == 2
    for words in starts:
        cli.commands["start"].make_context("start", words)
    for name in set(re.findall(r"`ray ([a-z-]+)", TEXT)):
        assert name in cli.commands, name


def test_jobs_manifests_and_other_pages_exist():
    for path in re.findall(r"(?:jobs|deploy|benchmarks|serve_configs)/[\w./-]*\w", TEXT):
        assert (ROOT / path).exists(), path
    for page in re.findall(r"\]\(([\w-]+\.md)\)", TEXT):
        assert (ROOT / "docs" / page).exists(), page


def test_exit_statuses_and_metrics_are_those_of_the_code():
    from svad_ray.commands.batch import INCOMPLETE, INTERRUPTED

    table = dict(re.findall(r"^\| (\d+) \| ([^|]+) \|$", TEXT, re.M))
    assert set(table) == {"0", str(INCOMPLETE), str(INTERRUPTED)}
    code = (ROOT / "svad_ray" / "cluster" / "metrics.py").read_text(encoding="utf-8")
    assert set(re.findall(r"`(svad_ray_[a-z_]+)", TEXT)) == set(re.findall(r'"(svad_ray_[a-z_]+)"', code))


def test_nothing_is_left_to_be_filled_in():
    assert not re.findall(r"\b[A-Z]+_(?:TABLE|TEXT)\b", TEXT)
