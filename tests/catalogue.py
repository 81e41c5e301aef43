"""Ways in which engines that speculate have lost tokens, and the tests that would see each here.

Numbers are those of our notes on other projects' bugs; tests/test_catalogue.py checks the table.
"""

from __future__ import annotations

from typing import NamedTuple


class BugClass(NamedTuple):
    """A kind of mistake.

    Attributes:
        name: what goes wrong.
        tests: below tests/, "file::test" or "file::test[case]"; each fails where it does.
        absent: why it cannot happen here.
    """

    name: str
    tests: tuple[str, ...] = ()
    absent: str = ""


def seen(name: str, *tests: str) -> BugClass:
    return BugClass(name, tests)


def cannot_be(name: str, why: str) -> BugClass:
    return BugClass(name, absent=why)


CATALOGUE: dict[int, BugClass] = {
    1: seen(
        "a row has other bits when more rows are verified with it",
        "kernels/test_linear.py::test_row_invariance",
        "kernels/test_tree_attention.py::test_a_node_alone_and_among_others",
        "lossless/test_bits.py::test_any_stopping_rule",
    ),
    2: seen(
        "attention is cut into pieces by the number of rows",
        "kernels/test_tree_attention.py::test_a_node_alone_and_among_others_in",
        "kernels/test_tree_attention.py::test_capacity_does_not_show",
        "lossless/test_bits.py::test_a_prompt_can_be_written_by_decoding",
    ),
    3: seen(
        "attention of several rows in several sequences is wrong",
        "kernels/test_tree_attention.py::test_error_budget_of_chains",
        "kernels/test_seeded.py::test_cases",
        "engine/test_batch.py::test_tokens_and_bits_are_those_of_decoding_alone",
    ),
    4: seen(
        "the first token comes from a prompt that was cut otherwise",
        "lossless/test_bits.py::test_any_cut_of_the_prompt",
        "models/test_llama.py::test_logits_are_those_of_transformers",
    ),
    5: seen(
        "a cache that cannot go back is not taken back",
        "engine/test_refusals.py::test_sliding_window",
        "models/test_families.py::test_refuses_what_it_cannot_run",
    ),
    6: seen(
        "the drafter's cache loses rows, and drafts get worse",
        "draft/test_kangaroo.py::test_lengths_through_every_round",
        "draft/test_branching.py::test_lengths_through_every_round",
        "draft_parity/test_cached_adapter.py::test_adapter_equals_a_recomputation",
        "lossless/test_hash_target.py::test_tokens_and_accepted_lengths",
    ),
    7: seen(
        "keys of the last draft are missing when all were accepted",
        "lossless/test_accepted_lengths.py::test_a_hundred_rounds_accepted_in_full",
        "lossless/test_bits.py::test_any_number_accepted",
    ),
    8: seen(
        "a rejection takes effect one row too late",
        "lossless/test_accepted_lengths.py::test_every_accepted_length_behind_every_other",
        "engine/test_decode.py::test_rounds_add_up",
    ),
    9: seen(
        "rows of padding or of idle sequences are written over live ones",
        "lossless/test_free_slots.py::test_a_round_writes_its_own_slots_alone",
        "lossless/test_bits.py::test_forgotten_slots_are_never_read",
        "kernels/test_rope_append_kv.py::test_error_budget",
        "lossless/test_batches.py::test_every_sequence_says_what_it_must",
        "engine/test_batch.py::test_tokens_and_bits_are_those_of_decoding_alone",
    ),
    10: seen(
        "a captured graph goes on with lengths of the time of its capture",
        "kernels/test_graph_capture.py::test_capture_and_replay",
        "kernels/test_round_graph.py::test_every_mode_is_greedy",
        "test_cache.py::test_chain_follows_a_commit_without_being_cut_again",
    ),
    11: cannot_be(
        "a padded row reads a block's number in front of the table",
        "there are no blocks: every sequence has its own rows in one piece, and what reads outside "
        "a tensor dies in kernels/test_guard_pages.py",
    ),
    12: seen(
        "scratch memory is too small for long drafts",
        "lossless/test_accepted_lengths.py::test_any_depth",
        "lossless/test_trees.py::test_any_number_of_nodes",
        "engine/test_drafting.py::test_values_that_cannot_be",
        "engine/test_drafting.py::test_limits_are_those_of_the_kernels",
        "kernels/test_guard_pages.py::test_ops_stay_inside_their_tensors",
    ),
    13: seen(
        "results of a sequence that was interrupted reach another",
        "engine/test_decode.py::test_sequences_do_not_disturb_each_other",
        "lossless/test_batches.py::test_every_sequence_says_what_it_must",
        "engine/test_batch.py::test_a_sequence_can_be_cancelled_after_every_round",
    ),
    14: seen(
        "positions are off by one",
        "lossless/test_hash_target.py::test_tokens_and_accepted_lengths",
        "kernels/test_rope_append_kv.py::test_positions_are_not_slots",
        "test_cache.py::test_chain_stands_behind_the_live_slots",
    ),
    15: seen(
        "a node of a tree sees the wrong ancestors",
        "draft/test_tree.py::test_ancestors_are_a_nodes_path",
        "kernels/test_tree_attention.py::test_error_budget_of_trees",
        "kernels/test_tree_paths.py::test_a_node_has_the_bits_of_its_path",
        "lossless/test_trees.py::test_any_shape",
    ),
    16: seen(
        "one sequence of a batch gets a token of its own",
        "lossless/test_batches.py::test_every_sequence_says_what_it_must",
        "engine/test_batch.py::test_tokens_and_bits_are_those_of_decoding_alone",
        "engine/test_several.py::test_rows_of_transformers",
    ),
    17: seen(
        "drafts run over the end of the context",
        "engine/test_context_edge.py::test_prompts_that_nearly_fill_the_context",
        "engine/test_decode.py::test_the_whole_context_can_be_filled",
        "lossless/test_trees.py::test_the_whole_context_can_be_filled",
        "draft/test_branching.py::test_the_cache_has_room_for_a_tree_behind_the_last_token",
    ),
    18: seen(
        "more tokens than were asked for, or fewer",
        "engine/test_decode.py::test_exactly_as_many_tokens_as_asked_for",
        "lossless/test_hash_target.py::test_exactly_as_many_tokens_as_asked_for",
        "engine/test_llm.py::test_exactly_as_many_tokens_as_asked_for",
    ),
    19: seen(
        "tokens behind the end of a sequence are kept",
        "engine/test_decode.py::test_nothing_follows_an_end_of_sequence_token",
        "lossless/test_hash_target.py::test_an_end_of_sequence_token_inside_a_path",
        "sampling/test_mutants.py::test_mutants_are_killed[tokens behind the end]",
    ),
    20: seen(
        "an end that was only drafted ends the sequence",
        "engine/test_decode.py::test_only_the_targets_own_token_ends_a_sequence",
    ),
    21: seen(
        "a stop string cuts the text, but not the ids and their number",
        "engine/test_accounts.py::test_ids_stream_and_figures_end_together",
        "engine/test_stopping.py::test_stop_strings",
    ),
    22: seen(
        "accepted tokens behind the end are counted",
        "engine/test_accounts.py::test_ids_stream_and_figures_end_together",
        "engine/test_decode.py::test_nothing_follows_an_end_of_sequence_token",
        "engine/test_stats.py::test_counts_and_rates",
    ),
    23: seen(
        "least lengths and penalties count rounds instead of tokens",
        "sampling/test_generate.py::test_greedy_decoding_with_processors_is_transformers",
        "sampling/test_generate.py::test_processors_of_ones_own",
        "lossless/test_ten_ways.py::test_a_few_tokens",
    ),
    24: seen(
        "penalties see rejected drafts, or a token twice",
        "sampling/test_generate.py::test_greedy_decoding_with_processors_is_transformers",
        "sampling/test_mutants.py::test_mutants_are_killed[row of the parent]",
        "sampling/test_exact.py::test_the_law_is_the_targets",
        "lossless/test_ten_ways.py::test_a_few_tokens",
    ),
    25: seen(
        "an option has no effect where there are drafts",
        "engine/test_generation.py::test_fields_that_are_set_are_refused",
        "engine/test_generation.py::test_all_parameters_of_generate_are_known",
        "sampling/test_generate.py::test_greedy_decoding_with_processors_is_transformers",
    ),
    26: seen(
        "what a grammar forbids is looked up for another position",
        "sampling/test_generate.py::test_processors_of_ones_own",
    ),
    27: seen(
        "a seed has no effect, or two sequences share their numbers",
        "sampling/test_generate.py::test_a_seed_settles_everything",
        "sampling/test_generate.py::test_several_sequences",
        "sampling/test_source.py::test_a_number_is_a_function_of_its_place_and_seed",
        "sampling/test_accept.py::test_a_sequence_does_not_see_its_neighbours",
        "engine/test_several.py::test_drawn_rows_are_independent",
    ),
    28: seen(
        "the number that rejected a token draws the next one too",
        "sampling/test_source.py::test_no_two_places_share_a_number",
        "sampling/test_mutants.py::test_mutants_are_killed[residual by the accept number]",
        "sampling/test_mutants.py::test_mutants_are_killed[draft by the accept number]",
    ),
    29: seen(
        "every draft is accepted when sampling",
        "sampling/test_mutants.py::test_mutants_are_killed[accepts always]",
        "sampling/test_source.py::test_certain_acceptance",
        "sampling/test_chi_square.py::test_the_joint_law",
    ),
    30: seen(
        "one backend decodes greedily where it should draw",
        "sampling/test_corners.py::test_every_backend_draws_the_same_tokens",
        "sampling/test_three_tokens.py::test_the_law_of_three_tokens",
    ),
    31: seen(
        "drafts are drawn from a rounded row and judged by another",
        "sampling/test_mutants.py::test_mutants_are_killed[q a little off]",
        "sampling/test_exact.py::test_the_law_is_the_targets",
    ),
    32: seen(
        "the best draft is judged as if it had been drawn",
        "sampling/test_mutants.py::test_mutants_are_killed[chosen counts as half sure]",
        "sampling/test_accept.py::test_a_chosen_token_is_one_of_which_the_drafter_is_certain",
    ),
    33: seen(
        "temperature, top-k or top-p shape one side alone",
        "sampling/test_generate.py::test_every_row_is_shaped_as_in_transformers",
        "sampling/test_exact.py::test_the_law_is_the_targets",
    ),
    34: seen(
        "nothing is left of a row, or rounding is drawn from",
        "sampling/test_accept.py::test_nothing_is_drawn_from_a_residual_that_rounding_emptied",
        "sampling/test_accept.py::test_a_draft_that_is_the_target_is_kept",
        "sampling/test_source.py::test_draws_by_the_running_sum",
        "sampling/test_corners.py::test_a_large_vocabulary",
    ),
    35: seen(
        "logits that are no numbers become an ordinary token",
        "engine/test_not_finite.py::test_logits_that_are_no_numbers_are_an_error",
        "sampling/test_source.py::test_rows_that_are_no_distribution",
        "engine/test_not_finite.py::test_a_draft_that_is_no_number_changes_nothing",
    ),
    36: seen(
        "one slot is damaged when many sequences are sampled at once",
        "engine/test_several.py::test_requests_of_a_batch",
        "engine/test_several.py::test_drawn_rows_are_independent",
    ),
    37: cannot_be(
        "a block of a shared prefix needs the token behind it",
        "no prefix is shared: every sequence fills its own caches",
    ),
    38: seen(
        "streamed text has characters twice, or not at all",
        "engine/test_detokenize.py::test_pieces_make_the_text",
        "engine/test_detokenize.py::test_no_piece_holds_half_a_character",
        "engine/test_llm.py::test_what_is_streamed_is_what_is_returned",
        "engine/test_llm.py::test_text_streamers_of_transformers",
    ),
    39: cannot_be(
        "rounded keys and drafts go round in circles",
        "keys and values are kept in the dtype of the model, and no other; each dtype is in "
        "lossless/test_bits.py",
    ),
    40: seen(
        "weights that are missing are made up",
        "models/test_adapter_io.py::test_wrong_tensors",
        "models/test_published.py::test_wrong_tensors",
        "models/test_weights.py::test_wrong_tensors",
        "models/test_adapter_io.py::test_another_target",
    ),
    41: seen(
        "places of rows overflow 32 bits",
        "kernels/test_large_caches.py::test_results_do_not_depend_on_capacity",
    ),
    42: seen(
        "a draft is dropped for what it turned out to be",
        "sampling/test_mutants.py::test_mutants_are_killed[drops what is unsure]",
        "sampling/test_exact.py::test_stopping_by_the_drawn_tokens_own_probability",
        "engine/test_decode.py::test_the_unsure_token_is_kept_and_nothing_is_drafted_behind_it",
    ),
}
