"""One network's updates: Adam, gradients averaged over processes, loss scaling in fp16."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clipgan.config import OptimizerConfig
from clipgan.training.distributed import Processes
from clipgan.training.state import (
    StateTensors,
    StepLosses,
    capture_optimizer,
    restore_optimizer,
)

INITIAL_SCALE = 2.0**16
LARGEST_SCALE = 2.0**24
SMALLEST_SCALE = 1.0
GROWTH_INTERVAL = 2000
"""Updates without overflow after which the scale doubles (Micikevicius et al. 2018, section 3.2;
PyTorch's defaults)."""


class LossScale(nn.Module):
    """Factor on the loss that keeps small fp16 gradients from becoming zero.

    It halves where a gradient overflows and doubles after a long time without that. It stays on the
    device of its network, so that no update waits for the GPU. ``torch.amp.GradScaler`` does not
    serve here: it has no smallest scale, and does not return on the device whether it is to blame.

    Args:
        initial_scale: the first factor.
        growth_interval: updates without overflow after which it doubles.
    """

    value: Tensor
    good_updates: Tensor

    def __init__(
        self, initial_scale: float = INITIAL_SCALE, growth_interval: int = GROWTH_INTERVAL
    ) -> None:
        super().__init__()
        self._growth_interval = growth_interval
        self.register_buffer("value", torch.tensor(initial_scale))
        self.register_buffer("good_updates", torch.tensor(0.0))

    def follow(self, broken: Tensor) -> Tensor:
        """Adapt the scale. ``broken`` (): an update was left out because a value is not finite.

        Returns:
            (): whether the scale can be blamed for it; at its smallest it cannot.
        """
        blamed = broken & (self.value > SMALLEST_SCALE)
        good = self.good_updates + 1.0
        grows = ~broken & (good == self._growth_interval)
        doubled = (self.value * 2.0).clamp(max=LARGEST_SCALE)
        kept = torch.where(grows, doubled, self.value)
        self.value.copy_(torch.where(blamed, self.value / 2.0, kept))
        self.good_updates.copy_(torch.where(broken | grows, 0.0, good))
        return blamed

    def capture(self) -> Tensor:
        """(2,) float64: scale, updates since it last changed."""
        return torch.stack([self.value, self.good_updates]).double()

    def restore(self, state: Tensor) -> None:
        """Undo of :meth:`capture`."""
        self.value.copy_(state[0])
        self.good_updates.copy_(state[1])


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
        device = next(network.parameters()).device
        self.loss_scale = None if loss_scale is None else loss_scale.to(device)
        self.processes = processes

    @property
    def scale(self) -> float | Tensor:
        """The present factor on losses and on inner gradients; 1 outside fp16."""
        return 1.0 if self.loss_scale is None else self.loss_scale.value

    def apply(self, total: Tensor, terms: Mapping[str, Tensor], phase: str) -> StepLosses:
        """Differentiate ``total``, then update the weights if losses and gradient are finite.

        Nothing is read on the host: the optimizer itself leaves weights, moments and step count
        alone where it is told on the device that something is not finite. Losses of several
        processes are averaged.

        Returns:
            ``terms`` and ``<phase>_gradient_norm``, in fp16 also ``<phase>_loss_scale``, the one of
            this update; in fp16 an overflow that a smaller scale may mend is excused.
        """
        torch.autograd.backward(total if self.loss_scale is None else total * self.scale)
        gradients = self._collect_gradients()
        norm = torch.nn.utils.get_total_norm(gradients)
        stacked = torch.stack([*(term.detach().float() for term in terms.values()), norm.float()])
        names = [*terms, f"{phase}_gradient_norm"]
        values = self.processes.average(stacked)
        broken = ~torch.isfinite(values).all()
        self.optimizer.found_inf = broken.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.loss_scale is None:
            return StepLosses(names, values)
        names.append(f"{phase}_loss_scale")
        values = torch.cat([values, self.loss_scale.value.view(1)])
        return StepLosses(names, values, excused=self.loss_scale.follow(broken))

    def _collect_gradients(self) -> list[Tensor]:
        """Of all weights that learn: without the loss scale, averaged over processes."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.loss_scale is not None:
            torch._foreach_mul_(gradients, 1.0 / self.scale)
        self.processes.average_in_place(gradients)
        return gradients


def capture_updates(updates: Mapping[str, NetworkUpdates]) -> StateTensors:
    """Optimizers (``<network>_optimizer``) and, in fp16, loss scales of the named networks."""
    state = {f"{name}_optimizer": capture_optimizer(u.optimizer) for name, u in updates.items()}
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
        restore_optimizer(update.optimizer, tensors[f"{name}_optimizer"])
        if update.loss_scale is not None:
            update.loss_scale.restore(tensors["loss_scales"][name])
