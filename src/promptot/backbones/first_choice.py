"""The CLIP to begin with for images of one's own, and when to say so."""

from __future__ import annotations

from dataclasses import dataclass

BUNDLED = "bundled:"
BYTES_EACH = 4
"""Of a parameter: open_clip downloads this model's weights in fp32."""


@dataclass(frozen=True)
class FirstChoice:
    """A published CLIP.

    Attributes:
        name: as `load_backbone` takes it.
        parameters: of both towers, without what is no parameter.
    """

    name: str
    parameters: int

    @property
    def short(self) -> str:
        """For a folder's name.

        Example:
            >>> FIRST_CHOICE.short
            'vit-b-16'
        """
        return self.name.partition(":")[2].partition("/")[0].lower()

    @property
    def download(self) -> int:
        """Bytes to download once, by computation."""
        return self.parameters * BYTES_EACH

    @property
    def size(self) -> str:
        """The same for people.

        Example:
            >>> FIRST_CHOICE.size
            '600 MB'
        """
        return f"{round(self.download / 1e7) * 10} MB"


FIRST_CHOICE = FirstChoice("open_clip:ViT-B-16/datacomp_xl_s13b_b90k", 149_620_737)
"""ViT-B/16 trained on DataComp-1B.

Of the CLIPs of OpenAI's architecture and this size it has the highest zero-shot accuracy on
ImageNet in open_clip's table of results (docs/openclip_results.csv, 73.5 %) among those that
anybody may use (MIT licence).

Some of this size know more: SigLIP 2 (78.2 % by its makers) and PE-Core (78.4 %). They are two and
a half and three times the download and cost more a class name (SigLIP 2 reads 64 places of every
text, PE has a text tower of 24 blocks), and SigLIP 2 needs transformers. What papers say of
prompts, and the settings of the recipes, were found on a ViT-B/16 of OpenAI's kind. So what anybody
tries first stays this; the catalogue names the others beside it.
"""


def real_clip(backbone: str, own_images: bool, command: str | None = None) -> str | None:
    """What is said of the bundled model wherever it meets images of one's own; None elsewhere.

    It is always said then: whether images are photographs is not guessed.

    Args:
        backbone: a backbone's name.
        own_images: whether any of the images came from outside the package.
        command: what to type for the real CLIP; by default the option alone.

    Example:
        >>> print(real_clip("bundled:tiny", own_images=True))
        bundled:tiny is small: it knows most things by sight, few of them well. A real CLIP knows
        far more: --backbone open_clip:ViT-B-16/datacomp_xl_s13b_b90k (a download of 600 MB, once).
        >>> real_clip("bundled:tiny", own_images=False)
    """
    if not (own_images and backbone.startswith(BUNDLED)):
        return None
    return (
        f"{backbone} is small: it knows most things by sight, few of them well. A real CLIP knows "
        f"far more: {command or f'--backbone {FIRST_CHOICE.name}'} (a download of "
        f"{FIRST_CHOICE.size}, once)."
    )
