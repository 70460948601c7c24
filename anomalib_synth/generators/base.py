"""The base of all generators: how they are called, prepared and described by a config."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from anomalib_synth._version import __version__
from anomalib_synth.generators.condition import USERS, Condition
from anomalib_synth.generators.parameters import list_parameters, read_arguments, to_plain
from anomalib_synth.generators.prepared import PreparedNormals
from anomalib_synth.generators.seeding import derive_seeds, image_key
from anomalib_synth.generators.validation import check_images
from anomalib_synth.images import WhitePoint, digest_file, digest_images

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path, PurePath
    from typing import Self

    from anomalib_synth.sample import AnomalySample

_PACKAGE = "anomalib_synth.generators"


class AnomalyGenerator(ABC):
    """Draws synthetic defects onto normal images.

    To draw defects of your own, derive from :class:`ProposingGenerator`, which checks, redraws and composites them. To
    do something with the samples of other generators, derive from :class:`WrappingGenerator`.

    A constructor keeps every argument as an attribute of the same name, as in scikit-learn: :attr:`config` reads them
    there, and :func:`build_generator` makes an equal generator from it.

    Args:
        seed: Base seed, used when a call names no seeds.
    """

    takes: ClassVar[frozenset[str]] = frozenset()
    """What a call may ask for: any of ``masks``, ``prompts`` and ``prompts_to``."""
    later_arguments: ClassVar[frozenset[str]] = frozenset()
    """Arguments that older stores lack; the config leaves them out while they have their default."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self._prepared: PreparedNormals | None = None
        self._images_seen = 0

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a class with ``propose`` that does not derive from ``ProposingGenerator``, as before version 0.2.0."""
        super().__init_subclass__(**options)
        if hasattr(cls, "propose") and cls.draw is AnomalyGenerator.draw:
            msg = (
                f"{cls.__name__} proposes defects, so it must derive from `{_PACKAGE}.ProposingGenerator`, got "
                "`AnomalyGenerator`. `propose` has one more argument there, `condition`. `init_args` is no longer "
                "needed if the constructor keeps every argument as an attribute of the same name."
            )
            raise TypeError(msg)

    @abstractmethod
    def draw(self, images: torch.Tensor, seeds: list[int], condition: Condition) -> AnomalySample:
        """Draw one defect onto each image. The arguments were checked, and the generator can use the condition.

        Args:
            images: (B, C, H, W) float in [0, 1].
            seeds: B integers >= 0.
            condition: Where the defects should lie, and what they should be.
        """

    def __call__(
        self,
        images: torch.Tensor,
        *,
        seeds: torch.Tensor | Sequence[int] | None = None,
        masks: torch.Tensor | None = None,
        prompts: Sequence[str] | None = None,
        prompts_to: Sequence[str] | None = None,
        mix: float = 0.0,
        names: Sequence[str] | None = None,
    ) -> AnomalySample:
        """Draw one defect onto each image.

        Args:
            images: (B, C, H, W) float in [0, 1], C = 1 or 3, before any normalisation.
            seeds: (B,) integers >= 0; None derives them from the base seed and the number of images seen so far.
            masks: (B, 1, H, W), optional: the region a defect should lie in (non-zero), in place of the
                foreground. At least the share ``SampleChecks.min_foreground`` of a defect lies in it. Rule-based
                defects and edits are cut off at its border, except families that break edges.
            prompts: B texts, optional: what to draw.
            prompts_to: B texts to which ``mix`` moves from ``prompts``.
            mix: How far to move, in [0, 1]: 0 is ``prompts``, 1 is ``prompts_to``.
            names: B names of the images, such as their paths, by which a folder of regions finds their masks.

        Returns:
            The sample, B rows. A row that failed every draw is the source, with a reason.

        Raises:
            ValueError: If an argument has the wrong rank, size, range or number, or the generator cannot use it.
        """
        check_images(images)
        if self.prepared is not None and self.prepared.donors.shape[1] != images.shape[1]:
            msg = (
                f"`images` have {images.shape[1]} channels, but the generator was prepared with "
                f"{self.prepared.donors.shape[1]}. Prepare it with normals like the images."
            )
            raise ValueError(msg)
        images = images.detach().as_subclass(torch.Tensor)
        condition = Condition.check(images, masks=masks, prompts=prompts, prompts_to=prompts_to, mix=mix, names=names)
        if not self.can_use(condition):
            raise ValueError(self._refuse(condition))
        seed_list = self._seed_list(seeds, len(images))
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self.draw(images, seed_list, condition)

    def can_use(self, condition: Condition) -> bool:
        """Return whether the generator can use everything that the condition asks for."""
        return condition.asked <= self.takes

    def walk(self) -> Iterator[AnomalyGenerator]:
        """Yield this generator, and those it draws with."""
        yield self

    @property
    def init_args(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, read from the attributes of the same names."""
        defaults = {name: parameter.default for name, parameter in list_parameters(type(self)).items()}
        return {
            name: to_plain(value, f"`{name}` of {type(self).__name__}")
            for name, value in read_arguments(self).items()
            if name not in self.later_arguments or value != defaults[name]
        }

    @property
    def config(self) -> dict[str, Any]:
        """``{"class_path": ..., "init_args": {...}}``, as in YAML."""
        module = type(self).__module__
        if module.startswith(f"{_PACKAGE}."):
            module = _PACKAGE
        return {"class_path": f"{module}.{type(self).__qualname__}", "init_args": self.init_args}

    @property
    def needs_names(self) -> bool:
        """Whether a call must name its images, because each has a region of its own."""
        return any(part.needs_names for part in self.walk() if part is not self)

    def name_images(self, paths: Sequence[str | PurePath]) -> dict[str, Any]:
        """Return ``{"names": ...}`` for a call, or ``{}`` if the generator needs no names."""
        return {"names": [image_key(path) for path in paths]} if self.needs_names else {}

    @property
    def files(self) -> list[Path]:
        """The files that samples depend on besides images and weights, such as a mask of the part or textures."""
        return []

    @property
    def defect_images(self) -> list[Path]:
        """Images of the real defects that samples show. A model trained on the samples has seen them."""
        return []

    @property
    def defect_digests(self) -> dict[str, str]:
        """The path of each of :attr:`defect_images`, by the digest of what it shows."""
        return dict(zip(digest_images(self.defect_images), map(str, self.defect_images), strict=True))

    @property
    def normal_digests(self) -> set[str]:
        """Digests of the generator's own normals that samples show. A model trained on the samples has seen them."""
        return set()

    def leave_normals_out(self, digests: Collection[str]) -> int:
        """Stop showing samples of the normals with these digests; return how many samples that leaves out."""
        del digests
        return 0

    @property
    def donor_white(self) -> WhitePoint:
        """White point with which the images of more than 8 bits were read that samples show; empty without such."""
        return WhitePoint()

    @cached_property
    def files_digest(self) -> str:
        """Digest of the contents of :attr:`files`, read once; ``""`` when there are none.

        Raises:
            ValueError: If one cannot be read.
        """
        if not self.files:
            return ""
        digest = blake2b(digest_size=16)
        for file in self.files:
            try:
                digest.update(bytes.fromhex(digest_file(file)))
            except OSError as error:
                msg = (
                    f"`generator` draws by the file {str(file)!r}, which cannot be read ({error.strerror or error}). "
                    "Put it back, or take it out of its folder."
                )
                raise ValueError(msg) from error
        return digest.hexdigest()

    @property
    def weights_hash(self) -> str:
        """Digest of the weights of the models that draw, ``""`` where there are none."""
        return ""

    @property
    def prepared(self) -> PreparedNormals | None:
        """What was measured on the product's normals, None before :meth:`prepare`."""
        return self._prepared

    @property
    def prepare_digest(self) -> str:
        """Digest of the prepared normals, ``""`` before :meth:`prepare`."""
        return self.prepared.digest if self.prepared else ""

    def prepare(self, normals: Iterable[torch.Tensor]) -> Self:
        """Take donors, noise floor and foreground from the normals of the product.

        Args:
            normals: Images (C, H, W) or batches (B, C, H, W), float in [0, 1], at the size the generator will see.

        Returns:
            The generator itself.

        Raises:
            ValueError: If there is no image, or an image is not a finite float image in [0, 1].
        """
        self.use_prepared(PreparedNormals.from_images(normals))
        return self

    def use_prepared(self, prepared: PreparedNormals) -> None:
        """Use normals that were measured before, to share them among generators."""
        self._prepared = prepared

    def replace(self, **arguments: Any) -> Self:
        """Return a copy of this generator, prepared like it, with other values of some arguments."""
        twin = type(self)(**read_arguments(self) | arguments)
        if self.prepared is not None and twin.prepared is None:
            twin.use_prepared(self.prepared)
        return twin

    def _origin(self) -> dict[str, Any]:
        """Return what the provenance of every sample says of the generator."""
        return {
            "config": self.config,
            "prepare_digest": self.prepare_digest,
            "files_digest": self.files_digest,
            "version": __version__,
        }

    def _seed_list(self, seeds: torch.Tensor | Sequence[int] | None, count: int) -> list[int]:
        if seeds is None:
            first = self._images_seen
            self._images_seen += count
            return derive_seeds(self.seed, 0, range(first, first + count)).tolist()
        listed: list[Any] = (
            seeds.tolist() if hasattr(seeds, "tolist") else list(seeds) if hasattr(seeds, "__iter__") else [seeds]
        )
        if len(listed) != count or any(not isinstance(seed, int) or seed < 0 for seed in listed):
            msg = f"`seeds` must be {count} integers >= 0, one for each image, got {len(listed)}: {listed[:4]}."
            raise ValueError(msg)
        return listed

    def _refuse(self, condition: Condition) -> str:
        """Say which argument the generator cannot use, and which generators can."""
        parts = list(dict.fromkeys(type(part).__name__ for part in self.walk()))
        name = parts[0] if len(parts) == 1 else f"{parts[0]} with {' and '.join(parts[1:])}"
        asked = [word for word in USERS if word in condition.asked]
        word = next((word for word in asked if not self.can_use(Condition(**{word: getattr(condition, word)}))), None)
        if word is None:
            words = " and ".join(f"`{word}`" for word in asked)
            return f"{words} must be given to {name} one at a time: no generator in it can use all of them."
        return (
            f"`{word}` must be left out for {name}, which cannot use them: {USERS[word]}, alone or in a generator "
            "around them. Leave them out, or draw with one of those."
        )
