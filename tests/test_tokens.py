import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interp.errors import PromptError
from interp.tokens import TokenBatch, Tokenization

FRANCE, COAST = "The capital of France is", "The capital of Ivory Coast is"


@pytest.fixture
def tokens(bpe_tokenizer):
    return Tokenization(bpe_tokenizer, n_vocab=len(bpe_tokenizer), n_ctx=64)


@pytest.fixture
def llama(llama_like_tokenizer):
    return Tokenization(llama_like_tokenizer, n_vocab=len(llama_like_tokenizer))


@pytest.fixture
def words(word_tokenizer):
    return Tokenization(word_tokenizer, n_vocab=len(word_tokenizer))


def left_padded():
    return TokenBatch(
        torch.tensor([[9, 9, 5, 6], [1, 2, 3, 4]]),
        torch.tensor([[False, False, True, True], [True] * 4]),
    )


# --- TokenBatch


def test_positions_count_real_tokens_from_either_end():
    batch = left_padded()
    assert batch.padded
    assert len(batch) == 2
    assert batch.n_real.tolist() == [2, 4]
    assert batch.first.tolist() == [2, 0]
    assert batch.column(1).tolist() == [3, 1]
    assert batch.column(-2).tolist() == [2, 2]
    assert batch.column(torch.tensor([0, 3])).tolist() == [2, 3]


def test_position_ids_start_at_the_first_real_token():
    assert left_padded().position_ids().tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]


def test_rows_keep_the_batch_axis_and_the_width():
    batch = left_padded()
    assert batch.rows(0).ids.tolist() == [[9, 9, 5, 6]]
    assert batch.rows(slice(1, 2)).ids.tolist() == [[1, 2, 3, 4]]
    assert batch.rows([1, 0]).n_real.tolist() == [4, 2]


def test_repr_is_short():
    assert repr(left_padded()) == "TokenBatch(2 × 4 tokens, padded)"


@pytest.mark.parametrize("position", [2, -3])
def test_position_outside_a_prompt_is_refused(position):
    with pytest.raises(PromptError, match=r"outside prompt 0, which has 2 tokens: expected -2 to"):
        left_padded().column(position)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[True, False, True]], r"prompt 0 has mask \[1, 0, 1\], expected one unbroken run"),
        ([[False, True, False]], "padding on one side only"),
        ([[False, False, False]], "expected one unbroken run of real tokens"),
        ([[True, True]], r"the mask is torch.bool \[1, 2\], expected torch.bool \[1, 3\]"),
    ],
)
@pytest.mark.bad_input
def test_bad_mask_is_refused(mask, message):
    with pytest.raises(PromptError, match=message):
        TokenBatch(torch.zeros(1, 3, dtype=torch.long), torch.tensor(mask))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(0, 3, dtype=torch.long), r"shape \[0, 3\], expected a non-empty"),
        (torch.zeros(1, 1, 3, dtype=torch.long), r"shape \[1, 1, 3\]"),
        (torch.zeros(1, 3), "dtype torch.float32, expected integers"),
    ],
)
@pytest.mark.bad_input
def test_bad_ids_are_refused(ids, message):
    with pytest.raises(PromptError, match=message):
        TokenBatch.of(ids)


# --- BOS


def test_bos_is_prepended_where_the_tokenizer_would_not(tokens):
    bos = tokens.bos_id
    assert tokens.to_tokens("The capital")[0].tolist().count(bos) == 1
    assert tokens.to_tokens("The capital")[0, 0] == bos
    assert bos not in tokens.to_tokens("The capital", bos=False)


def test_bos_is_never_doubled(tokens, llama):
    for each, text in ((tokens, "<|endoftext|>The capital"), (llama, "<s>The capital")):
        for bos in (None, True):
            assert each.to_tokens(text, bos=bos)[0].tolist().count(each.bos_id) == 1
    assert llama.to_tokens("The capital")[0].tolist().count(llama.bos_id) == 1
    assert llama.bos_id not in llama.to_tokens("The capital", bos=False)


def test_no_bos_token_means_none_and_no_error(words):
    assert words.bos_id is None
    assert words.to_str_tokens(FRANCE) == FRANCE.split()
    with pytest.raises(PromptError, match=r"bos=True, but .* has no BOS token"):
        words.encode(FRANCE, bos=True)


# --- padding, chat, length


@pytest.mark.parametrize("pad", ["right", "left"])
def test_padding_is_on_the_side_asked_for(tokens, pad):
    batch = tokens.encode([FRANCE, COAST], pad=pad)
    short, long = batch.n_real.tolist()
    assert short < long == batch.ids.shape[1]
    assert batch.first.tolist() == [0 if pad == "right" else long - short, 0]
    for row, text in enumerate([FRANCE, COAST]):
        assert batch.ids[row][batch.mask[row]].tolist() == tokens.to_tokens(text)[0].tolist()


def test_tokenizer_keeps_its_settings(llama_like_tokenizer):
    def settings():
        return (
            llama_like_tokenizer.padding_side,
            llama_like_tokenizer.pad_token,
            llama_like_tokenizer.backend_tokenizer.to_str(),
        )

    before = settings()
    tokens = Tokenization(llama_like_tokenizer, n_vocab=len(llama_like_tokenizer))
    tokens.encode([FRANCE, COAST], pad="right")
    tokens.encode(FRANCE, chat=True)
    tokens.span_columns(FRANCE, (15, 21))
    assert settings() == before


def test_rows_are_encoded_as_one_by_one_at_any_length(tokens, words):
    texts = [FRANCE, "", COAST * 20]
    rows = tokens.encode_rows(texts)
    assert rows[0] == tokens.encode(FRANCE).ids[0].tolist()
    assert rows[1] == []
    assert len(rows[2]) > tokens.n_ctx
    assert tokens.encode_rows(texts[:1], bos=False) == [rows[0][1:]]
    assert words.encode_rows([FRANCE]) == words.encode(FRANCE).ids.tolist()
    with pytest.raises(PromptError, match="bos=True, but .* has no BOS token"):
        words.encode_rows([FRANCE], bos=True)


def test_an_unknown_word_in_a_long_text_is_shown_with_what_stands_before_it(words):
    with pytest.raises(PromptError, match="not in the vocabulary, after") as caught:
        words.encode_rows([f"{FRANCE} " * 500 + "Rome"])
    assert len(str(caught.value)) < 600


def test_chat_template_only_when_asked_and_bos_once(llama, tokens):
    ids = llama.encode(FRANCE, chat=True).ids[0].tolist()
    assert llama.to_string(ids) == f"<s>[user] {FRANCE}"
    assert llama.encode(FRANCE, chat=True, bos=True).ids[0].tolist() == ids
    with pytest.raises(PromptError, match="has no chat template"):
        tokens.encode(FRANCE, chat=True)


def test_too_long_is_refused_not_truncated(bpe_tokenizer):
    tokens = Tokenization(bpe_tokenizer, n_vocab=len(bpe_tokenizer), n_ctx=4)
    n = Tokenization(bpe_tokenizer, n_vocab=len(bpe_tokenizer)).encode(FRANCE).ids.shape[1]
    with pytest.raises(
        PromptError, match=rf"prompt 0 has {n} tokens, but the model's context is 4"
    ):
        tokens.encode(FRANCE)


@pytest.mark.parametrize("text", ["", [], ["The", ""], [3]])
@pytest.mark.bad_input
def test_empty_text_is_refused(tokens, text):
    with pytest.raises(PromptError, match="expected one or more non-empty strings"):
        tokens.encode(text)


def test_text_without_tokens_is_refused(words):
    with pytest.raises(PromptError, match="prompt 1 has no tokens"):
        words.encode([FRANCE, "  "])


@pytest.mark.bad_input
def test_bad_padding_side_is_refused(tokens):
    with pytest.raises(PromptError, match="pad='centre', expected 'right' or 'left'"):
        tokens.encode(FRANCE, pad="centre")


def test_unknown_word_is_refused(words):
    with pytest.raises(PromptError, match=r"not in the vocabulary, after \['The', 'capital', 'of'"):
        words.encode("The capital of Narnia is")
    assert words.encode("The capital of <unk> is").ids.shape == (1, 5)


def test_lengths_that_differ_need_a_mask(tokens):
    with pytest.raises(PromptError, match=r"expected one length for a plain tensor. Use encode"):
        tokens.to_tokens([FRANCE, COAST])


def test_token_tensors_are_taken_as_they_are(tokens):
    ids = torch.tensor([5, 6])
    assert tokens.take(ids).ids.tolist() == [[5, 6]]
    with pytest.raises(PromptError, match="token id 99999 is outside the vocabulary"):
        tokens.take(torch.tensor([[5, 99999]]))


# --- there and back


def test_string_tokens_show_leading_spaces_and_join_to_the_text(tokens):
    pieces = tokens.to_str_tokens(FRANCE)
    assert pieces[0] == "<|endoftext|>"
    assert " France" in pieces
    assert "".join(pieces[1:]) == FRANCE
    assert tokens.to_str_tokens(tokens.to_tokens(FRANCE)[0]) == pieces
    assert tokens.to_string(tokens.to_tokens(FRANCE, bos=False)[0]) == FRANCE


def test_ids_beyond_the_tokenizer_have_a_name(bpe_tokenizer):
    tokens = Tokenization(bpe_tokenizer, n_vocab=len(bpe_tokenizer) + 8)
    assert tokens.to_str_tokens([len(bpe_tokenizer)]) == [f"<{len(bpe_tokenizer)}>"]


@pytest.mark.bad_input
def test_rows_of_ids_are_asked_for_one_by_one(tokens):
    with pytest.raises(PromptError, match=r"ids have shape \[1, 2\], expected one row"):
        tokens.to_string(torch.tensor([[1, 2]]))


def test_single_token(tokens, words):
    assert tokens.to_string([tokens.to_single_token(" Paris")]) == " Paris"
    with pytest.raises(PromptError, match=r"'Paris' is \d tokens .*Try ' Paris', which is one"):
        tokens.to_single_token("Paris")
    with pytest.raises(PromptError, match=r"expected exactly one. Choose a word that is one token"):
        tokens.to_single_token(" Antananarivo")
    with pytest.raises(PromptError, match="not in the vocabulary"):
        words.to_single_token("Narnia")


def test_single_token_is_the_one_that_continues_the_prompt():
    """SentencePiece puts a space before a text that has one already; a sentence has but one."""
    vocabulary = {piece: i for i, piece in enumerate(["<unk>", "▁", "▁is", "▁Paris"])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    tokens = Tokenization(tokenizer, n_vocab=4)
    assert tokens.to_single_token(" Paris", after="is") == 3
    assert tokens.to_single_tokens([" Paris", " is"], after="is") == [3, 2]
    with pytest.raises(PromptError, match="Try 'Paris', which is one"):
        tokens.to_single_token(" Paris")


@pytest.mark.parametrize("bos", [None, False])
def test_span_covers_the_tokens_of_its_characters(tokens, bos):
    start = COAST.index("Ivory")
    columns = tokens.span_columns(COAST, (start, start + len("Ivory Coast")), bos=bos)
    pieces = tokens.to_str_tokens(COAST, bos=bos)
    assert "".join(pieces[i] for i in columns).strip() == "Ivory Coast"


def test_span_outside_the_text_is_refused(tokens):
    with pytest.raises(PromptError, match="cover no token, expected a span inside 0 to"):
        tokens.span_columns(FRANCE, (20, 400))


def test_without_a_tokenizer_text_is_refused_and_ids_work():
    tokens = Tokenization(None, n_vocab=10)
    assert tokens.take(torch.tensor([1, 2])).n_real.tolist() == [2]
    assert tokens.bos_id is None
    assert not tokens.special_ids
    for call in (tokens.encode, tokens.to_tokens, tokens.to_str_tokens, tokens.to_single_token):
        with pytest.raises(PromptError, match=r"loaded without one. Pass interp.load"):
            call("text")
    with pytest.raises(PromptError, match="needs a tokenizer"):
        tokens.to_string([1])


@pytest.mark.bad_input
def test_ids_may_come_in_any_form(tokens):
    import numpy as np

    expected = torch.tensor([[5, 6, 7]])
    for given in (expected, expected[0], [5, 6, 7], (5, 6, 7), [[5, 6, 7]], np.array([5, 6, 7]),
                  [torch.tensor([5, 6, 7])], [np.int64(5), 6, 7]):  # fmt: skip
        assert torch.equal(tokens.take(given).ids, expected)
    uneven = tokens.take([[5, 6, 7], [8]], pad="left")
    assert uneven.ids[:, -1].tolist() == [7, 8]
    assert uneven.n_real.tolist() == [3, 1]


@pytest.mark.bad_input
@pytest.mark.parametrize("given", [None, 3, {"text": "The"}, 2.5])
def test_what_is_no_input_is_refused_in_words(tokens, given):
    with pytest.raises(PromptError, match="expected a text, a list of texts, token ids"):
        tokens.take(given)
