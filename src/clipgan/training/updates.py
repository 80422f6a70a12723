"""One network's updates: Adam, gradients averaged over processes, loss scaling in fp16."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clipgan.config import OptimizerConfig
from clipgan.training.distributed import Processes
from clipgan.training.state import (
    NonFiniteLossError,
    StateTensors,
    capture_optimizer,
    restore_optimizer,
)

INITIAL_SCALE = 2.0**16
LARGEST_SCALE = 2.0**24
SMALLEST_SCALE = 1.0
GROWTH_INTERVAL = 2000
"""Updates without overflow after which the scale doubles (Micikevicius et al. 2018, section 3.2;
PyTorch's defaults)."""


class LossScale:
    """Factor on the loss that keeps small fp16 gradients from becoming zero.

    It halves where a gradient overflows and doubles after a long time without that. The updates
    read every value on the host anyhow, so the scale lives there too.

    Args:
        initial_scale: the first factor.
        growth_interval: updates without overflow after which it doubles.
    """

    def __init__(
        self, initial_scale: float = INITIAL_SCALE, growth_interval: int = GROWTH_INTERVAL
    ) -> None:
        self.value = initial_scale
        self._growth_interval = growth_interval
        self._good_updates = 0

    def grow(self) -> None:
        """After an update that was made."""
        self._good_updates += 1
        if self._good_updates == self._growth_interval:
            self.value = min(self.value * 2.0, LARGEST_SCALE)
            self._good_updates = 0

    def shrink(self) -> bool:
        """After an overflow; False where the scale cannot be blamed any more."""
        if self.value <= SMALLEST_SCALE:
            return False
        self.value /= 2.0
        self._good_updates = 0
        return True

    def capture(self) -> Tensor:
        """(2,) float64: scale, updates since it last changed."""
        return torch.tensor([self.value, float(self._good_updates)], dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """Undo of :meth:`capture`."""
        self.value, self._good_updates = float(state[0]), int(state[1])


class NetworkUpdates:
    """Everything between a phase's loss and the changed weights of its network.

    Attributes:
        optimizer: Adam over all parameters; those that got no gradient stay as they are.
        loss_scale: in fp16, else None.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float,
        settings: OptimizerConfig,
        *,
        loss_scale: LossScale | None,
        lazy_interval: int | None,
        processes: Processes,
    ) -> None:
        """
        Args:
            network: all its parameters are updated.
            learning_rate: one of the two in ``settings``.
            settings: betas and epsilon.
            loss_scale: under fp16.
            lazy_interval: the network has an extra phase every so many steps (None: it has none),
                for which Adam is corrected by k / (k + 1) (Karras et al. 2020, appendix B).
            processes: those that update copies of this network together.
        """
        ratio = lazy_interval / (lazy_interval + 1) if lazy_interval is not None else 1.0
        self.optimizer = torch.optim.Adam(
            network.parameters(),
            lr=learning_rate * ratio,
            betas=(settings.beta1**ratio, settings.beta2**ratio),
            eps=settings.epsilon,
            fused=True,
        )
        self.loss_scale = loss_scale
        self.processes = processes

    @property
    def scale(self) -> float:
        """The present factor on losses and on inner gradients; 1 outside fp16."""
        return 1.0 if self.loss_scale is None else self.loss_scale.value

    def apply(self, total: Tensor, terms: Mapping[str, Tensor], phase: str) -> dict[str, float]:
        """Differentiate ``total``, check losses and gradient, then update the weights.

        All values reach Python in one transfer, so that a GPU is waited for once a phase. Those of
        several processes are averaged.

        Returns:
            The finite ones of ``terms`` and ``<phase>_gradient_norm``, as numbers. In fp16 also
            ``<phase>_loss_scale``; an update whose gradient overflowed is left out.

        Raises:
            NonFiniteLossError: the weights were not touched.
        """
        torch.autograd.backward(total if self.loss_scale is None else total * self.scale)
        gradients = self._collect_gradients()
        norm = torch.nn.utils.get_total_norm(gradients)
        stacked = torch.stack([*(term.detach().float() for term in terms.values()), norm.float()])
        names = [*terms, f"{phase}_gradient_norm"]
        averaged = self.processes.average(stacked).tolist()
        values = dict(zip(names, averaged, strict=True))
        broken = {name: value for name, value in values.items() if not math.isfinite(value)}
        if self.loss_scale is not None:
            values[f"{phase}_loss_scale"] = self.loss_scale.value
        if not broken:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._settle(broken)
        return {name: value for name, value in values.items() if name not in broken}

    def _collect_gradients(self) -> list[Tensor]:
        """Of all weights that learn: without the loss scale, averaged over processes."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.loss_scale is not None:
            torch._foreach_mul_(gradients, 1.0 / self.scale)
        self.processes.average_in_place(gradients)
        return gradients

    def _settle(self, broken: Mapping[str, float]) -> None:
        if self.loss_scale is None:
            overflowed = False
        elif broken:
            overflowed = self.loss_scale.shrink()
        else:
            overflowed = False
            self.loss_scale.grow()
        if broken and not overflowed:
            name, value = next(iter(broken.items()))
            raise NonFiniteLossError(name, value)

    def capture_optimizer(self) -> dict[str, Tensor]:
        """Moments and step counts."""
        return capture_optimizer(self.optimizer)

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo of :meth:`capture_optimizer`."""
        restore_optimizer(self.optimizer, tensors)


def capture_updates(updates: Mapping[str, NetworkUpdates]) -> StateTensors:
    """Optimizers (``<network>_optimizer``) and, in fp16, loss scales of the named networks."""
    state = {f"{name}_optimizer": update.capture_optimizer() for name, update in updates.items()}
    scales = {
        name: update.loss_scale.capture()
        for name, update in updates.items()
        if update.loss_scale is not None
    }
    return state | ({"loss_scales": scales} if scales else {})


def restore_updates(
    updates: Mapping[str, NetworkUpdates], tensors: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Undo of :func:`capture_updates`."""
    for name, update in updates.items():
        update.restore_optimizer(tensors[f"{name}_optimizer"])
        if update.loss_scale is not None:
            update.loss_scale.restore(tensors["loss_scales"][name])
