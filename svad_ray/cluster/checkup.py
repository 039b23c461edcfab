"""The doctor on every node of a cluster."""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from typing import Any

import svad_ray
from svad_ray.cluster.session import session
from svad_ray.config import Settings
from svad_ray.doctor import Finding, examine
from svad_ray.errors import BackendUnavailable

ANSWER_S = 180.0  # for a node to import everything and look
_SAME = ("ray", "torch", "numpy", "gsplat", "diffusers", "transformers")  # versions that decide about bytes and about pickles


def examine_cluster(settings: Settings, address: str = "auto") -> list[Finding]:
    """A line for every node, what is wrong on it, and whether all nodes have the same versions as this process.

    Raises:
        BackendUnavailable: No cluster answers at ``address``.
    """
    try:
        nodes, answers = _asked(settings, address)
    except BackendUnavailable as error:
        raise BackendUnavailable(error.found, remedy=f"{error.remedy}; without a cluster leave --cluster out") from error
    names = [_name(node) for node in nodes]
    here = versions()
    return [*(finding for name, answer in zip(names, answers) for finding in of_node(name, answer, here)), _together(answers)]


def _asked(settings: Settings, address: str) -> tuple[list[dict[str, Any]], list[dict[str, Any] | str]]:
    """Ray's entry of every node, and what it answers."""
    with session(address):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node for node in ray.nodes() if node["Alive"]]
        asked = []
        for node in nodes:
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(_on_this_node).options(num_cpus=0, max_retries=0, scheduling_strategy=where)
            asked.append(task.remote(settings.model_dump(mode="json")))
        ray.wait(asked, num_returns=len(asked), timeout=ANSWER_S)
        return nodes, [_answer(ref, node) for ref, node in zip(asked, nodes)]


def versions() -> dict[str, str]:
    """What has to be the same everywhere."""
    return {"svad-ray": svad_ray.__version__, "Python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _SAME}}


def of_node(name: str, answer: dict[str, Any] | str, here: dict[str, str]) -> list[Finding]:
    """The lines of one node.

    Args:
        answer: Its ``versions`` and ``findings``, or why there is none. here: The versions of this process.
    """
    if isinstance(answer, str):
        return [Finding(f"node {name}", answer, "missing", "see the node's logs: `ray logs`")]
    differing = [f"{key} {value} (here {here[key]})" for key, value in answer["versions"].items() if value != here[key]]
    wrong = [Finding(f"node {name}: {f.subject}", f.found, f.state, f.remedy) for f in answer["findings"] if f.state != "ok"]
    if differing:
        wrong.insert(0, Finding(f"node {name}: versions", "; ".join(differing), "missing", "install the same versions on every node, or one image"))
    counts = Counter(finding.state for finding in wrong)
    text = f"{answer['resources']}; " + (", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "nothing to complain of")
    return [Finding(f"node {name}", text, "note" if counts["missing"] else "ok"), *wrong]


def _on_this_node(values: dict[str, Any]) -> dict[str, Any]:
    """What the doctor says where this runs."""
    from svad_ray.config import parse_settings

    return {"versions": versions(), "findings": examine(parse_settings(values))}


def _answer(ref: Any, node: dict[str, Any]) -> dict[str, Any] | str:
    import ray

    try:
        return {**ray.get(ref, timeout=0), "resources": ", ".join(f"{node['Resources'].get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))}
    except ray.exceptions.GetTimeoutError:
        return f"no answer in {ANSWER_S:g} s"
    except ray.exceptions.RayError as error:
        return str(error).strip().splitlines()[-1]


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})"


def _together(answers: list[dict[str, Any] | str]) -> Finding:
    silent = sum(isinstance(answer, str) for answer in answers)
    return Finding("cluster", f"{len(answers)} nodes, {silent} without an answer", "missing" if silent else "ok")
