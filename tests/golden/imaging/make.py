"""Makes the goldens of tests/it/imaging.rs: sample files and what PIL makes of them.

Run it as `python make.py` in this folder; it writes beside itself and is deterministic.
The files in the repository are from Pillow 13.0.0 (libjpeg-turbo, libwebp) and numpy 2.4.6.

decode/<case>.<ext>   a file as people send it
decode/<case>.png     what PIL decodes: exif_transpose, transparency over white, RGB
                      (<case>.expected.png where the sample is a PNG itself)
resize/<case>.png     Image.resize(size, LANCZOS) of pattern(width, height), which the test computes, too
"""

import io
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
WIDTH, HEIGHT = 45, 31


def pattern(width, height):
    """Hard edges and fine texture, in integers: it must equal `pattern` in the test."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    red = (x * x * 3 + y * 7) % 256
    green = np.where((x // 5 + y // 3) % 2 == 0, 255, 0)
    blue = (x * 11 ^ y * 29) % 256
    return np.stack([red, green, blue], axis=2).astype(np.uint8)


def photo(width=WIDTH, height=HEIGHT):
    """Smooth colours with one sharp corner, so that every orientation differs."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 255 * x / (width - 1)
    green = 127 + 120 * np.sin(x / 6) * np.cos(y / 5)
    blue = 255 * y / (height - 1)
    rgb = np.stack([red, green, blue], axis=2).astype(np.uint8)
    rgb[: height // 3, : width // 4] = (250, 240, 20)
    return Image.fromarray(rgb)


def alpha(width=WIDTH, height=HEIGHT):
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(((x * 255 // (width - 1) + y * 8) % 256).astype(np.uint8))


def upright(file):
    """The picture as this server takes it."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    if picture.mode.startswith("I"):  # 16-bit grey, which PIL does not convert to RGB as it should
        picture = Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8))
    return picture.convert("RGB")


def save(picture, format, **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def keep(case, extension, file):
    folder = HERE / "decode"
    (folder / f"{case}.{extension}").write_bytes(file)
    suffix = "expected.png" if extension == "png" else "png"
    (folder / f"{case}.{suffix}").write_bytes(save(upright(file), "PNG", optimize=True))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, extra=b"", interlace=0):
    """A PNG with unfiltered rows, for kinds that PIL does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    pixels = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    )


def exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    return exif.tobytes()


def pngs():
    rgb = photo()
    rgba = rgb.copy()
    rgba.putalpha(alpha())
    grey = rgb.convert("L")
    grey_alpha = grey.copy()
    grey_alpha.putalpha(alpha())
    keep("png_rgb", "png", save(rgb, "PNG"))
    keep("png_rgba", "png", save(rgba, "PNG"))
    keep("png_grey", "png", save(grey, "PNG"))
    keep("png_grey_alpha", "png", save(grey_alpha, "PNG"))
    keep("png_one_bit", "png", save(rgb.convert("1"), "PNG"))
    palette = rgb.quantize(13, dither=Image.Dither.NONE)
    keep("png_palette", "png", save(palette, "PNG"))
    shades = bytes([0, 60, 120, 180, 240] + [255] * 8)
    keep("png_palette_transparent", "png", save(palette, "PNG", transparency=shades))
    keep("png_rgb_transparent", "png", save(rgb, "PNG", transparency=(250, 240, 20)))
    keep("png_turned", "png", save(rgb, "PNG", exif=exif(6)))
    wide = np.asarray(rgb).astype(np.uint16) * 257 + np.arange(WIDTH, dtype=np.uint16)[:, None] * 5 % 190
    rows = wide.astype(">u2").reshape(HEIGHT, -1).view(np.uint8)
    keep("png_rgb_16", "png", png(WIDTH, HEIGHT, 16, 2, rows))
    rows = wide[:, :, 1].astype(">u2").view(np.uint8)
    keep("png_grey_16", "png", png(WIDTH, HEIGHT, 16, 0, rows))
    deep = np.dstack([wide, np.asarray(alpha()).astype(np.uint16) * 257])
    rows = deep.astype(">u2").reshape(HEIGHT, -1).view(np.uint8)
    keep("png_rgba_16", "png", png(WIDTH, HEIGHT, 16, 6, rows))
    steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    pixels = np.asarray(rgb)
    passes = [pixels[y::dy, x::dx] for x, y, dx, dy in steps]
    rows = [row.tobytes() for part in passes for row in part]
    keep("png_interlaced", "png", png(WIDTH, HEIGHT, 8, 2, rows, interlace=1))
    frames = [rgb, ImageOps.invert(rgb)]
    keep("png_animated", "png", save(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    keep("png_one_pixel", "png", save(rgb.crop((0, 0, 1, 1)), "PNG"))


def jpegs():
    rgb = photo()
    for name, subsampling in [("444", 0), ("422", 1), ("420", 2)]:
        keep(f"jpeg_{name}", "jpg", save(rgb, "JPEG", quality=90, subsampling=subsampling))
    keep("jpeg_progressive", "jpg", save(rgb, "JPEG", quality=90, progressive=True))
    keep("jpeg_restarts", "jpg", save(rgb, "JPEG", quality=90, restart_marker_rows=1))
    keep("jpeg_grey", "jpg", save(rgb.convert("L"), "JPEG", quality=90))
    keep("jpeg_one_pixel", "jpg", save(rgb.crop((0, 0, 1, 1)), "JPEG"))
    kept = save(rgb, "JPEG", quality=90, keep_rgb=True)
    keep("jpeg_rgb", "jpg", kept)
    # As Photoshop writes RGB: components 1, 2, 3, and the Adobe marker's transform is 0.
    numbered = bytearray(kept)
    frame = numbered.index(b"\xff\xc0")
    scan = numbered.index(b"\xff\xda")
    for index in range(3):
        numbered[frame + 10 + 3 * index] = index + 1
        numbered[scan + 5 + 2 * index] = index + 1
    assert numbered[numbered.index(b"Adobe") + 11] == 0
    keep("jpeg_rgb_adobe", "jpg", bytes(numbered))
    cmyk = np.dstack([255 - np.asarray(rgb), np.asarray(alpha()) // 3])
    file = save(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=90, subsampling=0)
    keep("jpeg_cmyk", "jpg", file)
    marker = file.index(b"Adobe")
    assert file[marker + 11] == 0
    keep("jpeg_ycck", "jpg", file[: marker + 11] + b"\x02" + file[marker + 12 :])
    for orientation in range(1, 9):
        small = photo(24, 16)
        file = save(small, "JPEG", quality=90, subsampling=0, exif=exif(orientation))
        keep(f"jpeg_orientation_{orientation}", "jpg", file)


def webps():
    rgb = photo()
    rgba = rgb.copy()
    rgba.putalpha(alpha())
    keep("webp_lossy", "webp", save(rgb, "WEBP", quality=90))
    keep("webp_lossless", "webp", save(rgb, "WEBP", lossless=True))
    keep("webp_lossy_alpha", "webp", save(rgba, "WEBP", quality=90))
    keep("webp_lossless_alpha", "webp", save(rgba, "WEBP", lossless=True))
    keep("webp_turned", "webp", save(rgb, "WEBP", lossless=True, exif=exif(8)))
    small = Image.new("RGBA", rgb.size)
    small.paste(rgba.crop((8, 6, 30, 20)), (8, 6))
    frames = [rgba, ImageOps.invert(rgb)]
    keep("webp_animated", "webp", save(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:]))
    # A first frame that covers a part of its canvas.
    frames = [small, ImageOps.invert(rgb)]
    options = dict(lossless=True, save_all=True, append_images=frames[1:], allow_mixed=False)
    keep("webp_animated_part", "webp", save(frames[0], "WEBP", **options))
    keep("webp_one_pixel", "webp", save(rgb.crop((0, 0, 1, 1)), "WEBP", lossless=True))


RESIZES = [
    ((61, 47), (90, 70)),
    ((61, 47), (61, 20)),
    ((61, 47), (23, 47)),
    ((130, 90), (33, 71)),
    ((128, 128), (64, 64)),
    ((127, 255), (63, 17)),
    ((1, 1), (37, 19)),
    ((37, 19), (1, 1)),
    ((300, 200), (7, 250)),
    ((2, 500), (91, 3)),
    # Either side of the rule by which Pillow 13 goes vertically first.
    ((50, 60), (40, 40)),
    ((50, 60), (40, 39)),
    ((108, 240), (69, 150)),
    ((1200, 900), (48, 37)),
    ((64, 48), (64, 48)),
]


def resizes():
    for source, target in RESIZES:
        picture = Image.fromarray(pattern(*source)).resize(target, Image.Resampling.LANCZOS)
        case = f"{source[0]}x{source[1]}_to_{target[0]}x{target[1]}"
        (HERE / "resize" / f"{case}.png").write_bytes(save(picture, "PNG", optimize=True))


for folder in ["decode", "resize"]:
    (HERE / folder).mkdir(exist_ok=True)
    for old in (HERE / folder).iterdir():
        old.unlink()
pngs()
jpegs()
webps()
resizes()
