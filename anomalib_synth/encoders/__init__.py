"""Image and text vectors by name: of a bundle, of open_clip, of timm."""
