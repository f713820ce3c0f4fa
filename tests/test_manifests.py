"""The files for clusters, against Kubernetes' schemas and TensorFlow's convention."""

import json
import os
import pathlib
import re
import subprocess

import kubernetes_validate
import pytest
import yaml

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
MANIFESTS = sorted((CONFIGS / "kubernetes").glob("*.yaml"))
VERSION = "1.32"


def _documents(path):
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_are_valid(path):
    documents = _documents(path)
    assert documents
    for document in documents:
        kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_tasks_are_those_of_the_cluster(path):
    documents = _documents(path)
    maps = [d for d in documents if d["kind"] == "ConfigMap"]
    cluster = maps[0]["data"]["cluster"] if maps else ""
    (service,) = [d for d in documents if d["kind"] == "Service"]
    expected = {}
    for document in documents:
        spec = document.get("spec", {})
        pod = spec.get("template", {}).get("spec")
        if pod is None:
            continue
        (container,) = pod["containers"]
        (text,) = [e["value"] for e in container["env"] if e["name"] == "TF_CONFIG"]
        text = text.replace("$(CLUSTER)", cluster).replace("$(INDEX)", "0")
        config = json.loads(text)
        task = config["task"]["type"]
        name, subdomain = document["metadata"]["name"], service["metadata"]["name"]
        assert spec.get("serviceName", pod.get("subdomain")) == subdomain
        labels = spec["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        count = spec.get("replicas", spec.get("completions", 1))
        hosts = [f"{name}-{i}" for i in range(count)]
        hosts = [pod["hostname"]] if "hostname" in pod else hosts
        expected[task] = [f"{host}.{subdomain}:2222" for host in hosts]
        assert f"--strategy={path.stem}" in container["args"]
    assert config["cluster"] == expected


def test_slurm_names_each_process_its_task(tmp_path):
    def stub(name, text):
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    stub("scontrol", "printf 'node1\\nnode2\\n'")
    stub("srun", 'shift; SLURM_PROCID=1 "$@"')
    stub("python", 'echo "$TF_CONFIG"; echo "$@"')
    job = CONFIGS / "slurm" / "multi_worker_mirrored.sbatch"
    output = subprocess.run(
        ["bash", job, "D A", "M", "R", "--epochs=3"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    config, _, arguments = output.rpartition("}")
    assert json.loads(config + "}") == {
        "cluster": {"worker": ["node1:2222", "node2:2222"]},
        "task": {"type": "worker", "index": 1},
    }
    assert arguments.endswith(
        "--data_dir=D A --feature_maps=M --run_dir=R --resume --epochs=3\n"
    )


def test_the_dashboard_shows_what_tensorflow_serving_measures():
    dashboard = json.loads((CONFIGS / "serving" / "grafana.json").read_text())
    # As its monitoring names them for Prometheus.
    counted = {"request_count"}
    timed = {"request_latency", "runtime_latency", "batching_session:queuing_latency"}
    known = {":tensorflow:serving:" + name for name in counted}
    for name in timed:
        known |= {
            f":tensorflow:serving:{name}_{of}" for of in ("bucket", "sum", "count")
        }
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(
        dashboard["panels"]
    )
    for query in queries:
        found = set(re.findall(r":tensorflow:[\w:]+", query))
        assert found and found <= known
        assert query.count("(") == query.count(")") and query.count("{") == query.count(
            "}"
        )
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard)))
    assert used - {"__rate_interval"} == variables
