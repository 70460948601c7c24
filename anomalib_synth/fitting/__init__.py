"""Trains the small local models from the user's own normals."""
