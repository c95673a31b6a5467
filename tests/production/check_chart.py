"""The chart, rendered by Helm itself and checked against the schemas of Kubernetes; compose.yaml, by Compose."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from pydantic import SecretStr

from syncline.settings import Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "ops" / "chart"
COMPOSE = ROOT / "compose.yaml"
VERSIONS = ("1.27.0", "1.31.0", kubernetes_validate.latest_version())
# None of these has a schema among those of Kubernetes.
OF_OTHERS = {"ScaledObject", "PodMonitor", "Connection", "WorkerDeployment"}
ALL = {
    "temporal": {"apiKey": {"secret": "temporal"}, "tls": {"secret": "temporal-tls"}},
    "settings": {
        "SYNCLINE_EMBEDDING": "openai",
        "SYNCLINE_MAX_CONCURRENT_CYCLES": 16,
        "SYNCLINE_NOTIFY": False,
    },
    "migrate": {"secrets": {"SYNCLINE_WRITE_DSN": {"name": "owner", "key": "write-dsn"}}},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccountName": "syncline",
    "priorityClassName": "high",
    "podLabels": {"team": "graphs"},
    "podAnnotations": {"note": "1"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "only", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
}


def tool(name: str) -> Path:
    """Return a program that `tests/production/tools.txt` brings."""
    return Path(helm.__file__).parents[1] / "bin" / name


def render(**values: object) -> list[dict[str, Any]]:
    """Return the objects that Helm makes of the chart with these values."""
    with helm.Chart.load(str(CHART)) as chart:
        made = chart.render(values, name="demo", namespace="prod")
    texts = [text for path, text in made.items() if not path.endswith("NOTES.txt")]
    return [each for text in texts for each in yaml.safe_load_all(text) if each is not None]


def kinds(objects: list[dict[str, Any]]) -> set[str]:
    return {each["kind"] for each in objects}


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [found] = [each for each in objects if each["kind"] == kind]
    return found


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (each["spec"]["template"]["spec"] for each in objects if "template" in each["spec"])


def containers(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return chain.from_iterable((*pod["containers"], *pod.get("initContainers", ())) for pod in pods(objects))


def test_helm_finds_nothing_to_complain_of() -> None:
    report = helm.lint(str(CHART), strict=True)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "values", [{}, ALL, {"autoscaling": {"enabled": True}}], ids=["default", "all", "scaled"]
)
def test_objects_are_what_kubernetes_takes(values: dict[str, object], version: str) -> None:
    objects = render(**values)
    assert {"Deployment", "Job", "PodDisruptionBudget"} <= kinds(objects)
    for each in objects:
        if each["kind"] not in OF_OTHERS:
            kubernetes_validate.validate(each, version, strict=True)


def test_no_container_is_root_or_writes_to_the_image() -> None:
    for values in ({}, ALL, {"workerController": {"enabled": True}}):
        objects = render(**values)
        assert len(list(containers(objects))) == 3
        for pod in pods(objects):
            assert pod["automountServiceAccountToken"] is False
            assert pod["securityContext"]["runAsNonRoot"] is True
        for container in containers(objects):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_secrets_are_references() -> None:
    objects = render(**ALL)
    for container in containers(objects):
        by_reference = {entry["name"] for entry in container["env"] if "valueFrom" in entry}
        assert by_reference == {
            "SYNCLINE_WRITE_DSN", "SYNCLINE_GRAPH_DSN", "SYNCLINE_QDRANT_URL", "TEMPORAL_API_KEY",
        }  # fmt: skip
    # Migrations may have those of the owner, and only they.
    migrates, serves = (one(objects, kind)["spec"]["template"]["spec"] for kind in ("Job", "Deployment"))
    assert _secret(migrates, "SYNCLINE_WRITE_DSN") == "owner"
    assert _secret(migrates, "SYNCLINE_GRAPH_DSN") == _secret(serves, "SYNCLINE_WRITE_DSN") == "syncline"


def _secret(pod: dict[str, Any], variable: str) -> str:
    [found] = [entry for entry in pod["containers"][0]["env"] if entry["name"] == variable]
    return str(found["valueFrom"]["secretKeyRef"]["name"])


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"settings": {"SYNCLINE_WRITE_DSN": "postgresql://u:p@h/d"}}, "settings.SYNCLINE_WRITE_DSN"),
        ({"secrets": {"SYNCLINE_QDRANTS": {"name": "s"}}}, "SYNCLINE_QDRANTS"),
        ({"replica": 2}, "replica"),
        ({"probes": {"port": 80}}, "port"),
        ({"autoscaling": {"enabled": True}, "workerController": {"enabled": True}}, "exclude each other"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, object], named: str) -> None:
    with pytest.raises(helm.HelmError, match=named) as refused:
        render(**values)
    assert "u:p@h" not in str(refused.value)


def test_probes_ask_what_the_worker_serves() -> None:
    objects = render(probes={"port": 9300})
    [worker] = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {"name": "SYNCLINE_PROBES", "value": "0.0.0.0:9300"} in worker["env"]
    assert {"name": "probes", "containerPort": 9300} in worker["ports"]
    asked = {name: worker[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness", "startup")}
    assert asked == {"liveness": "/healthz", "readiness": "/readyz", "startup": "/healthz"}


def test_pods_end_later_than_their_cycles() -> None:
    pod = one(render(gracefulShutdownSeconds=120), "Deployment")["spec"]["template"]["spec"]
    [worker] = pod["containers"]
    assert {"name": "SYNCLINE_GRACEFUL_SHUTDOWN_SECONDS", "value": "120"} in worker["env"]
    assert pod["terminationGracePeriodSeconds"] > 120


def test_migrations_come_before_workers() -> None:
    job = one(render(), "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    [search_attributes] = job["spec"]["template"]["spec"]["initContainers"]
    assert search_attributes["args"] == ["schedule", "list"]


def test_worker_controller_takes_the_place_of_the_deployment() -> None:
    objects = render(workerController={"enabled": True}, temporal=ALL["temporal"])
    assert "Deployment" not in kinds(objects)
    assert one(objects, "Connection")["spec"]["apiKeySecretRef"] == {"name": "temporal", "key": "api-key"}
    deployment = one(objects, "WorkerDeployment")["spec"]
    assert deployment["workerOptions"]["connectionRef"]["name"] == "demo-syncline"
    [worker] = deployment["template"]["spec"]["containers"]
    # The controller sets these itself; the pod has each of them once.
    assert not [entry["name"] for entry in worker["env"] if entry["name"].startswith("TEMPORAL_")]
    [script] = worker["args"]
    assert script.endswith("exec syncline worker")
    said = subprocess.run(
        [*worker["command"], script.removesuffix("syncline worker") + "env"],
        env={
            "PATH": os.environ["PATH"],
            "TEMPORAL_DEPLOYMENT_NAME": "prod/demo",
            "TEMPORAL_WORKER_BUILD_ID": "1-a",
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    named = dict(line.split("=", 1) for line in said.splitlines())
    settings = Settings(
        write_dsn=SecretStr("postgresql://w"),
        graph_dsn=SecretStr("postgresql://g"),
        deployment_name=named["SYNCLINE_DEPLOYMENT_NAME"],
        build_id=named["SYNCLINE_BUILD_ID"],
    )
    assert (settings.deployment_name, settings.build_id) == ("prod/demo", "1-a")


def test_compose_takes_its_file_and_every_file_it_mounts_is_there() -> None:
    command = [tool("docker-compose"), "--file", COMPOSE, "config", "--format", "json"]
    done = subprocess.run(
        command, env=os.environ | {"SYNCLINE_PASSWORD": "x"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    services = json.loads(done.stdout)["services"]
    mounted = [
        Path(volume["source"])
        for service in services.values()
        for volume in service.get("volumes", ())
        if volume["type"] == "bind"
    ]
    assert mounted
    assert [path for path in mounted if not path.is_file()] == []
    for name in ("worker", "migrate", "search-attributes"):
        service = services[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    published = [port["host_ip"] for service in services.values() for port in service.get("ports", ())]
    assert set(published) == {"127.0.0.1"}
    refused = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "SYNCLINE_PASSWORD" in refused.stderr


def test_qdrant_of_compose_is_one_that_the_client_knows() -> None:
    """The client takes servers that are one minor version away at most."""
    [server] = re.findall(r"/qdrant:v(\d+)\.(\d+)", COMPOSE.read_text())
    [client] = re.findall(
        r"^qdrant-client==(\d+)\.(\d+)", (ROOT / "constraints-runtime.txt").read_text(), re.MULTILINE
    )
    assert server[0] == client[0]
    assert abs(int(server[1]) - int(client[1])) <= 1


def test_containerfile_passes_the_linter() -> None:
    done = subprocess.run([tool("hadolint"), ROOT / "Containerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
