import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hccm_tf.models import IMAGE_MODELS
from hccm_tf.serving.request import Impressions, impressions_request, to_json

ASK = Path(__file__).resolve().parents[2] / "hccm_tf" / "serving" / "ask.py"


@pytest.mark.parametrize("name", ["din", "hccm"])
def test_asking_the_export_gives_the_models_answer(
    shop, fitted, versions, tmp_path, name
):
    estimator = fitted[name]
    rows = Impressions(shop.data, "test", 3).rows
    request = impressions_request(rows, shop.schema, name in IMAGE_MODELS)
    request = to_json("serving_default", request)
    (tmp_path / "request.json").write_text(json.dumps(request))
    asked = subprocess.run(
        [sys.executable, ASK, versions[name], tmp_path / "request.json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    answer = json.loads(asked.stdout.removeprefix("ctr = "))
    expected = estimator.predict_proba(shop.data)[:3, 1]
    np.testing.assert_allclose(answer, expected, atol=1e-5)
