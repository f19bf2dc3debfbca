"""carvana-ens import."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest


@pytest.fixture
def maps(project, oracle):
    """A project, and a folder of good test maps."""
    project.maps("given", oracle.TEST, blur=2, shift=1)
    return project


def bring(world, *words, name="net"):
    return world.do("import", name, "--from", world.root / "given", "--split", "test", *words)


def test_codes_are_the_pixels_of_the_maps(maps, oracle):
    from carvana_ens import open_store

    done = bring(maps)
    assert (done.code, done.err) == (0, "")
    assert "6 maps imported, 6 in all" in done.out
    store = open_store(maps.store("net", "test"))
    assert store.ids == tuple(sorted(oracle.TEST))
    for image_id in store.ids:
        expected = oracle.blurred(oracle.ellipse(image_id), 2, 1)
        assert np.array_equal(store.read(image_id), expected)


def test_a_stopped_import_goes_on_and_ends_the_same(maps, monkeypatch):
    from carvana_ens import open_store
    from carvana_ens.data.maps import MapFolder

    assert bring(maps, name="whole").code == 0
    read, plain = [], MapFolder.read

    def stopping(self, image_id):
        if len(read) == 3:
            raise KeyboardInterrupt
        read.append(image_id)
        return plain(self, image_id)

    monkeypatch.setattr(MapFolder, "read", stopping)
    done = bring(maps, "--threads", "1")
    assert done.code == 130
    assert [line for line in done.err.splitlines() if line] == [
        "stopped: what is finished is kept; the same command goes on from there"
    ]
    there = open_store(maps.store("net", "test"))
    assert there.missing() == list(there.ids[3:])
    monkeypatch.setattr(MapFolder, "read", plain)
    assert "3 maps imported, 6 in all" in bring(maps).out
    assert "0 maps imported, 6 in all" in bring(maps).out
    whole = open_store(maps.store("whole", "test"))
    net = open_store(maps.store("net", "test"))
    assert np.array_equal(net.records, whole.records)
    assert not net.missing()


def test_other_maps_under_the_name_are_refused_until_fresh(maps, oracle):
    from carvana_ens import open_store

    assert bring(maps).code == 0
    before = open_store(maps.store("net", "test")).fingerprint()
    maps.maps("other", oracle.TEST, blur=3, shift=0)
    words = ("import", "net", "--from", maps.root / "other", "--split", "test")
    told = maps.do(*words).error
    assert str(maps.store("net", "test")) in told
    assert "--fresh" in told
    assert open_store(maps.store("net", "test")).fingerprint() == before
    assert "6 maps imported" in maps.did(*words, "--fresh").out
    assert open_store(maps.store("net", "test")).fingerprint() != before


def test_ids_must_be_those_of_the_photos(maps, oracle):
    (maps.root / "given" / "b22_02.png").unlink()
    told = bring(maps).error
    assert "b22_02" in told
    assert "given" in told
    oracle.save_grey(maps.root / "given" / "b22_02.png", np.zeros(oracle.SIZE, np.uint8))
    oracle.save_grey(maps.root / "given" / "zzz_01.png", np.zeros(oracle.SIZE, np.uint8))
    told = bring(maps).error
    assert "zzz_01" in told
    assert "no photo" in told
    assert not maps.store("net", "test").exists()
    assert "net" not in (maps.cars / "ensemble.toml").read_text()


def test_without_photos_the_maps_say_which_images_there_are(world, oracle):
    world.run("init", world.cars)
    oracle.save_grey(world.root / "given" / "small.png", np.full((5, 9), 200, np.uint8))
    oracle.save_grey(world.root / "given" / "large.png", np.full((20, 7), 200, np.uint8))
    assert "2 maps imported" in bring(world).out
    world.did("blend", "-o", world.root / "out.csv")
    assert oracle.read_rows(world.root / "out.csv") == {"large.jpg": "1 140", "small.jpg": "1 45"}


def save(kind, path, codes):
    match kind:
        case "16 bits":
            PIL.Image.fromarray(codes.astype(np.uint16) * 257).save(path)
        case "RGB":
            PIL.Image.fromarray(np.stack([codes] * 3, axis=-1)).save(path)
        case "alpha":
            PIL.Image.fromarray(np.stack([codes, codes], axis=-1)).save(path)
        case "palette":
            PIL.Image.fromarray(codes).convert("P").save(path)
        case "one bit":
            PIL.Image.fromarray(codes > 127).save(path)
        case "truncated":
            PIL.Image.fromarray(codes).save(path)
            path.write_bytes(path.read_bytes()[:-30])
        case "no picture":
            path.write_bytes(b"nothing of the kind")
        case "other size":
            PIL.Image.fromarray(codes[:, :-1]).save(path)
        case "turned":
            PIL.Image.fromarray(codes.T.copy()).save(path)


@pytest.mark.parametrize(
    "kind",
    ["16 bits", "RGB", "alpha", "palette", "one bit", "truncated", "no picture", "other size", "turned"],
)
def test_maps_of_another_kind_are_named(maps, oracle, kind):
    path = maps.root / "given" / "b22_03.png"
    save(kind, path, oracle.blurred(oracle.ellipse("b22_03"), 2, 1))
    done = bring(maps)
    assert "b22_03" in done.error
    assert done.code == 1
    assert maps.do("blend", "-o", maps.root / "x.csv").error  # never of a half store
    assert not (maps.root / "x.csv").exists()


def test_jpeg_maps_are_refused(maps, oracle):
    PIL.Image.fromarray(oracle.blurred(oracle.ellipse("b22_03"), 2, 1)).save(maps.root / "given" / "b22_03.jpg")
    assert "b22_03" in bring(maps).error
    (maps.root / "given" / "b22_03.png").unlink()
    told = bring(maps).error
    assert "b22_03.jpg" in told
    assert "PNG" in told


def test_a_repaired_map_lets_the_import_go_on(maps, oracle):
    path = maps.root / "given" / "b22_03.png"
    codes = oracle.blurred(oracle.ellipse("b22_03"), 2, 1)
    save("RGB", path, codes)
    assert bring(maps, "--threads", "1").code == 1
    oracle.save_grey(path, codes)
    assert "6 in all" in bring(maps).out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--split", "new"], "new"),
        (["--out-of-fold"], "--out-of-fold"),
        (["--threads", "0"], "--threads"),
        (["--from", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_meant(maps, words, told):
    assert told in bring(maps, *words).error


@pytest.mark.parametrize("name", ["a/b", "..", "tuned", "a=b", "a,b", ""])
def test_names_that_no_member_can_have(maps, name):
    done = bring(maps, name=name)
    assert repr(name) in done.error
    assert done.code == 2
    assert not (maps.cars / "stores").exists()


def test_the_name_of_a_member_with_a_model_is_taken(maps):
    maps.did("add-model", "bright-cut")
    assert "bright-cut" in bring(maps, name="bright-cut").error


def test_a_declaration_is_part_of_the_maps(project, oracle):
    project.maps("given", oracle.TRAIN, 2, 0)
    words = ("import", "net", "--from", project.root / "given", "--split", "oof")
    project.did(*words)
    assert "--out-of-fold" in project.do("tune").error
    assert "--fresh" in project.do(*words, "--out-of-fold").error  # the maps there were not declared
    project.did(*words, "--out-of-fold", "--fresh")
    project.did("tune")
