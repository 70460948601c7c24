r"""Part 4, honest residuals: each image is whitened by the Gaussian of all the *other* normals.

A normal that helped to fit the Gaussian lies closer to it than a new image does, and so does a defect drawn onto that
normal. A head trained on such residuals meets larger ones in use. The study this model comes from split the normals
into two halves and whitened each by the Gaussian of the other half, so each Gaussian was fitted to half of the normals.
Leaving out one image needs no second Gaussian. Let d = x_i - m be the features of normal i relative to the mean of all
n normals; leaving i out gives

.. math:: m_{-i} = m - \frac{d}{n - 1}, \qquad
    \Sigma_{-i} = \Sigma - a\, d d^\top, \qquad a = (1 - \lambda) \frac{n}{(n - 1)^2},

where two things are neglected: the overall factor (n - 1) / (n - 2) of the first term, and the contribution of i to the
mean covariance over positions. The second matters for an image that differs from all others at all positions: with 30
normals, the mean distance of the farthest image came out as 18 where refitting gives 24, and that of typical images as
10 to 12.5 where refitting gives 10.5 to 13. With u = L^{-1} d and v = L^{-1}(y - m), the residual of an image y that
was drawn on normal i is

.. math:: w_{-i} = \Bigl(I + \bigl((1 - a |u|^2)^{-1/2} - 1\bigr) \frac{u u^\top}{|u|^2}\Bigr)
    \Bigl(v + \frac{u}{n - 1}\Bigr),

whose length is the Mahalanobis distance under :math:`m_{-i}, \Sigma_{-i}`.
"""

from __future__ import annotations

import torch

_MOST = 0.999  # upper limit of a|u|^2, which is below 1 except for rounding


def leave_out(whitened: torch.Tensor, own: torch.Tensor, *, count: int, shrinkage: float) -> torch.Tensor:
    """Return residuals under the Gaussians fitted without the normal behind each image.

    Args:
        whitened: (B, C, h, w) residuals v under the Gaussian of all normals.
        own: (B, C, h, w) residuals u, under the same Gaussian, of the normal behind each image; u = v for a normal
            itself.
        count: Number n of normals the Gaussian was fitted to, >= 3.
        shrinkage: Weight of the mean covariance in that Gaussian, in [0, 1].

    Raises:
        ValueError: If there are fewer than three normals: two must remain to estimate a covariance.
    """
    if count < 3:
        msg = f"DiscriminativePadim's heads need at least 3 different normal images, got {count}."
        raise ValueError(msg)
    weight = (1 - shrinkage) * count / (count - 1) ** 2
    length = own.square().sum(1, keepdim=True).clamp_min(1e-12)
    moved = whitened + own / (count - 1)
    gain = (1 - (weight * length).clamp_max(_MOST)).rsqrt() - 1
    return moved + own * (gain * (own * moved).sum(1, keepdim=True) / length)
