"""Measures what was tried to make a step faster: each try beside what it would replace, in turns, in one run.

Shapes: B windows, S tokens, D width, H heads, E a head's width, G sequences of a head, M modalities, O outputs of a
layer, P pixels, Q support pixels, K features.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
import torch.nn.functional as F
from published_step import PublishedModel
from report import Value, print_table, write_json
from torch import Tensor, nn
from training_step_rows import PEER_BATCH, SCHEMAS, model_of, random_batch, wait_for

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.model.mask_diffusion import MaskDiffusion, compile_model, draw_noise_and_masks
from diffclip_dist.model.transformer import Attention, Block, Transformer, written_out_attention

SECONDS: Final = 8.0  # of each try, both sides together
LEAST_ROUNDS: Final = 5
Work = Callable[[], object]


@dataclass(frozen=True)
class Try:
    """One thing that was tried.

    Attributes:
        name: what.
        where: of which layers, sizes and precision.
        outcome: what became of it, and why.
        sides: gives what it would replace, and the try.
    """

    name: str
    where: str
    outcome: str
    sides: Callable[[], tuple[Work, Work]]


def measure(arguments: argparse.Namespace) -> int:
    """Measures every try, prints the table and writes ``--tries``."""
    load = os.getloadavg()[0]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seconds = 0.5 if arguments.quick else SECONDS
    rows = [row_of(one, device, seconds) for one in tries(device)]
    print_table("what was tried, beside what it would replace", rows)
    clock = "wall clock" if device.type == "cuda" else "processor time"
    write_json(
        arguments.tries,
        {
            "command": f"python benchmarks/training_step.py --tries {arguments.tries}" + " --quick" * arguments.quick,
            "processes_waiting_to_run_before": load,
            "figures": f"medians of turns in one run, {clock}",
        },
        rows,
    )
    return EXIT_DONE


def row_of(one: Try, device: torch.device, seconds: float) -> dict[str, Value]:
    """A try's row: the median time of both sides, and how many times as fast it is."""
    before, after = one.sides()
    before_ms, after_ms = in_turns(before, after, device, seconds)
    return {
        "try": one.name, "where": one.where, "before_ms": before_ms, "after_ms": after_ms,
        "times_as_fast_ratio": before_ms / after_ms, "outcome": one.outcome,
    }  # fmt: skip


def in_turns(before: Work, after: Work, device: torch.device, seconds: float) -> tuple[float, float]:
    """Median milliseconds of both, which take turns after one call each that warms up."""
    # on a CPU other processes would count in the wall clock
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    taken: dict[int, list[float]] = {0: [], 1: []}
    end = time.perf_counter() + seconds
    while len(taken[1]) <= LEAST_ROUNDS or time.perf_counter() < end:
        for side, work in enumerate((before, after)):
            wait_for(device)
            start = clock()
            work()
            wait_for(device)
            taken[side].append(1e3 * (clock() - start))
    return statistics.median(taken[0][1:]), statistics.median(taken[1][1:])


def tries(device: torch.device) -> Iterator[Try]:
    """Every try that this device can measure."""
    cpu = device.type == "cpu"
    for tokens, windows in ((122, 16), (37, 64), (26, 64)):
        for dtype in (torch.float32, torch.bfloat16):
            where = f"{tokens} tokens, {windows} windows, 8 heads of 16, {name_of(dtype)}, forward and backward"
            kept = cpu and dtype == torch.bfloat16
            yield Try(
                "attention written out as two products and a softmax", where,
                "kept on CPUs" if kept else "dropped: it changes the last bits of every loss",
                partial(attention_sides, device, tokens, windows, dtype, written_out_attention),
            )  # fmt: skip
    for tokens, windows in ((122, 16), (37, 64), (8, 256)):
        yield Try(
            "attention by hand, its scores in blocks that stay in the cache, and computed again going backward",
            f"{tokens} tokens, {windows} windows, 8 heads of 16, float32, forward and backward", "dropped: slower",
            partial(attention_sides, device, tokens, windows, torch.float32, blocked_attention),
        )  # fmt: skip
    yield Try(
        "three windows packed into one sequence, with a mask between them", "37 tokens, 63 windows, 8 heads of 16, "
        "float32, forward and backward", "dropped: slower",
        partial(attention_sides, device, 37, 63, torch.float32, packed_attention),
    )  # fmt: skip
    for preset in ("default", "published"):
        yield Try(
            "decoders of both modalities as one, by grouped products", f"{preset}, 16 windows, forward and backward",
            "dropped: no faster here", partial(decoder_sides, device, preset),
        )  # fmt: skip
        yield Try(
            "AdamW in one fused kernel, in place of one for each operation", f"parameters of {preset}", "kept",
            partial(optimiser_sides, device, preset),
        )  # fmt: skip
        yield Try(
            "gradients clipped by torch at once, in place of a loop", f"parameters of {preset}",
            "kept: a lone worker's losses differ in the last bits", partial(clip_sides, device, preset),
        )  # fmt: skip
    yield Try(
        "micro-batches of 16 windows, in place of one of 64", "default, float32, forward and backward",
        "left to micro_batch", partial(micro_batch_sides, device),
    )  # fmt: skip
    yield Try(
        "distances by a matrix product", "16,384 pixels, 300 support pixels, 64 features, float32",
        "kept on GPUs; dropped on CPUs: it changes the last bits of every result", partial(distance_sides, device),
    )  # fmt: skip
    if cpu:
        for dtype in (torch.float32, torch.bfloat16):
            yield Try(
                "a layer's weights packed for oneDNN beforehand", f"128 to 384, 592 tokens, {name_of(dtype)}, forward",
                "dropped: little gain, and autograd knows no packed weights", partial(packed_sides, dtype),
            )  # fmt: skip
    block = "default, 16 windows of 37 tokens, float32, forward and backward"
    yield Try(
        "a transformer block compiled (norms, GELU and sums fused)", block,
        "kept on GPUs; on CPUs left to compile=true: no faster, and compiling takes minutes",
        partial(compiled_sides, device),
    )  # fmt: skip
    yield Try(
        "the whole model compiled", f"default, {PEER_BATCH} windows, float32, forward, backward and update",
        "kept on GPUs; on CPUs left to compile=true: it takes minutes before the first step",
        partial(compiled_model_sides, device),
    )  # fmt: skip
    for preset in ("published", "default"):
        for dtype, windows in ((torch.float32, PEER_BATCH), (torch.float32, 16), (torch.bfloat16, 16)):
            yield Try(
                "our step, in place of the published one in plain eager torch in float32",
                f"{preset}, {windows} windows, {name_of(dtype)}, forward, backward and update",
                "kept" if dtype == torch.float32 else "left to precision=auto",
                partial(step_sides, device, preset, dtype, windows),
            )  # fmt: skip


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def forward_and_backward(forward: Callable[[], Tensor], leaves: Sequence[Tensor]) -> None:
    for leaf in leaves:
        leaf.grad = None
    torch.autograd.backward(forward().sum())


Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def attention_sides(
    device: torch.device, tokens: int, windows: int, dtype: torch.dtype, attend: Attend
) -> tuple[Work, Work]:
    """torch's fused attention, and another one."""
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(windows, 8, tokens, 16, device=device, dtype=dtype, requires_grad=True) for _ in range(3)
    )
    leaves = (query, key, value)
    return (
        lambda: forward_and_backward(lambda: F.scaled_dot_product_attention(*leaves), leaves),
        lambda: forward_and_backward(lambda: attend(*leaves, None), leaves),
    )


def packed_attention(query_BHSE: Tensor, key_BHSE: Tensor, value_BHSE: Tensor, _: Tensor | None) -> Tensor:
    """Three windows a sequence; each token attends to its own window."""
    batch, heads, tokens, width = query_BHSE.shape

    def packed(part_BHSE: Tensor) -> Tensor:
        return part_BHSE.view(batch // 3, 3, heads, tokens, width).transpose(1, 2).reshape(-1, heads, 3 * tokens, width)

    window_T = torch.arange(3 * tokens, device=query_BHSE.device) // tokens
    mixed = F.scaled_dot_product_attention(
        packed(query_BHSE), packed(key_BHSE), packed(value_BHSE), window_T[:, None] == window_T
    )
    return mixed.view(-1, heads, 3, tokens, width).transpose(1, 2).reshape_as(query_BHSE)


class BlockedAttention(torch.autograd.Function):
    """Attention of G sequences (G, S, E); the backward pass computes the scores again, from the sums of the first."""

    @staticmethod
    def forward(ctx: Any, query_GSE: Tensor, key_GSE: Tensor, value_GSE: Tensor) -> Tensor:
        mixed_GSE, sums_GS1 = torch.empty_like(value_GSE), query_GSE.new_empty(*query_GSE.shape[:2], 1)
        for rows in blocks_of(query_GSE):
            scores_GSS = torch.bmm(query_GSE[rows] * query_GSE.shape[2] ** -0.5, key_GSE[rows].transpose(1, 2))
            highest_GS1 = scores_GSS.amax(dim=2, keepdim=True)
            scores_GSS.sub_(highest_GS1).exp_()
            sum_GS1 = scores_GSS.sum(dim=2, keepdim=True)
            mixed_GSE[rows] = torch.bmm(scores_GSS, value_GSE[rows]).div_(sum_GS1)
            sums_GS1[rows] = highest_GS1 + sum_GS1.log()
        ctx.save_for_backward(query_GSE, key_GSE, value_GSE, mixed_GSE, sums_GS1)
        return mixed_GSE

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query_GSE, key_GSE, value_GSE, mixed_GSE, sums_GS1 = ctx.saved_tensors
        (gradient_GSE,) = gradients
        found = torch.empty_like(query_GSE), torch.empty_like(key_GSE), torch.empty_like(value_GSE)
        own_GS1 = (gradient_GSE * mixed_GSE).sum(dim=2, keepdim=True)
        for rows in blocks_of(query_GSE):
            scaled_GSE = query_GSE[rows] * query_GSE.shape[2] ** -0.5
            weight_GSS = torch.bmm(scaled_GSE, key_GSE[rows].transpose(1, 2)).sub_(sums_GS1[rows]).exp_()
            found[2][rows] = torch.bmm(weight_GSS.transpose(1, 2), gradient_GSE[rows])
            score_GSS = torch.bmm(gradient_GSE[rows], value_GSE[rows].transpose(1, 2)).sub_(own_GS1[rows])
            score_GSS.mul_(weight_GSS)
            found[0][rows] = torch.bmm(score_GSS, key_GSE[rows]).mul_(query_GSE.shape[2] ** -0.5)
            found[1][rows] = torch.bmm(score_GSS.transpose(1, 2), scaled_GSE)
        return found


def blocks_of(query_GSE: Tensor) -> Iterator[slice]:
    """As many sequences at a time as have half a megabyte of scores."""
    size = max(1, (1 << 17) // query_GSE.shape[1] ** 2)
    return (slice(start, start + size) for start in range(0, len(query_GSE), size))


def blocked_attention(query_BHSE: Tensor, key_BHSE: Tensor, value_BHSE: Tensor, _: Tensor | None) -> Tensor:
    """The same attention by hand."""
    parts = (part.flatten(0, 1) for part in (query_BHSE, key_BHSE, value_BHSE))
    mixed_GSE: Tensor = BlockedAttention.apply(*parts)
    return mixed_GSE.view_as(query_BHSE)


def decoder_sides(device: torch.device, preset: str) -> tuple[Work, Work]:
    """The decoders' transformers one after the other, and as one with a product for each modality."""
    config = model_of(preset)
    torch.manual_seed(0)
    decoders = [
        Transformer(config.decoder_depth, config.width_in_decoder, config.heads, config.mlp_ratio).to(device)
        for _ in range(2)
    ]
    tokens_MBSD = torch.randn(2, 16, config.tokens + 1, config.width_in_decoder, device=device)
    leaves = [parameter for decoder in decoders for parameter in decoder.parameters()]
    return (
        lambda: forward_and_backward(
            lambda: torch.stack([one(tokens) for one, tokens in zip(decoders, tokens_MBSD, strict=True)]), leaves
        ),
        lambda: forward_and_backward(lambda: as_one(decoders, tokens_MBSD), leaves),
    )


def as_one(transformers: Sequence[Transformer], tokens_MBSD: Tensor) -> Tensor:
    """Several transformers of one shape; their parameters stay their own."""
    for blocks in zip(*(one.blocks for one in transformers), strict=True):
        parts = [block for block in blocks if isinstance(block, Block)]
        attentions = [part.attention for part in parts]
        normed = grouped_norm([part.attention_norm for part in parts], tokens_MBSD)
        tokens_MBSD = tokens_MBSD + grouped_attention(attentions, normed)
        hidden = grouped_norm([part.mlp_norm for part in parts], tokens_MBSD)
        for place in range(len(parts[0].mlp)):
            layers = [part.mlp[place] for part in parts]
            linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
            hidden = grouped_linear(linear, hidden) if linear else layers[0](hidden)
        tokens_MBSD = tokens_MBSD + hidden
    return grouped_norm([one.norm for one in transformers], tokens_MBSD)


def grouped_linear(layers: Sequence[nn.Linear], tokens_MBSD: Tensor) -> Tensor:
    """A layer for each modality, as one batched product."""
    weight_MDO = torch.stack([layer.weight for layer in layers]).transpose(1, 2)
    bias_M1O = torch.stack([layer.bias for layer in layers])[:, None]
    return torch.baddbmm(bias_M1O, tokens_MBSD.flatten(1, 2), weight_MDO).view(*tokens_MBSD.shape[:3], -1)


def grouped_norm(norms: Sequence[nn.LayerNorm], tokens_MBSD: Tensor) -> Tensor:
    """A layer norm for each modality."""
    weight, bias = (torch.stack([getattr(norm, name) for norm in norms])[:, None, None] for name in ("weight", "bias"))
    return F.layer_norm(tokens_MBSD, tokens_MBSD.shape[-1:]) * weight + bias


def grouped_attention(attentions: Sequence[Attention], tokens_MBSD: Tensor) -> Tensor:
    """A self-attention for each modality."""
    modalities, batch, length, width = tokens_MBSD.shape
    heads = attentions[0].heads
    qkv = grouped_linear([one.qkv for one in attentions], tokens_MBSD)
    query, key, value = qkv.view(modalities * batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape_as(tokens_MBSD)
    return grouped_linear([one.output for one in attentions], mixed)


def parameters_of(device: torch.device, preset: str) -> list[nn.Parameter]:
    """A model's parameters with gradients."""
    torch.manual_seed(0)
    parameters = list(MaskDiffusion(model_of(preset), SCHEMAS).to(device).parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return parameters


def optimiser_sides(device: torch.device, preset: str) -> tuple[Work, Work]:
    """AdamW over lists of tensors, and in one kernel."""
    parameters = parameters_of(device, preset)
    return torch.optim.AdamW(parameters, foreach=True).step, torch.optim.AdamW(parameters, fused=True).step


def clip_sides(device: torch.device, preset: str) -> tuple[Work, Work]:
    """A norm of each gradient in a loop, and torch's clipping."""
    parameters = parameters_of(device, preset)

    def loop() -> None:
        total = torch.stack([parameter.grad.norm() for parameter in parameters if parameter.grad is not None]).norm()
        share = (1.0 / (total + 1e-6)).clamp_max(1.0)
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.mul_(share)

    return loop, lambda: nn.utils.clip_grad_norm_(parameters, 1.0)


def micro_batch_sides(device: torch.device) -> tuple[Work, Work]:
    """Forward and backward pass of 64 windows at once, and 16 at a time."""
    config = model_of("default")
    torch.manual_seed(0)
    model = MaskDiffusion(config, SCHEMAS).to(device)
    batch = random_batch(config, 64, device)

    def work(micro_batch: int) -> None:
        for part in batch.split(micro_batch):
            model(part, draw_noise_and_masks(part, config, 0, 0)).sum().backward()

    return lambda: work(64), lambda: work(16)


def distance_sides(device: torch.device) -> tuple[Work, Work]:
    """Squared distances by differences, and by a matrix product."""
    torch.manual_seed(0)
    one_PK, other_QK = torch.randn(16384, 64, device=device), torch.randn(300, 64, device=device)

    def product() -> Tensor:
        lengths_PQ = one_PK.square().sum(dim=1)[:, None] + other_QK.square().sum(dim=1)
        return torch.addmm(lengths_PQ, one_PK, other_QK.T, alpha=-2.0).clamp_min_(0.0)

    return lambda: torch.cdist(one_PK, other_QK, compute_mode="donot_use_mm_for_euclid_dist").square(), product


def packed_sides(dtype: torch.dtype) -> tuple[Work, Work]:
    """A layer, and oneDNN's with weights that were packed once."""
    torch.manual_seed(0)
    tokens, weight, bias = torch.randn(592, 128, dtype=dtype), torch.randn(384, 128, dtype=dtype), torch.randn(384)
    bias = bias.to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, 592)

    def repeated(layer: Callable[[], Tensor]) -> None:  # one call takes too little time to measure
        with torch.no_grad():
            for _ in range(100):
                layer()

    return (
        lambda: repeated(lambda: F.linear(tokens, weight, bias)),
        lambda: repeated(lambda: torch.ops.mkldnn._linear_pointwise(tokens, packed, bias, "none", [], "")),
    )


def step_sides(device: torch.device, preset: str, dtype: torch.dtype, windows: int) -> tuple[Work, Work]:
    """The published step, and ours."""
    torch.manual_seed(0)
    peer = PublishedModel({schema.key: schema.bands for schema in SCHEMAS}).to(device)
    adam = torch.optim.Adam(peer.parameters())
    peer_windows = random_batch(model_of("published"), windows, device).windows

    def published() -> None:
        adam.zero_grad()
        torch.autograd.backward(peer(peer_windows))
        adam.step()

    return published, our_step(device, preset, dtype, windows, compiled=False)


def our_step(device: torch.device, preset: str, dtype: torch.dtype, windows: int, *, compiled: bool) -> Work:
    """A step of ours: draws, forward, backward and update."""
    torch.manual_seed(0)
    config = model_of(preset)
    ours = MaskDiffusion(config, SCHEMAS).to(device)
    ours.autocasts = dtype == torch.bfloat16
    if compiled:
        compile_model(ours, device)
    adamw = torch.optim.AdamW(ours.parameters(), fused=True)
    batch = random_batch(config, windows, device)

    def step() -> None:
        adamw.zero_grad()
        torch.autograd.backward(ours(batch, draw_noise_and_masks(batch, config, 0, 0)).sum())
        adamw.step()

    return step


def compiled_model_sides(device: torch.device) -> tuple[Work, Work]:
    """Our step as it is written, and with the model compiled."""
    plain, compiled = (
        our_step(device, "default", torch.float32, PEER_BATCH, compiled=compiled) for compiled in (False, True)
    )
    return plain, compiled


def compiled_sides(device: torch.device) -> tuple[Work, Work]:
    """A transformer block as it is written, and compiled."""
    config = model_of("default")
    torch.manual_seed(0)
    block = Block(config.width, config.heads, config.mlp_ratio).to(device)
    compiled = torch.compile(block, dynamic=False)
    tokens_BSD = torch.randn(16, 37, config.width, device=device)
    leaves = list(block.parameters())
    return (
        lambda: forward_and_backward(lambda: block(tokens_BSD, None), leaves),
        lambda: forward_and_backward(lambda: compiled(tokens_BSD, None), leaves),
    )
