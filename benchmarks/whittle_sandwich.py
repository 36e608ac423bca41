"""Whittle's sandwich on a small decoder: run by a Python that has whittle, with the sizes as JSON.

It needs nothing of ours: whittle's pins (transformers below 4.54, litgpt 0.5.12) cannot stand beside ours.
The last line is one JSON object.
"""

import json
import resource
import sys
import time
from typing import Any

import torch


class Space:
    """Four axes as whittle's samplers want them."""

    def __init__(self, sizes: dict[str, Any]):
        from syne_tune.config_space import choice

        self.config_space = {
            name: choice(sizes["space"][name]) for name in ("depths", "heads", "widths", "ratios")
        }

    @staticmethod
    def cast(config: dict[str, Any]) -> dict[str, Any]:
        return {
            "sub_network_n_embd": config["widths"],
            "sub_network_intermediate_size": int(config["widths"] * config["ratios"]),
            "sub_network_num_heads": config["heads"],
            "sub_network_n_layers": config["depths"],
        }


def decoder(sizes: dict[str, Any]) -> Any:
    from litgpt import Config
    from whittle.models.gpt import GPT

    config = Config(
        n_layer=sizes["layers"],
        n_head=sizes["heads"],
        n_query_groups=sizes["heads"],
        n_embd=sizes["width"],
        head_size=sizes["head_width"],
        intermediate_size=sizes["inner"],
        mlp_class_name="LLaMAMLP",
        norm_class_name="RMSNorm",
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        padded_vocab_size=sizes["vocabulary"],
        block_size=sizes["length"],
    )
    config.fix_head_size = True
    return GPT(config)


def labels_loss(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def main() -> None:
    from whittle.sampling.random_sampler import RandomSampler
    from whittle.training_strategies import SandwichStrategy

    sizes = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = decoder(sizes)
    sampler = RandomSampler(Space(sizes), seed=0)
    strategy = SandwichStrategy(sampler=sampler, loss_function=labels_loss, device="cpu", random_samples=2)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    tokens = torch.randint(4, sizes["vocabulary"], (sizes["rows"], sizes["length"]))
    times, worked, losses = [], [], []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(sizes["steps"] + 1):
        began, core = time.perf_counter(), time.process_time()
        optimiser.zero_grad()
        losses.append(strategy(model, tokens, tokens))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        times.append(time.perf_counter() - began)
        worked.append(time.process_time() - core)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {
        # without the first step, which also allocates
        "ms_per_step": round(1000 * sum(times[1:]) / sizes["steps"], 1),
        "core_ms_per_step": round(1000 * sum(worked[1:]) / sizes["steps"], 1),
        "peak_megabytes": round((peak - before) / 1024),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "loss": [round(losses[0] / 4, 3), round(losses[-1] / 4, 3)],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
