"""Processes of a cluster that are killed, and runs that go on."""

import json
import shutil
import signal

import keras
import numpy as np
import pandas as pd

from hccm_tf.comparison.slices import read_columns
from hccm_tf.errors import LOST_PROCESS, PREEMPTED
from tests.training.cluster import TRAIN_MAIN, Cluster, newest_checkpoint, openings

ROWS = 30_000


def _command(shop, run_dir, strategy, data=None):
    return [
        TRAIN_MAIN,
        # What is traced anew at each start is small.
        "--model=din_fixed_cnn",
        "--image_sides=candidate",
        "--noverdict",
        f"--strategy={strategy}",
        f"--data_dir={data or shop.data}",
        # Of the folder that a process is started in.
        "--feature_maps=maps",
        f"--run_dir={run_dir}",
        "--batch_size=400",
        "--epochs=100000",
        "--patience=100000",
        "--hidden_units=8",
        "--attention_hidden_units=6",
        "--image_embedding_dim=6",
    ]


def _copy_maps(shop, cluster):
    for name in cluster.configs:
        shutil.copytree(shop.maps, cluster.folder_of(name) / "maps")


def _advance(cluster, run_dir, by=1):
    """Waits for further checkpoints."""
    before = newest_checkpoint(run_dir)[0]
    cluster.wait_until(lambda: newest_checkpoint(run_dir)[0] >= before + by)


def _check_whole_run(shop, run_dir):
    """A finished run has all epochs once, and predictions in the order of the data."""
    epochs = pd.read_csv(run_dir / "history.csv").epoch
    assert epochs.tolist() == list(range(len(epochs)))
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert np.isfinite(metrics["test"]["auc"])
    frame = pd.read_parquet(run_dir / "test_predictions.parquet")
    rows = read_columns(shop.data, "test", ["row", "label"]).row
    np.testing.assert_array_equal(frame.row, rows)
    test = shop.log.loc[rows]
    assert sorted(rows) == shop.log.index[shop.log.split == "test"].tolist()
    np.testing.assert_array_equal(frame.user_key, test.user_id)
    np.testing.assert_array_equal(frame.label, test.label)
    np.testing.assert_array_equal(frame.weight, test.get("weight", 1.0))


def test_parameter_servers_through_deaths(request_shop, tmp_path):
    shop = request_shop
    run_dir = tmp_path / "run"
    # A table that is dealt out over the servers.
    data = tmp_path / "data"
    shutil.copytree(shop.data, data)
    schema = json.loads((data / "schema.json").read_text())
    for feature in schema["features"]:
        if feature["name"] == "user_id":
            feature.update(kind="hash", size=ROWS)
    (data / "schema.json").write_text(json.dumps(schema))
    command = _command(shop, run_dir, "parameter_server", data)
    with Cluster(tmp_path, 2, 2, command) as cluster:
        _copy_maps(shop, cluster)
        cluster.start()
        _advance(cluster, run_dir)

        # The chief does not read the maps: it goes on without them.
        (maps,) = cluster.folder_of("chief-0").glob("maps/*.f16")
        maps.rename(maps.with_suffix(".away"))
        assert ".f16" not in cluster.maps("chief-0")
        _advance(cluster, run_dir)
        maps.with_suffix(".away").rename(maps)

        cluster.signal("worker-1")
        _advance(cluster, run_dir)
        (maps,) = cluster.folder_of("worker-1").glob("maps/*.f16")
        with openings(maps) as opened:
            cluster.start("worker-1")
            # Before it takes part again, it would wait for another that dies, too.
            cluster.wait_until(opened)
        cluster.signal("worker-0")
        # Now it is alone.
        _advance(cluster, run_dir)
        cluster.signal("worker-1")
        cluster.start("worker-0", "worker-1")
        _advance(cluster, run_dir)

        cluster.signal("chief-0", signal.SIGTERM)
        assert cluster.wait("chief-0") == PREEMPTED
        assert "--resume" in cluster.text("chief-0")
        cluster.start("chief-0", more=["--resume"])
        _advance(cluster, run_dir)

        cluster.signal("chief-0")
        epoch = newest_checkpoint(run_dir)[1]
        cluster.start("chief-0", more=["--resume"])
        _advance(cluster, run_dir)
        assert newest_checkpoint(run_dir)[1] > epoch

        cluster.signal("ps-0")
        assert cluster.wait("chief-0") == LOST_PROCESS
        assert "a process of the cluster was lost" in cluster.text("chief-0")
        epoch = newest_checkpoint(run_dir)[1]
        cluster.start("ps-0")
        # Another that died while nobody looked.
        cluster.signal("ps-1")
        cluster.start("ps-1")
        cluster.start("chief-0", more=["--resume", f"--epochs={epoch + 3}"])
        _advance(cluster, run_dir)
        # The chief ends also without a worker that died last.
        cluster.signal("worker-1")
        assert cluster.wait("chief-0") == 0, cluster.text("chief-0")[-3000:]
    _check_whole_run(shop, run_dir)
    model = keras.models.load_model(run_dir / "model.keras")
    (table,) = [weight.numpy() for weight in model.weights if weight.shape[0] >= ROWS]
    assert len(np.unique(table, axis=0)) >= ROWS


# What is sent to which workers, and what both end with. By SIGTERM a cluster takes all
# back at once; the first saves, also within an epoch.
ENDS = [
    (signal.SIGKILL, ["worker-0"], [-signal.SIGKILL, LOST_PROCESS]),
    (signal.SIGKILL, ["worker-1"], [LOST_PROCESS, -signal.SIGKILL]),
    (signal.SIGTERM, ["worker-0", "worker-1"], [PREEMPTED, LOST_PROCESS]),
]


def test_several_workers_end_together_and_go_on(shop, tmp_path):
    run_dir = tmp_path / "run"
    command = _command(shop, run_dir, "multi_worker_mirrored")

    def cluster_in(name):
        folder = tmp_path / name
        folder.mkdir()
        cluster = Cluster(folder, 2, 0, command)
        _copy_maps(shop, cluster)
        return cluster

    more = []
    for place, (number, receivers, codes) in enumerate(ENDS):
        with cluster_in(f"end-{place}") as cluster:
            cluster.start(more=more)
            _advance(cluster, run_dir)
            for name in receivers:
                cluster.signal(name, number)
            for name, code in zip(cluster.configs, codes, strict=True):
                assert cluster.wait(name) == code, cluster.text(name)[-3000:]
                lost = "a process of the cluster was lost" in cluster.text(name)
                assert lost == (code == LOST_PROCESS)
        more = ["--resume"]
    epoch = newest_checkpoint(run_dir)[1]
    with cluster_in("to-the-end") as cluster:
        cluster.start(more=["--resume", f"--epochs={epoch + 1}"])
        for name in cluster.configs:
            assert cluster.wait(name) == 0, cluster.text(name)[-3000:]
    _check_whole_run(shop, run_dir)
