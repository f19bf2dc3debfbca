"""The table of epochs: what was written is what is read."""

from __future__ import annotations

import pytest

from carvana_ens.errors import TrainingError
from carvana_ens.learn.history import COLUMNS, history_text, read_history

ROW = {
    "epoch": 1, "loss": 0.1234567890123, "dice": None, "rate": 1e-05, "seconds": 12.5, "images_per_second": 3.25,
    "valid_loss": None, "stage": 1, "size": "512x768",
}  # fmt: skip


def test_what_is_written_is_read(tmp_path):
    rows = [ROW, {**ROW, "epoch": 2, "dice": 0.1 + 0.2, "valid_loss": 2.0, "stage": 2, "size": "1024x1536"}]
    path = tmp_path / "history.csv"
    path.write_text(history_text(rows))
    assert read_history(path) == rows
    path.write_text(history_text([]))
    assert read_history(path) == []


HEADER = ",".join(COLUMNS)
FULL = "1,0.5,,0.1,2,3,,1,2x3"


@pytest.mark.parametrize(
    "text",
    [
        "", "epoch,loss\n1,2\n", f"{HEADER}\n{FULL[:-4]}\n", f"{HEADER}\n{FULL},9\n",
        f"{HEADER}\nx{FULL}\n", f"{HEADER}\n1,,,0.1,2,3,,1,2x3\n", f'{HEADER}\n"{FULL}\n',
    ],
)  # fmt: skip
def test_another_table_is_refused(tmp_path, text):
    path = tmp_path / "history.csv"
    path.write_text(text)
    with pytest.raises(TrainingError, match=r"history\.csv cannot be read"):
        read_history(path)
    with pytest.raises(TrainingError, match="cannot be read"):
        read_history(tmp_path / "none.csv")
