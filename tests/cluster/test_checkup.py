"""The doctor on every node: what is wrong there, and versions that differ."""

import subprocess
import sys

from svad_ray.cluster.checkup import examine_cluster, of_node, versions
from svad_ray.config import load_settings
from svad_ray.doctor import Finding


def test_the_node_says_what_it_lacks(ray_cluster, tmp_path):
    settings = load_settings(sets=["restore.backend=bfrffusion", f"restore.weights={tmp_path}"])
    by_subject = {finding.subject.partition(" (")[0] + finding.subject.partition(")")[2]: finding for finding in examine_cluster(settings)}
    (node,) = [subject for subject in by_subject if subject.startswith("node ") and ":" not in subject]
    assert "4 CPU, 2 GPU" in by_subject[node].found and by_subject[node].state == "note"
    lacking = by_subject[f"{node}: stage: restore"]
    assert lacking.state == "missing" and "checkpoint_BFRffusion_FFHQ.ckpt" in lacking.remedy
    assert f"{node}: versions" not in by_subject and by_subject["cluster"].state == "ok"


def test_versions_that_differ_and_silence():
    here = versions()
    answer = {"versions": {**here, "ray": "1.0"}, "findings": [Finding("cores", "2")], "resources": "2 CPU"}
    line, differing = of_node("a", answer, here)
    assert differing.state == "missing" and f"ray 1.0 (here {here['ray']})" in differing.found and "1 missing" in line.found
    (fine,) = of_node("a", {**answer, "versions": here}, here)
    assert fine.state == "ok"
    (silent,) = of_node("a", "no answer in 180 s", here)
    assert silent.state == "missing"


def test_a_cluster_that_lets_nobody_in():
    lines = ["import svad_ray.cluster, ray", "def init(**_): raise ray.exceptions.AuthenticationError('no token')", "ray.init = init"]
    lines += ["from svad_ray.cluster.checkup import examine_cluster", "from svad_ray.config import load_settings", "examine_cluster(load_settings())"]
    told = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert "BackendUnavailable" in told.stderr and "RAY_AUTH_TOKEN" in told.stderr and "leave --cluster out" in told.stderr
