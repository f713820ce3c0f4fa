"""Measures a run's verdict and says it."""

import pandas as pd

from hccm_tf.verdict.measure import measure, measure_photos
from hccm_tf.verdict.words import lines

HEAD = "Verdict on the test split; in brackets differences and their 95% over users:"


def give_verdict(fitted, validation, test, folder, photos_of=None, strategy=None):
    """Prints a verdict of a trained network and adds it to its metrics.

    Args:
        fitted: `FittedModel`.
        validation: data frame of its predictions of split `validation`.
        test: likewise, of split `test`.
        folder: `RunFolder` with its history and metrics.
        photos_of: `Configuration` to train again with the photos dealt out to other
            items; `None` does not ask whether they pay.
        strategy: as of `hccm_tf.training.fit.fit`, for that.
    """
    print("verdict: compares with popularity and boosted trees (--noverdict: does not)")
    figures = measure(fitted, validation, test, pd.read_csv(folder.history))
    if photos_of is not None:
        print("trains again with the photos dealt out to other items")
        figures["photos"] = measure_photos(photos_of, test, strategy)
    said = lines(figures, fitted.trained.configuration)
    print(HEAD, *said, sep="\n  ")
    metrics = folder.read_metrics()
    folder.write_metrics({**metrics, "verdict": {"lines": said, **figures}})
