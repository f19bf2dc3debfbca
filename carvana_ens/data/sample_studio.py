"""The empty studio of the made-up sample: wall and floor that meet in a curve, letters, lamps, turntable, shadow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pictures
from PIL import ImageDraw

from carvana_ens.data.sample_car import Car
from carvana_ens.data.sample_raster import Camera, Floats, Singles
from carvana_ens.types import Size

# Letters as strokes in a box one wide and one high, rows downwards.
_STROKES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "A": (((0, 1), (0.5, 0), (1, 1)),),
    "D": (((0.1, 0), (0.1, 1), (0.6, 1), (0.92, 0.75), (0.92, 0.25), (0.6, 0), (0.1, 0)),),
    "E": (((0.9, 0), (0.1, 0), (0.1, 1), (0.9, 1)), ((0.1, 0.5), (0.8, 0.5))),
    "I": (((0.5, 0), (0.5, 1)),),
    "K": (((0.1, 0), (0.1, 1)), ((0.9, 0), (0.1, 0.55), (0.95, 1))),
    "L": (((0.1, 0), (0.1, 1), (0.9, 1)),),
    "M": (((0.05, 1), (0.1, 0), (0.5, 0.7), (0.9, 0), (0.95, 1)),),
    "N": (((0.1, 1), (0.1, 0), (0.9, 1), (0.9, 0)),),
    "O": (tuple((0.5 + 0.48 * math.sin(turn * 0.2), 0.5 - 0.5 * math.cos(turn * 0.2)) for turn in range(33)),),
    "R": (((0.1, 1), (0.1, 0), (0.7, 0), (0.9, 0.25), (0.7, 0.5), (0.1, 0.5)), ((0.5, 0.5), (0.95, 1))),
    "T": (((0, 0), (1, 0)), ((0.5, 0), (0.5, 1))),
    "V": (((0, 0), (0.5, 1), (1, 0)),),
}
_NAMES = ("VELANTO", "MOTAVIA", "KAVERO", "AVENTRA", "NOVALIA", "TRIVELO", "MERIDA", "ALTONA")

WALL = 10.5
"""Distance of the wall from the turntable's middle, metres."""


@dataclass(frozen=True)
class Studio:
    """One studio: its camera, colours and fittings, the same for all views of a car."""

    camera: Camera
    wall: tuple[float, float, float]
    floor: tuple[float, float, float]
    letters: str
    ink: float
    """Darkness of the letters, 0 to 1."""
    panels: int
    """Number of vertical joints on the wall."""
    lamps: tuple[float, ...]
    """Columns of the ceiling lamps that show at the upper edge, as shares of the width."""
    falloff: float
    table: float
    """Radius of the turntable, metres."""
    light: float
    noise: float
    quality: int


def draw_studio(seed: int, car: int, size: Size) -> Studio:
    """The studio in which that car stands: a seed has one dealer with three rooms, each set up a little anew."""
    name = _NAMES[int(np.random.default_rng([seed, 3]).integers(len(_NAMES)))]
    rng = np.random.default_rng([seed, 5, car + 1])
    room = int(rng.integers(3))
    fixed = np.random.default_rng([seed, 4, room + 1])
    tone = fixed.uniform(-0.015, 0.025)
    wall = float(fixed.uniform(0.82, 0.92)) if room < 2 else float(fixed.uniform(0.58, 0.72))
    floor = float(fixed.uniform(0.62, 0.76)) if room < 2 else float(fixed.uniform(0.5, 0.66))
    height, distance = float(fixed.uniform(1.9, 2.4) + rng.uniform(-0.05, 0.05)), float(rng.uniform(8.9, 9.4))
    # A 3:2 frame that fits into the picture sets the scale, so that every shape of picture holds the whole car.
    frame = min(float(size.width), 1.5 * size.height)
    camera = Camera(
        size=size,
        focal=1.36 * frame,
        centre=(size.width / 2 + float(rng.uniform(-0.015, 0.015)) * frame, size.height / 2 - 0.02 * frame),
        distance=distance,
        height=height,
        pitch=float(np.arctan2(height - 0.72, distance)),
    )
    return Studio(
        camera=camera,
        wall=(wall + tone, wall, wall - tone),
        floor=(floor + tone * 1.4, floor, floor - tone * 1.4),
        letters=name,
        ink=float(fixed.uniform(0.35, 0.8)),
        panels=int(fixed.choice([0, 5, 9])),
        lamps=tuple(fixed.uniform(0.05, 0.95, int(fixed.integers(2, 5))).tolist()),
        falloff=float(fixed.uniform(0.06, 0.22)),
        table=float(fixed.uniform(3.1, 3.5)),
        light=float(fixed.uniform(0, 1)),
        noise=float(rng.uniform(0.008, 0.016)),
        quality=int(rng.integers(90, 96)),
    )


class Backdrop:
    """The studio's parts that stand still, drawn once for all views of a car."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        camera = studio.camera
        height, width = camera.size
        columns, rows = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
        across, away, up = camera.rays(columns, rows)
        # Where the ray through a pixel meets the floor: x is a column's times a row's number, y a row's alone.
        below = np.minimum(up, -1e-3)
        self.reach: Singles = np.asarray(camera.height / -below, np.float32)
        self.across = across
        self.y = self.reach * away - np.float32(camera.distance)
        self.first = int(np.argmax(self.reach < camera.distance + 1.5 * WALL))
        self.picture = self._still(rows / np.float32(height), columns / np.float32(width))

    def _still(self, down: Singles, along: Singles) -> Singles:
        studio = self.studio
        height, width = studio.camera.size
        shade = 1 - studio.falloff * (2 * along[None, :] - 1) ** 2 + 0.06 * (0.3 - down[:, None])
        for lamp in studio.lamps:
            shade += 0.35 * np.exp(-(((along - lamp) * 9) ** 2))[None, :] * np.exp(-((down / 0.05) ** 2))[:, None]
        fittings = 1 - self._fittings()
        distance = np.full((height, width), 2 * WALL, np.float32)
        distance[self.first :] = np.hypot(
            self.across[None, :] * self.reach[self.first :, None], self.y[self.first :, None]
        )
        # The wall's foot is rounded: wall and floor pass into each other over half a metre.
        wall = np.clip((distance - WALL) * 2 + 0.5, 0, 1)
        wall *= wall * (3 - 2 * wall)
        near = 1 - 0.10 * np.clip(distance / WALL, 0, 1) ** 2 * (1 - wall)
        edge = 0.06 * np.exp(-(((distance - WALL) * 2.5) ** 2))
        # A worn rim in front of the table, as at the lower edge of some studios.
        rim = np.float32(0.2) * np.clip(1 - np.abs(distance - studio.table - 0.75) * 18, 0, 1)
        common = shade * near * (1 - edge) * (1 - rim * (self.y[:, None] < 0))
        picture = np.empty((height, width, 3), np.float32)
        for channel in range(3):
            floor, upright = np.float32(studio.floor[channel]), np.float32(studio.wall[channel])
            picture[:, :, channel] = (floor + (upright * fittings - floor) * wall) * common
        return picture

    def _fittings(self) -> Singles:
        """Darkness (H, W) of letters and panel joints on the wall."""
        studio = self.studio
        height, width = studio.camera.size
        frame = min(float(width), 1.5 * height)
        layer = Pictures.new("L", (width * 2, height * 2))
        pen = ImageDraw.Draw(layer)
        for joint in range(studio.panels):
            at = (joint + 0.5) / studio.panels * width * 2
            pen.line([(at, 0), (at, height * 2)], fill=22, width=max(1, round(frame * 0.002)))
        # The letters end a little above the wall's foot.
        foot = self.studio.camera.project(np.array([[0.0, WALL, 0.25]]))[0][0, 1]
        tall = 0.115 * frame
        step = 0.85 * frame / len(studio.letters)
        stroke = max(1, round(frame * 0.036))
        for number, letter in enumerate(studio.letters):
            left = width / 2 - 0.425 * frame + number * step + 0.1 * step
            for line in _STROKES[letter]:
                at_line = [((left + px * step * 0.8) * 2, (foot - tall + py * tall) * 2) for px, py in line]
                pen.line(at_line, fill=round(255 * studio.ink), width=stroke, joint="curve")
        return np.asarray(layer.reduce(2), np.float32) / np.float32(255)

    def view(self, car: Car, yaw: float) -> Singles:
        """The studio (H, W, 3) with the turntable turned by ``yaw`` and the car's shadow, but without the car."""
        studio, picture = self.studio, self.picture.copy()
        rows = np.flatnonzero((self.y < 6) & (self.reach < 1e3))
        if not len(rows):
            return picture
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        x = self.across[None, :] * self.reach[part, None]
        y = np.broadcast_to(self.y[part, None], x.shape)
        radius = np.hypot(x, y)
        sine, cosine = np.float32(np.sin(yaw)), np.float32(np.cos(yaw))
        along, side = cosine * x + sine * y, cosine * y - sine * x
        # Lines keep their darkness times width where they are thinner than a pixel.
        footprint = np.square(self.reach[part, None]) * np.float32(0.5 / (studio.camera.focal * studio.camera.height))
        dark = 0.55 * _drawn(np.abs(radius - studio.table), footprint, 0.014)
        for turn in (0.4, 0.4 + np.pi / 3, 0.4 + 2 * np.pi / 3):
            joint = np.abs(along * np.float32(np.sin(turn)) - side * np.float32(np.cos(turn)))
            dark += 0.22 * _drawn(joint, footprint, 0.007) * (radius < studio.table)
        stain = np.sin(along * 2.1 + 1.3) * np.sin(side * 1.7 + 0.4) + 0.6 * np.sin(along * 5.3 - side * 3.9)
        dark += 0.018 * stain * (radius < studio.table)
        half, wide = np.float32(car.shape.length / 2), np.float32(car.shape.width / 2)
        gap = np.hypot(np.maximum(np.abs(along) - half + 0.35, 0), np.maximum(np.abs(side) - wide + 0.2, 0))
        shadow = 0.45 * np.exp(-((gap * 3.2) ** 2)) + 0.22 * np.exp(-((gap * 0.9) ** 2))
        picture[part] *= ((1 - np.clip(dark, 0, 1)) * (1 - shadow))[:, :, None]
        return picture


def _drawn(distance: Singles, footprint: Singles, width: float) -> Singles:
    """Share of a pixel, by its size on the floor, that a line of that width covers."""
    reach = np.maximum(footprint, np.float32(width / 2))
    return np.asarray(np.clip(1.5 - distance / reach, 0, 1) * (width / 2 / reach), np.float32)


def yaw_of(view: int, views: int) -> float:
    """The car's angle in that view (from 0): it looks at the camera first, then turns clockwise seen from above."""
    return -np.pi / 2 - 2 * np.pi * view / views


def placed(points: Floats, yaw: float) -> Floats:
    """Points or directions (V, 3) of the car's axes in the world's."""
    sine, cosine = np.sin(yaw), np.cos(yaw)
    return np.asarray(points @ np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]]))
