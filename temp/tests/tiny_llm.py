"""A real language model server for tests: llama.cpp's OpenAI-compatible HTTP server (xllamacpp) on the loopback, with a model made here.

The model is a chain of words over a few sentences, written as weights: nothing is trained and nothing is downloaded. It answers with
one of SENTENCES. Run as a program it serves until its standard input is closed, and prints its address.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np

MODEL = "tiny-chain"
SENTENCES = (
    "Hello , I am your tutor . Let us look at this problem together . First we write down what we know .",
    "Good question ! The answer is four , because two and two make four . Do you want another example ?",
    "你好 ， 我 是 你 的 老师 。 今天 我们 学习 加法 。 二 加 二 等于 四 。 你 明白 了 吗 ？",
)
_EACH_MESSAGE = "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}"
CHAT_TEMPLATE = _EACH_MESSAGE + "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
WIDTH, HEADS = 256, 4

_NO_SPACE_BEFORE = re.compile(r"[\u3000-\u9fff\uff00-\uffef]|[.,!?;:]$")


class Vocabulary:
    """Control tokens, the 256 bytes, then the words of SENTENCES."""

    def __init__(self) -> None:
        kind = gguf.TokenType
        words = sorted({word for sentence in SENTENCES for word in sentence.split()})
        control = ["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
        self.tokens = ["<unk>", *control, *(f"<0x{byte:02X}>" for byte in range(256)), *map(_piece, words)]
        self.types = [int(kind.UNKNOWN), *[int(kind.CONTROL)] * len(control), *[int(kind.BYTE)] * 256, *[int(kind.NORMAL)] * len(words)]
        self.ids = {word: len(self.tokens) - len(words) + number for number, word in enumerate(words)}

    def chains(self) -> list[list[int]]:
        """Token ids of every sentence, from the assistant's mark to the end of the answer."""
        first, last = self.tokens.index("<|assistant|>"), self.tokens.index("</s>")
        return [[first, *(self.ids[word] for word in sentence.split()), last] for sentence in SENTENCES]


def _piece(word: str) -> str:
    """A word as SentencePiece writes it: with the space before it, if there is one."""
    return word if _NO_SPACE_BEFORE.match(word) else f"\u2581{word}"


def write_model(path: Path) -> None:
    """Write a GGUF file whose next-token scores follow the word pairs of SENTENCES; 2 MB."""
    vocabulary = Vocabulary()
    random = np.random.default_rng(7)
    size = len(vocabulary.tokens)
    embedding = random.standard_normal((size, WIDTH)).astype(np.float32)
    embedding /= np.sqrt((embedding**2).mean(axis=1, keepdims=True))  # what RMS normalisation leaves unchanged
    output = np.zeros((size, WIDTH), np.float32)
    pairs = [pair for chain in vocabulary.chains() for pair in pairwise(chain)]
    for before, after in set(pairs):
        output[after] += embedding[before] * (12.0 + np.log(pairs.count((before, after)))) / WIDTH
    writer = gguf.GGUFWriter(path, "llama")
    _write_header(writer, vocabulary)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    _write_idle_layer(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_header(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_name(MODEL)
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_file_type(int(gguf.LlamaFileType.ALL_F32))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token.encode() for token in vocabulary.tokens])
    writer.add_token_scores([-float(number) for number in range(len(vocabulary.tokens))])
    writer.add_token_types(vocabulary.types)
    writer.add_bos_token_id(vocabulary.tokens.index("<s>"))
    writer.add_eos_token_id(vocabulary.tokens.index("</s>"))
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _write_idle_layer(writer: gguf.GGUFWriter) -> None:
    """The one transformer block that llama.cpp insists on: its outputs are zero, so that the residual passes unchanged."""
    zeros, ones = np.zeros((WIDTH, WIDTH), np.float32), np.ones(WIDTH, np.float32)
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", ones)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", zeros)


@contextmanager
def tiny_llm(folder: Path) -> Iterator[str]:
    """The server in a process of its own, ready to answer; yields OPENAI_BASE_URL. The model is written into `folder`."""
    path = folder / f"{MODEL}.gguf"
    write_model(path)
    command = [sys.executable, __file__, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = next((line.split()[1] for line in process.stdout if line.startswith("LISTENING")), None)
            assert address is not None, "the language model server did not start"
            yield f"{address}/v1"
        finally:
            process.stdin.close()
            process.wait(timeout=20)


def main() -> None:
    import xllamacpp  # type: ignore[import-untyped] # native code: only in the process that serves

    parser = argparse.ArgumentParser(description="Serve a tiny model until standard input is closed.")
    parser.add_argument("model")
    params = xllamacpp.CommonParams()
    params.model.path = parser.parse_args().model
    params.model_alias = {MODEL}
    params.n_ctx, params.n_parallel, params.n_predict = 2048, 2, 64
    params.warmup = False
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    server = xllamacpp.Server(params)
    print("LISTENING", server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
