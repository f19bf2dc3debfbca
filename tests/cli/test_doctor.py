"""carvana-ens doctor."""

from __future__ import annotations

import json

from carvana_ens.verbs import doctor as verb


def test_a_table_and_an_exit_code(world, monkeypatch):
    monkeypatch.setattr(verb, "probe", lambda names, seconds: [("numba", "ok", "0.1")])
    monkeypatch.setattr(verb, "_plugins", lambda: iter([("models", "note", "none")]))
    world.init()
    done = world.do("doctor")
    assert done.code == 0, done.out
    rows = [line.split() for line in done.out.splitlines()]
    assert ["kernels", "numba", "ok", "0.1"] in rows
    assert ["project", "project", "ok", str(world.cars)] in rows
    assert done.out.endswith("nothing is broken\n")
    world.test.rename(world.root / "elsewhere")
    done = world.do("doctor")
    assert done.code == 1
    assert "BROKEN" in done.out
    assert done.out.endswith("1 broken\n")
    document = json.loads(world.do("doctor", "--json").out)
    assert document["sound"] is False
    assert [f["name"] for f in document["findings"] if f["state"] == "broken"] == ["data test"]
