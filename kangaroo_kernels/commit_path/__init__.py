"""commit_path: the accepted path becomes history without the host: lengths, positions, root."""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.nodes import SlotPlaces
from kangaroo_kernels.verify_tree import Verdict


class CommitPath(Protocol):
    def __call__(
        self,
        verdict: Verdict,
        chain: DraftChain,
        exit_states: Tensor,
        places: tuple[SlotPlaces, SlotPlaces],
        done: Tensor,
        *,
        lag: int,
        limit: int,
    ) -> None:
        """Of every sequence that is not done, in place: the path joins the committed slots, the
        exit state of its last node moves in front of the root, and the bonus token is the root of
        the next chain (token 0 where there is none).

        Args:
            verdict:     of a round of N nodes; rows of the path are in their slots already.
            chain:       mutated: token and position of the root.
            exit_states: [B, M, C], M > N, mutated: node n's is at n + 1, at 0 that in front of the
                root.
            places:      mutated: of the target's caches and of the adapter's.
            done:        [B] int32; where it is not 0 nothing changes.
            lag:         slots that the adapter is behind at the next root, 0 or 1; it sees none
                below slot 0.
            limit:       committed slots at most: nothing is written behind a cache's end.
        """
        ...
