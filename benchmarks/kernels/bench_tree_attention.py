"""tree_attention of chains and random trees behind prefixes of several lengths."""

from collections.abc import Iterator

from benchmarks.harness import Case, Setting
from benchmarks.models import Model
from benchmarks.peers import attention_peers
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.testing import attention_inputs, chain_nodes, random_parents, tree_nodes


def drafts(batch: int, num_nodes: int, context: int) -> Iterator[tuple[str, NodeBatch]]:
    """The nodes of a call: a single one is a chain only."""
    seqlens = [context] * batch
    yield "chain", chain_nodes(seqlens, num_nodes)
    if num_nodes > 1:
        yield "tree", tree_nodes(random_parents(batch, num_nodes), seqlens)


def case_of(setting: Setting, model: Model, kind: str, nodes: NodeBatch, context: int) -> Case:
    heads, dtype = model.heads, setting.dtype
    batch, num_nodes = nodes.positions.shape
    inputs = attention_inputs(heads, nodes, dtype)
    rows = batch * (2 * (context + num_nodes) * heads.h_kv + 2 * num_nodes * heads.h_q)
    return Case(
        name=f"{model.name} {kind}",
        shape={"B": batch, "N": num_nodes, "context": context},
        num_bytes=rows * heads.head_dim * dtype.itemsize,
        data=(inputs.q, inputs.k_cache, inputs.v_cache),
        run=lambda op, q, k, v: op(q, k, v, inputs.nodes, inputs.scale),
        peers=attention_peers(setting, inputs),
    )


def cases(setting: Setting) -> Iterator[Case]:
    sweep = setting.sweep
    shapes = [(b, c, n) for b in sweep.batches for c in sweep.contexts for n in sweep.num_nodes]
    for model in sweep.models:
        for batch, context, num_nodes in shapes:
            for kind, nodes in drafts(batch, num_nodes, context):
                yield case_of(setting, model, kind, nodes, context)
