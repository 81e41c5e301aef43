"""What a round of chains keeps on the device, for tests of the ops that end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.nodes import SlotPlaces
from kangaroo_kernels.verify_tree import Verdict


@dataclass
class Ending:
    """Arguments of commit_path; paths skip nodes."""

    verdict: Verdict
    chain: DraftChain
    exit_states: Tensor
    places: tuple[SlotPlaces, SlotPlaces]
    done: Tensor

    @classmethod
    def of(cls, roots: Sequence[int], paths: Sequence[Sequence[int]], width: int = 5) -> Ending:
        """At slots `roots`, of rounds that kept `paths`."""
        batch, num_nodes, reach = len(roots), 6, 700
        padded = [[*path, *[-1] * (num_nodes - len(path))] for path in paths]
        i32 = torch.int32
        chain = DraftChain(
            torch.randint(100, (batch, num_nodes)),
            torch.zeros(batch, num_nodes, dtype=i32),
            torch.full((batch,), num_nodes, dtype=i32),
            torch.ones(batch, dtype=i32),
            torch.ones(batch),
        )
        seqlens = torch.tensor(roots, dtype=i32)
        places = [SlotPlaces(seqlens.clone(), torch.zeros(batch, reach, dtype=i32)) for _ in "ab"]
        return cls(
            Verdict(
                torch.tensor(padded),
                torch.tensor([len(path) for path in paths], dtype=i32),
                torch.randint(100, (batch,)),
            ),
            chain,
            torch.randn(batch, num_nodes + 3, width),
            (places[0], places[1]),
            torch.zeros(batch, dtype=i32),
        )

    @property
    def args(self) -> tuple[object, ...]:
        """In the order of the op."""
        return self.verdict, self.chain, self.exit_states, self.places, self.done

    @property
    def flat(self) -> tuple[Tensor, ...]:
        """In the order of torch.ops.kangaroo.commit_path."""
        places = (*self.places[0], *self.places[1])
        return (*self.verdict, *self.chain, self.exit_states, *places, self.done)
