"""llama.cpp's own server around a vision model of random weights: real HTTP, real picture decoding, enforced schemas.

The model knows nothing. Its weights are random but for a leaning from each byte to the next that keeps what it writes
short: strings and lists end early, and numbers begin with ``0.1`` or ``0.2``, so that seven of them are a distribution.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import numpy as np

WIDTH = 64
LAYERS = HEADS = 1  # more would only make it slower
CONTEXT = 32_768
PICTURE_SIDE = 224
PATCH_SIDE = 28
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# After one of these bytes, one of those is likely if the grammar allows it. The first rule that names a byte counts.
LEANINGS = [
    ('"', "abcdefghijklmnopqrstuvwxyz"),
    (": ", '0"[{'),
    ("0", "."),
    (".", "12"),
    ("123456789", ",}]"),
    ("[", "]"),
    ("", '"'),
]
MODEL = "openai/random-vision"


def missing_wheels() -> str | None:
    """Why the server cannot run here, for a test to skip with, or None."""
    missing = [name for name in ("xllamacpp", "gguf") if importlib.util.find_spec(name) is None]
    return f"no wheel of {' and '.join(missing)} is installed" if missing else None


class LlamaServer:
    """A running server, in a process of its own, with one thread.

    Args:
        folder: where the model's two files are written.

    Attributes:
        url: the base URL for OpenAI's format.
        key: the only key that is accepted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = f"sk-llama-{secrets.token_hex(8)}"
        self.url = ""

    @property
    def env(self) -> dict[str, str]:
        """The environment variables with which LiteLLM finds the server as ``MODEL``."""
        return {"OPENAI_API_BASE": self.url, "OPENAI_API_KEY": self.key}

    def __enter__(self) -> Self:
        language, vision = self.folder / "language.gguf", self.folder / "vision.gguf"
        write_language_model(language)
        write_vision_model(vision)
        command = [sys.executable, __file__, str(language), str(vision)]
        environment = os.environ | {"LLAMA_TEST_KEY": self.key}
        log = (self.folder / "server.log").open("w")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        log.close()
        for line in self._process.stdout:
            if line.startswith("listening on "):
                self.url = line.removeprefix("listening on ").strip() + "/v1"
                return self
        raise RuntimeError(f"the server ended with status {self._process.wait()}; see {log.name}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._process.stdout.close()


def write_language_model(path: Path) -> None:
    """Write a byte-level Llama of one layer in the GGUF format, about 0.5 MB."""
    import gguf

    tokens = SPECIAL_TOKENS + _byte_characters() + ["th"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random-vision")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    normal = len(tokens) - len(SPECIAL_TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(SPECIAL_TOKENS) + [gguf.TokenType.NORMAL] * normal)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(tokens.index("<|im_start|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    _write(writer, _language_tensors(tokens))


def _byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes, in the order of the bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_ins = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(stand_ins)) for byte in range(256)]


def _language_tensors(tokens: list[str]) -> dict[str, np.ndarray]:
    source = np.random.default_rng(0)

    def normal(*shape: int, scale: float) -> np.ndarray:
        return source.normal(0.0, scale, shape).astype(np.float32)

    embedding, output = normal(len(tokens), WIDTH, scale=0.5), normal(len(tokens), WIDTH, scale=0.15)
    rules = len(LEANINGS)
    embedding[:, :rules] = output[:, :rules] = 0.0  # one dimension a rule: the last byte sets it, the output reads it
    for token, text in enumerate(tokens):
        before = " " if text == "Ġ" else text
        rule = next(rule for rule, (befores, _) in enumerate(LEANINGS) if before in befores or not befores)
        if before in '".':  # where there is a choice, what was read before decides: the picture and the text
            embedding[token] = 0.0
        embedding[token, rule] = 4.0
    for rule, (_, likely) in enumerate(LEANINGS):
        output[[tokens.index(character) for character in likely], rule] = 8.0
    block = {f"attn_{name}": normal(WIDTH, WIDTH, scale=0.2) for name in ("q", "k", "v", "output")}
    # Bytes, which all have a rule, are paid less attention than the picture, lest a long prompt drown it. The last
    # dimension is the one that rotary positions turn least.
    block["attn_q"][-1, :rules], block["attn_k"][-1, :rules] = 1.2, -1.2
    block |= {name: normal(2 * WIDTH, WIDTH, scale=0.05) for name in ("ffn_gate", "ffn_up")}
    block |= {"ffn_down": normal(WIDTH, 2 * WIDTH, scale=0.05)}
    block["attn_output"][:rules] = block["ffn_down"][:rules] = 0.0  # nothing else writes where the rules are kept
    block |= {name: np.ones(WIDTH, np.float32) for name in ("attn_norm", "ffn_norm")}
    tensors = {"token_embd": embedding, "output": output, "output_norm": np.ones(WIDTH, np.float32)}
    tensors |= {f"blk.0.{name}": tensor for name, tensor in block.items()}
    return {f"{name}.weight": tensor for name, tensor in tensors.items()}


def write_vision_model(path: Path) -> None:
    """Write a SigLIP encoder of one layer with Gemma 3's projector into the language model, in the GGUF format."""
    import gguf

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_string("general.type", "mmproj")
    writer.add_name("random-vision")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("gemma3")
    writer.add_vision_image_size(PICTURE_SIDE)
    writer.add_vision_patch_size(PATCH_SIDE)
    writer.add_vision_embedding_length(WIDTH)
    writer.add_vision_feed_forward_length(4 * WIDTH)
    writer.add_vision_block_count(LAYERS)
    writer.add_vision_head_count(HEADS)
    writer.add_vision_projection_dim(WIDTH)
    writer.add_vision_projector_scale_factor(2)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    writer.add_vision_use_gelu(True)
    _write(writer, _vision_tensors())


def _vision_tensors() -> dict[str, np.ndarray]:
    source = np.random.default_rng(1)

    def normal(*shape: int, scale: float = WIDTH**-0.5) -> np.ndarray:
        return source.normal(0.0, scale, shape).astype(np.float32)

    tensors = {
        "v.patch_embd.weight": normal(WIDTH, 3, PATCH_SIDE, PATCH_SIDE, scale=0.02),
        "v.patch_embd.bias": np.zeros(WIDTH, np.float32),
        "v.position_embd.weight": normal((PICTURE_SIDE // PATCH_SIDE) ** 2, WIDTH, scale=0.02),
        "mm.soft_emb_norm.weight": np.ones(WIDTH, np.float32),
        "mm.input_projection.weight": normal(WIDTH, WIDTH),
    }
    shapes = {name: (WIDTH, WIDTH) for name in ("attn_q", "attn_k", "attn_v", "attn_out")}
    shapes |= {"ffn_up": (4 * WIDTH, WIDTH), "ffn_down": (WIDTH, 4 * WIDTH)}
    for name, shape in shapes.items():
        tensors[f"v.blk.0.{name}.weight"] = normal(*shape)
        tensors[f"v.blk.0.{name}.bias"] = np.zeros(shape[0], np.float32)
    for name in ("v.blk.0.ln1", "v.blk.0.ln2", "v.post_ln"):
        tensors[f"{name}.weight"] = np.ones(WIDTH, np.float32)
        tensors[f"{name}.bias"] = np.zeros(WIDTH, np.float32)
    return tensors


def _write(writer, tensors: dict[str, np.ndarray]) -> None:
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _serve(language: str, vision: str) -> None:
    """Serve two model files until the process is ended."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path, settings.mmproj.path = language, vision
    settings.model_alias = {MODEL.removeprefix("openai/")}
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    settings.api_keys = [os.environ["LLAMA_TEST_KEY"]]
    settings.n_ctx, settings.n_parallel = CONTEXT, 2
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1  # more only wait for each other
    server = xllamacpp.Server(settings)
    print("listening on", server.listening_address, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
