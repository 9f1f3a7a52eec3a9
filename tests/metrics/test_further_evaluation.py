"""``evaluate(faithfulness=True)``: further means beside the shuffled map's, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

from schemas import check
from seewhy.classifiers.unfitted import Pretrained
from seewhy.evaluation import FURTHER, evaluate
from tiny import CLASSES, class_folders, tiny_cnn


def test_further_metrics_are_added(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "data", 2, CLASSES)
    model = Pretrained().build(tiny_cnn())
    plain = evaluate(model, folders, n_explained=3).data
    more = evaluate(model, folders, n_explained=3, faithfulness=True)
    added = set(more.data["faithfulness"]) - set(plain["faithfulness"])
    check("evaluate", [{**more.data, "report": None}])
    assert added == {name + end for name in FURTHER for end in ("", "_random")}
    assert {k: v for k, v in more.data["faithfulness"].items() if k not in added} == plain["faithfulness"]
    # The shuffled map holds the same values, if only before it is enlarged.
    assert 0 <= more.data["faithfulness"]["sparsity"] <= 1
    assert "<html" in more.to_html()
