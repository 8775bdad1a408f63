"""The edits that kontext-tiny learns: what each does to a picture, in plain image code.

Every edit is a function from a picture to a picture of the same size that leaves the subject in place. Pictures are
numpy arrays of shape (height, width, 3) and type float32, RGB in 0..1; `apply` wraps an edit for 8-bit pictures. The
functions are made of few, exactly defined steps (see the helpers), so that another program can compute the same truth.
The wordings that stand for an edit are in wordings.py.
"""
import numpy as np
from PIL import Image

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


# --- helpers -----------------------------------------------------------------------------------------------------

def to_float(image):
    """8-bit RGB picture (PIL) to float32 in 0..1: value / 255."""
    return np.asarray(image.convert("RGB")).astype(np.float32) / 255


def to_image(array):
    """float picture to 8-bit: clamp to 0..1, then floor(value * 255 + 0.5)."""
    return Image.fromarray((array.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def luma(x):
    """0.299 R + 0.587 G + 0.114 B, shape (height, width, 1)."""
    return (x @ LUMA)[..., None]


def gaussian(x, sigma):
    """Gaussian blur: kernel exp(-i^2 / (2 sigma^2)) for i = -r..r, r = ceil(3 sigma), divided by its sum; first down
    the columns, then along the rows; outside the picture the nearest edge pixel counts."""
    r = int(np.ceil(3 * sigma))
    kernel = np.exp(-np.arange(-r, r + 1, dtype=np.float32) ** 2 / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        n = x.shape[axis]
        pad = [(0, 0)] * x.ndim
        pad[axis] = (r, r)
        padded = np.pad(x, pad, mode="edge")
        x = sum(k * np.take(padded, range(i, i + n), axis=axis) for i, k in enumerate(kernel))
    return x.astype(np.float32)


def gradient(x):
    """Central differences (x[i+1] - x[i-1]) / 2, at the border one-sided x[1] - x[0]: (down, across)."""
    return np.gradient(x, axis=(0, 1))


def saturate(x, amount):
    """Moves every pixel away from (amount > 1) or towards (amount < 1) its luma: luma + amount * (x - luma)."""
    l = luma(x)
    return l + amount * (x - l)


def tone(x, dark, middle, light):
    """Maps luma to a ramp of colours (0..255): dark at 0, middle at 0.5, light at 1, straight lines between."""
    dark, middle, light = (np.array(c, np.float32) / 255 for c in (dark, middle, light))
    l = luma(x)
    return np.where(l < 0.5, dark + (middle - dark) * (l * 2), middle + (light - middle) * (l * 2 - 1))


def rgb(r, g, b):
    return np.array([r, g, b], np.float32)


# --- the edits ---------------------------------------------------------------------------------------------------

def black_and_white(x):
    return np.repeat(luma(x), 3, axis=-1)


def sepia(x):
    return tone(x, (30, 15, 5), (150, 110, 70), (255, 240, 205))


def inverted(x):
    return 1 - x


def soft_blur(x):
    """Blurred and lightened by a fifth, as through a soft-focus lens."""
    return gaussian(x, 4) * 0.8 + 0.2


def pixelated(x):
    """Every block of 8 by 8 pixels, counted from the top left corner, becomes its mean (blocks that the right or lower
    border cuts off: the mean of what is there)."""
    y = np.empty_like(x)
    for top in range(0, x.shape[0], 8):
        for left in range(0, x.shape[1], 8):
            block = np.s_[top : top + 8, left : left + 8]
            y[block] = x[block].mean(axis=(0, 1))
    return y


def edge_strength(x, sigma):
    """Length of the gradient of the blurred luma, shape (height, width, 1)."""
    down, across = gradient(gaussian(luma(x), sigma))
    return np.sqrt(down**2 + across**2)


def sketch(x):
    """Dark soft lines where the picture has edges, on paper that keeps a quarter of the shading."""
    lines = 1 - np.clip(7 * edge_strength(x, 1.5), 0, 0.85)
    return np.repeat(lines * (0.75 + 0.25 * luma(x)), 3, axis=-1)


def neon(x):
    """Glowing cyan lines on dark violet."""
    return np.clip(10 * edge_strength(x, 2), 0, 1) * rgb(0.1, 1.0, 0.9) + rgb(0.08, 0.0, 0.15)


def posterised(x):
    """Blurred a little, made colourful, then each channel in three levels 0, 0.5, 1 with short ramps between."""
    y = 2 * saturate(gaussian(x, 1.5), 1.8).clip(0, 1)
    level = np.floor(y)
    return (level + np.clip((y - level - 0.5) / 0.3 + 0.5, 0, 1)) / 2


def warm(x):
    return x * rgb(1.2, 0.92, 0.5) + rgb(0.12, 0.04, 0.0)


def cold(x):
    return x * rgb(0.55, 0.92, 1.05) + rgb(0.0, 0.08, 0.2)


def night(x):
    return x**1.5 * rgb(0.35, 0.42, 0.7)


def blueprint(x):
    return tone(x, (5, 15, 70), (20, 80, 185), (230, 240, 255))


def thermal(x):
    return tone(x, (20, 0, 80), (220, 40, 60), (255, 245, 120))


def vintage(x):
    return saturate(x, 0.4) * 0.6 + rgb(0.30, 0.24, 0.14)


def vivid(x):
    """More colour, then more contrast around the middle grey."""
    return (saturate(x, 1.8) - 0.5) * 1.4 + 0.5


def foggy(x):
    return gaussian(x, 1.5) * 0.35 + rgb(0.55, 0.58, 0.62)


EDITS = {
    "black-and-white": black_and_white,
    "sepia": sepia,
    "inverted": inverted,
    "soft-blur": soft_blur,
    "pixelated": pixelated,
    "sketch": sketch,
    "neon": neon,
    "posterised": posterised,
    "warm": warm,
    "cold": cold,
    "night": night,
    "blueprint": blueprint,
    "thermal": thermal,
    "vintage": vintage,
    "vivid": vivid,
    "foggy": foggy,
}
NAMES = list(EDITS)


def apply(name, image):
    """The truth of an edit for an 8-bit picture, as an 8-bit picture."""
    return to_image(EDITS[name](to_float(image)))
