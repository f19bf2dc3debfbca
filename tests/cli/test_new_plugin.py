"""carvana-ens new-plugin."""

from __future__ import annotations


def test_what_to_do_next(world, monkeypatch):
    monkeypatch.chdir(world.root)
    done = world.run("new-plugin", "my-net", "--torch")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].startswith("wrote carvana-ens-my-net: .gitignore, README.md, carvana_ens_my_net.py")
    assert "  carvana-ens install -e carvana-ens-my-net\n" in done.out
    assert "TorchModel" in (world.root / "carvana-ens-my-net" / "carvana_ens_my_net.py").read_text()
    again = world.run("new-plugin", "my-net")
    assert (again.code, "is there already" in again.error) == (2, True)


def test_plain_is_the_default(world):
    assert world.run("new-plugin", "mine", "-o", world.root / "a b").code == 0
    assert "(Model)" in (world.root / "a b" / "carvana_ens_mine.py").read_text()
    told = world.run("new-plugin", "mine", "--plain", "-o", world.root / "c d")
    assert f"-e '{world.root / 'c d'}'" in told.out
