"""cluster.yaml against Ray's own schema, Ray's own command line and Ray's own label rules."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parents[2]
CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def test_rays_schema_accepts_it_and_refuses_an_unknown_key():
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(CLUSTER, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**CLUSTER, "max_worker": 3}, schema)


@pytest.mark.parametrize("name", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_understands_every_option_of_the_start_commands(name):
    from ray.scripts.scripts import start

    lines = [line for command in CLUSTER[name] for line in command.split(";") if line.strip().startswith("ray start")]
    assert lines
    for line in lines:
        start.make_context("start", shlex.split(line.replace("$RAY_HEAD_IP", "10.0.0.10"))[2:])


def test_nobody_but_the_machine_itself_reaches_dashboard_and_jobs_api():
    head = " ".join(CLUSTER["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert CLUSTER["provider"]["use_internal_ips"] is True
    options = " ".join(CLUSTER["docker"]["run_options"])
    assert "RAY_AUTH_MODE=token" in options and "RAY_USAGE_STATS_ENABLED=0" in options
    assert "RAY_AUTH_TOKEN=" not in options, "a token written here would be in every process list"


def test_nothing_secret_is_copied_or_written_down():
    for target, source in CLUSTER["file_mounts"].items():
        assert not re.search(r"token|secret|credential|\.aws|\.ssh|\.ray", f"{target} {source}")
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    assert not re.search(r"AKIA[0-9A-Z]{16}|[0-9a-f]{40}", text)


def test_node_types_are_labelled_as_the_configurations_ask_and_ray_takes_the_labels():
    from ray._private.label_utils import validate_node_labels

    types = CLUSTER["available_node_types"]
    assert CLUSTER["head_node_type"] in types and types["head"]["resources"] == {"CPU": 0}
    labels = {name: kind.get("labels", {}) for name, kind in types.items()}
    for values in labels.values():
        validate_node_labels(values)
    assert {values["svad/pool"] for values in labels.values() if values} == {"online", "bulk"}
    asked = set(re.findall(r"svad/pool=(\w+)", (ROOT / "serve_configs" / "autoscale.yaml").read_text(encoding="utf-8")))
    assert asked <= {"online", "bulk"}
    assert all(not kind["node_config"].get("InstanceMarketOptions") for kind in types.values() if kind.get("labels", {}).get("svad/pool") == "online")


def test_ray_is_the_same_everywhere_and_the_one_that_the_package_asks_for():
    requirement = re.search(r'"ray\[serve,data\](>=[^"]+)"', (ROOT / "pyproject.toml").read_text())
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("cluster.yaml", "deploy/Dockerfile")}
    found = {name: set(re.findall(r"ray\[serve,data\]==([\d.]+)|rayproject/ray:([\d.]+)-", text)) for name, text in texts.items()}
    versions = {version for pairs in found.values() for pair in pairs for version in pair if version}
    assert versions == {"2.60.0"}
    if requirement:
        from packaging.specifiers import SpecifierSet

        assert "2.60.0" in SpecifierSet(requirement[1])


def test_the_machines_of_ones_own_variant_is_valid_too():
    """The commented provider, put in place as the comment says."""
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    block = "\n".join(line[2:] for line in re.search(r"(# provider:\n(?:#   .*\n)+)", text)[1].splitlines())
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate({**CLUSTER, **yaml.safe_load(block)}, schema)
