"""copy_draft: where a text repeats itself, what followed before is the draft; no drafter is asked
(prompt lookup).
"""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.draft_trees import DraftTrees
from kangaroo_kernels.verify_tree import Verdict


class CopyDraft(Protocol):
    def __call__(
        self,
        text: Tensor,
        verdict: Verdict,
        trees: DraftTrees,
        cache_seqlens: Tensor,
        found: Tensor,
        *,
        size: int,
        count: int,
    ) -> None:
        """Of every sequence that has not stopped, in place: the path of the last round and the root
        join the text. If its last `size` tokens have stood there before, `count` tokens that
        followed the last time become the tree, a chain behind the root, and it has stopped. What is
        copied may reach into the copy, as in LZ77. Ties go to the latest.

        Args:
            text:    [B, S] int32, mutated: the token of each slot. Of the slots in front of the
                root those of the last path are written, the rest is known.
            verdict: of the last round; `path_len` 1: all in front of the root is known.
            trees:   of the last round, with the next roots; mutated where something is found.
            cache_seqlens: [B] int32, the slot of the root.
            found:   [B] int32, written: 1 where something was found, else 0.
            size:    at least 1.
            count:   1 to N - 1.
        """
        ...
