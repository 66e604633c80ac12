"""launch/clusters: recipes hold to the schemas and parsers of those that read them, and keep Ray to the cluster."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from ray.autoscaler._private.util import fillout_defaults, prepare_config, validate_config

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = REPOSITORY / "launch" / "clusters"
SHARED = ("--archive /shared/archive", "--run-dir /shared/run")


def text(name: str) -> str:
    return (RECIPES / name).read_text()


# ray up


@pytest.fixture
def ray_cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text("ray-cluster.yaml"))
    return loaded


def test_ray_up_accepts_the_cluster(ray_cluster: dict[str, Any]) -> None:
    prepared = prepare_config(ray_cluster)
    validate_config(prepared)
    assert len(prepared["provider"]["worker_ips"]) == prepared["max_workers"]


def test_ray_up_would_refuse_a_field_that_is_none(ray_cluster: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError, match="head_ports"):
        validate_config(fillout_defaults({**ray_cluster, "head_ports": [6379]}))


def test_ray_up_starts_ray_with_a_token_and_a_loopback_dashboard(ray_cluster: dict[str, Any]) -> None:
    commands = ray_cluster["head_start_ray_commands"] + ray_cluster["worker_start_ray_commands"]
    starts = [shlex.split(command) for command in commands if "ray start" in command]
    assert len(starts) == 2
    assert all(words[0] == "RAY_AUTH_MODE=token" for words in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert f"--node-ip-address={ray_cluster['provider']['head_ip']}" in starts[0]
    assert ray_cluster["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}


# KubeRay


@pytest.fixture
def claim_and_job() -> tuple[dict[str, Any], dict[str, Any]]:
    claim, job = yaml.safe_load_all(text("kuberay-rayjob.yaml"))
    return claim, job


# what KubeRay's custom resource definition asks of the parts that are its own; pods are checked as Kubernetes' own
RAY_JOB = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "required": ["entrypoint", "rayClusterSpec"],
            "additionalProperties": False,
            "properties": {
                "entrypoint": {"type": "string"},
                "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": {"type": "integer", "minimum": 0},
                "backoffLimit": {"type": "integer", "minimum": 0},
                "rayClusterSpec": {
                    "type": "object",
                    "required": ["headGroupSpec", "rayVersion", "authOptions"],
                    "additionalProperties": False,
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "authOptions": {"type": "object", "properties": {"mode": {"const": "token"}}},
                        "headGroupSpec": {
                            "type": "object",
                            "required": ["template"],
                            "additionalProperties": False,
                            "properties": {
                                "serviceType": {"const": "ClusterIP"},
                                "rayStartParams": {"additionalProperties": {"type": "string"}},
                                "template": {"type": "object", "required": ["spec"]},
                            },
                        },
                        "workerGroupSpecs": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["groupName", "maxReplicas", "minReplicas", "template"],
                                "additionalProperties": False,
                                "properties": {
                                    "groupName": {"type": "string"},
                                    "replicas": {"type": "integer", "minimum": 0},
                                    "minReplicas": {"type": "integer", "minimum": 0},
                                    "maxReplicas": {"type": "integer", "minimum": 0},
                                    "rayStartParams": {"additionalProperties": {"type": "string"}},
                                    "template": {"type": "object", "required": ["spec"]},
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def validate_kubernetes(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes_accepts_the_claim_and_every_pod(claim_and_job: tuple[dict[str, Any], dict[str, Any]]) -> None:
    claim, job = claim_and_job
    validate_kubernetes(claim)
    for template in pods(job):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **template}
        validate_kubernetes(pod)
        pod["spec"]["containers"][0]["memory"] = "1Gi"  # not where Kubernetes looks for it
        with pytest.raises(kubernetes_validate.ValidationError):
            validate_kubernetes(pod)


def test_kuberay_accepts_the_job(claim_and_job: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, job = claim_and_job
    jsonschema.validate(job, RAY_JOB)
    installed = ray.__version__.split(".")[:2]
    assert job["spec"]["rayClusterSpec"]["rayVersion"].split(".")[:2] == installed


def test_the_pods_share_the_claim_and_hold_the_workers(claim_and_job: tuple[dict[str, Any], dict[str, Any]]) -> None:
    claim, job = claim_and_job
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    entry = job["spec"]["entrypoint"]
    assert all(part in entry for part in SHARED)
    for template in pods(job):
        spec = template["spec"]
        assert {"name": "shared", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in spec["volumes"]
        assert {"name": "shared", "mountPath": "/shared"} in spec["containers"][0]["volumeMounts"]
        assert spec["securityContext"]["runAsNonRoot"] is True
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    gpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) * group["replicas"]
    assert f"--workers {gpus} " in entry


# Slurm

# sbatch's long options that the recipe may use, and what they take
SBATCH_OPTIONS = {
    "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem", "exclusive", "time", "requeue",
    "open-mode", "output", "signal",
}  # fmt: skip


def test_the_batch_script_is_bash_and_its_options_are_sbatchs() -> None:
    subprocess.run(["bash", "-n", str(RECIPES / "slurm.sbatch")], check=True)
    lines = text("slurm.sbatch").splitlines()
    options = [index for index, line in enumerate(lines) if line.startswith("#SBATCH ")]
    first_command = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    assert options
    assert max(options) < first_command, "sbatch stops reading options at the first command"
    given = [lines[index].removeprefix("#SBATCH --").partition("=")[0] for index in options]
    assert set(given) <= SBATCH_OPTIONS
    assert len(set(given)) == len(given)


def stub(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/usr/bin/env bash\n{script}\n")
    program.chmod(0o755)


def run_as_job(folder: Path, restarts: int) -> subprocess.CompletedProcess[str]:
    """Runs the batch script as Slurm would, on two nodes whose programs only say what they were asked."""
    stubs(folder)
    return subprocess.run(
        batch_script(), env=job_environment(folder, restarts), capture_output=True, text=True, check=False
    )


def stubs(folder: Path) -> None:
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    stub(programs, "scontrol", 'test "$*" = "show hostnames n[1-2]" && printf "n1\\nn2\\n"')
    stub(programs, "hostname", "echo 10.0.0.1 fe80::1")
    stub(
        programs, "srun",
        'while [[ "$1" == --* ]]; do shift; done\n'
        'if [[ "$1" == hostname ]]; then exec "$@"; fi\n'
        'printf "%s\\n" "$RAY_AUTH_MODE" "$RAY_AUTH_TOKEN" "$@"',
    )  # fmt: skip


def job_environment(folder: Path, restarts: int) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"], "SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "4321", "SLURM_RESTART_COUNT": str(restarts),
    }  # fmt: skip


def batch_script() -> list[str]:
    return ["bash", str(RECIPES / "slurm.sbatch"), *shlex.split(" ".join(SHARED)), "--workers", "16"]


@pytest.mark.parametrize("restarts", [0, 1])
def test_the_batch_script_starts_ray_on_every_node_and_resumes_when_requeued(tmp_path: Path, restarts: int) -> None:
    done = run_as_job(tmp_path, restarts)
    assert done.returncode == 0, done.stderr
    mode, token, *words = done.stdout.splitlines()
    assert mode == "token"
    assert len(token) == 64
    assert shlex.join(words) == (
        "ray symmetric-run --address 10.0.0.1:24321 --min-nodes 2 --dashboard-host=127.0.0.1 -- "
        "env RAY_ADDRESS=10.0.0.1:24321 python launch/pretrain.py "
        "--archive /shared/archive --run-dir /shared/run --workers 16" + (" --resume" if restarts else "")
    )


@pytest.mark.parametrize("status", [138, 1])
def test_the_batch_script_passes_slurms_signal_on_and_is_requeued_where_the_run_was_stopped_by_it(
    tmp_path: Path, status: int
) -> None:
    programs = tmp_path / ".venv" / "bin"
    stubs(tmp_path)
    # the driver ends on the signal that pkill sends to the process of its command line
    stub(programs, "driver", f'trap "exit {status}" USR1\necho $$ > pid\nwhile :; do sleep 0.05; done')
    stub(programs, "pkill", 'test "$1 $5" = "-USR1 ^python launch/pretrain\\.py" && kill -USR1 "$(< pid)"')
    stub(programs, "scontrol", 'if [[ "$1" == requeue ]]; then echo "$@"; else printf "n1\\nn2\\n"; fi')
    stub(
        programs, "srun",
        'while [[ "$1" == --* ]]; do shift; done\nif [[ "$1" == ray ]]; then exec driver; fi\nexec "$@"',
    )  # fmt: skip
    with subprocess.Popen(batch_script(), env=job_environment(tmp_path, 0), stdout=subprocess.PIPE, text=True) as job:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
        out, _ = job.communicate(timeout=30)
    assert job.returncode == status
    assert out == ("requeue 4321\n" if status == 138 else "")


def test_two_jobs_do_not_share_a_token(tmp_path: Path) -> None:
    tokens = {run_as_job(tmp_path / str(job), 0).stdout.splitlines()[1] for job in range(2)}
    assert len(tokens) == 2


@pytest.mark.parametrize("recipe", ["ray-cluster.yaml", "kuberay-rayjob.yaml", "slurm.sbatch"])
def test_the_run_that_a_recipe_starts_is_one_that_can_be(recipe: str, generated_archive: Path) -> None:
    entry = next(
        line for line in text(recipe).replace("\n    --", " --").splitlines() if all(p in line for p in SHARED)
    )
    words = shlex.split(entry.replace("'", "").lstrip("# "))
    start = next(index for index, word in enumerate(words) if word.endswith(("pretrain.py", "slurm.sbatch")))
    arguments = [str(generated_archive) if word == "/shared/archive" else word for word in words[start + 1 :]]
    command = [sys.executable, str(REPOSITORY / "launch" / "pretrain.py"), *arguments, "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    workers = arguments[arguments.index("--workers") + 1]
    assert f"each of {workers} workers" in done.stdout
