"""The physical families, those that a line engineer names, in one list."""

from anomalib_synth.generators.families import physical_lines, physical_object, physical_region, physical_surface

FAMILIES = [
    *physical_lines.FAMILIES,
    *physical_surface.FAMILIES,
    *physical_object.FAMILIES,
    *physical_region.FAMILIES,
]
