"""Stateless kernels. They take parameters and never draw random numbers."""
