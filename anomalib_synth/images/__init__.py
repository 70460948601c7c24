"""Reading of images and masks, the same for every command: formats, listing, orientation, white point, digests."""

from anomalib_synth.images.agreement import check_host_agrees, check_host_masks
from anomalib_synth.images.digests import digest_file, digest_image, digest_images, digest_pixels, hash_bytes
from anomalib_synth.images.folder import ImageFolder, choose_white_point, find_white_point, is_deep_file
from anomalib_synth.images.formats import SUFFIXES, UnreadableImageError
from anomalib_synth.images.left_out import describe_left_out, warn_of_left_out
from anomalib_synth.images.listing import IS_MASK, MASK_ENDING, Listing, find_images, list_images, list_masks
from anomalib_synth.images.masks import check_same_aspect, decode_mask, find_implausible, read_mask
from anomalib_synth.images.normals import ImageReader, Normal
from anomalib_synth.images.reading import (
    allow_large_images,
    decode_image,
    measure_image,
    read_bytes,
    read_size,
    read_tensor,
    to_tensor,
)
from anomalib_synth.images.sizes import ImageSize
from anomalib_synth.images.white_point import WhitePoint

__all__ = [
    "IS_MASK",
    "MASK_ENDING",
    "SUFFIXES",
    "ImageFolder",
    "ImageReader",
    "ImageSize",
    "Listing",
    "Normal",
    "UnreadableImageError",
    "WhitePoint",
    "allow_large_images",
    "check_host_agrees",
    "check_host_masks",
    "check_same_aspect",
    "choose_white_point",
    "decode_image",
    "decode_mask",
    "describe_left_out",
    "digest_file",
    "digest_image",
    "digest_images",
    "digest_pixels",
    "find_images",
    "find_implausible",
    "find_white_point",
    "hash_bytes",
    "is_deep_file",
    "list_images",
    "list_masks",
    "measure_image",
    "read_bytes",
    "read_mask",
    "read_size",
    "read_tensor",
    "to_tensor",
    "warn_of_left_out",
]
