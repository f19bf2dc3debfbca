"""verify compares each zarr.json with what was written there, and --repair writes it anew."""

from __future__ import annotations

import pytest

from carvana_ens import open_store


@pytest.fixture
def predicted(project):
    project.did("add-model", "bright-cut", "--name", "one")
    project.did("predict", "--split", "test")
    return project


def test_a_bit_that_hides_every_done_record_loses_no_map(predicted):
    """Records under other names are none: zarr reads zeros, as of maps that are still to be made."""
    path = predicted.store("one", "test")
    fingerprint, file = open_store(path).fingerprint(), path / "done" / "zarr.json"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"separator": "/"', b'"separator": "."'))
    assert len(open_store(path).missing()) == 6
    done = predicted.do("verify")
    assert done.code == 1
    assert f"{file} is not what carvana-ens wrote there" in done.out
    done = predicted.did("verify", "--repair")
    assert "6 right, 0 missing, 1 damaged" in done.out
    assert "mended 1 things beside the maps" in done.out
    assert file.read_bytes() == whole
    assert open_store(path).fingerprint() == fingerprint
    assert predicted.did("verify").out.endswith("6 right, 0 missing, 0 damaged\n")


def test_damaged_records_of_one_store_do_not_hide_the_others(predicted):
    predicted.did("predict", "--split", "oof")
    chunk = predicted.store("one", "oof") / "done" / "c" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    done = predicted.do("verify")
    assert done.code == 1
    assert "array done is damaged" in done.out
    assert f"{predicted.store('one', 'test')}: 6 right, 0 missing, 0 damaged" in done.out
