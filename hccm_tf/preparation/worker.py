"""Runs Apache Beam's worker process as quietly as the commands run."""

import sys

from hccm_tf.preparation.beam import import_beam
from hccm_tf.quiet import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()
    import_beam(".runners.worker.sdk_worker_main").main(sys.argv)
