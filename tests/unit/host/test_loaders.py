from __future__ import annotations

from torch.utils.data import DataLoader

from anomalib_synth.host.loaders import fresh_loader


def test_iterator_of_the_training_goes_on_when_a_fresh_loader_is_gone_through() -> None:
    loader = DataLoader(list(range(6)), batch_size=None, num_workers=1, persistent_workers=True)
    training = iter(loader)
    assert next(training) == 0
    fresh = fresh_loader(loader)
    assert list(fresh) == list(range(6))
    assert list(training) == [1, 2, 3, 4, 5]
