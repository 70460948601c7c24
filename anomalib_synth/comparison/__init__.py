"""Shows whether a change helps: models trained with and without it, on the same data, with the same steps and seeds."""
