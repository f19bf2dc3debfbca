"""The made-up sample: its files, its masks and whether it is hard enough to learn from."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pictures

from carvana_ens.data import sample
from carvana_ens.data.sample import draw_shot, make_sample
from carvana_ens.data.sample_car import SHAPES, UNDER, build_mesh, draw_car
from carvana_ens.data.sample_raster import Camera, Mesh, grid_mesh, rasterise
from carvana_ens.data.sample_studio import Backdrop, draw_studio, placed, yaw_of
from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Size

SIZE = Size(96, 144)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "cars"
    make_sample(folder, cars=5, views=4, size=SIZE, seed=3)
    return folder


def shot(seed: int, car: int, yaw: float, size: Size = SIZE, noise: int = 0) -> tuple[np.ndarray, np.ndarray]:
    studio, drawn = draw_studio(seed, car, size), draw_car(seed, car)
    return draw_shot(drawn, build_mesh(drawn), studio, Backdrop(studio), yaw, np.random.default_rng(noise))


def touches_an_edge(mask: np.ndarray) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_layout_is_carvanas(made: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == [
        "sample_submission.csv",
        "test_hq",
        "test_masks",
        "train_hq",
        "train_masks",
    ]
    for part, cars in (("train", 3), ("test", 2)):
        photos = sorted(path.stem for path in (made / f"{part}_hq").glob("*.jpg"))
        assert len(photos) == len(list((made / f"{part}_hq").iterdir())) == cars * 4
        assert {name[12:] for name in photos} == {"_01", "_02", "_03", "_04"}
        assert all(set(name[:12]) <= set("0123456789abcdef") for name in photos)
        assert sorted(path.name for path in (made / f"{part}_masks").iterdir()) == [
            f"{name}_mask.gif" for name in photos
        ]
    assert not [path for path in made.parent.iterdir() if path != made]


def test_sample_submission_names_every_test_photo_with_an_empty_rle(made: Path) -> None:
    with open(made / "sample_submission.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["img", "rle_mask"]
    assert rows[1:] == [[path.name, ""] for path in sorted((made / "test_hq").iterdir())]


def test_report_counts_what_was_written(tmp_path: Path) -> None:
    shown = []

    def track(items, total, what):
        for item in items:
            shown.append((total, what))
            yield item

    report = make_sample(tmp_path / "new" / "cars", cars=2, views=3, size=Size(64, 64), track=track)
    assert (report.folder, report.train_images, report.test_images, report.cars) == (tmp_path / "new" / "cars", 3, 3, 2)
    assert len(list((report.folder / "train_hq").iterdir())) == len(list((report.folder / "test_hq").iterdir())) == 3
    assert shown == [(6, "photos")] * 6


def test_files_read_back_as_drawn(made: Path) -> None:
    for index in range(5):
        part = "train" if index < 3 else "test"
        name = f"{sample.car_id(3, index)}_02"
        with Pictures.open(made / f"{part}_masks" / f"{name}_mask.gif") as picture:
            assert picture.mode == "P"
            assert picture.getpalette()[:6] == [0, 0, 0, 255, 255, 255]
            indices = np.asarray(picture)
            grey = np.asarray(picture.convert("L"))
        photo, mask = shot(3, index, yaw_of(1, 4))
        assert set(np.unique(indices)) == {0, 1}
        np.testing.assert_array_equal(indices == 1, mask)
        np.testing.assert_array_equal(grey == 255, mask)
        with Pictures.open(made / f"{part}_hq" / f"{name}.jpg") as picture:
            assert picture.mode == "RGB"
            stored = np.asarray(picture, np.float64)
        assert stored.shape == (*SIZE, 3)
        # Another noise and a lossy file, but the same scene.
        assert np.abs(stored - photo).mean() < 8


def test_same_arguments_give_the_same_bytes_and_another_seed_does_not(made: Path, tmp_path: Path) -> None:
    np.random.seed(1)  # noqa: NPY002 (the global generator must not matter)
    make_sample(tmp_path / "again", cars=5, views=4, size=SIZE, seed=3)
    make_sample(tmp_path / "other", cars=2, views=2, size=SIZE, seed=4)
    assert files(tmp_path / "again") == files(made)
    assert not set(files(tmp_path / "other").values()) & set(files(made).values())


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    make_sample(tmp_path, cars=2, views=2, size=Size(64, 80))
    assert len(files(tmp_path)) == 9


def test_a_turn_starts_at_the_front_and_goes_round_to_the_left_the_rear_and_the_right() -> None:
    camera = draw_studio(0, 0, SIZE).camera
    nose, tail = ([], [])
    for view in (0, 4, 8, 12):
        at, depth = camera.project(placed(np.array([[2.0, 0.0, 0.5], [-2.0, 0.0, 0.5]]), yaw_of(view, 16)))
        nose.append((round(at[0, 0] - camera.centre[0]), depth[0]))
        tail.append((round(at[1, 0] - camera.centre[0]), depth[1]))
    assert nose[0][0] == nose[2][0] == 0
    assert nose[0][1] < tail[0][1] - 3
    assert nose[2][1] > tail[2][1] + 3
    assert nose[1][0] < -20 < 20 < nose[3][0]
    front, side, rear = (shot(0, 0, yaw_of(view, 16))[1] for view in (0, 4, 8))
    widths = [np.ptp(np.flatnonzero(mask.any(0))) for mask in (front, side, rear)]
    assert widths[1] > 1.5 * max(widths[0], widths[2])


def test_cars_and_views_differ() -> None:
    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        return float((a & b).sum() / (a | b).sum())

    masks = [shot(0, car, yaw_of(3, 16))[1] for car in range(7)]
    assert {draw_car(0, car).shape.kind for car in range(7)} == {shape.kind for shape in SHAPES}
    assert max(overlap(masks[a], masks[b]) for a in range(7) for b in range(a)) < 0.97
    views = [shot(0, 0, yaw_of(view, 16))[1] for view in range(16)]
    assert max(overlap(views[a], views[a - 1]) for a in range(16)) < 0.97


def best_threshold_dice(photo: np.ndarray, mask: np.ndarray) -> float:
    """Dice of the best cut in brightness, chosen with the truth known, the car being the dark or the bright side."""
    grey = photo.mean(2)
    sides = [side for cut in range(5, 255, 5) for side in (grey < cut, grey >= cut)]
    return max(2 * (side & mask).sum() / (side.sum() + mask.sum()) for side in sides)


def test_cars_fill_a_fair_share_lie_inside_the_frame_and_defy_a_threshold() -> None:
    scores = []
    for car in range(14):
        for view in (0, 3, 9):
            photo, mask = shot(0, car, yaw_of(view, 16))
            assert 0.05 < mask.mean() < 0.6
            assert not touches_an_edge(mask)
            scores.append(best_threshold_dice(photo, mask))
    assert np.mean(scores) < 0.8
    # Not hopeless either: some dark car before a bright wall is found by its brightness.
    assert max(scores) > 0.7


@pytest.mark.parametrize("size", [Size(64, 64), Size(64, 128), Size(150, 64)])
def test_other_frames_hold_the_whole_car(size: Size) -> None:
    _, mask = shot(1, 2, yaw_of(4, 16), size)
    assert mask.shape == size
    assert mask.any()
    assert not touches_an_edge(mask)


def test_mask_is_where_the_photo_differs_from_the_empty_studio() -> None:
    car, studio = draw_car(2, 1), draw_studio(2, 1, SIZE)
    mesh, backdrop = build_mesh(car), Backdrop(studio)
    photo, mask = draw_shot(car, mesh, studio, backdrop, 1.0, np.random.default_rng(0))
    away = mesh._replace(points=mesh.points * 1e-3 + [0, 0, 1.0])
    empty, _ = draw_shot(car, away, studio, backdrop, 1.0, np.random.default_rng(0))
    changed = (photo != empty).any(2)
    grown = np.pad(mask, 1)
    near = np.any(
        [grown[1 + dy : SIZE[0] + 1 + dy, 1 + dx : SIZE[1] + 1 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)], 0
    )
    assert changed[mask].mean() > 0.98
    # Outside, only pixels that the car covers by less than half: at its edge, or under a thin antenna.
    assert (changed & ~near).sum() < 0.002 * mask.size


def test_no_hole_shows_the_studio_through_the_body() -> None:
    # A car's outline from the side, filled from row to row, has gaps only under the sill and around antenna and rails.
    for car in range(7):
        _, mask = shot(5, car, yaw_of(4, 16))
        rows = np.flatnonzero(mask.sum(1) > 0.5 * SIZE.width)
        for row in rows[: len(rows) * 2 // 3]:
            columns = np.flatnonzero(mask[row])
            assert len(columns) == np.ptp(columns) + 1


def test_rasteriser_agrees_with_rays_traced_one_by_one() -> None:
    rng = np.random.default_rng(0)
    camera = Camera(Size(24, 32), focal=40.0, centre=(16.0, 12.0), distance=6.0, height=1.0, pitch=0.1)
    points = rng.uniform(-1.2, 1.2, (30, 3, 3)) + np.array([0, 0, 0.5])
    faces = np.arange(90).reshape(30, 3)
    both = np.concatenate([faces, faces[:, ::-1]])
    material = np.tile(np.arange(30), 2)
    mesh = Mesh(points.reshape(-1, 3), np.tile([0.0, 0.0, 1.0], (90, 1)), both, material)
    seen = rasterise(mesh, camera)
    found = np.full(camera.size, -1)
    found[seen.rows, seen.columns] = seen.material
    depths = np.full(camera.size, np.inf)
    depths[seen.rows, seen.columns] = np.linalg.norm(seen.points - [0, -6.0, 1.0], axis=1)
    agreed = 0
    for row in range(24):
        for column in range(32):
            ray = np.array(camera.rays(np.float32(column + 0.5), np.float32(row + 0.5)), np.float64)
            nearest, which = np.inf, -1
            for number, corner in enumerate(points):
                # Moeller and Trumbore: distance along the ray and barycentric coordinates by Cramer's rule.
                system = np.stack([-ray, corner[1] - corner[0], corner[2] - corner[0]], 1)
                t, u, v = np.linalg.solve(system, np.array([0, -6.0, 1.0]) - corner[0])
                if u >= 0 and v >= 0 and u + v <= 1 and 0 < t < nearest:
                    nearest, which = t, number
            agreed += which == found[row, column]
            if which >= 0 and which == found[row, column]:
                assert depths[row, column] == pytest.approx(nearest * np.linalg.norm(ray), rel=1e-3)
    # Rays that pass within rounding of an edge may go either way.
    assert agreed >= 24 * 32 - 2
    assert len(np.unique(found)) > 10


def test_normals_of_a_ball_point_outwards() -> None:
    around, up = np.meshgrid(np.linspace(0, 2 * np.pi, 24, endpoint=False), np.linspace(-1.5, 1.5, 15))
    ball = np.stack([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], 2)
    for grid in (ball, ball[::-1], ball[:, ::-1]):
        mesh = grid_mesh(grid, 0, closed=True)
        inner = slice(24, -24)
        assert np.sum(mesh.normals * mesh.points, 1)[inner].min() > 0.99
        a, b, c = (mesh.points[mesh.faces[:, corner]] for corner in range(3))
        assert np.sum(np.cross(b - a, c - a) * (a + b + c), 1).min() >= 0


def test_cars_stand_on_the_floor_on_four_wheels() -> None:
    for index in range(7):
        car = draw_car(9, index)
        mesh = build_mesh(car)
        assert mesh.points[:, 2].min() == pytest.approx(0, abs=0.01)
        standing = mesh.points[mesh.points[:, 2] < 0.02]
        quarters = {(x > 0, y > 0) for x, y, _ in standing}
        assert len(quarters) == 4
        assert (mesh.material == UNDER).any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"cars": 1}, "1 car"),
        ({"cars": 0}, "0 cars"),
        ({"cars": 2, "views": 1}, "1 views"),
        ({"cars": 2, "views": 100}, "100 views"),
        ({"cars": 2, "size": Size(63, 64)}, "63x64"),
        ({"cars": 2, "size": Size(64, 63)}, "64x63"),
        ({"cars": 2, "seed": -1}, "seed -1"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, arguments: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_sample(tmp_path / "cars", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="name a new folder"):
        make_sample(tmp_path, cars=2)
    with pytest.raises(DataError, match=r"mine\.txt"):
        make_sample(tmp_path / "mine.txt", cars=2)
    assert files(tmp_path) == {"mine.txt": hashlib.sha256(b"mine").hexdigest()}


def test_a_stop_leaves_no_half_sample(tmp_path: Path) -> None:
    def stopping(items, total, what):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        make_sample(tmp_path / "cars", cars=2, views=2, size=Size(64, 64), track=stopping)
    assert not list(tmp_path.iterdir())
