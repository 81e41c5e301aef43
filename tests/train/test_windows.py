"""What is trained stands one slot before what is answered; nothing held out is trained on."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kangaroo.train.documents import DataError, Document
from kangaroo.train.windows import Windows, WindowSet, split_documents

BOS, EOS = 1, 2
documents_of = st.lists(
    st.lists(st.integers(3, 60), min_size=1, max_size=40), min_size=2, max_size=12
)


def text(*tokens: int) -> Document:
    return Document(torch.tensor([BOS, *tokens, EOS]))


def chat(tokens: list[int], answer: list[int]) -> Document:
    return Document(torch.tensor(tokens), torch.tensor(answer, dtype=torch.bool))


def test_loss_falls_on_the_slot_before_an_answer() -> None:
    document = chat([BOS, 10, 11, 12, 13, 14, 15, EOS], [0, 0, 0, 1, 1, 0, 1, 1])
    windows = WindowSet([document], 10, BOS, [EOS]).evenly()
    assert windows.ids.tolist() == [[BOS, 10, 11, 12, 13, 14, 15, EOS, 0, 0]]
    guessed = windows.ids[:, 1:][windows.mask[:, :-1]]
    assert guessed.tolist() == [12, 13, 15, EOS]


def test_an_answer_across_two_windows_loses_no_slot() -> None:
    tokens = [BOS, *range(10, 19)]
    windows = WindowSet([chat(tokens, [0, 0, 1, 1, 1, 1, 1, 1, 1, 1])], 4, BOS, [EOS]).evenly()
    assert windows.ids.tolist() == [[BOS, 10, 11, 12], [BOS, 14, 15, 16], [BOS, 18, 0, 0]]
    assert windows.mask.tolist() == [[False, True, True, True], [True] * 4, [True] + [False] * 3]


def test_a_conversation_without_bos_keeps_every_token() -> None:
    long, short = [*range(10, 17)], [3, 50, 51]
    chats = [chat(long, [0, 1, 1, 1, 1, 1, 1]), chat(short, [0, 0, 1])]
    windows = WindowSet([text(20, 21, 22, 23), *chats], 4, BOS, [EOS]).evenly()
    assert windows.ids.tolist() == [[BOS, 20, 21, 22], long[:4], [*long[4:], 0], [*short, 0]]
    assert (windows.positions[:, 0] == 0).all()


def test_short_conversations_share_a_window() -> None:
    chats = [chat([BOS, *range(10, 10 + n), EOS], [0, *[1] * n, 1]) for n in (3, 1, 6, 2, 0)]
    windows = WindowSet(chats, 10, BOS, [EOS]).evenly()
    assert windows.ids.tolist() == [
        [BOS, 10, 11, 12, EOS, BOS, 10, 11, EOS, 0],
        [BOS, 10, EOS, 0, 0, 0, 0, 0, 0, 0],
        [BOS, 10, 11, 12, 13, 14, 15, EOS, BOS, EOS],
    ]
    assert windows.positions.tolist() == [
        [0, 1, 2, 3, 4, 0, 1, 2, 3, 0],
        [0, 1, 2, 0, 1, 2, 3, 4, 5, 6],
        [0, 1, 2, 3, 4, 5, 6, 7, 0, 1],
    ]
    assert windows.mask.tolist() == [
        [True] * 4 + [False] + [True] * 3 + [False] * 2,
        [True, True] + [False] * 8,
        [True] * 7 + [False, True, False],
    ]


def pieces_of(windows: Windows) -> list[list[int]]:
    """The tokens of every document, or part of one, that has a trained slot."""
    pieces = []
    for ids, mask, positions in zip(windows.ids, windows.mask, windows.positions, strict=True):
        begins = [*(positions == 0).nonzero().flatten().tolist(), len(ids)]
        for start, stop in pairwise(begins):
            assert positions[start:stop].tolist() == list(range(stop - start))
            if mask[start:stop].any():
                pieces.append(ids[start:stop].tolist())
    return pieces


@given(documents_of, st.integers(2, 30))
def test_packing_keeps_every_conversation_once_and_wastes_little(
    lists: list[list[int]], seq_len: int
) -> None:
    chats = [chat([BOS, *tokens], [0] + [1] * len(tokens)) for tokens in lists]
    windows = WindowSet(chats, seq_len, BOS, [EOS]).evenly()
    parts = [c.ids[s : s + seq_len].tolist() for c in chats for s in range(0, len(c.ids), seq_len)]
    # The last part may be one token, which stands in front of nothing.
    expected = [[BOS, *part[1:]] for part in parts if len(part) > 1]
    assert sorted(pieces_of(windows)) == sorted(expected)
    lengths = [len(part) for part in expected]
    assert len(windows) <= max(2 * sum(lengths) / seq_len, 1)


def test_texts_of_a_window_are_documents_apart() -> None:
    windows = WindowSet([text(10, 11), text(12, 13), text(14, 15)], 6, BOS, [EOS])
    assert windows.evenly().ids.tolist() == [[BOS, 10, 11, EOS, BOS, 12]]
    assert windows.evenly().positions.tolist() == [[0, 1, 2, 3, 0, 1]]
    cut = windows.sample(0, 20)
    assert (cut.positions[:, 0] == 0).all()
    # But for where the window begins, a document begins at its own first token.
    assert torch.equal(cut.ids[:, 1:] == BOS, cut.positions[:, 1:] == 0)
    assert len(cut.ids[:, 1].unique()) > 2


def test_nothing_is_trained_behind_an_end_token() -> None:
    stream = WindowSet([text(10, 11), text(12, 13, 14)], 9, BOS, [EOS]).evenly()
    ends = stream.ids == EOS
    assert ends.sum() == 2
    assert not stream.mask[ends].any()
    assert stream.mask[~ends].all()


@given(documents_of, st.integers(2, 9))
def test_windows_begin_with_bos_and_continue_the_stream(
    lists: list[list[int]], seq_len: int
) -> None:
    windows = WindowSet([text(*tokens) for tokens in lists], seq_len, BOS, [EOS])
    stream = [token for tokens in lists for token in (BOS, *tokens, EOS)]
    rows = windows.evenly().ids
    assert (rows[:, 0] == BOS).all()
    if len(stream) >= seq_len:
        for number, row in enumerate(rows.tolist()):
            assert row[1:] == stream[number * seq_len + 1 : (number + 1) * seq_len]


def test_an_epoch_shows_every_window_once_and_the_next_is_cut_anew() -> None:
    texts, chats = [text(*range(10, 200))], [chat([BOS, n, n, EOS], [0, 0, 1, 1]) for n in (7, 8)]
    windows = WindowSet([*texts, *chats], 10, BOS, [EOS], seed=3)
    size = len(windows)
    epochs = [windows.sample(number * size, size).ids[:, 1] for number in range(2)]
    for second_tokens in epochs:
        assert len(set(second_tokens.tolist())) == size
    assert epochs[0].tolist() != epochs[1].tolist()
    assert set(epochs[0].tolist()) != set(epochs[1].tolist())


def test_samples_depend_on_seed_and_number_alone() -> None:
    documents = [text(*range(10, 90))]
    one, same, other = (WindowSet(documents, 8, BOS, [EOS], seed=seed) for seed in (0, 0, 1))
    for numbers in [(3, 40), (0, 3), (43, 5)]:
        one.sample(*numbers)
    whole = same.sample(0, 48).ids
    parts = torch.cat([same.sample(*numbers).ids for numbers in [(0, 3), (3, 40), (43, 5)]])
    assert torch.equal(whole, parts)
    assert torch.equal(whole, one.sample(0, 48).ids)
    assert not torch.equal(whole, other.sample(0, 48).ids)


def test_without_a_first_token_windows_are_untouched() -> None:
    rows = WindowSet([text(*range(10, 30))], 5, None, [EOS]).evenly().ids
    assert rows.flatten().tolist() == [BOS, *range(10, 30), EOS][: rows.numel()]


def test_short_data_is_padded_and_empty_data_refused() -> None:
    windows = WindowSet([text(10)], 6, BOS, [EOS]).evenly()
    assert windows.ids.tolist() == [[BOS, 10, EOS, 0, 0, 0]]
    assert windows.mask.tolist() == [[True, True, False, False, False, False]]
    with pytest.raises(DataError, match="all are masked out"):
        WindowSet([chat([BOS, 10, 11], [0, 0, 0])], 6, BOS, [EOS])


def tokens_of(documents: list[Document]) -> list[list[int]]:
    return [document.ids.tolist() for document in documents]


@given(documents_of, st.sampled_from([0.01, 0.3, 0.99]))
def test_split_by_document(lists: list[list[int]], fraction: float) -> None:
    documents = [text(*tokens) for tokens in lists]
    if len({tuple(tokens) for tokens in lists}) == 1:
        with pytest.raises(DataError, match="differ"):
            split_documents(documents, fraction)
        return
    train, held = (tokens_of(part) for part in split_documents(documents, fraction))
    assert train
    assert held
    assert sorted(train + held) == sorted(tokens_of(documents))
    assert not [tokens for tokens in held if tokens in train]
    again = split_documents(documents[::-1], fraction)
    assert sorted(tokens_of(again[1])) == sorted(held)


def test_the_split_follows_the_fraction() -> None:
    documents = [text(n % 50, n // 50) for n in range(1000)]
    _, held = split_documents(documents, 0.2)
    assert 150 < len(held) < 250


def test_a_single_document_is_split_by_position() -> None:
    (train,), (held,) = split_documents([text(*range(10, 108))], 0.2)
    assert len(train.ids) == 80
    assert torch.cat([train.ids, held.ids]).tolist() == [BOS, *range(10, 108), EOS]
