"""Checks on a run over the real sample: every page says how many real images, none says phantom.

`python tests/check_sample.py reports/runs/sample`; .ci/run calls it where the sample is at hand.
"""

import json
import re
import sys
from pathlib import Path

import pandas as pd


def check(folder):
    """AssertionError with a message where the run in `folder` does not keep its promises."""
    folder = Path(folder)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    badge = record["data"]["badge"]
    assert record["data"]["kind"] == "sample", record["data"]
    assert "real images" in badge, badge
    names = sorted(record["notebooks"])
    assert len(names) == 7, names
    for page in [folder / "index.html", *(folder / f"{name}.html" for name in names)]:
        text = page.read_text(encoding="utf-8")
        assert badge in text, f"{page} does not say {badge!r}"
        # 02 draws a phantom of its own for its negative control, and says so in those captions.
        captions = re.findall(r"<(?:fig)?caption.*?</(?:fig)?caption>", text, flags=re.DOTALL)
        phantom = sum("Phantom:" in caption for caption in captions)
        assert phantom == text.count("Phantom:"), f"{page} says phantom outside of a caption"
        assert page.stem == "02_patient_split" or not phantom, f"{page} calls real images a phantom"
        assert page.stat().st_size <= 3e6, f"{page} is larger than 3 MB"
    metrics = pd.read_csv(folder / "results/metrics.csv", keep_default_na=False)
    assert metrics["value"].astype(float).abs().lt(float("inf")).all()
    assert metrics["n_images"].max() <= record["data"]["n_images"]
    assert len(set(metrics["images"])) == 1, "scores of other images are among them"
    print(f"{folder}: {len(names)} notebooks, {len(metrics)} metrics, every page says: {badge}")


if __name__ == "__main__":
    check(sys.argv[1])
