r"""Part 4, honest residuals: an image's residual by the Gaussian of all the *other* normals.

A normal that helped to fit the Gaussian lies closer to it than a new one does, and so does a defect drawn onto it; a
head trained on such residuals meets larger ones in use. The study this model comes from split the normals into two
halves, each whitened by the other half's Gaussian, which leaves each with half of the normals. Leaving one image out
needs no second Gaussian: with d = x_i - m the features of the normal i around the mean of all n, leaving i out makes

.. math:: m_{-i} = m - \frac{d}{n - 1}, \qquad
    \Sigma_{-i} = \Sigma - a\, d d^\top, \qquad a = (1 - \lambda) \frac{n}{(n - 1)^2},

up to the overall factor (n - 1) / (n - 2) of the first term and what i gives to the mean covariance over positions.
The latter matters for an image that differs from all others at all positions: with 30 normals the mean distance of the
farthest image came out as 18 where refitting gives 24, that of a typical one as 10 to 12.5 for 10.5 to 13.
With u = L^{-1} d and v = L^{-1}(y - m), the residual of an image y drawn from i is

.. math:: w_{-i} = \Bigl(I + \bigl((1 - a |u|^2)^{-1/2} - 1\bigr) \frac{u u^\top}{|u|^2}\Bigr)
    \Bigl(v + \frac{u}{n - 1}\Bigr),

whose length is the Mahalanobis distance by :math:`m_{-i}, \Sigma_{-i}`.
"""

from __future__ import annotations

import torch

_MOST = 0.999  # of a|u|^2, which is below 1 but for rounding


def leave_out(whitened: torch.Tensor, own: torch.Tensor, *, count: int, shrinkage: float) -> torch.Tensor:
    """Return the residuals by the Gaussians without each image's own normal.

    Args:
        whitened: (B, C, h, w) residuals v by the Gaussian of all normals.
        own: (B, C, h, w) residuals u of the normal behind each image by the same Gaussian; for a normal itself u = v.
        count: Number n of normals the Gaussian was fitted to, >= 3.
        shrinkage: Weight of the mean covariance in it.

    Raises:
        ValueError: If there are fewer than three normals: nothing would be left.
    """
    if count < 3:
        msg = f"DiscriminativePadim's heads need at least 3 different normal images, got {count}."
        raise ValueError(msg)
    weight = (1 - shrinkage) * count / (count - 1) ** 2
    length = own.square().sum(1, keepdim=True).clamp_min(1e-12)
    moved = whitened + own / (count - 1)
    gain = (1 - (weight * length).clamp_max(_MOST)).rsqrt() - 1
    return moved + own * (gain * (own * moved).sum(1, keepdim=True) / length)
