"""The cars of the made-up sample: a few body shapes with varied measures and finish, as triangle meshes.

Car axes: x forwards, y to the car's left, z up, metres; the origin lies on the floor under the car's middle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from carvana_ens.data.sample_raster import Floats, Mesh, grid_mesh, join

BODY, CABIN, WHEEL, UNDER, TRIM, MIRROR, CHROME = range(7)
"""Materials of the mesh's faces."""

CORNER = 0.11
"""Radius of the roof's edge, metres."""


@dataclass(frozen=True)
class Shape:
    """The measures of a body, metres; ``x`` positions are counted from the car's middle, forwards."""

    kind: str
    length: float
    width: float
    wheelbase: float
    wheel: float
    """Radius with the tyre."""
    clear: float
    """Height of the sill above the floor."""
    nose: float
    cowl: float
    """Heights of the bonnet's front and of its end under the windscreen."""
    belt: float
    """Height of the side windows' lower edge."""
    tail: float
    roof: float
    front: tuple[float, float]
    """x of the windscreen's foot and top."""
    rear: tuple[float, float]
    """x of the rear window's foot and top."""
    pillars: tuple[float, ...]
    """x of the posts between the side windows, from the front."""


SHAPES = (
    Shape("sedan", 4.80, 1.84, 2.80, 0.33, 0.20, 0.74, 0.96, 0.97, 1.03, 1.46, (1.10, 0.25), (-1.75, -0.95), (-0.28,)),
    Shape(
        "SUV", 4.70, 1.90, 2.75, 0.37, 0.27, 0.95, 1.10, 1.13, 1.18, 1.76, (1.15, 0.45), (-2.28, -1.95), (-0.2, -1.2)
    ),
    Shape("hatch", 4.05, 1.76, 2.55, 0.31, 0.19, 0.76, 0.98, 0.98, 1.02, 1.51, (1.15, 0.35), (-1.95, -1.55), (-0.3,)),
    Shape("pickup", 5.35, 1.98, 3.35, 0.40, 0.34, 1.06, 1.20, 1.24, 1.26, 1.88, (1.30, 0.65), (-1.00, -0.85), (0.0,)),
    Shape("van", 5.00, 1.96, 3.05, 0.34, 0.20, 0.90, 1.10, 1.10, 1.12, 1.82, (1.80, 0.95), (-2.44, -2.30), (0.1, -1.2)),
    Shape("coupe", 4.60, 1.86, 2.70, 0.34, 0.17, 0.70, 0.90, 0.93, 0.97, 1.35, (0.85, 0.05), (-1.80, -0.80), ()),
    Shape(
        "wagon", 4.75, 1.82, 2.75, 0.33, 0.20, 0.75, 0.96, 0.97, 1.02, 1.48, (1.10, 0.25), (-2.28, -1.95), (-0.3, -1.3)
    ),
)

# Paint colours with their metallic share, roughly as often as they are sold: white, silver and greys lead.
_PAINTS = (
    ((0.88, 0.88, 0.86), 0.0),
    ((0.62, 0.63, 0.64), 0.8),
    ((0.05, 0.05, 0.06), 0.2),
    ((0.33, 0.34, 0.36), 0.7),
    ((0.52, 0.06, 0.07), 0.3),
    ((0.74, 0.74, 0.72), 0.6),
    ((0.10, 0.19, 0.42), 0.6),
    ((0.92, 0.91, 0.88), 0.2),
    ((0.58, 0.53, 0.44), 0.7),
    ((0.09, 0.11, 0.16), 0.5),
    ((0.13, 0.27, 0.20), 0.5),
    ((0.78, 0.42, 0.08), 0.2),
    ((0.45, 0.55, 0.64), 0.7),
    ((0.30, 0.16, 0.10), 0.5),
    ((0.80, 0.68, 0.12), 0.0),
)


@dataclass(frozen=True)
class Car:
    """One car: its shape and everything that its surface is painted with."""

    shape: Shape
    paint: tuple[float, float, float]
    metallic: float
    """0 (plain) to 1: how much of the mirrored light takes the paint's colour."""
    rim: tuple[float, float, float]
    spokes: int
    twist: tuple[float, float, float, float]
    """Where each wheel stands, radians."""
    glass: float
    """Share of light that the front windows let through."""
    privacy: float
    """The same for the windows behind the first post."""
    panel_van: bool
    dark_roof: bool
    cladding: bool
    """Unpainted black wheel arches and sills."""
    chrome: bool
    lamps: float
    """Height of the lamps' band, as a share of the front's."""
    grille: tuple[float, float, float]
    """Half width, lower and upper edge, as shares of the front's."""
    plate: tuple[float, float, float]
    rails: bool
    antenna: int
    """0 none, 1 mast on the wing, 2 fin on the roof, 3 short mast at the roof's rear."""
    spoiler: bool
    moulding: float
    """Height of the crease along the doors, as a share of sill to belt."""

    def front_x(self, z: Floats) -> Floats:
        """Where (x) the windscreen's plane is at height z."""
        foot, top = self.shape.front
        return foot + (top - foot) * self.rise(z)

    def rear_x(self, z: Floats) -> Floats:
        """Where (x) the rear window's plane is at height z."""
        foot, top = self.shape.rear
        return foot + (top - foot) * self.rise(z)

    def half(self, z: Floats) -> Floats:
        """Half the cabin's width at height z."""
        return self.shape.width * (0.455 - 0.085 * self.rise(z))

    def rise(self, z: Floats) -> Floats:
        """Height z as a share of the cabin's own, 0 at its foot."""
        foot = self.shape.belt - 0.08
        return (z - foot) / (self.shape.roof - foot)

    @property
    def axles(self) -> tuple[float, float]:
        """Positions (x) of the front and the rear axle."""
        overhang = (self.shape.length - self.shape.wheelbase) * 0.46
        return self.shape.length / 2 - overhang, self.shape.length / 2 - overhang - self.shape.wheelbase


def draw_car(seed: int, index: int) -> Car:
    """The car of that number: shapes and paints go round before they repeat, everything else is drawn."""
    order = np.random.default_rng([seed, 1])
    kinds, paints = order.permutation(len(SHAPES)), order.permutation(len(_PAINTS))
    rng = np.random.default_rng([seed, 2, index + 1])
    base = SHAPES[kinds[index % len(SHAPES)]]
    long, tall = rng.uniform(0.95, 1.05), rng.uniform(0.96, 1.04)
    shape = replace(
        base,
        length=base.length * long,
        width=base.width * rng.uniform(0.97, 1.03),
        wheelbase=base.wheelbase * long,
        wheel=base.wheel * rng.uniform(0.95, 1.08),
        nose=base.nose * tall * rng.uniform(0.95, 1.03),
        cowl=base.cowl * tall,
        belt=base.belt * tall,
        tail=base.tail * tall * rng.uniform(0.97, 1.03),
        roof=base.roof * tall,
        front=(base.front[0] * long, base.front[1] * long + rng.uniform(-0.08, 0.08)),
        rear=(base.rear[0] * long, base.rear[1] * long + rng.uniform(-0.05, 0.08)),
        pillars=tuple(x * long for x in base.pillars),
    )
    paint, metallic = _PAINTS[paints[index % len(_PAINTS)]]
    shade = rng.uniform(0.85, 1.1)
    red, green, blue = (float(np.clip(part * shade + rng.uniform(-0.02, 0.02), 0.02, 0.93)) for part in paint)
    tall_kind = base.kind in {"SUV", "van", "pickup"}
    grey = float(rng.choice([0.06, 0.35, 0.62, 0.8], p=[0.2, 0.15, 0.35, 0.3]))
    panel_van = base.kind == "van" and rng.random() < 0.5
    return Car(
        shape=shape,
        paint=(red, green, blue),
        metallic=metallic,
        rim=(grey, grey, grey * 1.02),
        spokes=int(rng.choice([5, 5, 6, 7, 8, 10, 12])),
        twist=tuple(rng.uniform(0, 2 * np.pi, 4).tolist()),
        glass=float(rng.uniform(0.45, 0.75)),
        privacy=float(rng.uniform(0.08, 0.2)) if tall_kind else float(rng.uniform(0.3, 0.7)),
        panel_van=panel_van,
        dark_roof=bool(rng.random() < 0.12),
        cladding=bool(rng.random() < (0.6 if tall_kind else 0.08)),
        chrome=bool(rng.random() < 0.5),
        lamps=float(rng.uniform(0.66, 0.76)),
        grille=(float(rng.uniform(0.34, 0.5)), float(rng.uniform(0.44, 0.54)), float(rng.uniform(0.76, 0.86))),
        plate=tuple(rng.choice([[0.92, 0.93, 0.95], [0.85, 0.78, 0.35], [0.55, 0.7, 0.88]]).tolist()),
        rails=bool(base.kind in {"SUV", "wagon"} and rng.random() < 0.7),
        antenna=int(rng.integers(0, 4)),
        spoiler=bool(base.kind in {"SUV", "hatch", "wagon", "coupe"} and rng.random() < 0.6),
        moulding=float(rng.uniform(0.45, 0.7)),
    )


def build_mesh(car: Car) -> Mesh:
    """The car's whole surface in its own axes; the parts overlap, and the depth buffer makes the union."""
    parts = [*_body(car), _cabin(car), *_wheels(car), *_mirrors(car)]
    shape = car.shape
    if car.rails:
        rear, front = car.rear_x(np.array(shape.roof)), car.front_x(np.array(shape.roof))
        middle = np.array([(front + rear) / 2, 0.0, shape.roof + 0.05])
        for side in (-1, 1):
            at = middle + np.array([0, side * (car.half(np.array(shape.roof)) - 0.12), 0])
            parts.append(_blob(at, (float(front - rear) * 0.42, 0.025, 0.03), 5, CHROME if car.chrome else TRIM))
            for end in (-0.36, 0.36):
                at_foot = at + np.array([float(front - rear) * end, 0, -0.04])
                parts.append(_blob(at_foot, (0.07, 0.025, 0.06), 4, CHROME if car.chrome else TRIM))
    if car.antenna == 1:
        parts.append(_rod(np.array([shape.front[0] + 0.25, -shape.width * 0.42, shape.cowl - 0.1]), (-0.25, 0, 0.75)))
    elif car.antenna == 2:
        parts.append(_blob(np.array([shape.rear[1] + 0.2, 0, shape.roof + 0.03]), (0.12, 0.025, 0.07), 2, MIRROR))
    elif car.antenna == 3:
        parts.append(_rod(np.array([shape.rear[1] + 0.15, 0, shape.roof]), (-0.22, 0, 0.3)))
    if car.spoiler:
        coupe = shape.kind == "coupe"
        x, z = (-shape.length / 2 + 0.22, shape.tail + 0.13) if coupe else (shape.rear[1] - 0.1, shape.roof - 0.03)
        across = shape.width * (0.36 if coupe else 0.33)
        parts.append(_blob(np.array([x, 0, z]), (0.14, across, 0.022), 5, MIRROR))
        if coupe:
            parts += [_blob(np.array([x, y, z - 0.08]), (0.06, 0.02, 0.1), 4, MIRROR) for y in (-0.5, 0.5)]
    return join(parts)


# One half of the body's cross-section from the sill to the middle of the top: shares of half width and of height.
_SECTION = np.array(
    [
        *[(0.930, 0.0), (0.965, 0.06), (0.985, 0.16), (0.995, 0.30), (1.0, 0.45), (0.995, 0.58), (0.985, 0.70)],
        *[
            (0.970, 0.80),
            (0.945, 0.88),
            (0.905, 0.94),
            (0.84, 0.975),
            (0.72, 0.995),
            (0.48, 1.02),
            (0.24, 1.033),
            (0.0, 1.037),
        ],
    ]
)


def _body(car: Car) -> list[Mesh]:
    """Lower body: cross-sections along x, cut out over the wheels, with rounded ends, and dark walls underneath."""
    shape, end = car.shape, 0.62
    half, arch = shape.length / 2, shape.wheel + 0.07
    round_end = half - end + end * np.sin(np.linspace(0, np.pi / 2, 10))
    over = [axle + arch * np.cos(np.linspace(0, np.pi, 17)) for axle in car.axles]
    edges = [axle + side * (arch + 0.002) for axle in car.axles for side in (-1, 1)]
    stations = np.unique(
        np.concatenate([round_end, -round_end, *over, edges, np.linspace(-half + end, half - end, 25)])
    )
    near_end = np.clip((np.abs(stations) - (half - end)) / end, 0, 1)
    bend = 1 - np.sqrt(1 - near_end**2)
    width = shape.width / 2 * (1 - 0.2 * bend)
    cab_rear = shape.rear[0]
    top = np.interp(
        stations,
        [-half, min(cab_rear, -half + 0.1), cab_rear + 0.4, shape.front[0] - 0.3, shape.front[0], half],
        [shape.tail, shape.tail, shape.belt, shape.belt, shape.cowl, shape.nose],
    )
    if shape.kind == "pickup":
        top = np.where(stations < cab_rear, shape.tail, top)
    top = top - bend * np.where(stations > 0, 0.22, 0.1) * (shape.nose - shape.clear)
    sill = shape.clear + 0.10 * bend
    low = sill.copy()
    for axle in car.axles:
        low = np.maximum(
            low, shape.wheel + np.sqrt(np.maximum(arch**2 - (stations - axle) ** 2, 0)) * (abs(stations - axle) < arch)
        )
    heights = sill[:, None] + _SECTION[:, 1] * (top - sill)[:, None]
    wide = _SECTION[:, 0] * width[:, None]
    cut = np.maximum(heights, low[:, None])
    cut_wide = np.stack([np.interp(c, h, w) for c, h, w in zip(cut[:, :12], heights, wide, strict=True)])
    cut_wide = np.concatenate([cut_wide, wide[:, 12:]], 1)

    def mirrored(y: Floats, z: Floats) -> Floats:
        x = np.repeat(stations[:, None], 2 * y.shape[1] - 1, 1)
        return np.stack([x, np.concatenate([y, -y[:, -2::-1]], 1), np.concatenate([z, z[:, -2::-1]], 1)], 2)

    skin = grid_mesh(mirrored(cut_wide, cut), BODY, smooth=mirrored(wide, heights))
    floor = np.minimum(sill + 0.04, low)
    inner = np.stack([cut_wide[:, 0], cut_wide[:, 0] * 0.55, cut_wide[:, 0] * 0.55, 0 * low], 1)
    under = grid_mesh(mirrored(inner, np.stack([low, low, floor, floor], 1)), UNDER)
    # The liner is seen from outside and below only: both ways round, so that no side of it is missing.
    both = Mesh(under.points, -under.normals, under.faces[:, ::-1], under.material)
    caps = []
    for station, way in ((-1, 1), (0, -1)):
        across = np.linspace(-1, 1, 7)
        y = wide[station][:, None] * across
        z = np.repeat(heights[station][:, None], 7, 1)
        bulge = 0.05 * np.sin(np.pi * np.clip(_SECTION[:, 1], 0, 1))[:, None] * (1 - across**2) ** 0.5
        caps.append(grid_mesh(np.stack([stations[station] + way * bulge, y, z], 2), BODY))
    return [skin, under, both, *[_facing(cap, 0, way) for cap, way in zip(caps, (1, -1), strict=True)]]


def _facing(mesh: Mesh, axis: int, way: float) -> Mesh:
    """The mesh turned so that its normals point along an axis on the whole."""
    if mesh.normals[:, axis].sum() * way > 0:
        return mesh
    return Mesh(mesh.points, -mesh.normals, mesh.faces[:, ::-1], mesh.material)


def _cabin(car: Car) -> Mesh:
    """Cabin: rounded rectangles stacked from the belt to the roof, the last of them closing the roof."""
    shape = car.shape
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    # Evenly spread in angle along a superellipse: enough points at the corners, few along the sides.
    power = 2 / 7.0
    ring_x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    ring_y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    foot, edge = shape.belt - 0.08, shape.roof - CORNER
    levels = [(z, 0.0) for z in np.linspace(foot, edge, 6)]
    levels += [(edge + CORNER * np.sin(t), CORNER * (1 - np.cos(t))) for t in np.linspace(0.3, np.pi / 2, 6)]
    rings = []
    for z, inset in levels:
        at = np.array(z)
        front, rear, half = car.front_x(at) - inset, car.rear_x(at) + inset, car.half(at) - inset
        rings.append(np.stack([(front + rear) / 2 + (front - rear) / 2 * ring_x, half * ring_y, 0 * ring_x + z], 1))
    last = rings[-1]
    for share, crown in ((0.8, 0.012), (0.5, 0.025), (0.0, 0.032)):
        middle = last.mean(0)
        rings.append(middle + (last - middle) * [share, share, 1] + [0, 0, crown])
    return grid_mesh(np.stack(rings), CABIN, closed=True)


def _wheels(car: Car) -> list[Mesh]:
    """Four wheels: a profile from the hub over rim and tyre to the inner side, turned round the axle."""
    radius = car.shape.wheel
    profile = np.array(
        [
            (0, -0.035),
            (0.30, -0.035),
            (0.60, -0.045),
            (0.68, -0.012),
            (0.72, 0.0),
            (0.85, 0.012),
            (0.94, 0.0),
            (0.99, -0.03),
            *[(1.0, -0.07), (1.0, -0.17), (0.97, -0.21), (0.0, -0.21)],
        ]
    )
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    wheels = []
    for axle in car.axles:
        for side in (-1, 1):
            along = profile[:, :1] * radius
            y = side * (car.shape.width / 2 - 0.035 + np.repeat(profile[:, 1:], len(angle), 1))
            grid = np.stack([axle + along * np.cos(angle), y, radius + along * np.sin(angle)], 2)
            wheels.append(grid_mesh(grid, WHEEL, closed=True))
    return wheels


def _mirrors(car: Car) -> list[Mesh]:
    x, z = car.shape.front[0] - 0.42, car.shape.belt + 0.1
    size = 1.25 if car.shape.kind in {"pickup", "van"} else 1.0
    parts = []
    for side in (-1, 1):
        y = side * (car.half(np.array(z)) + 0.17)
        parts.append(_blob(np.array([x, y, z]), (0.07 * size, 0.11 * size, 0.075 * size), 3, MIRROR))
        parts.append(_blob(np.array([x + 0.02, y - side * 0.1, z - 0.07]), (0.035, 0.11, 0.025), 4, TRIM))
    return parts


def _blob(middle: Floats, radii: tuple[float, float, float], power: float, material: int) -> Mesh:
    """A superellipsoid: an ellipsoid at power 2, nearer a box the greater the power."""
    around, up = np.meshgrid(np.linspace(0, 2 * np.pi, 20, endpoint=False), np.linspace(-np.pi / 2, np.pi / 2, 11))

    def bent(value: Floats) -> Floats:
        return np.asarray(np.sign(value) * np.abs(value) ** (2 / power))

    unit = np.stack(
        [bent(np.cos(up)) * bent(np.cos(around)), bent(np.cos(up)) * bent(np.sin(around)), bent(np.sin(up))], 2
    )
    return grid_mesh(middle + unit * radii, material, closed=True)


def _rod(foot: Floats, along: tuple[float, float, float]) -> Mesh:
    """An antenna mast: a thin tapered tube."""
    angle = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    rings = [
        foot + np.array(along) * share + np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1) * thick
        for share, thick in ((0.0, 0.012), (0.06, 0.009), (1.0, 0.005), (1.0, 0.0))
    ]
    return grid_mesh(np.stack(rings), TRIM, closed=True)
