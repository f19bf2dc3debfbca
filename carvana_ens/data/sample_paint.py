"""What the made-up cars look like: every seen sample gets its colour from where it lies on the car.

Colours are display values, 0 black to 1 white; light is a bright studio ceiling with strip lamps and a pale wall.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from carvana_ens.data import sample_car as parts
from carvana_ens.data.sample_car import CORNER, Car
from carvana_ens.data.sample_raster import Seen, Singles

Flags: TypeAlias = NDArray[np.bool_]

# Samples that are painted at a time: the arrays stay in the processor's cache.
_AT_ONCE = 1 << 16


def paint(seen: Seen, car: Car, yaw: float, behind: Singles, light: float) -> Singles:
    """Colours (N, 3) of the seen samples.

    Args:
        seen: what the camera sees of the car.
        car: the car.
        yaw: angle from the world's x axis to the car's forward axis, radians.
        behind: (N, 3) colours of the empty studio at the same samples, seen through the windows.
        light: position of the ceiling's lamps, any number.
    """
    colours = np.empty((len(seen.rows), 3), np.float32)
    for start in range(0, len(colours), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        colours[part] = _paint_chunk(seen.part(part), car, yaw, behind[part], light)
    return colours


def _paint_chunk(seen: Seen, car: Car, yaw: float, behind: Singles, light: float) -> Singles:
    at, normal, ray = (_turned(vectors, -yaw) for vectors in (seen.points, seen.normals, seen.rays))
    count = len(at)
    albedo = np.zeros((count, 3), np.float32)
    mirror = np.full(count, 0.05, np.float32)
    tinted = np.zeros(count, np.float32)
    glow = np.zeros((count, 3), np.float32)
    for material, dress in ((parts.BODY, _body), (parts.WHEEL, _wheel), (parts.CABIN, _cabin)):
        which = np.flatnonzero(seen.material == material)
        if len(which):
            albedo[which], mirror[which], tinted[which], glow[which] = dress(
                car, at[which], normal[which], ray[which], behind[which]
            )
    plain = (
        (parts.UNDER, (0.03, 0.03, 0.03), 0.0),
        (parts.TRIM, (0.06, 0.06, 0.06), 0.04),
        (parts.CHROME, (0.5, 0.5, 0.52), 0.5),
        (parts.MIRROR, car.paint, 0.05),
    )
    for material, colour, shine in plain:
        which = seen.material == material
        albedo[which], mirror[which] = colour, shine
    facing = np.einsum("ij,ij->i", seen.normals, seen.rays)
    bounced = seen.rays - 2 * facing[:, None] * seen.normals
    fresnel = np.where(mirror > 0, mirror + (1 - mirror) * 0.75 * np.clip(1 + facing, 0, 1) ** 5, 0)
    up = seen.normals[:, 2]
    # Light falls from the ceiling; less of it reaches what is low, or looks down.
    diffuse = 0.5 + 0.32 * np.maximum(up, 0) + 0.14 * up + 0.16 * np.clip(-facing, 0, 1)
    diffuse *= np.clip(0.5 + 0.75 * seen.points[:, 2], 0.5, 1.0)
    mirrored = _studio(bounced, light)[:, None]
    paint = np.array(car.paint, np.float32)
    metal = np.where(tinted > 0, 0.30 * car.metallic, 0)[:, None] * paint * mirrored
    colours = albedo * diffuse[:, None] + metal + fresnel[:, None] * mirrored + glow
    return np.asarray(colours, np.float32)


def _turned(vectors: Singles, angle: float) -> Singles:
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    x, y = vectors[:, 0], vectors[:, 1]
    return np.stack([cosine * x - sine * y, sine * x + cosine * y, vectors[:, 2]], 1)


def _studio(way: Singles, light: float) -> Singles:
    """Brightness that a mirror shows in a direction: floor, pale wall with its dark letters' height, lit ceiling."""
    up = way[:, 2]
    above = np.maximum(up, 0.05)
    across, along = way[:, 0] / above, way[:, 1] / above
    lamp = np.clip(1.5 - 5 * np.abs(np.mod(along * 0.55 + light, 1) - 0.5), 0, 1) * np.clip(3 - np.abs(across), 0, 1)
    ceiling = np.clip((up - 0.3) * 4, 0, 1)
    wall = np.where(
        up > 0, 0.82 - 0.35 * np.clip(1 - np.abs(up - 0.13) * 14, 0, 1), 0.55 + 0.3 * np.clip(up + 0.4, -0.6, 0)
    )
    return np.asarray(wall * (1 - ceiling) + ceiling * (0.5 + 0.75 * lamp), np.float32)


class _Coat:
    """Colour, mirroring and kind of a set of samples, painted over in turn."""

    def __init__(self, count: int, colour: tuple[float, float, float]) -> None:
        self.albedo = np.empty((count, 3), np.float32)
        self.albedo[:] = colour
        self.mirror = np.full(count, 0.09, np.float32)
        self.paint = np.ones(count, np.float32)
        self.glow = np.zeros((count, 3), np.float32)

    def over(self, where: Flags, colour: tuple[float, float, float], mirror: float = 0.04) -> None:
        """Covers the flagged samples with something that is not the car's paint."""
        self.albedo[where] = colour
        self.mirror[where] = mirror
        self.paint[where] = 0

    def line(self, distance: Singles, where: Flags, width: float, depth: float = 0.65) -> None:
        """A groove: darkens the samples within half a width of a curve."""
        dark = 1 - depth * np.clip(1.5 - np.abs(distance) * (2 / width), 0, 1) * where
        self.albedo *= dark[:, None]
        self.mirror *= dark

    def done(self) -> tuple[Singles, Singles, Singles, Singles]:
        return self.albedo, self.mirror, self.paint, self.glow


_Dressed: TypeAlias = tuple[Singles, Singles, Singles, Singles]
_BLACK = (0.035, 0.035, 0.037)
_SILVER = (0.5, 0.5, 0.52)


def _body(car: Car, at: Singles, normal: Singles, ray: Singles, behind: Singles) -> _Dressed:  # noqa: ARG001
    shape = car.shape
    x, y, z = at.T
    coat = _Coat(len(x), car.paint)
    half, wide = shape.length / 2, shape.width / 2
    side = np.abs(normal[:, 1]) > 0.6
    across = np.abs(y) / wide
    # Doors, and the bonnet's and boot's gaps.
    front_axle, rear_axle = car.axles
    low, high = shape.clear + 0.13, shape.belt
    rear_edge = max(rear_axle + shape.wheel + 0.02, shape.rear[0] + 0.1)
    doors = (front_axle - shape.wheel - 0.2, *[p for p in shape.pillars if p > rear_edge + 0.3], rear_edge)
    on_side = side & (z > low) & (z < high)
    for post in doors:
        coat.line(x - post, on_side, 0.018)
    coat.line(z - low, side & (x < doors[0]) & (x > doors[-1]), 0.018)
    coat.line(
        z - (shape.clear + car.moulding * (shape.belt - shape.clear)), side & (np.abs(x) < half - 0.5), 0.03, 0.25
    )
    top = normal[:, 2] > 0.4
    bonnet = top & (x > shape.front[0] - 0.1)
    coat.line(across - 0.78, bonnet, 0.016)
    coat.line(x - (half - 0.28), bonnet & (across < 0.78), 0.018)
    if car.chrome:
        coat.over(
            side & (np.abs(z - shape.belt + 0.02) < 0.012) & (x < shape.front[0] - 0.3) & (x > shape.rear[0]),
            _SILVER,
            0.4,
        )
    for post in doors[:-1]:
        knob = on_side & (np.abs(z - shape.belt + 0.16) < 0.018)
        reach = post - doors[doors.index(post) + 1]
        coat.over(knob & (np.abs(x - post + reach - 0.2) < 0.1), _SILVER if car.chrome else car.paint, 0.3)
        coat.line(z - shape.belt + 0.185, side & (np.abs(x - post + reach - 0.2) < 0.11), 0.03, 0.6)
    coat.line(np.hypot(x - rear_axle + 0.25, z - shape.belt + 0.2) - 0.08, side & (y < 0), 0.014)
    # Sills and arches.
    arch = np.min([np.hypot(x - axle, z - shape.wheel) for axle in car.axles], axis=0) - shape.wheel - 0.07
    if car.cladding:
        coat.over((side & (arch < 0.07)) | (z < shape.clear + 0.14), _BLACK, 0.02)
    else:
        coat.line(arch - 0.015, side, 0.02, 0.3)
        coat.over(z < shape.clear + 0.05, _BLACK, 0.02)
    if shape.kind == "pickup":
        cab = shape.rear[0]
        coat.line(x - cab + 0.02, z > shape.clear, 0.04, 0.9)
        coat.over(top & (x < cab - 0.02) & (x > -half + 0.09) & (across < 0.9), (0.05, 0.05, 0.05), 0.0)
    share = (z - shape.clear) / (shape.nose - shape.clear)
    _front(car, coat, (x > half - 0.42) & (normal[:, 0] > 0.12), x, y, share, across)
    share = (z - shape.clear) / (shape.tail - shape.clear)
    _back(car, coat, (x < -half + 0.3) & (normal[:, 0] < -0.12), y, share, across)
    return coat.done()


def _front(car: Car, coat: _Coat, where: Flags, x: Singles, y: Singles, share: Singles, across: Singles) -> None:
    """Grille, intake, lamps and plate; ``share`` is the height as a part of the front's."""
    wide, low, high = car.grille
    grille = where & (across < wide * (0.9 + 0.2 * share)) & (share > low) & (share < high)
    if car.chrome:
        frame = where & (across < wide * (0.9 + 0.2 * share) + 0.035) & (share > low - 0.035) & (share < high + 0.035)
        coat.over(frame, _SILVER, 0.4)
    coat.over(grille, _BLACK, 0.03)
    bars = np.mod(share * 22, 1) < 0.35 if car.spokes % 2 else np.mod(y * 14, 1) < 0.3
    coat.over(grille & bars, _SILVER if car.chrome else (0.12, 0.12, 0.12), 0.15)
    coat.over(grille & (np.hypot(y, (share - (low + high) / 2) * 0.55) < 0.05), (0.75, 0.75, 0.78), 0.4)
    coat.over(where & (across < 0.62) & (share > 0.10) & (share < 0.27), _BLACK, 0.02)
    fog = np.hypot(np.abs(y) - car.shape.width * 0.37, (share - 0.21) * 0.5) < 0.05
    coat.over(where & fog & (share > 0.13), (0.7, 0.7, 0.68), 0.2)
    lamp = where & (across > wide + 0.09) & (np.abs(share - car.lamps - 0.05 * across) < 0.095 - 0.03 * (1 - across))
    lamp &= x > car.shape.length / 2 - 0.38
    coat.over(lamp, (0.62, 0.64, 0.66), 0.25)
    bulb = np.hypot(across - wide - 0.2, (share - car.lamps - 0.04) * 0.55)
    coat.over(lamp & (bulb < 0.085) & (bulb > 0.06), (0.2, 0.2, 0.22), 0.2)
    coat.glow[lamp & (bulb < 0.06)] = 0.25
    coat.over(lamp & (across > 0.9) & (share < car.lamps + 0.02), (0.75, 0.45, 0.2), 0.15)
    plate = where & (np.abs(y) < 0.17) & (np.abs(share - 0.36) * (car.shape.nose - car.shape.clear) < 0.075)
    _plate(car, coat, plate, y, (share - 0.36) * (car.shape.nose - car.shape.clear))


def _back(car: Car, coat: _Coat, where: Flags, y: Singles, share: Singles, across: Singles) -> None:
    shape = car.shape
    tall = shape.kind in {"SUV", "van", "pickup", "hatch"}
    lamp = where & (across > (0.76 if tall else 0.58)) & (share > (0.5 if tall else 0.64)) & (share < 0.9)
    coat.over(lamp, (0.62, 0.05, 0.05), 0.12)
    coat.over(lamp & (np.abs(share - (0.62 if tall else 0.7)) < 0.022), (0.75, 0.7, 0.68), 0.2)
    coat.glow[lamp & (share > 0.8)] = (0.12, 0.0, 0.0)
    coat.line(share - 0.42, where & (across < 0.9), 0.025)
    coat.line(across - 0.74, where & (share > 0.42) & ~lamp, 0.02)
    coat.over(where & (share < 0.16) & (across < 0.95), _BLACK, 0.02)
    coat.over(where & (np.abs(share - 0.3) < 0.025) & (np.abs(across - 0.8) < 0.1), (0.55, 0.06, 0.06), 0.1)
    height = (share - (0.58 if tall else 0.6)) * (shape.tail - shape.clear)
    coat.over(where & (np.abs(y) < 0.3) & (np.abs(height - 0.105) < 0.018), _SILVER if car.chrome else _BLACK, 0.3)
    _plate(car, coat, where & (np.abs(y) < 0.17) & (np.abs(height) < 0.08), y, height)


def _plate(car: Car, coat: _Coat, where: Flags, y: Singles, height: Singles) -> None:
    coat.over(where, car.plate, 0.03)
    # Marks that pass for letters, other ones on every car.
    text = (np.abs(height) < 0.035) & (np.abs(y) < 0.13) & (np.mod(y * 24 + 0.1, 1) < 0.62)
    text &= np.abs(np.mod(y * 24 + 0.1, 1) - 0.31) > 0.12 * (
        1 + np.sign(np.sin(height * 120 + np.floor(y * 24 + 0.1) * 2 + car.twist[0]))
    )
    coat.over(where & text, (0.1, 0.14, 0.35), 0.03)


def _wheel(car: Car, at: Singles, normal: Singles, ray: Singles, behind: Singles) -> _Dressed:  # noqa: ARG001
    x, y, z = at.T
    front, rear = car.axles
    ahead = np.abs(x - front) < np.abs(x - rear)
    along, up = x - np.where(ahead, front, rear), z - car.shape.wheel
    radius = np.hypot(along, up) / car.shape.wheel
    twist = np.choose(ahead * 2 + (y > 0), np.array(car.twist, np.float32))
    angle = np.arctan2(up, along) + twist
    coat = _Coat(len(x), (0.075, 0.075, 0.078))
    coat.paint[:] = 0
    coat.mirror[:] = 0.0
    outside = normal[:, 1] * np.sign(y) > 0.2
    rim = outside & (radius < 0.7)
    # Spokes: wider towards the hub, dark brake and air between them.
    turn = np.abs(np.mod(angle * (car.spokes / (2 * np.pi)), 1) - 0.5)
    spoke = turn * (2 * np.pi / car.spokes) * np.maximum(radius, 0.05) < (0.085 if car.spokes < 8 else 0.045)
    coat.over(rim, (0.05, 0.05, 0.052), 0.01)
    coat.over(rim & (radius < 0.45) & (radius > 0.2), (0.14, 0.135, 0.13), 0.05)
    coat.over(rim & (spoke | (radius < 0.17) | (radius > 0.62)), car.rim, 0.2)
    coat.over(rim & (radius < 0.075), (0.1, 0.1, 0.1), 0.1)
    coat.line(radius - 0.86, outside, 0.04, 0.4)
    return coat.done()


def _cabin(car: Car, at: Singles, normal: Singles, ray: Singles, behind: Singles) -> _Dressed:
    shape = car.shape
    x, y, z = at.T
    coat = _Coat(len(x), car.paint)
    front, rear, half = car.front_x(z), car.rear_x(z), car.half(z)
    low, high = shape.belt + 0.035, shape.roof - CORNER * 0.95
    if car.dark_roof:
        coat.over(z > high, (0.04, 0.04, 0.04), 0.06)
    level = (z > low) & (z < high)
    slant = 0.14 if shape.kind in {"sedan", "coupe", "hatch"} else 0.1
    side = (np.abs(normal[:, 1]) > 0.75) & level & (front - x > 0.13) & (x - rear > slant)
    first = shape.pillars[0] if shape.pillars else shape.rear[0]
    privacy = x < first
    if car.panel_van:
        side &= ~privacy
    frame = side.copy()
    for post in shape.pillars:
        side &= np.abs(x - post) > 0.04
    coat.over(frame & ~side, _BLACK, 0.05)
    ends = np.abs(y) < half - 0.1
    screen = (normal[:, 0] > 0.15) & ends & level & ~frame
    back = (normal[:, 0] < -0.15) & ends & (z > low + 0.03) & (z < high) & ~frame
    if car.panel_van:
        back &= np.abs(y) > 0.04
    glass = side | screen | back
    clear = np.where(privacy | back, car.privacy, car.glass).astype(np.float32)
    shown = np.flatnonzero(glass)
    if len(shown):
        inside = _inside(car, at[shown], ray[shown], behind[shown])
        coat.over(glass, (0.0, 0.0, 0.0), 0.07)
        coat.glow[shown] = inside * clear[shown, None] * 0.85
    # Rubber around the panes, wiper and the high brake light.
    coat.over((np.abs(z - low) < 0.012) & (np.abs(normal[:, 2]) < 0.9) & ~glass & level, _BLACK, 0.03)
    wiper = screen & (np.abs(z - low - 0.04 - 0.05 * (y + 0.3)) < 0.014)
    coat.over(wiper, _BLACK, 0.02)
    coat.glow[wiper] = 0
    brake = (normal[:, 0] < -0.1) & (np.abs(z - high - 0.02) < 0.02) & (np.abs(y) < 0.16)
    coat.over(brake, (0.55, 0.04, 0.04), 0.1)
    return coat.done()


def _inside(car: Car, at: Singles, ray: Singles, behind: Singles) -> Singles:
    """What is seen through a pane: dark seats and lining, or the studio where the ray leaves by another window."""
    shape = car.shape
    middle = np.array((shape.belt + shape.roof) / 2)
    ahead, aback, half = float(car.front_x(middle)), float(car.rear_x(middle)), float(car.half(middle))
    safe = np.where(np.abs(ray) < 1e-5, np.float32(1e-5), ray)
    floor = shape.belt - 0.25
    to = [
        (np.where(safe[:, axis] > 0, high, low) - at[:, axis]) / safe[:, axis]
        for axis, (low, high) in enumerate(((aback, ahead), (-half, half), (floor, shape.roof)))
    ]
    reach = np.maximum(np.minimum(np.minimum(to[0], to[1]), to[2]), 0)
    x, y, z = (at + ray * reach[:, None]).T
    open_z = (z > shape.belt + 0.05) & (z < shape.roof - CORNER)
    by_side = (to[1] < to[0]) & (to[1] < to[2]) & (x < ahead - 0.25) & (x > aback + 0.25)
    for post in shape.pillars:
        by_side &= np.abs(x - post) > 0.05
    by_end = (to[0] < to[1]) & (to[0] < to[2]) & (np.abs(y) < half - 0.1)
    if car.panel_van:
        by_side &= x > shape.pillars[0]
        by_end &= x > 0
    opened = open_z & (by_side | by_end)
    rows = [shape.front[0] - 1.35] + ([shape.front[0] - 2.3] if shape.front[0] - 2.3 > aback + 0.2 else [])
    seat = np.zeros(len(at), np.bool_)
    for row in rows:
        to_row = (row - at[:, 0]) / safe[:, 0]
        across, up = np.abs(at[:, 1] + ray[:, 1] * to_row), at[:, 2] + ray[:, 2] * to_row
        back = (np.abs(across - 0.37) < 0.25) & (up < shape.belt + 0.16)
        head = (np.abs(across - 0.37) < 0.13) & (up < shape.belt + 0.33)
        seat |= (to_row > 0) & (to_row < reach) & (back | head)
    dark = np.where(seat, 0.2, 0.09 + 0.05 * np.clip(z - shape.belt, 0, 1)).astype(np.float32)[:, None]
    return np.asarray(np.where((opened & ~seat)[:, None], behind * _far_pane(car, x), dark), np.float32)


def _far_pane(car: Car, x: Singles) -> Singles:
    """(N, 1) share of light that the far window at x lets through."""
    first = car.shape.pillars[0] if car.shape.pillars else car.shape.rear[0]
    return np.where(x < first, car.privacy, car.glass).astype(np.float32)[:, None]
