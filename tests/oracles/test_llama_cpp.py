"""What llama.cpp computes with the GGUF files that isomorph makes: logits of every family, and the text of a published model.

llama-cpp-python has no wheel and takes a quarter of an hour to build, so these run only where ISOMORPH_PYTHON_LLAMA names an interpreter that has it.
"""
from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_language_models import FAMILIES, READERS, REMEMBERING, SCALED, TRANSLATING
from test_tokenizers import BETWEEN, VOCABULARIES
from zoo import zoo

import isomorph
from isomorph.architectures import vocabulary
from isomorph.architectures.tokenizer import tokenizer
from isomorph.artifact import Artifact
from isomorph.formats import gguf
from isomorph.generation import Generation
from isomorph.model import Checkpoint

LLAMA = os.environ.get("ISOMORPH_PYTHON_LLAMA", "")
JUDGE = Path(__file__).with_name("llama_cpp_child.py")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not LLAMA, reason="no interpreter with llama-cpp-python is named by ISOMORPH_PYTHON_LLAMA")]

# What llama.cpp does not compute as transformers does: it sees past the windows of phi3 and starcoder2, scales the attention of gemma3 by the size of a head
# whatever the model says, knows no dynamic scaling, takes the long factors of LongRoPE for every text once its context is long, and lacks RWKV 4 and GPT-J.
OTHERWISE = {"gptj", "phi3", "starcoder2", "gemma3", "dynamic", "longrope", "rwkv"}
WIDTH = 64                                   # of the made T5
PROMPTS = ("What is the capital of France?", "The three laws of motion say that", "def fibonacci(n):", "Once upon a time, there was a fox who", "2, 4, 6, 8,",
           "List the days of the week:", "The alphabet: A, B, C, D,", "Water boils at", "Dear Sir or Madam,", "import numpy as np\n", "In 1969, humans first",
           "The best way to cook rice is", "Q: Why is the sky blue?\nA:", "My favourite book is", "To be, or not to be,", "The quick brown fox")


def judge(verb: str, *arguments: object) -> str:
    done = subprocess.run([LLAMA, JUDGE, verb, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def converted(families, tmp_path_factory):
    """What llama.cpp computes with the GGUF files of all families that it has, by what it is asked for."""
    folder = tmp_path_factory.mktemp("converted")
    asked: dict[str, list[Path]] = {"logits": [], "embed": [], "translate": []}
    for verb, names in (("logits", DECODING), ("embed", READERS), ("translate", TRANSLATING)):
        for family in names:
            isomorph.convert(families / family / "model.safetensors", folder / f"{family}.gguf", names="gguf")
            asked[verb] += [folder / f"{family}.gguf", families / family / "expected.npz", folder / f"{family}.npz"]
    for verb, files in asked.items():
        judge(verb, *files)
    return folder


DECODING = tuple(family for family in (*FAMILIES, *SCALED, *REMEMBERING) if family not in OTHERWISE)


def test_logits_are_those_of_transformers(families, converted):
    """Every family as float32, all rows of both texts: at most 1e-3 apart (llama.cpp looks its gelu up in a table of halves)."""
    assert {family: worst for family in DECODING if (worst := apart(families, converted, family, "logits")) > 1e-3} == {}


def test_what_stands_behind_the_last_layer_is_that_of_transformers(families, converted):
    assert {family: worst for family in READERS if (worst := apart(families, converted, family, "plain")) > 1e-3} == {}


def test_what_is_written_behind_what_is_read_is_that_of_transformers(families, converted):
    """Of the range of the logits. llama.cpp leaves out the factor by which a T5 whose tables are one scales its logits."""
    for family in TRANSLATING:
        expected, found = np.load(families / family / "expected.npz"), np.load(converted / f"{family}.npz")
        scale = WIDTH ** -0.5 if family == "t5" else 1.0
        for place, wanted in enumerate(expected["logits"]):
            assert np.abs(found[f"arr_{place}"] * scale - wanted).max() <= 1e-3 * np.abs(wanted).max(), family


def apart(families: Path, folder: Path, family: str, what: str) -> float:
    """The greatest difference between what llama.cpp and transformers computed."""
    expected, found = np.load(families / family / "expected.npz"), np.load(folder / f"{family}.npz")
    masks = expected["mask"].astype(bool)
    return max(float(np.abs(found[f"arr_{place}"] - expected[what][place][mask]).max()) for place, mask in enumerate(masks))


@pytest.mark.parametrize("name", VOCABULARIES)
def test_llama_cpp_reads_the_keys_that_a_tokenizer_becomes(name, tmp_path):
    """Each published vocabulary as tokenizer.json and back: the file that llama.cpp reads has nothing of the published one but the sizes of its network."""
    metadata = gguf.read(Artifact.open(zoo(name))).metadata
    made, _ = tokenizer(metadata)
    keys, _ = vocabulary.keys(json.loads(made.to_str()), {})
    others = {key: value for key, value in metadata.items() if not key.startswith("tokenizer.")}
    gguf.write(Checkpoint({}, others | keys), tmp_path / "words.gguf")
    texts = Path(f"{zoo(name)}.inp").read_bytes().decode().split(BETWEEN)
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    found = judge("tokens", tmp_path / "words.gguf", tmp_path / "texts.json").split("\n")
    wanted = Path(f"{zoo(name)}.out").read_text().split("\n")
    for text, have, want in zip(texts, found, wanted, strict=False):
        assert have.split() == want.split(), text


def greedy(path: Path, cache: str = "half") -> list[list[int]]:
    """The 64 best tokens behind each prompt in llama.cpp, whose keys and values are kept as halves, as it does by itself, or as float32."""
    found = [[int(number) for number in line.split()] for line in judge("greedy", path, 64, cache, *PROMPTS).splitlines()]
    assert [len(tokens) for tokens in found] == [64] * len(PROMPTS)
    return found


def test_the_first_tokens_of_a_published_model_are_the_same(tmp_path):
    """64 tokens behind each prompt, the best each time. Given the same weights as float32 every prompt goes the same way. llama.cpp rounds what it multiplies
    Q4_1 with to 8 bits, which adds up over 30 layers, so that few prompts survive any change of how it is computed: as many as when llama.cpp itself keeps
    its keys and values in another type go the same way here, at least, and no less than five."""
    isomorph.convert(zoo("smollm2"), tmp_path / "float.gguf", dtype="fp32", verify=False)
    with Generation(zoo("smollm2"), timeout=300, runtime="onnxruntime") as model:
        ours = [list(model.tokens(model.prompt(prompt, chat=False), most=64, through=True)) for prompt in PROMPTS]
    assert ours == greedy(tmp_path / "float.gguf")
    theirs, otherwise = greedy(zoo("smollm2")), greedy(zoo("smollm2"), "float")
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    assert same >= max(5, sum(one == other for one, other in zip(theirs, otherwise, strict=True)))


def test_text_comes_from_llama_cpp_where_it_is_installed():
    with Generation(zoo("smollm2"), timeout=120) as model:
        assert model.session.runtime.name == "llama"
        found = [list(model.tokens(model.prompt(prompt, chat=False), most=16, through=True)) for prompt in PROMPTS[:3]]
    assert found == [[int(number) for number in line.split()] for line in judge("greedy", zoo("smollm2"), 16, "half", *PROMPTS[:3]).splitlines()]
