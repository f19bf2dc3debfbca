"""A small software rasteriser: which triangle is seen at each sample, found with a depth buffer, in numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from carvana_ens.types import Size

Floats: TypeAlias = NDArray[np.float64]
Singles: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]

# Pixels that are expanded at a time: bounds the memory at any picture size.
_PIXELS_AT_ONCE = 1 << 20
_TRIANGLE_BITS = 24


class Mesh(NamedTuple):
    """Triangles: points and normals (V, 3), faces (F, 3) of point numbers, material (F,)."""

    points: Floats
    normals: Floats
    faces: Ints
    material: Ints


def join(meshes: list[Mesh]) -> Mesh:
    """One mesh of several."""
    starts = np.cumsum([0] + [len(mesh.points) for mesh in meshes[:-1]])
    return Mesh(
        np.concatenate([mesh.points for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]),
        np.concatenate([mesh.material for mesh in meshes]),
    )


def grid_mesh(grid: Floats, material: int, closed: bool = False, smooth: Floats | None = None) -> Mesh:
    """A surface through a grid of points (R, C, 3), its faces turned outwards from the grid's middle.

    Args:
        grid: the points; with ``closed`` the last column is joined to the first.
        material: number that all faces carry.
        closed: see ``grid``.
        smooth: the grid that the normals are taken from, where ``grid`` itself is cut off somewhere.
    """
    rows, columns = grid.shape[:2]
    row, column = np.mgrid[0 : rows - 1, 0 : columns if closed else columns - 1]
    after = (column + 1) % columns
    a, b = row * columns + column, row * columns + after
    c, d = (row + 1) * columns + after, (row + 1) * columns + column
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    points = grid.reshape(-1, 3)

    surface = grid if smooth is None else smooth
    source = surface.reshape(-1, 3)
    cross = np.cross(source[faces[:, 1]] - source[faces[:, 0]], source[faces[:, 2]] - source[faces[:, 0]])
    # From the neighbours along rows and columns: sums over faces would show the triangles' diagonals as ripples.
    along = np.roll(surface, -1, 1) - np.roll(surface, 1, 1) if closed else _steps(surface, 1)
    normals = np.cross(_steps(surface, 0), along).reshape(-1, 3)
    around = np.zeros_like(points)
    for corner in range(3):
        np.add.at(around, faces[:, corner], cross)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.where(length > 1e-9, normals, around)
    normals *= np.where(np.sum(normals * around, 1, keepdims=True) < 0, -1, 1)
    middle = (source.min(0) + source.max(0)) / 2
    if np.sum(cross * (source[faces].mean(1) - middle)) < 0:
        faces, normals = faces[:, ::-1], -normals
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return Mesh(points, normals, faces, np.full(len(faces), material))


def _steps(grid: Floats, axis: int) -> Floats:
    """Differences between a point's two neighbours along an axis, at the ends between the end and its neighbour."""
    last = grid.shape[axis] - 1
    at = np.arange(last + 1)
    return np.asarray(np.take(grid, np.minimum(at + 1, last), axis) - np.take(grid, np.maximum(at - 1, 0), axis))


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that stands at (0, -distance, height) and looks along +y, tilted down by ``pitch``.

    World axes: x to the right, y away from the camera, z up, metres; the turntable's middle is the origin.
    """

    size: Size
    focal: float
    centre: tuple[float, float]
    """Column and row where the optical axis meets the picture, in pixels."""
    distance: float
    height: float
    pitch: float

    def finer(self, times: int) -> Camera:
        """The same camera with ``times`` as many samples along each side."""
        return Camera(
            Size(self.size.height * times, self.size.width * times),
            self.focal * times,
            (self.centre[0] * times, self.centre[1] * times),
            self.distance,
            self.height,
            self.pitch,
        )

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """World points (V, 3) to picture positions (V, 2) as column, row, and their depths (V,) in metres."""
        sine, cosine = np.sin(self.pitch), np.cos(self.pitch)
        y, z = points[:, 1] + self.distance, points[:, 2] - self.height
        depth = y * cosine - z * sine
        down = -y * sine - z * cosine
        columns = self.centre[0] + self.focal * points[:, 0] / depth
        rows = self.centre[1] + self.focal * down / depth
        return np.stack([columns, rows], 1), depth

    def rays(self, columns: Singles, rows: Singles) -> tuple[Singles, Singles, Singles]:
        """Directions (x, y, z) of unit depth through picture positions; arrays are broadcast by the caller."""
        sine, cosine = np.float32(np.sin(self.pitch)), np.float32(np.cos(self.pitch))
        right = (columns - np.float32(self.centre[0])) / np.float32(self.focal)
        down = (rows - np.float32(self.centre[1])) / np.float32(self.focal)
        return right, cosine - down * sine, -sine - down * cosine


class Seen(NamedTuple):
    """The samples where the mesh is seen, in row-major order, each array (N,) or (N, 3)."""

    rows: Ints
    columns: Ints
    material: Ints
    points: Singles
    """World positions."""
    normals: Singles
    """World normals, unit length."""
    rays: Singles
    """Unit directions from the camera."""

    def part(self, which: slice) -> Seen:
        """Some of the samples."""
        return Seen(
            self.rows[which],
            self.columns[which],
            self.material[which],
            self.points[which],
            self.normals[which],
            self.rays[which],
        )


def rasterise(mesh: Mesh, camera: Camera) -> Seen:
    """Renders the visible surface of a mesh in world coordinates, one sample in the middle of each pixel."""
    flat, depth = camera.project(mesh.points)
    corners, inverse = flat[mesh.faces], 1 / depth[mesh.faces]
    edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge_a[:, 0] * edge_b[:, 1] - edge_a[:, 1] * edge_b[:, 0]
    # Outward faces turn one way on the picture when they look at the camera (rows grow downwards).
    front = np.flatnonzero(area < -1e-9)
    corners, inverse, faces = corners[front], inverse[front], mesh.faces[front]
    # 1/depth and normal/depth are linear over the picture: three coefficients each (column, row, constant).
    values = np.concatenate([inverse[:, :, None], mesh.normals[faces] * inverse[:, :, None]], 2)
    planes = _planes(corners, values)
    nearest, top, left = _nearest(corners, planes[:, 0], camera.size)
    rows, columns = np.nonzero(nearest)
    triangle = (nearest[rows, columns] & ((1 << _TRIANGLE_BITS) - 1)).astype(np.int64)
    rows, columns = rows + top, columns + left
    at_column, at_row = columns.astype(np.float32) + 0.5, rows.astype(np.float32) + 0.5
    # Relative to each triangle's own corner, so that single precision is enough.
    first = corners[:, 0].astype(np.float32)
    dx, dy = at_column - first[triangle, 0], at_row - first[triangle, 1]
    found = [plane[0][triangle] * dx + plane[1][triangle] * dy + plane[2][triangle] for plane in _singles(planes)]
    depths = 1 / found[0]
    normals = np.stack(found[1:], 1)
    normals /= np.maximum(np.sqrt(np.einsum("ij,ij->i", normals, normals)), 1e-12)[:, None]
    rays = np.stack(camera.rays(at_column, at_row), 1)
    points = rays * depths[:, None]
    points[:, 1] -= np.float32(camera.distance)
    points[:, 2] += np.float32(camera.height)
    rays /= np.sqrt(np.einsum("ij,ij->i", rays, rays))[:, None]
    return Seen(rows, columns, mesh.material[front][triangle], points, normals, rays)


def _singles(planes: Floats) -> list[tuple[Singles, Singles, Singles]]:
    columns = np.ascontiguousarray(planes.transpose(1, 2, 0), np.float32)
    return [(plane[0], plane[1], plane[2]) for plane in columns]


def _planes(corners: Floats, values: Floats) -> Floats:
    """(F, K, 3): slope per column, slope per row, value at the first corner, of K values given at corners (F, 3, K)."""
    edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = (edge_a[:, 0] * edge_b[:, 1] - edge_a[:, 1] * edge_b[:, 0])[:, None]
    rise_a, rise_b = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    per_column = (rise_a * edge_b[:, 1:] - rise_b * edge_a[:, 1:]) / area
    per_row = (rise_b * edge_a[:, :1] - rise_a * edge_b[:, :1]) / area
    return np.stack([per_column, per_row, values[:, 0]], 2)


def _nearest(corners: Floats, planes: Floats, size: Size) -> tuple[NDArray[np.uint64], int, int]:
    """Depth buffer around the triangles (1/depth above, triangle below; 0 = nothing), its top row and left column."""
    low = np.clip(np.ceil(corners.min((0, 1)) - 0.5), 0, (size.width, size.height)).astype(np.int64)
    high = np.clip(np.ceil(corners.max((0, 1)) - 0.5), low, (size.width, size.height)).astype(np.int64)
    (left, top), (right, bottom) = low, high
    nearest = np.zeros((bottom - top, right - left), np.uint64)
    flat = nearest.reshape(-1)
    # Spans: one per triangle and row of sample middles that it meets.
    by_row = np.take_along_axis(corners, np.argsort(corners[:, :, 1], 1, kind="stable")[:, :, None], 1)
    first = np.clip(np.ceil(by_row[:, 0, 1] - 0.5), top, bottom).astype(np.int64)
    stop = np.clip(np.ceil(by_row[:, 2, 1] - 0.5), top, bottom).astype(np.int64)
    triangle, row = _expand(first, stop - first)
    middle = row + 0.5

    def crossing(start: Floats, end: Floats) -> Floats:
        rise = end[:, 1] - start[:, 1]
        slope = np.divide(end[:, 0] - start[:, 0], rise, out=np.zeros_like(rise), where=rise > 0)
        return np.asarray(start[triangle, 0] + (middle - start[triangle, 1]) * slope[triangle])

    a, b, c = by_row[:, 0], by_row[:, 1], by_row[:, 2]
    one, other = crossing(a, c), np.where(middle < b[triangle, 1], crossing(a, b), crossing(b, c))
    begin = np.clip(np.ceil(np.minimum(one, other) - 0.5), left, right).astype(np.int64)
    length = np.clip(np.ceil(np.maximum(one, other) - 0.5), left, right).astype(np.int64) - begin
    keep = length > 0
    triangle, row, begin, length = triangle[keep], row[keep], begin[keep], length[keep]
    slope = planes[triangle, 0]
    at_begin = (
        planes[triangle, 2]
        + slope * (begin + 0.5 - corners[triangle, 0, 0])
        + planes[triangle, 1] * (row + 0.5 - corners[triangle, 0, 1])
    )
    # Scaled so that 1/depth fills 40 bits above the triangle number.
    scale = (1 << 39) / planes[:, 2].max()
    cell = (row - top) * (right - left) + begin - left
    ends, total = np.cumsum(length), int(length.sum())
    cuts = [0, *np.searchsorted(ends, np.arange(_PIXELS_AT_ONCE, total, _PIXELS_AT_ONCE)), len(length)]
    for start, end in pairwise(cuts):
        span, offset = _expand(np.zeros(end - start, np.int64), length[start:end])
        span += start
        near = (at_begin[span] + slope[span] * offset) * scale
        key = (np.maximum(near, 1).astype(np.uint64) << np.uint64(_TRIANGLE_BITS)) | triangle[span].astype(np.uint64)
        np.maximum.at(flat, cell[span] + offset, key)
    return nearest, int(top), int(left)


def _expand(starts: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """For ranges start, start + 1, ... of given lengths: the range's number and the value, of every value in turn."""
    which = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(lengths) - lengths
    return which, np.arange(len(which)) - before[which] + starts[which]
