"""What every test can have without a network: small tokenizers, one thread."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

torch.set_num_threads(1)  # the models are tiny, and one thread gives the same bits everywhere

SENTENCES = [
    "The capital of France is Paris",
    "The capital of Japan is Tokyo",
    "The capital of Peru is Lima",
    "When Mary and John went to the store, John gave a book to Mary",
]


@pytest.fixture(scope="session")
def bpe_tokenizer():
    """Byte-level BPE as GPT-2's: ``<|endoftext|>`` is BOS, EOS and unk, and is not added by it.

    "France", "Paris", "Tokyo"… are one token with their space; "Coast" and others are many.
    """
    return _bpe()


@pytest.fixture(scope="session")
def llama_like_tokenizer():
    """A BPE that adds its own BOS, pads on the left and has a chat template, as Llama's."""
    core = _bpe().backend_tokenizer
    core.add_special_tokens(["<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    template = "<s>{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
        chat_template=template,
    )


@pytest.fixture(scope="session")
def word_tokenizer():
    """One token per word, split at spaces; no BOS, and ``<unk>`` for all it has not seen."""
    words = sorted({word for text in SENTENCES for word in text.replace(",", " ,").split()})
    vocabulary = {word: index for index, word in enumerate(["<unk>", *words])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def _bpe() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(SENTENCES * 5, trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=end, eos_token=end, unk_token=end, model_max_length=8
    )
