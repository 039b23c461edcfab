"""The Kubernetes files: fields that KubeRay knows, pods that Kubernetes' client reads without loss, configurations that the product accepts."""

import copy
import json
import re
from pathlib import Path

import pytest
import yaml

import svad_ray

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
DOCUMENTS = [(path.name, document) for path in sorted(FOLDER.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
RAY = [(name, document) for name, document in DOCUMENTS if document["apiVersion"] == "ray.io/v1"]
CLUSTER_FIELD = {"RayCluster": None, "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
# Field names of KubeRay's API ray.io/v1 (1.5.1) as its reference lists them; ! = required.
_FIELDS = {
    "RayCluster": "headGroupSpec! rayVersion workerGroupSpecs enableInTreeAutoscaling autoscalerOptions authOptions gcsFaultToleranceOptions "
    "suspend managedBy headServiceAnnotations",
    "head": "template! rayStartParams serviceType headService enableIngress labels resources",
    "worker": "groupName! template! minReplicas! maxReplicas! replicas numOfHosts rayStartParams idleTimeoutSeconds scaleStrategy suspend labels "
    "resources",
    "RayJob": "entrypoint! rayClusterSpec backoffLimit submissionMode shutdownAfterJobFinishes ttlSecondsAfterFinished runtimeEnvYAML "
    "submitterPodTemplate activeDeadlineSeconds clusterSelector submitterConfig metadata jobId suspend",
    "RayService": "serveConfigV2! rayClusterConfig! serveService upgradeStrategy excludeHeadPodFromServeSvc",
    "autoscaler": "version idleTimeoutSeconds upscalingMode resources image imagePullPolicy env envFrom volumeMounts securityContext",
}
FIELDS = {what: {name.rstrip("!"): name.endswith("!") for name in names.split()} for what, names in _FIELDS.items()}


def known(what, values):
    """Only known fields, all required ones."""
    fields = FIELDS[what]
    assert set(values) <= set(fields), f"{what} has no {sorted(set(values) - set(fields))}"
    assert {name for name, required in fields.items() if required} <= set(values)


def cluster_of(document):
    field = CLUSTER_FIELD[document["kind"]]
    return document["spec"][field] if field else document["spec"]


def pods(document):
    cluster = cluster_of(document)
    return [group["template"] for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]]


@pytest.fixture(scope="module")
def reads():
    """(plain values, class of Kubernetes' client) -> what the client understood of them."""
    client = pytest.importorskip("kubernetes.client", reason="pip install kubernetes: reads pods and policies as the API server would")
    api = client.ApiClient()

    def read(values, kind):
        return api.sanitize_for_serialization(api.deserialize(json.dumps(values), kind, "application/json"))

    return read


@pytest.mark.parametrize("name, document", RAY, ids=[name for name, _ in RAY])
def test_kuberay_knows_every_field(name, document):
    known(document["kind"], document["spec"])
    cluster = cluster_of(document)
    known("RayCluster", cluster)
    known("head", cluster["headGroupSpec"])
    known("autoscaler", cluster["autoscalerOptions"])
    for group in cluster["workerGroupSpecs"]:
        known("worker", group)
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert all(isinstance(value, str) for value in cluster["headGroupSpec"]["rayStartParams"].values())


@pytest.mark.parametrize("name, document", RAY, ids=[name for name, _ in RAY])
def test_kubernetes_reads_the_pods_without_losing_a_field(name, document, reads):
    for template in pods(document):
        assert reads(template, "V1PodTemplateSpec") == template
    misspelt = copy.deepcopy(pods(document)[0])
    misspelt["spec"]["terminationGraceSeconds"] = 3
    assert reads(misspelt, "V1PodTemplateSpec") != misspelt


def test_kubernetes_reads_everything_else_without_losing_a_field(reads):
    kinds = {"Namespace": "V1Namespace", "ServiceAccount": "V1ServiceAccount", "NetworkPolicy": "V1NetworkPolicy", "ConfigMap": "V1ConfigMap"}
    plain = [document for _, document in DOCUMENTS if document["kind"] in kinds]
    assert {document["kind"] for document in plain} == set(kinds)
    for document in plain:
        assert reads(document, kinds[document["kind"]]) == _with_names(document)


def _with_names(document):
    """The client writes the policies' "from" as "_from" and nothing else differently."""
    return json.loads(json.dumps(document).replace('"_from"', '"from"'))


@pytest.mark.parametrize("name, document", RAY, ids=[name for name, _ in RAY])
def test_pods_run_as_nobody_special_from_a_pinned_image_with_stated_resources(name, document):
    for template in pods(document):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0
        for container in spec["containers"]:
            assert container["image"].endswith(f":{svad_ray.__version__}")
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            resources = container["resources"]
            assert resources["requests"] == resources["limits"], "Ray counts on what it was started with"
            assert all(re.fullmatch(r"[1-9]\d*(m|Mi|Gi)?", str(amount)) for amount in resources["requests"].values())
            assert all(not set(variable) & {"value"} for variable in container.get("env", ()))


@pytest.mark.parametrize("name, document", RAY, ids=[name for name, _ in RAY])
def test_the_cluster_asks_for_its_token_and_runs_the_pinned_ray(name, document):
    cluster = cluster_of(document)
    assert cluster["authOptions"] == {"mode": "token"} and cluster["rayVersion"] == "2.60.0"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_ports_are_closed_but_for_those_who_are_named():
    policies = {document["metadata"]["name"]: document["spec"] for _, document in DOCUMENTS if document["kind"] == "NetworkPolicy"}
    default = policies["only-each-other"]
    assert default["podSelector"] == {} and set(default["policyTypes"]) == {"Ingress", "Egress"}
    assert default["ingress"] == [{"from": [{"podSelector": {}}]}]
    for name, spec in policies.items():
        for rule in spec["ingress"]:
            assert rule["from"] and all(set(peer) <= {"podSelector", "namespaceSelector"} and any(peer) for peer in rule["from"])
            assert name == "only-each-other" or {port["port"] for port in rule["ports"]} <= {8000, 8080, 8265}
    outside = [to["ipBlock"] for rule in default["egress"] for to in rule["to"] if "ipBlock" in to]
    assert all("169.254.0.0/16" in block["except"] for block in outside), "the machine's metadata service gives out the machine's credentials"
    service = next(document for _, document in RAY if document["kind"] == "RayService")["spec"]["serveService"]
    assert service["spec"]["type"] == "ClusterIP"
    assert not any(document["kind"] in ("Secret", "Ingress") for _, document in DOCUMENTS)


def test_the_service_deploys_what_serve_configs_says():
    pytest.importorskip("ray")
    from ray.serve.schema import ServeDeploySchema

    document = next(document for _, document in RAY if document["kind"] == "RayService")
    deployed = yaml.safe_load(document["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(deployed)
    original = yaml.safe_load((ROOT / "serve_configs" / "autoscale.yaml").read_text(encoding="utf-8"))
    assert deployed["http_options"].pop("host") == "0.0.0.0" and original["http_options"].pop("host") == "127.0.0.1"
    assert deployed == original


def test_the_service_starts_on_its_smallest_cluster_and_finds_its_tokens():
    pytest.importorskip("ray")
    from svad_ray.cluster.serve_config import ServeArgs

    document = next(document for _, document in RAY if document["kind"] == "RayService")
    args = ServeArgs.model_validate(yaml.safe_load(document["spec"]["serveConfigV2"])["applications"][0]["args"])
    group = next(g for g in cluster_of(document)["workerGroupSpecs"] if g["labels"]["svad/pool"] == "online")
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    cpus = sum(replicas.cpus * replicas.least for replicas in args.deployments.values())
    gpus = sum((replicas.gpus or 0) * replicas.least for replicas in args.deployments.values())
    assert cpus <= group["minReplicas"] * int(limits["cpu"]) and gpus <= group["minReplicas"] * int(limits["nvidia.com/gpu"])
    for template in pods(document):
        mounts = [mount["mountPath"] for mount in template["spec"]["containers"][0]["volumeMounts"]]
        assert any(args.service.tokens_file.startswith(mount + "/") for mount in mounts)
        assert {volume["secret"]["secretName"] for volume in template["spec"]["volumes"]} == {"svad-ray-tokens"}


def test_the_jobs_command_is_one_that_the_product_understands():
    import typer

    from svad_ray.commands.batch import batch

    document = next(document for _, document in RAY if document["kind"] == "RayJob")
    words = document["spec"]["entrypoint"].split()
    assert words[:2] == ["python", "/opt/svad-ray/jobs/generate_avatars.py"] and (ROOT / "jobs/generate_avatars.py").exists()
    app = typer.Typer()
    app.command()(batch)
    context = typer.main.get_command(app).make_context("batch", words[2:])
    assert str(context.params["cluster"]) == "/etc/svad-ray/bulk.yaml"


def test_the_jobs_cluster_configuration_is_valid_and_fits_the_nodes_that_are_there_at_the_start():
    pytest.importorskip("ray")
    from svad_ray.cluster.config import POOLS, ClusterConfig, sized

    written = next(document for name, document in DOCUMENTS if name == "rayjob.yaml" and document["kind"] == "ConfigMap")["data"]["bulk.yaml"]
    job = next(document for _, document in RAY if document["kind"] == "RayJob")
    group = cluster_of(job)["workerGroupSpecs"][0]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    cores, gpus = (group["minReplicas"] * int(limits.get(name, 0)) for name in ("cpu", "nvidia.com/gpu"))
    config = sized(ClusterConfig.model_validate(yaml.safe_load(written)), cpus=cores)
    assert config.label_selector == group["labels"]
    pools = [getattr(config, name) for name in POOLS]
    assert sum(pool.workers * pool.cpus for pool in pools) + config.train.cpus <= cores
    assert sum(pool.workers * pool.gpus for pool in pools) + config.train.gpus <= gpus


def test_the_pod_monitor_asks_for_a_port_that_every_pod_names():
    document = next(document for _, document in DOCUMENTS if document["kind"] == "PodMonitor")
    assert document["apiVersion"] == "monitoring.coreos.com/v1"
    ports = {endpoint["port"] for endpoint in document["spec"]["podMetricsEndpoints"]}
    for _, ray_document in RAY:
        for template in pods(ray_document):
            assert ports <= {port["name"] for port in template["spec"]["containers"][0]["ports"]}
