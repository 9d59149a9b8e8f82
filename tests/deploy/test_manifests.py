"""Manifests and configuration files hold against the schemas of those who will read them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import dask.config
import jsonschema
import pytest
import yaml

from bgmatch_dask.config import ClusterConfig, load_config
from bgmatch_dask.service.board.metrics import metrics_text
from bgmatch_dask.service.board.state import Board, Stage, WorkerState
from bgmatch_dask.service.thread_caps import THREAD_CAPS as CAPS
from tests.deploy.recipes import DEPLOY, ROOT, THREAD_CAPS, load, load_all

KINDS = {"DaskCluster": "daskcluster", "DaskJob": "daskjob", "DaskAutoscaler": "daskautoscaler"}


def custom_resource(kind):
    """The schema of a custom resource as dask-kubernetes ships it; core parts are checked apart."""
    package = pytest.importorskip("dask_kubernetes")
    folder = Path(package.__file__).parent / "operator/customresources"
    parts = yaml.safe_load((folder / "templates.yaml").read_text())["definitions"]
    resource = yaml.safe_load((folder / f"{KINDS[kind]}.yaml").read_text())
    version = next(v for v in resource["spec"]["versions"] if v["storage"])
    return f"{resource['spec']['group']}/{version['name']}", resolved(
        version["schema"]["openAPIV3Schema"], parts
    )


def resolved(schema, parts):
    if isinstance(schema, list):
        return [resolved(item, parts) for item in schema]
    if not isinstance(schema, dict):
        return schema
    name = schema.get("$ref", "").rpartition("/")[2]
    if name:
        return resolved(parts[name], parts) if name in parts else {"type": "object"}
    known = {key: resolved(value, parts) for key, value in schema.items()}
    if "properties" in known and "additionalProperties" not in known:
        known["additionalProperties"] = False
    return known


def closed_top(schema):
    """The API server adds these four to every object."""
    schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
    return schema


DASK = ["daskcluster", "daskjob-tract", "daskautoscaler"]


@pytest.mark.parametrize("name", DASK)
def test_dask_resources_hold_against_the_shipped_schema(name):
    (document,) = load_all(f"deploy/k8s/{name}.yaml")
    version, schema = custom_resource(document["kind"])
    assert document["apiVersion"] == version
    jsonschema.validate(document, closed_top(schema))
    document["spec"]["colour"] = "red"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def pods():
    cluster = load("deploy/k8s/daskcluster.yaml")["spec"]
    job = load("deploy/k8s/daskjob-tract.yaml")["spec"]
    for of, spec in (("cluster", cluster), ("job", job["cluster"]["spec"])):
        yield f"worker of {of}", spec["worker"]["spec"]
        yield f"scheduler of {of}", spec["scheduler"]["spec"]
    yield "job", job["job"]["spec"]


PODS = dict(pods())


@pytest.mark.parametrize("name", PODS)
def test_pods_are_valid_and_confined(name):
    import kubernetes_validate as validate

    pod = PODS[name]
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": pod}
    validate.validate(document, validate.latest_version(), strict=True)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {e["name"]: e["value"] for e in container["env"]} == THREAD_CAPS
    assert container["resources"]["limits"]["memory"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_services_point_at_the_scheduler():
    import kubernetes_validate as validate

    job = load("deploy/k8s/daskjob-tract.yaml")
    cluster = load("deploy/k8s/daskcluster.yaml")
    for name, spec in (
        (job["metadata"]["name"], job["spec"]["cluster"]["spec"]),
        (cluster["metadata"]["name"], cluster["spec"]),
    ):
        service = spec["scheduler"]["service"]
        document = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "s"},
            "spec": service,
        }
        validate.validate(document, validate.latest_version(), strict=True)
        assert service["selector"]["dask.org/cluster-name"] == name
        ports = {p["name"] for p in spec["scheduler"]["spec"]["containers"][0]["ports"]}
        assert {p["targetPort"] for p in service["ports"]} == ports
        arguments = spec["worker"]["spec"]["containers"][0]["args"]
        assert arguments[arguments.index("--name") + 1] == "$(DASK_WORKER_NAME)"


@pytest.mark.parametrize("name", ["pvc", "networkpolicy"])
def test_core_resources_are_valid(name):
    import kubernetes_validate as validate

    for document in load_all(f"deploy/k8s/{name}.yaml"):
        validate.validate(document, validate.latest_version(), strict=True)
        document["spec"]["colour"] = "red"
        with pytest.raises(validate.ValidationError):
            validate.validate(document, validate.latest_version(), strict=True)


def test_the_kustomization_names_files_that_exist():
    kustomization = load("deploy/k8s/kustomization.yaml")
    maps = kustomization["configMapGenerator"]
    files = [*kustomization["resources"], *(f for m in maps for f in m["files"])]
    assert all((DEPLOY / "k8s" / file).exists() for file in files)
    volumes = PODS["job"]["volumes"]
    used = {v["configMap"]["name"] for v in volumes if "configMap" in v}
    assert used == {m["name"] for m in maps}
    assert load("deploy/k8s/daskautoscaler.yaml")["spec"]["cluster"] == "bgmatch"


@pytest.mark.parametrize("path", ["deploy/k8s/job.yaml", "deploy/docker/job.yaml"])
def test_job_files_are_valid(path):
    assert load_config(str(ROOT / path)).cluster.kind == "address"


def test_every_recipe_caps_the_threads():
    assert CAPS == THREAD_CAPS
    compose = load("docker-compose.yml")
    for name in ("scheduler", "worker", "jupyter", "submit"):
        assert compose["services"][name]["environment"].items() >= THREAD_CAPS.items()
    for path in ("deploy/docker/Dockerfile", "deploy/slurm/run_tract.sbatch"):
        text = (ROOT / path).read_text(encoding="utf-8")
        assert {k: v for k, v in re.findall(r"(\w+)=(\d+)", text) if k in CAPS} == CAPS
    settings = load("deploy/dask/bgmatch.yaml")["distributed"]
    assert settings["nanny"]["pre-spawn-environ"] == CAPS


def test_dasks_configuration_has_no_unknown_key():
    import distributed

    known = yaml.safe_load((Path(distributed.__file__).parent / "distributed.yaml").read_text())

    def check(ours, theirs, place):
        for key, value in ours.items():
            assert key in theirs, f"{place}.{key}"
            if isinstance(value, dict) and key != "pre-spawn-environ":
                check(value, theirs[key], f"{place}.{key}")

    check(load("deploy/dask/bgmatch.yaml"), known, "")


def test_the_image_is_locked_and_not_root():
    text = (DEPLOY / "docker/Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["python:3.13-slim"] * 2
    assert "--require-hashes -r requirements-dev.lock" in text
    assert re.findall(r"^USER (.+)", text, re.MULTILINE) == ["10001:10001"]
    for line in re.findall(r"^COPY (?!--from)(.+)", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in line.split()[:-1]), line
    core = re.findall(r"^(\S+==\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    full = re.findall(r"^(\S+==\S+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    assert set(core) <= set(full)


def test_compose_is_confined():
    compose = load("docker-compose.yml")
    images = {service["image"] for service in compose["services"].values()}
    assert len(images) == 1
    assert not images.pop().endswith("latest")
    for name, service in compose["services"].items():
        assert service["user"] == "10001:10001", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["mem_limit"], name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
        for other in service.get("depends_on", ()):
            assert other in compose["services"]
        if "submit" not in service.get("profiles", ()):
            assert service["healthcheck"]["test"][0] == "CMD", name
    assert compose["services"]["worker"]["deploy"]["replicas"] == 2


def test_the_tls_variant_encrypts_every_part():
    plain, tls = load("docker-compose.yml"), load("deploy/docker/compose.tls.yml")
    talking = {n for n, s in plain["services"].items() if "DASK_SCHEDULER_ADDRESS" in str(s)}
    assert set(tls["services"]) == talking
    for service in tls["services"].values():
        assert service["environment"]["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "true"
        assert service["environment"]["DASK_SCHEDULER_ADDRESS"].startswith("tls://")
        assert any(volume.endswith(":/tls:ro") for volume in service["volumes"])


def test_slurm_jobs_are_as_the_site_expects():
    from bgmatch_dask.service.cluster import slurm_cluster

    pytest.importorskip("dask_jobqueue")
    slurm = load("deploy/slurm/jobqueue.yaml")["jobqueue"]["slurm"]
    slurm |= {"queue": "normal", "account": "lsst"}
    settings = {f"jobqueue.slurm.{name}": value for name, value in slurm.items()}
    with dask.config.set(settings), slurm_cluster(ClusterConfig(kind="slurm")) as cluster:
        script = cluster.job_script()
    script = re.sub(r"\S*/python\S*", "PYTHON", script)
    script = re.sub(r"tcp://[\d.]+:\d+", "ADDRESS", script)
    golden = Path(__file__).parent / "job_script.golden"
    assert script.strip() == golden.read_text(encoding="utf-8").strip()


def test_shell_scripts_are_sound():
    import shutil

    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("there is no shellcheck")
    scripts = [*DEPLOY.rglob("*.sbatch"), *DEPLOY.rglob("*.sh")]
    assert scripts
    command = [checker, *map(str, scripts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_dashboard_asks_for_metrics_that_exist():
    stage = Stage("ingest", 1, 1, 0, 0.0)
    board = Board("b", stages=(stage,), workers=(WorkerState("w"),))
    ours = set(re.findall(r"^# TYPE (\w+)", metrics_text([board]), re.MULTILINE))
    dashboard = json.loads((DEPLOY / "monitoring/grafana-dashboard.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"bgmatch_\w+", target["expr"])
    }
    assert asked
    assert asked <= ours
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    scraped = load("deploy/monitoring/prometheus.yml")["scrape_configs"]
    assert [job["metrics_path"] for job in scraped] == ["/metrics", "/bgmatch/metrics"]


def test_the_labextension_makes_a_cluster_that_exists():
    import importlib

    factory = load("deploy/jupyter/labextension.yaml")["labextension"]["factory"]
    cluster = getattr(importlib.import_module(factory["module"]), factory["class"])
    with cluster(*factory["args"], **factory["kwargs"], n_workers=0, silence_logs=50) as made:
        assert made.scheduler_address.startswith("tcp://127.0.0.1:")


def test_the_layout_names_panels_that_the_scheduler_has():
    from distributed.dashboard.scheduler import applications

    (settings,) = json.loads((DEPLOY / "jupyter/overrides.json").read_text()).values()
    layout = settings["defaultLayout"]
    assert {f"/{name}" for name in layout} <= set(applications)
    assert {place["ref"] for place in layout.values() if "ref" in place} <= set(layout)


def test_the_layout_holds_against_the_schema_of_the_extension():
    package = pytest.importorskip("dask_labextension")
    folder = Path(package.__file__).parents[4] / "share/jupyter/labextensions/dask-labextension"
    schema = folder / "schemas/dask-labextension/plugin.json"
    if not schema.exists():
        pytest.skip("the extension is installed without its schema")
    ((plugin, settings),) = json.loads((DEPLOY / "jupyter/overrides.json").read_text()).items()
    assert plugin == f"{schema.parent.name}:{schema.stem}"
    known = json.loads(schema.read_text())
    jsonschema.validate(settings, known)
    assert set(settings) <= set(known["properties"])


def test_the_image_puts_the_settings_of_jupyter_where_they_are_read():
    text = (DEPLOY / "docker/Dockerfile").read_text()
    for source, place in re.findall(r"^COPY (deploy/jupyter/\S+) (\S+)$", text, re.MULTILINE):
        assert (ROOT / source).is_file()
        assert place in {
            "/etc/dask/labextension.yaml",
            "/opt/bgmatch/share/jupyter/lab/settings/overrides.json",
        }
    assert text.count("COPY deploy/jupyter/") == 2
