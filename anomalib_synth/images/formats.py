"""Which files are images: by their names, and by the decoders that may run on them."""

from __future__ import annotations

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")  # Pillow's names; others could start a program
FOREIGN_SUFFIXES = frozenset({  # known as images, but not read
    ".gif", ".jp2", ".j2k", ".jpx", ".jpf", ".jfif", ".heic", ".heif", ".avif", ".jxl", ".tga", ".psd", ".svg", ".eps",
    ".ps", ".exr", ".hdr", ".dcm", ".dng", ".cr2", ".nef", ".arw", ".raw", ".pbm", ".pnm", ".pfm", ".npy",
})  # fmt: skip

HEAD_BYTES = 2**16  # enough for the header of nearly every file
MAX_PIXELS = 2**27
MAX_NATIVE_PIXELS = 2**25
MAX_FILE_BYTES = 2**30
MIN_SIDE = 16


class UnreadableImageError(ValueError):
    """A file that cannot be used as an image; the message is the reason for leaving it out."""
