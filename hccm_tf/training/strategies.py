"""TensorFlow's distribution strategies by name; the cluster comes from `TF_CONFIG`.

| strategy | processes |
|---|---|
| `one_device` | one |
| `mirrored` | one, a replica on each of its GPUs; gradients are averaged |
| `multi_worker_mirrored` | workers, the same over all of them |
| `parameter_server` | a chief; workers, each at its own pace; servers of weights |

`TF_CONFIG` is TensorFlow's convention: JSON with `cluster`, the addresses of each kind
of task, and `task`, the kind and number of this process.
"""

import json
import os

import tensorflow as tf

from hccm_tf.errors import InputError

CLUSTER_STRATEGIES = ("multi_worker_mirrored", "parameter_server")
STRATEGIES = ("one_device", "mirrored", *CLUSTER_STRATEGIES)
# Operations that wait for another process hold a thread each; with as few threads as a
# small machine has cores, none is left for what they wait for.
THREADS = 16


def make_strategy(name):
    """The strategy, in the process of a chief or worker that runs the training program.

    In a process that `TF_CONFIG` names a worker or parameter server of
    `parameter_server` it serves the chief and does not return.

    Args:
        name: of `STRATEGIES`.

    Returns:
        `tf.distribute.Strategy`.

    Raises:
        InputError: if `TF_CONFIG` lacks what the strategy needs.
    """
    if name == "one_device":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    kinds = {"worker"} if name == "multi_worker_mirrored" else {"chief", "worker", "ps"}
    _check_cluster(name, kinds)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if name == "multi_worker_mirrored":
        tf.config.threading.set_inter_op_parallelism_threads(THREADS)
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    if resolver.task_type in ("worker", "ps"):
        _serve(resolver)
    return tf.distribute.ParameterServerStrategy(resolver)


def is_chief(strategy):
    """Whether this process is the one that writes what a run leaves."""
    resolver = strategy.cluster_resolver
    # Other strategies have one process that runs the program.
    return resolver is None or resolver.task_id == 0


def has_parameter_servers(strategy):
    """Whether it is a `ParameterServerStrategy`."""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def num_tasks(kind):
    """Number of processes of a kind, such as `"ps"`, in the cluster of `TF_CONFIG`."""
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    return resolver.cluster_spec().num_tasks(kind)


def _check_cluster(name, kinds):
    text = os.environ.get("TF_CONFIG")
    try:
        config = json.loads(text or "{}")
        found = {kind for kind, addresses in config["cluster"].items() if addresses}
        number = int(config["task"]["index"])
        known = number < len(config["cluster"][config["task"]["type"]])
    except (ValueError, KeyError, TypeError, AttributeError):
        found, known = set(), False
    if found != kinds or not known:
        raise InputError(
            f"strategy={name}: it needs the environment variable TF_CONFIG with a "
            f"cluster of {', '.join(sorted(kinds))}, and this process's task. "
            f"Received: {text}"
        )


def _serve(resolver):
    """Runs what the chief sends, until this process is ended."""
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=THREADS)
    server = tf.distribute.Server(
        resolver.cluster_spec(),
        job_name=resolver.task_type,
        task_index=resolver.task_id,
        protocol="grpc",
        config=config,
    )
    server.join()
