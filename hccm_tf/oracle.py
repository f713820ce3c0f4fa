"""The ceiling of a synthetic shop: test metrics of the simulator's probabilities."""

from hccm_tf.errors import InputError
from hccm_tf.files import read_json

METRICS = ("auc", "gauc", "log_loss", "calibration")


def read_oracle(path):
    """Test metrics of an oracle, dict with `METRICS`: `oracle.json` of `make_demo`.

    Raises:
        InputError: names the file.
    """
    try:
        oracle = read_json(path)
        [oracle[name] for name in METRICS]
        return oracle
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"oracle={path}: cannot be read ({error!r})") from error


def headroom(auc, first, oracle):
    """How much of what an oracle's AUC is above the first an AUC gains, as text.

    Empty if the oracle is not above it.
    """
    return f"{(auc - first) / (oracle - first):.0%}" if oracle > first else ""
