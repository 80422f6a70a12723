"""What a training's curves mean, in words, and the key to change.

:data:`SIGNS` is the table of docs/tuning.md; a test holds the two equal. Values by name are those
of the training's history: see docs/training.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from clipgan.families.registry import find_family

Rows = Sequence[Mapping[str, float]]
"""Of a training's history, in the order of ``images_seen``."""

LOOKS = 2
"""Sample grids that must agree before a change of theirs is believed."""
LEAST_DIVERSITY = 1.0
"""Mean difference of pictures in steps of 255: what rounding to 8 bits hides."""
LOST_DIVERSITY = 0.25
"""Of the most there was. Sharper pictures may lose some of the differences that noise had."""
HEARD = 0.15
"""Retrieval above chance. With eight prompts whose pictures tell nothing it strays by 0.13."""
MEMORISED = 0.5
"""Difference of two mean signs of 64 logits each, which chance alone moves by 0.18."""
SURE = 0.9
"""Mean sign of real logits where nothing is held out; ADA holds 0.6."""
LEAST_ROWS = 8
"""Rows with adversarial losses, for two in a quarter."""
EXPLODED = 20.0
"""A loss at balance is about 1, and a logit of 20 is a probability of 1 - 2e-9."""
GROWN = 4.0
"""Times the lower quartile before, beside :data:`EXPLODED`: some forms of the logit are large from
the start."""
WON = 0.1
"""Discriminator's loss: both logits right with 95 % (2 softplus(-3)); 1.39 at balance, 2 in the
hinge form."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Try:
    """A key of params.yaml and what to do to it; ``{family}`` stands for the family's section."""

    key: str
    change: str

    def resolve(self, family: str) -> str | None:
        """The whole key; None where the family has no such one."""
        before, mark, inside = self.key.partition("{family}.")
        if mark and not _has_key(find_family(family).load("config"), inside):
            return None
        return f"{before}{family}.{inside}" if mark else self.key


@dataclass(frozen=True)
class Sign:
    """A fault that shows in the history.

    Attributes:
        shown: the values that show it, and their limits.
        means: what it says of the training.
        tries: most promising first.
        find: rows -> what is seen, with its numbers; None where it is not.
    """

    name: str
    shown: str
    means: str
    tries: tuple[Try, ...]
    find: Callable[[Rows], str | None]


@dataclass(frozen=True)
class Finding:
    """A fault of one training: one line of words."""

    name: str
    words: str

    def __str__(self) -> str:
        return self.words


def diagnose(rows: Rows, family: str) -> list[Finding]:
    """The faults that the history of a training of ``family`` shows, in the order of
    :data:`SIGNS`."""
    found = [(sign, sign.find(rows)) for sign in SIGNS]
    return [
        Finding(sign.name, f"{seen}: {sign.means}. Try {list_tries(sign, family)}")
        for sign, seen in found
        if seen is not None
    ]


def is_too_early(rows: Rows) -> bool:
    """Whether the history is too short to show that nothing is wrong."""
    looks = [row for row in _select_looks(rows) if "training_logits_sign" in row]
    return len(looks) < LOOKS or len(_select_steps(rows)) < LEAST_ROWS


def list_tries(sign: Sign, family: str) -> str:
    """The keys that ``family`` has, with their changes."""
    keys = [(each.resolve(family), each.change) for each in sign.tries]
    return ", ".join(f"{key} {change}" for key, change in keys if key is not None)


class Announcer:
    """Says each fault of a running training once."""

    def __init__(self, family: str) -> None:
        self._family = family
        self._said: set[str] = set()

    def __call__(self, rows: Rows) -> None:
        """Look at the history so far."""
        for finding in diagnose(rows, self._family):
            if finding.name not in self._said:
                self._said.add(finding.name)
                seen = int(rows[-1]["images_seen"])
                logger.warning("after %s images: %s (docs/tuning.md)", f"{seen:,}", finding)


def _find_overfitting(rows: Rows) -> str | None:
    looks = [row for row in _select_looks(rows) if "training_logits_sign" in row][-LOOKS:]
    if len(looks) < LOOKS:
        return None
    training = looks[-1]["training_logits_sign"]
    if not all("held_out_logits_sign" in row for row in looks):
        if min(row["training_logits_sign"] for row in looks) < SURE:
            return None
        return f"the discriminator takes nearly all training images for real (sign {training:.2f})"
    gaps = [row["training_logits_sign"] - row["held_out_logits_sign"] for row in looks]
    if min(gaps) < MEMORISED:
        return None
    return (
        f"the discriminator takes training images for real (sign {training:.2f}), and held-out "
        f"ones much less (sign {looks[-1]['held_out_logits_sign']:.2f})"
    )


def _find_lost_variety(rows: Rows) -> str | None:
    # While reconstruction warms up the latents change little, and noise before it differs much.
    measured = _list_values(_select_looks(rows), "sample_diversity")
    if not measured:
        return None
    if measured[-1] < LEAST_DIVERSITY:
        return (
            f"each prompt gives one picture whatever the seed (difference {measured[-1]:.2g} of "
            "255)"
        )
    recent, before = measured[-LOOKS:], measured[:-LOOKS]
    if not before or max(recent) >= LOST_DIVERSITY * max(before):
        return None
    return (
        f"the pictures of a prompt differ by {max(recent):.2g} of 255, and differed by "
        f"{max(before):.2g}"
    )


def _find_unheard_words(rows: Rows) -> str | None:
    looks = _select_looks(rows)
    differences = _list_values(looks, "prompt_difference")
    if differences and differences[-1] < LEAST_DIVERSITY:
        return f"all prompts give the same picture (difference {differences[-1]:.2g} of 255)"
    recent = _list_values(looks, "sample_retrieval")[-LOOKS:]
    if len(recent) < LOOKS or max(recent) >= HEARD:
        return None
    return (
        "CLIP finds the prompt of a sample hardly more often than by chance "
        f"({max(recent):.2f}; 0 is chance, 1 always)"
    )


def _find_divergence(rows: Rows) -> str | None:
    steps = _select_steps(rows)
    if len(steps) < LEAST_ROWS:
        return None
    quarter = len(steps) // 4
    for name in ("generator_adversarial", "discriminator_adversarial"):
        values = [abs(row[name]) for row in steps]
        before = sorted(values[:-quarter])
        now, usual = fmean(values[-quarter:]), before[len(before) // 4]
        if now > max(EXPLODED, GROWN * usual):
            return f"the loss {name} has grown to {now:.3g}, from {usual:.3g}"
    latest, previous = steps[-quarter:], steps[-2 * quarter : -quarter]
    won = max(row["discriminator_adversarial"] for row in latest)
    now, usual = (
        fmean(row["generator_adversarial"] for row in part) for part in (latest, previous)
    )
    if won >= WON or now <= usual:
        return None
    return (
        f"the discriminator's loss is near 0 ({won:.2g} at most) while the generator's grows "
        f"({usual:.3g} to {now:.3g})"
    )


_R1 = Try("train.{family}.losses.r1_gamma", "up by 2 to 4 (kind: stylegan2)")
_MA_GP = Try("train.{family}.losses.ma_gp_weight", "up by 2")

SIGNS = (
    Sign(
        "divergence",
        "`generator_adversarial` or `discriminator_adversarial` grows beyond "
        f"{EXPLODED:g} and {GROWN:g} times its lower quartile before, or the discriminator's stays "
        f"below {WON:g} while the generator's grows: the last quarter",
        "the two networks have lost their balance; more images will not bring it back",
        (
            Try("train.{family}.optimizer.discriminator_learning_rate", "down by 2"),
            _R1,
            _MA_GP,
            Try("train.{family}.optimizer.generator_learning_rate", "down by 2"),
        ),
        _find_divergence,
    ),
    Sign(
        "overfitting",
        f"`training_logits_sign` is above `held_out_logits_sign` by {MEMORISED:g}; where too few "
        f"images are held out, above {SURE:g}",
        "the discriminator learns its images by heart, and what it tells the generator gets worse",
        (
            Try("train.augmentation.kind", "to diffaugment (kind: stylegan2: or ada)"),
            _R1,
            _MA_GP,
            Try("train.total_images", "down"),
        ),
        _find_overfitting,
    ),
    Sign(
        "lost variety",
        f"`sample_diversity` is below {LEAST_DIVERSITY:g}, or below {LOST_DIVERSITY:g} of what it "
        "was",
        "other terms outweigh the latents, or the generator has collapsed",
        (
            Try("train.{family}.losses.reconstruction_weight", "down"),
            Try("train.{family}.losses.clip_contrastive_weight", "down"),
            Try("train.{family}.losses.discriminator_contrastive_weight", "down (kind: stylegan2)"),
            Try("train.{family}.losses.clip_similarity_weight", "down"),
            Try("train.pseudo_text.noise_level", "up"),
        ),
        _find_lost_variety,
    ),
    Sign(
        "unheard words",
        f"`sample_retrieval` is below {HEARD:g}, or `prompt_difference` below {LEAST_DIVERSITY:g}",
        "words are not heard yet, or the prompts name nothing that is in the images",
        (
            Try("monitoring.sample_prompts", "to words for your images"),
            Try("train.total_images", "up"),
            Try("train.{family}.losses.clip_contrastive_weight", "up"),
            Try("train.{family}.losses.discriminator_contrastive_weight", "up (kind: stylegan2)"),
            Try("train.{family}.losses.clip_similarity_weight", "up"),
            Try("train.pseudo_text.noise_level", "down"),
            Try("train.{family}.generator.text_gain", "up"),
            Try("train.{family}.text_gain", "up"),
        ),
        _find_unheard_words,
    ),
)
"""What is worth mending first comes first."""


def _select_steps(rows: Rows) -> list[Mapping[str, float]]:
    """Rows with the losses of both networks: a warm-up has none."""
    return [row for row in rows if {"generator_adversarial", "discriminator_adversarial"} <= {*row}]


def _select_looks(rows: Rows) -> list[Mapping[str, float]]:
    """Rows from the first adversarial step on: what is before is a start or a warm-up."""
    steps = _select_steps(rows)
    return [row for row in rows if steps and row["images_seen"] >= steps[0]["images_seen"]]


def _list_values(rows: Rows, name: str) -> list[float]:
    return [row[name] for row in rows if name in row]


def _has_key(section: Any, path: str) -> bool:
    """Whether a class of parameters has ``a.b``."""
    for name in path.split("."):
        if name not in getattr(section, "model_fields", {}):
            return False
        section = section.model_fields[name].annotation
    return True
