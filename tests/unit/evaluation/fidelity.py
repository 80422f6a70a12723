"""torch-fidelity's values, as its users get them."""

from __future__ import annotations

from typing import Any

import torch_fidelity

from clipgan.evaluation.extractors import JUDGE_NAME


def measure_by_fidelity(generated: Any, reference: Any, **options: Any) -> dict[str, float]:
    """Distances in the judge's space, of tiny sets on the CPU.

    Args:
        generated, reference: folders or data sets.
        options: of `torch_fidelity.calculate_metrics`.
    """
    values: dict[str, float] = torch_fidelity.calculate_metrics(
        input1=generated,
        input2=reference,
        feature_extractor=JUDGE_NAME,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=8,
        kid_subsets=4,
        prc_neighborhood=2,
        batch_size=5,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        **options,
    )
    return values
