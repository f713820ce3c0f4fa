"""The Slurm script under Slurm: two jobs on two nodes, one of them requeued meanwhile.

    python -m tests.soak.slurm quickstart

Starts a controller and two nodes of Slurm on this machine, as namespaces of Linux that
reach each other and nothing else, and submits `multi_worker_mirrored.sbatch` with DATA
and MAPS of `make quickstart`: once undisturbed, and once with `scontrol requeue` in the
second epoch, after which it must go on from its checkpoint and with its log. Needs root
and Debian's `slurm-wlm`, `munge` and `iproute2`. It ends all that it starts; a fault
ends it with exit code 1, after all logs.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
JOB = ROOT / "configs" / "slurm" / "multi_worker_mirrored.sbatch"
PROGRAMS = ("slurmctld", "slurmd", "munged", "ip", "unshare")
EPOCHS = 4
TRAINING = "--flagfile=configs/demo.flags --model=din --patience=9".split()
TRAINING.append(f"--epochs={EPOCHS}")
UNFINISHED = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED")
PATIENCE = 1200  # seconds
ADDRESSES = {"controller": "10.0.0.1", "node1": "10.0.0.11", "node2": "10.0.0.12"}
NODES = [name for name in ADDRESSES if name != "controller"]
CONFIGURATION = """
ClusterName=soak
SlurmctldHost=controller
SlurmUser=root
# A requeued job waits for as long as its credential is valid.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
NodeName={nodes} CPUs=1
PartitionName=all Nodes=ALL Default=YES
"""


def call(*words):
    """Runs a command to its end; its output."""
    result = subprocess.run(words, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(words)}: {result.stderr}")
    return result.stdout


def make_network(folder):
    """Makes a namespace for each node, and a bridge from them to this process's."""
    # Where `ip` keeps names of namespaces, and others their sockets.
    call("mount", "-t", "tmpfs", "tmpfs", "/run")
    hosts = [f"{address} {name}\n" for name, address in ADDRESSES.items()]
    (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(hosts))
    call("mount", "--bind", str(folder / "hosts"), "/etc/hosts")
    call("hostname", "controller")
    call("ip", "link", "add", "bridge", "type", "bridge")
    call("ip", "address", "add", f"{ADDRESSES['controller']}/24", "dev", "bridge")
    for device in ("lo", "bridge"):
        call("ip", "link", "set", device, "up")
    for node in NODES:
        call("ip", "netns", "add", node)
        call("ip", *f"link add {node} type veth peer name eth0 netns {node}".split())
        call("ip", "link", "set", node, "master", "bridge", "up")
        inside = "ip", "-netns", node
        call(*inside, "address", "add", f"{ADDRESSES[node]}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            call(*inside, "link", "set", device, "up")


def start_slurm(folder):
    """Starts Slurm, whose files are in the folder, and waits until its nodes are up."""
    text = CONFIGURATION.format(folder=folder, nodes=",".join(NODES))
    (folder / "slurm.conf").write_text(text)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    # What is killed leaves files there.
    os.environ["TMPDIR"] = str(folder)
    # The job says `python`.
    os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    # It is not used; to find out which of the two this machine has needs its /sys.
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(64))
    (folder / "munge.key").chmod(0o600)
    names = ("key-file", "socket", "pid-file", "log-file", "seed-file")
    ends = [name.removesuffix("-file") for name in names]
    files = [f"--{n}={folder}/munge.{e}" for n, e in zip(names, ends, strict=True)]
    call("munged", *files)
    call("slurmctld", "-i")
    for node in NODES:
        (folder / node).mkdir()
        call("ip", "netns", "exec", node, "slurmd", "-N", node)
    up = [f"{node} idle" for node in NODES]
    wait(lambda: call("sinfo", "-hNo", "%N %t").splitlines() == up, "nodes")


def wait(condition, what):
    """Waits until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"waited for {what} in vain for {PATIENCE} seconds")
        time.sleep(0.5)


def facts(job):
    """What Slurm says of a job: name → value."""
    words = call("scontrol", "--oneliner", "show", "job", job).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def has_ended(job):
    return facts(job)["JobState"] not in UNFINISHED


def requeue(job, log):
    """Requeues a job in its second epoch; what its log was just before."""

    def text():
        return log.read_text() if log.exists() else ""

    wait(lambda: "Epoch 2/" in text() or has_ended(job), "the second epoch")
    before = text()
    if not has_ended(job):
        call("scontrol", "requeue", job)
    return before


def faults_of(job, log, run, before, restarts):
    """What is not as it must be when a job has ended, list of str."""
    found, text, faults = facts(job), log.read_text(), []
    end = [found[name] for name in ("JobState", "ExitCode", "Restarts")]
    if end != ["COMPLETED", "0:0", restarts]:
        faults.append(f"state, exit code and restarts: {', '.join(end)}")
    if not (run / "metrics.json").exists():
        faults.append("no metrics.json")
    if not text.startswith(before):
        faults.append("the log does not go on after what it was")
    # Each worker says them.
    epochs = re.findall(r"^Epoch (\d+)/", text, re.MULTILINE)
    print(f"{run.name}: {' '.join(end)}, epochs {' '.join(epochs)}", flush=True)
    if set(epochs) != set(map(str, range(1, EPOCHS + 1))):
        faults.append("not all epochs are in the log")
    if before and "Epoch 1/" in text[len(before) :]:
        faults.append("it began anew")
    return [f"{run.name}: {fault}" for fault in faults]


def run_jobs(quickstart, folder):
    """Runs both jobs, one after the other; faults, list of str."""
    faults = []
    for name, restarts in (("undisturbed", "0"), ("requeued", "1")):
        log, run = folder / f"{name}.log", folder / name
        arguments = [JOB, quickstart / "data", quickstart / "maps", run, *TRAINING]
        flags = "--parsable", "--nodes=2", f"--output={log}"
        job = call("sbatch", *flags, *map(str, arguments)).strip()
        before = requeue(job, log) if restarts == "1" else ""
        wait(lambda job=job: has_ended(job), f"the end of {name}")
        faults += faults_of(job, log, run, before, restarts)
    return faults


def main(quickstart, inside):
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing or os.geteuid():
        print(f"skipped: needs root and {', '.join(missing or PROGRAMS)}")
    elif inside:
        folder = pathlib.Path(inside)
        make_network(folder)
        start_slurm(folder)
        if faults := run_jobs(pathlib.Path(quickstart), folder):
            sys.exit("\n".join(faults))
    else:
        # All that runs in them ends with them.
        command = ["unshare", "--mount", "--net", "--uts", "--pid", "--mount-proc"]
        command += ["--fork", "--kill-child", sys.executable, "-m", __spec__.name]
        command.append(str(pathlib.Path(quickstart).resolve()))
        with tempfile.TemporaryDirectory(prefix="hccm_tf-slurm-") as folder:
            pathlib.Path(folder).chmod(0o755)
            code = subprocess.run([*command, f"--inside={folder}"], cwd=ROOT).returncode
            for log in sorted(pathlib.Path(folder).glob("*.log")) if code else ():
                print(f"{log.name}:\n{log.read_text()}")
            sys.exit(code)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("quickstart", help="The folder that make quickstart writes.")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    main(**vars(parser.parse_args()))
