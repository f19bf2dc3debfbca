"""Picture files opened with care: what photos and masks share.

Everything is decoded by Pillow. What Pillow would pass over in silence (16 bits cut to 8, all but the first frame,
a decompression bomb below its own limit of refusal) is refused here, from the header, before a pixel is decoded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import PIL.Image
from PIL import ImageFile, ImageOps, TiffImagePlugin

from carvana_ens.data.ids import EXTENSIONS, check_id
from carvana_ens.errors import DataError
from carvana_ens.types import Size

# Never more than these: other decoders of Pillow start programs (EPS) or follow the wishes of a hostile file.
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_DEEP = re.compile(r"(?<!BGR);(12|16|32)")  # raw modes of more than 8 bits a channel; BGR;16 is 5 or 6 bits each
_LATE_CHUNKS = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
_IMAGE_WIDTH, _IMAGE_LENGTH = 256, 257  # TIFF tags


@contextmanager
def opened(path: Path, *, deep: bool = False) -> Iterator[PIL.Image.Image]:
    """A picture with its header read and checked; errors of decoding it inside the block name the path.

    Safe in threads: no warning filter and no setting of Pillow is touched. deep: more than 8 bits a channel are fine.

    Raises:
        DataError: no picture file, a damaged or truncated one, more than one frame, more than 8 bits a channel, or
            more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError(
            f"{path} is not read: another package has set PIL.ImageFile.LOAD_TRUNCATED_IMAGES, which turns damaged "
            f"pictures into grey ones in silence; set it back to False"
        )
    try:
        with PIL.Image.open(path, formats=_FORMATS) as picture:
            _check_header(picture, path, deep)
            yield picture
    except (DataError, MemoryError):
        raise
    except PIL.UnidentifiedImageError as error:
        raise DataError(f"{path} is no picture of a known format, or its header is damaged: replace it") from error
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise DataError(_too_large(path, str(error))) from error
    except OSError as error:
        if error.errno is not None:  # from the system, not from Pillow
            raise DataError(f"{path} cannot be read: {error.strerror}; was it moved since it was listed?") from error
        raise DataError(f"{path} cannot be decoded: {error}; replace the file") from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise DataError(f"{path} cannot be decoded: {error or type(error).__name__}; replace the file") from error


def upright_size(picture: PIL.Image.Image, path: Path) -> Size:
    """The size that :func:`load_upright` will give, from the header alone."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        # Pillow turns a TIFF while it loads, and not every version has its size turned before that: ask the tags.
        width, height = picture.tag_v2[_IMAGE_WIDTH], picture.tag_v2[_IMAGE_LENGTH]
        orientation = picture.tag_v2.get(_ORIENTATION)
    else:
        width, height = picture.size
        orientation = _tags(picture, path).get(_ORIENTATION)
    if orientation in _TURNED:
        width, height = height, width
    return Size(height, width)


def load_upright(picture: PIL.Image.Image) -> None:
    """Decodes the pixels and turns them as the camera was held (EXIF or XMP orientation), in place."""
    picture.load()
    ImageOps.exif_transpose(picture, in_place=True)


def has_alpha(picture: PIL.Image.Image) -> bool:
    """Whether the picture says which of its pixels are transparent: a channel, a palette entry or a key colour."""
    return picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info


def list_pictures(folder: Path, what: str, suffix: str = "") -> dict[str, Path]:
    """The picture files of a folder by image id, in the order of the ids.

    Args:
        folder: its own files only; hidden files and files that are no pictures by their extension do not count.
        what: "photos" or "masks", for messages.
        suffix: taken off the end of a stem that has it, as in ``<id>_mask.gif``.

    Raises:
        DataError: no such folder, no picture in it, two files of one id, or a stem that cannot be an id.
    """
    found: dict[str, Path] = {}
    folders = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, extension = os.path.splitext(entry.name)  # noqa: PTH122 - 100,000 Path objects cost a second
                if entry.is_dir():
                    folders += not entry.name.startswith(".")
                elif not entry.name.startswith(".") and extension.lower() in EXTENSIONS:
                    image_id = check_id(stem.removesuffix(suffix))
                    if image_id in found:
                        names = " and ".join(sorted((found[image_id].name, entry.name)))
                        raise DataError(f"{folder} has two {what} of image {image_id!r}, {names}: keep one")
                    found[image_id] = folder / entry.name
    except OSError as error:
        raise DataError(f"the folder of {what} {folder} cannot be read: {error.strerror or error}") from error
    if not found:
        hint = f"it has {folders} folders, name one of them" if folders else f"it needs {', '.join(EXTENSIONS)} files"
        raise DataError(f"the folder of {what} {folder} holds no pictures: {hint}")
    return dict(sorted(found.items()))


def _check_header(picture: PIL.Image.Image, path: Path, deep: bool) -> None:
    width, height = picture.size
    # Pillow warns above this limit and refuses above its double; here the limit is the limit. None: the caller's wish.
    limit = PIL.Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise DataError(_too_large(path, f"{Size(height, width)} pixels, the limit is {limit}"))
    frames = getattr(picture, "n_frames", 1)
    if frames != 1:
        raise DataError(f"{path} has {frames} frames: save the one that is meant as a picture of its own")
    found = {match[1] for match in map(_DEEP.search, _raw_modes(picture)) if match}
    # 12 bits come as they are, without a scale that 16 bits have
    fine = deep and picture.mode.startswith(("I", "F")) and "12" not in found
    if not fine and (picture.mode.startswith(("I", "F")) or found):
        raise DataError(
            f"{path} has more than 8 bits a channel (mode {picture.mode}): rescale it to 8 bits first, for example "
            f"with skimage.exposure.rescale_intensity, so that it is you who decides how"
        )


def _too_large(path: Path, reason: str) -> str:
    return f"{path} is too large to be safe: {reason}; cut it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"


def _raw_modes(picture: PIL.Image.Image) -> Iterator[str]:
    """How the file stores its pixels: Pillow opens 16-bit colour as RGB and would cut it to 8 bits."""
    for tile in getattr(picture, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        yield from (argument for argument in arguments if isinstance(argument, str))


def _tags(picture: PIL.Image.Image, path: Path) -> PIL.Image.Exif:
    """EXIF and XMP tags without decoding the pixels.

    In a PNG they may stand behind the pixels, and Pillow then decodes all to find them: done only if they do.
    """
    if picture.format == "PNG" and not _has_late_tags(path):
        return PIL.Image.Image.getexif(picture)
    return picture.getexif()


def _has_late_tags(path: Path) -> bool:
    with open(path, "rb") as file:
        position, pixels = 8, False
        while True:
            file.seek(position)
            head = file.read(8)
            name = head[4:]
            if len(head) < 8 or name == b"IEND":
                return False
            pixels = pixels or name == b"IDAT"
            if pixels and name in _LATE_CHUNKS:
                return True
            position += 12 + int.from_bytes(head[:4])  # length, name, data, checksum
