"""Networks, and the backbone that needs no hub."""
