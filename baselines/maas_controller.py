"""MaAS's controller: a distribution over layered teams of operators, given a query's embedding.

Zhang et al. 2025, arXiv:2502.04180, section 3, with sizes and rules of its release:
per layer the query and each operator are projected to `hidden` numbers of length 1; the softmax of
their dot products is each operator's probability; from layer 2 on an operator is read beside the
embedding of the first one chosen in the layer before. Operators are drawn without replacement until
their probabilities add up to the threshold. Layer 1 begins with a generator; EarlyStop ends the
team after its layer, and in layer 1 means Generate alone, for a fixed penalty.
Differs from the release: draws come from the caller's seeded generator, so that they repeat.
"""

from __future__ import annotations

import base64
import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GENERATORS = ("Generate", "GenerateCoT", "MultiGenerateCoT")
STOP = "EarlyStop"
HASTE = -1.5  # added to the log-probability where layer 1 stops early

Vector = Sequence[float]


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Around computing with matrices this small: threads would only wait for each other."""
    import torch

    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


@dataclass(frozen=True)
class Team:
    """Operators by layer, in the order in which they act."""

    layers: list[list[str]]
    log_pi: Any  # torch scalar: the sum of the chosen operators' log-probabilities


def choose(
    probabilities: Sequence[float], threshold: float, rng: random.Random | None
) -> list[int]:
    """Positions drawn without replacement until their probabilities add up to `threshold`.

    In order of choice, at least one. Without `rng` the likeliest come first (ties: the earliest).
    """
    left = list(range(len(probabilities)))
    chosen: list[int] = []
    total = 0.0
    while left and (not chosen or total < threshold):
        weights = [probabilities[i] for i in left]
        if rng is None:
            position = max(left, key=lambda i: (probabilities[i], -i))
        else:
            position = rng.choices(left, weights)[0]
        left.remove(position)
        chosen.append(position)
        total += probabilities[position]
    return chosen


def first_layer(names: Sequence[str]) -> tuple[list[str], bool]:
    """(what layer 1 does for these draws, whether the team ends there).

    EarlyStop, or no generator at all: Generate alone. Else a generator comes first.
    """
    if STOP in names:
        return ["Generate"], True
    first = next((name for name in names if name in GENERATORS), None)
    if first is None:
        return ["Generate"], False
    return [first, *(name for name in names if name != first)], False


class Controller:
    """The weights by name, and what they choose. Parameters are torch tensors on the CPU."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self.weights = dict(weights)
        self.layers = sum(name.endswith("/query/bias") for name in weights)

    @classmethod
    def fresh(cls, rng: random.Random, *, size: int, layers: int, hidden: int) -> Controller:
        """Untrained: uniform in +-1 / sqrt(inputs), as torch starts a linear layer."""
        import torch

        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        weights = {}
        for layer in range(layers):
            for name, inputs in (("operators", size * (1 if layer == 0 else 2)), ("query", size)):
                bound = inputs**-0.5
                for part, shape in (("weight", (hidden, inputs)), ("bias", (hidden,))):
                    values = torch.empty(shape).uniform_(-bound, bound, generator=generator)
                    weights[f"{layer}/{name}/{part}"] = values.requires_grad_()
        return cls(weights)

    def scores(self, layer: int, query: Any, operators: Any) -> Any:
        """Each operator's log-probability in a layer; `operators` holds a row of inputs each."""
        from torch.nn import functional

        projected = []
        for name, inputs in (("query", query), ("operators", operators)):
            weight, bias = (self.weights[f"{layer}/{name}/{part}"] for part in ("weight", "bias"))
            projected.append(functional.normalize(inputs @ weight.T + bias, dim=-1))
        return functional.log_softmax(projected[1] @ projected[0], dim=-1)

    @one_core()
    def draw(
        self,
        query: Vector,
        operators: Mapping[str, Vector],
        threshold: float,
        rng: random.Random | None,
    ) -> Team:
        """A team for a query; without `rng` the likeliest operators of each layer."""
        import torch

        names = list(operators)
        asked = torch.tensor(query)
        rows = torch.tensor([list(operators[name]) for name in names])
        layers: list[list[str]] = []
        log_pi = torch.zeros(())
        for layer in range(self.layers):
            inputs = rows
            if layers:
                before = torch.tensor(list(operators[layers[-1][0]])).expand_as(rows)
                inputs = torch.cat([rows, before], dim=1)
            logs = self.scores(layer, asked, inputs)
            chosen = [names[i] for i in choose(logs.exp().tolist(), threshold, rng)]
            ends = STOP in chosen
            if layer == 0:
                chosen, ends = first_layer(chosen)
                log_pi = log_pi + HASTE * ends
            log_pi = log_pi + logs[[names.index(name) for name in chosen]].sum()
            layers.append(chosen)
            if ends:
                break
        return Team(layers, log_pi)

    def as_dict(self) -> dict[str, Any]:
        """The weights as plain data: little-endian float32 in base64, with their shapes."""
        return {
            name: {
                "shape": list(values.shape),
                "float32": base64.b64encode(
                    values.detach().numpy().astype("<f4").tobytes()
                ).decode(),
            }
            for name, values in self.weights.items()
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Controller:
        """The controller of `as_dict`'s data."""
        import numpy
        import torch

        return cls(
            {
                name: torch.from_numpy(
                    numpy.frombuffer(base64.b64decode(one["float32"]), "<f4")
                    .reshape(one["shape"])
                    .copy()
                )
                for name, one in found.items()
            }
        )
