"""Text from a language model: its weights become a graph, the graph runs in ONNX Runtime with its own tokenizer and chat template, token by token."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.artifact import Artifact
from isomorph.errors import Missing, TimedOut, Unsupported, Usage
from isomorph.formats import _table
from isomorph.model import Checkpoint, Model
from isomorph.report import Finding

if TYPE_CHECKING:
    import numpy as np

    from isomorph.runtime import Session

KEY = "tokenizer.ggml."
TEMPLATE_SECONDS = 10
CLS = 2                                    # pooling_type: the first token stands for all (llama.cpp, include/llama.h)
REPLACEMENT = "\ufffd"                     # what bytes decode to that are not yet a whole letter
# Words that end an answer, beside the one that the file names (llama.cpp, src/llama-vocab.cpp)
ENDS = frozenset({"<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<EOT>", "<eos>", "</s>"})


@dataclass
class Generation:
    """A language model that is ready to answer. Use as a context manager; `findings` is what is worth knowing about how it was read."""

    source: Any
    threads: int = 0
    timeout: float = 300.0
    findings: list[Finding] = field(default_factory=list)
    rounded: bool = False                   # in ONNX Runtime: whether blocks are multiplied with rounded numbers (see architectures.activations)
    read: list[int] = field(default_factory=list)       # what a network that translates reads
    runtime: str = ""                       # "onnxruntime" or "llama"; by itself llama.cpp for a GGUF file, where it is installed

    def prepare(self) -> Model:
        """Reads keys and tokenizer, and answers the graph of the weights. Raises `Unsupported` for what holds no weights of a language model."""
        from isomorph.architectures import networks
        return networks.graph(self._read()[0], rounded=self.rounded)

    def _read(self) -> tuple[Checkpoint, str]:
        """The weights under GGUF's names and the format of the file; keys and tokenizer are there then."""
        from isomorph import architectures
        from isomorph.architectures import layers, networks, translator
        artifact = Artifact.open(self.source)
        form = _table.get(_table.identify(artifact).format)
        content = form.read(artifact) if form.read is not None else None
        if not isinstance(content, Checkpoint):
            raise Unsupported("the file holds no weights of a language model", where=artifact.where,
                              hint="text is generated from GGUF and Hugging Face weights")
        self.artifact = artifact
        named = architectures.under_gguf_names(content, artifact, form.name)
        self.keys: Mapping[str, Any] = named.metadata
        networks.builder(str(self.keys.get("general.architecture", "")))        # what is no language model is said before its tokenizer is missed
        architecture = str(self.keys.get("general.architecture"))
        self.reads_whole, self.translates = architecture in layers.ENCODERS, architecture in translator.NETWORKS
        self.tokenizer = self._tokenizer()
        return named, form.name

    def __enter__(self) -> Generation:
        named, form = self._read()
        self.folder = tempfile.TemporaryDirectory(prefix="isomorph-")
        try:
            self.session: Session = self._session(named, form)
            self.session.__enter__()
        except BaseException:
            self.folder.cleanup()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()
        self.folder.cleanup()

    def _session(self, named: Checkpoint, form: str) -> Session:
        """In llama.cpp the file as it is, in ONNX Runtime the network of its weights."""
        from isomorph import runtime
        from isomorph.architectures import networks
        threads = self.threads or os.cpu_count() or 1
        continues = not self.reads_whole and not self.translates
        chosen = self.runtime or ("llama" if form == "gguf" and continues and runtime.get("llama").available() else "onnxruntime")
        if chosen == "llama":
            if form != "gguf" or self.artifact.path is None:
                raise Usage("llama.cpp runs GGUF files only", where=self.artifact.where, hint="leave the runtime out")
            return runtime.Session(self.artifact.path, "gguf", runtime="llama", threads=threads, timeout=self.timeout)
        model = networks.graph(named, rounded=self.rounded)
        path = Path(self.folder.name) / "model.onnx"
        _table.get("onnx").writer(model, path)
        return runtime.Session(path, "onnx", threads=threads, options={"carry": _carried(model)}, timeout=self.timeout)

    def embedding(self, text: str) -> np.ndarray:
        """One vector of length 1 for a text, from a network that reads it whole: the mean of its tokens, or the first, as the file says
        (`pooling_type`). Raises `Unsupported` for a network that writes."""
        import numpy as np
        if not self.reads_whole:
            raise Unsupported("the network writes text and gives no embedding", where=self.artifact.where, hint="models like BERT do")
        first, last = (next((self.keys[key] for name in names if isinstance(self.keys.get(key := f"{KEY}{name}_token_id"), int)), None)
                       for names in (("cls", "bos"), ("seperator", "eos")))
        inside = self.tokenizer.encode(text, add_special_tokens=False).ids
        tokens = np.array([[*([first] if first is not None else []), *inside, *([last] if last is not None else [])]], np.int64)
        feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
        hidden = self.session.run(feeds)["last_hidden_state"][0]
        pooled = hidden[0] if self.keys.get(f"{self.keys['general.architecture']}.pooling_type") == CLS else hidden.mean(axis=0)
        return pooled / max(float(np.linalg.norm(pooled)), 1e-12)

    def _tokenizer(self) -> Any:
        """Of the keys or, for a Hugging Face folder, of tokenizer.json."""
        from isomorph.architectures import tokenizer
        if KEY + "tokens" in self.keys:
            made, findings = tokenizer.tokenizer(self.keys)
            self.findings += findings
            return made
        beside = self._beside("tokenizer.json")
        if beside is None:
            raise Missing("there is no tokenizer in the file and no tokenizer.json beside it", where=self.artifact.where)
        return tokenizer.of_json(bytes(beside.view), beside.where)

    def _beside(self, name: str) -> Artifact | None:
        found = self.artifact.child(name) if self.artifact.is_folder else self.artifact.sibling(name)
        return found if found is not None and found.size <= found.limits.json_bytes else None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """tokenizer_config.json beside the weights, empty where there is none."""
        beside = self._beside("tokenizer_config.json")
        try:
            document = json.loads(bytes(beside.view)) if beside is not None else {}
        except (ValueError, RecursionError):
            document = {}
        return document if isinstance(document, dict) else {}

    # ---- the prompt

    @property
    def template(self) -> str:
        """The chat template, "" where there is none."""
        found = self.keys.get("tokenizer.chat_template", self.settings.get("chat_template", ""))
        return found if isinstance(found, str) else ""

    def word(self, name: str) -> str:
        """A special word, as `bos` and `eos`."""
        number = self.keys.get(f"{KEY}{name}_token_id")
        if isinstance(number, int):
            return self.tokenizer.id_to_token(number) or ""
        stated = self.settings.get(f"{name}_token", "")
        return str(stated.get("content", "")) if isinstance(stated, dict) else str(stated or "")

    def prompt(self, text: str, *, chat: bool = True) -> list[int]:
        """The tokens of a prompt: put into the chat template where there is one, else as it is."""
        if chat and self.template:
            special = {f"{name}_token": self.word(name) for name in ("bos", "eos")}
            values = {"messages": [{"role": "user", "content": text}], "add_generation_prompt": True} | special
            text = rendered(self.template, values)
        tokens = list(self.tokenizer.encode(text, add_special_tokens=False).ids)
        if self.translates and isinstance(end := self.keys.get(KEY + "eos_token_id"), int) and tokens[-1:] != [end]:
            return [*tokens, end]                       # a network that reads one text and writes another is told where the first ends
        return tokens if self.first is None or tokens[:1] == [self.first] else [self.first, *tokens]

    def window(self, tokens: list[int], place: int, size: int) -> list[int]:
        """`size` tokens of a longer text, of which the first is the one that begins a text, where the model has one."""
        piece = tokens[place * size:(place + 1) * size]
        return piece if self.first is None else [self.first, *piece[1:]]

    @cached_property
    def first(self) -> int | None:
        """The token that every text begins with, None where there is none."""
        begins = self.keys.get(KEY + "add_bos_token", self.keys.get(KEY + "model") == "llama")
        return self.tokenizer.token_to_id(self.word("bos")) if begins and self.word("bos") else None

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        named = [self.keys.get(f"{KEY}{name}_token_id") for name in ("eos", "eot", "eom")]
        words = [self.tokenizer.token_to_id(word) for word in (*ENDS, self.word("eos")) if word]
        return frozenset(token for token in (*named, *words) if isinstance(token, int))

    # ---- the answer

    def tokens(self, prompt: list[int], *, most: int = 256, temperature: float = 0.0, seed: int = 0, through: bool = False) -> Iterator[int]:
        """The tokens that follow, the best each time or, with a temperature, drawn; without the one that ends the answer, or with `through` on behind it.
        Raises `Usage` for an empty prompt."""
        import numpy as np
        if not prompt:
            raise Usage("the prompt has no tokens", hint="give at least one word")
        random, given, length = np.random.default_rng(seed), prompt, 0
        if self.translates:
            self.read, given = prompt, [int(self.keys.get(f"{self.keys['general.architecture']}.decoder_start_token_id", 0))]
        self.session.forget()
        for _ in range(most):
            token = _chosen(self.logits(given, length)[-1], temperature, random)
            length += len(given)
            if token in self.ends and not through:
                return
            yield token
            given = [token]

    def logits(self, given: list[int], length: int) -> np.ndarray:
        """[tokens, words] behind each of the given tokens, which follow `length` others that the session has read. Raises `Unsupported` for a network that has
        not been given a text to read."""
        import numpy as np
        whole = length + len(given)
        if self.translates and not self.read:
            raise Unsupported("the network reads one text and writes another, so no single text is its own", where=self.artifact.where)
        if self.translates:                             # what the first call read is kept, and later ones read nothing
            feeds = {"input_ids": np.asarray([self.read[:0] if length else self.read], np.int64), "attention_mask": np.ones((1, len(self.read)), np.int64),
                     "decoder_input_ids": np.asarray([given], np.int64)}
        else:
            feeds = {"input_ids": np.asarray([given], np.int64), "attention_mask": np.ones((1, whole), np.int64),
                     "position_ids": np.arange(length, whole, dtype=np.int64)[None]}
        known = {port.name for port in self.session.inputs()}
        return self.session.run({name: array for name, array in feeds.items() if name in known})["logits"][0]

    def text(self, prompt: list[int], **options: Any) -> Iterator[str]:
        """The answer, in pieces that are whole letters."""
        found: list[int] = []
        told = ""
        for token in self.tokens(prompt, **options):
            found.append(token)
            whole = self.tokenizer.decode(found, skip_special_tokens=True)
            if not whole.endswith(REPLACEMENT) and len(whole) > len(told):
                yield whole[len(told):]
                told = whole


def _carried(model: Model) -> dict[str, Any]:
    """Keys and values, or states: each output is the input of the next run, empty or zeros before the first."""
    found = {}
    for value in model.graph.inputs:
        if str(value.name).startswith("past_key_values."):
            dims: list[Any] = list(value.shape or ())
            known = {"batch": 1, "past": 0, "source_past": 0}
            found[str(value.name).replace("past_key_values", "present")] = [
                str(value.name), [dim if isinstance(dim, int) else known[str(getattr(dim, "value", dim))] for dim in dims]]
    return found


def _chosen(logits: np.ndarray, temperature: float, random: Any) -> int:
    import numpy as np
    if temperature <= 0:
        return int(logits.argmax())
    weights = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    return int(random.choice(len(weights), p=weights / weights.sum()))


def rendered(template: str, values: Mapping[str, Any]) -> str:
    """A chat template with its values put in, in a child process that cannot reach anything. Raises `Unsupported` where it fails, `TimedOut` where it does not
    end, `Missing` where Jinja is not installed."""
    import importlib.util
    if importlib.util.find_spec("jinja2") is None:
        raise Missing("the package jinja2 is not installed, which chat templates need", hint="run `pip install 'isomorph[text]'`, or add --no-template")
    command = [sys.executable, "-P", "-m", "isomorph.runtime.template"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[1]), *(entry for entry in sys.path if entry)])}
    try:
        done = subprocess.run(command, input=json.dumps({"template": template, "values": dict(values)}), capture_output=True, text=True, check=False,
                              timeout=TEMPLATE_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        raise TimedOut(f"the chat template does not end within {TEMPLATE_SECONDS} s", hint="add --no-template") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else f"exit status {done.returncode}"
        raise Unsupported(f"the chat template fails: {said}", hint="add --no-template")
    return done.stdout
