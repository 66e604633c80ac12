"""A pretraining run's settings, read from defaults, a file, options and ``key=value`` settings, and checked at once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pydantic
import yaml

from diffclip_dist.data.order_config import FIRST_VERSION, ORDER_VERSION, OrderConfig
from diffclip_dist.log_lines import LogFormat
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.presets import PRESETS
from shards.build.default_archive import GENERATED_ARCHIVE
from shards.errors import BadInput
from shards.nearest import did_you_mean, nearest

Place = Literal["none", "host", "disk"]
Precision = Literal["auto", "float32", "bfloat16"]
ZeroStage = Literal[0, 1, 2, 3]
STAGES: Final[tuple[ZeroStage, ...]] = (0, 1, 2, 3)

# section, name in earlier versions, name now
_RENAMED: Final = (("stream", "lanes", "shuffle_streams"), ("stream", "pool_tiles", "shuffle_buffer"))


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise BadInput(f"{name}: expected at least {least:g}, found {value:g}")


@dataclass(frozen=True)
class StreamConfig:
    """How a run takes samples from the archive.

    Attributes:
        shuffle_streams: streams of tiles that each batch takes an equal share from; divides the global batch. A resumed
            run keeps it.
        shuffle_buffer: tiles that a stream shuffles at a time; bounds memory. A resumed run keeps it.
        pixel_share: share of each tile's valid pixels that training uses, in (0, 1]. A resumed run keeps it.
        loader_processes: processes that a worker reads with; 0 reads in a thread of the worker. Either way it reads
            ahead, and the samples are the same.
        gpu_cache_gib: GPU memory in GiB that a worker's tiles may fill, so that an archive of that size is read once;
            the tiles of two buffers a stream always have room. On CPUs those alone are kept: files that were read
            lately are in memory already.
        verify: the check of the archive before a run: every file's ``size``, or its ``hash`` as well.
        order_version: of the order of samples, for the record; a resumed run keeps it.
    """

    shuffle_streams: int = 8
    shuffle_buffer: int = 4
    pixel_share: float = 1.0
    loader_processes: int = 0
    gpu_cache_gib: float = 1.0
    verify: Literal["size", "hash"] = "size"
    order_version: int = ORDER_VERSION

    def __post_init__(self) -> None:
        _at_least("stream.loader_processes", self.loader_processes, 0)
        _at_least("stream.gpu_cache_gib", self.gpu_cache_gib, 0.0)


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with a linear warm-up and a cosine decay.

    Attributes:
        learning_rate: at the end of the warm-up.
        final_share: learning rate at the last step over the one after the warm-up, in [0, 1].
        warmup_steps: steps of linear warm-up.
        weight_decay: decoupled, on matrices alone.
        betas: of Adam.
        clip_norm: largest global gradient norm; 0 leaves gradients as they are.
        ema_decay: decay of the weights' exponential moving average at each step, in [0, 1); the encoder is then
            exported with the average. 0 keeps no average.
    """

    learning_rate: float = 1e-3
    final_share: float = 0.05
    warmup_steps: int = 20
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0.0:
            raise BadInput(f"optimiser.learning_rate: expected more than 0, found {self.learning_rate:g}")
        if not 0.0 <= self.final_share <= 1.0:
            raise BadInput(f"optimiser.final_share: expected 0 to 1, found {self.final_share:g}")
        _at_least("optimiser.warmup_steps", self.warmup_steps, 0)
        _at_least("optimiser.weight_decay", self.weight_decay, 0.0)
        _at_least("optimiser.clip_norm", self.clip_norm, 0.0)
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise BadInput(f"optimiser.betas: expected two numbers from 0 to below 1, found {self.betas}")
        if not 0.0 <= self.ema_decay < 1.0:
            raise BadInput(f"optimiser.ema_decay: expected 0 or more and below 1, found {self.ema_decay:g}")


@dataclass(frozen=True)
class OffloadConfig:
    """State that a worker keeps off its device (ZeRO-Offload, Ren et al. 2021; ZeRO-Infinity, 2021).

    Attributes:
        optimizer: where master weights, moments and average lie and are updated: ``none``, on the device; ``host``,
            in the node's memory (from ZeRO stage 1); or ``disk`` (stage 3).
        parameters: where a worker's part of the parameters lies while no layer uses it; ``none`` below stage 3.
        folder: for ``disk``, a folder of each node on a fast disk of its own; workers write below it.
    """

    optimizer: Place = "none"
    parameters: Place = "none"
    folder: str | None = None

    def __post_init__(self) -> None:
        if self.to_disk and self.folder is None:
            raise BadInput("offload.folder: expected a folder on each node's own disk for disk offload, found none")

    @property
    def to_disk(self) -> bool:
        """Whether anything lies on disk."""
        return "disk" in (self.optimizer, self.parameters)

    def places(self, zero_stage: int) -> tuple[Place, Place, Place]:
        """Where parameters, reduced gradients and the optimizer's state lie under a ZeRO stage."""
        optimizer = self.optimizer if zero_stage >= (3 if self.optimizer == "disk" else 1) else "none"
        gradients = optimizer if zero_stage >= 2 else "none"
        return self.parameters if zero_stage == 3 else "none", gradients, optimizer


@dataclass(frozen=True)
class ProbeConfig:
    """Accuracy on a labelled scene while a run learns; its labels never train.

    Attributes:
        scene: name of the labelled scene; none where it is empty.
        archive: where the scene lies; the run's archive where it is empty.
        pixels: most labelled pixels that are drawn, half of them to fit and half to test.
    """

    scene: str = ""
    archive: str = ""
    pixels: int = 2000

    def __post_init__(self) -> None:
        _at_least("probe.pixels", self.pixels, 4)
        if self.archive and not self.scene:
            raise BadInput(
                f"probe.archive={self.archive}: expected the name of a labelled scene in probe.scene as well"
            )


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining run.

    Attributes:
        archive: where the archive lies.
        run_dir: where the run's files go; on a cluster a folder that every node sees.
        storage_path: where checkpoints go instead of ``RUN/checkpoints``: a folder that every node sees, or a URL such
            as ``s3://bucket/run``.
        workers: Ray Train workers, one for each GPU; on CPUs, one for each process.
        min_workers: fewest workers that the run goes on with after others are lost. It takes up to ``workers``
            again when nodes come back. 0 waits for all of them.
        zero_stage: DeepSpeed ZeRO stage: 0 replicates, 1 shards optimizer state, 2 gradients too, 3 parameters too; or
            ``auto``, the lowest under which parameters, gradients and optimizer state take at most a quarter of a
            worker's memory: of its GPU's, or of its share of the node's, on the node that has least. Where the memory
            of a GPU is not known, ``auto`` is 1. All workers take the same. The run's ``config.yaml`` holds the
            choice, and a resumed run keeps it.
        steps: optimizer steps.
        global_batch: windows a step over all workers; a multiple of the number of workers.
        micro_batch: most windows in one forward pass of a worker.
        precision: of matrix products: ``float32``, or ``bfloat16``, where weights, gradients and the loss stay float32
            in ZeRO stages 0 to 2 (autocast), and stage 3 keeps float32 master weights; or ``auto``, which takes
            bfloat16 on GPUs and, on CPUs, the faster of the two by a measurement of two seconds. The run's
            ``config.yaml`` holds the choice, and a resumed run keeps it.
        activation_checkpointing: whether the backward pass computes transformer blocks again instead of keeping them:
            less memory, a third more operations, the same losses.
        compile: whether forward and backward pass and the draws are compiled (torch.compile), which takes a minute or
            more at the first steps; ZeRO stages 0 to 2, since stage 3 gathers parameters in hooks between layers.
            ``auto`` compiles on GPUs below stage 3. ``graphs`` compiles and replays each pass as CUDA graphs, for small
            models and batches, whose kernels take less time than their launches; a worker takes its share of a batch
            in one pass then. The losses are the same but for rounding.
        tf32: whether float32 matrix products on GPUs round their inputs to TF32 (10 bits of mantissa), which is several
            times as fast; CPUs always take float32.
        seed: of every random draw.
        log_every: steps between log lines.
        log_format: of lines on standard output and in ``RUN/logs``: ``plain``, or ``json``, an object a line.
        logger: where logged steps go besides ``metrics.jsonl`` and TensorBoard: ``mlflow``, ``wandb`` or ``none``.
        checkpoint_every: steps between checkpoints; the last step always makes one.
        keep_checkpoints: number of newest checkpoints that are kept.
        reconstruct_windows: windows that are reconstructed and drawn at each checkpoint; 0 for none, which a model
            needs that does not fit on one device.
        max_failures: most restarts of failed workers from the newest checkpoint.
        timeout_s: seconds that a worker waits for the others in a collective before it gives up.
        stream: how samples are taken from the archive.
        optimiser: how weights are updated.
        offload: state that lies off the device.
        probe: accuracy on a labelled scene at each checkpoint.
        model: the model that is trained.
    """

    archive: str = GENERATED_ARCHIVE
    run_dir: str = "runs/pretrain"
    storage_path: str = ""
    workers: int = 1
    min_workers: int = 0
    zero_stage: Literal["auto", 0, 1, 2, 3] = "auto"
    steps: int = 300
    global_batch: int = 128
    micro_batch: int = 128
    precision: Precision = "float32"
    activation_checkpointing: bool = False
    compile: bool | Literal["auto", "graphs"] = "auto"
    tf32: bool = True
    seed: int = 0
    log_every: int = 1
    log_format: LogFormat = "plain"
    logger: Literal["none", "mlflow", "wandb"] = "none"
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    reconstruct_windows: int = 32
    max_failures: int = 2
    timeout_s: int = 600
    stream: StreamConfig = field(default_factory=StreamConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    offload: OffloadConfig = field(default_factory=OffloadConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        for name in (
            "workers",
            "steps",
            "micro_batch",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
            "timeout_s",
        ):
            _at_least(name, getattr(self, name), 1)
        _at_least("reconstruct_windows", self.reconstruct_windows, 0)
        _at_least("max_failures", self.max_failures, 0)
        if self.global_batch % self.workers:
            raise BadInput(
                f"global_batch: expected a multiple of the workers ({self.workers}), found {self.global_batch}"
            )
        fewest = self.min_workers or self.workers
        if self.compile == "graphs" and self.global_batch > fewest * self.micro_batch:
            raise BadInput(
                f"compile=graphs: expected a micro_batch of at least {self.global_batch // fewest}, a worker's share "
                f"of the global batch, found {self.micro_batch}"
            )
        if not self.possible_stages:
            raise BadInput(self._stage_fault(3 if self.zero_stage == "auto" else self.zero_stage) or "")
        if not 0 <= self.min_workers <= self.workers:
            raise BadInput(f"min_workers: expected 0 to workers ({self.workers}), found {self.min_workers}")
        for count in range(self.min_workers, self.workers) if self.min_workers else ():
            if self.global_batch % count:
                raise BadInput(
                    f"global_batch: expected a multiple of every number of workers from min_workers "
                    f"({self.min_workers}) to workers ({self.workers}), found {self.global_batch}"
                )
        self._check_contrast_groups()
        _ = self.order  # validates the stream's settings against the batch

    @property
    def possible_stages(self) -> tuple[ZeroStage, ...]:
        """The ZeRO stages that the run may take: all that the other settings allow, or the one that it names."""
        asked = STAGES if self.zero_stage == "auto" else (self.zero_stage,)
        return tuple(stage for stage in asked if self._stage_fault(stage) is None)

    def _stage_fault(self, stage: ZeroStage) -> str | None:
        """Which setting does not allow a ZeRO stage; None where all do."""
        if self.compile in (True, "graphs") and stage == 3:
            return "compile: expected zero_stage 0, 1 or 2, found 3"
        parameters, _, optimizer = self.offload.places(stage)
        if self.offload.parameters != parameters:
            return f"offload.parameters={self.offload.parameters}: expected zero_stage 3, found {stage}"
        if self.offload.optimizer != optimizer:
            stages = "1, 2 or 3" if self.offload.optimizer == "host" else "3"
            return f"offload.optimizer={self.offload.optimizer}: expected zero_stage {stages}, found {stage}"
        return None

    @property
    def chosen_stage(self) -> ZeroStage:
        """The ZeRO stage, which must have been chosen."""
        assert self.zero_stage != "auto", "zero_stage: expected `zero_stage.with_chosen_stage` to have chosen it"
        return self.zero_stage

    def _check_contrast_groups(self) -> None:
        if self.model.contrast_weight == 0.0:
            return
        group = self.model.contrast_group
        for count in range(self.min_workers or self.workers, self.workers + 1):
            share = self.global_batch // count
            if share % group or (self.micro_batch < share and self.micro_batch % group):
                raise BadInput(
                    f"model.contrast_group: expected a divisor of a worker's share of the batch ({share}) and of "
                    f"micro_batch ({self.micro_batch}), found {group}"
                )

    @property
    def autocasts(self) -> bool:
        """Whether parameters stay float32 while matrices are multiplied in bfloat16.

        Stage 3 gathers its parameters in bfloat16 instead: casts of whole parameters would outlive their layers.
        """
        return self.precision == "bfloat16" and self.zero_stage != 3

    def compiles(self, device_type: str) -> bool:
        """Whether a worker with such a device compiles its model."""
        if self.compile == "auto":
            return device_type == "cuda" and self.zero_stage != 3
        return self.compile is not False

    @property
    def order(self) -> OrderConfig:
        """The settings that the global order of samples depends on."""
        return OrderConfig(
            self.seed,
            self.global_batch,
            self.stream.shuffle_streams,
            self.stream.shuffle_buffer,
            self.stream.pixel_share,
            self.stream.order_version,
        )

    def to_yaml(self) -> str:
        """The resolved configuration, in the form that ``--config`` reads."""
        plain = pydantic.TypeAdapter(PretrainConfig).dump_python(self, mode="json")
        return yaml.safe_dump(plain, sort_keys=False)


def resolve_config(file: Path | None, options: Mapping[str, object], settings: Sequence[str]) -> PretrainConfig:
    """Builds a configuration from the defaults, then a file, then options, then ``key=value`` settings.

    The file and the settings may each name a ``preset`` of the model's sizes; it is applied before their other fields.

    Args:
        file: YAML with the fields of `PretrainConfig`; nested sections as mappings.
        options: top-level fields given on the command line.
        settings: ``key=value``, nested keys with dots, such as ``model.depth=6``; values are read as YAML.

    Raises:
        BadInput: an unknown field or a value out of its range, named.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        tree = _read_yaml(file)
        if "preset" in tree:
            name = tree.pop("preset")
            tree["model"] = _over(_preset(name, str(file)), _section(tree, "model", str(file)))
    tree.update(options)
    given = [_parse_setting(setting) for setting in settings]
    for key, name in given:
        if key == "preset":
            tree["model"] = _over(_section(tree, "model", str(file)), _preset(name, "--set"))
    for key, value in given:
        if key != "preset":
            _apply_setting(tree, key, value)
    for section, old, new in _RENAMED:
        if old in _section(tree, section, str(file)):
            source = "--set" if any(key == f"{section}.{old}" for key, _ in given) else str(file)
            raise BadInput(f"{source}: {section}.{old}: this setting is now called {section}.{new}")
    for key, _ in given:
        if key not in _sections_and_settings():
            raise BadInput(f"--set {key}: no such setting{did_you_mean(key, _sections_and_settings())}")
    return _validated(tree, str(file) if file is not None else "configuration")


def read_run_config(file: Path) -> PretrainConfig:
    """Reads the configuration that a run has written, by this version or an earlier one.

    Raises:
        BadInput: the file is not a run's configuration.
    """
    return _validated(with_current_names(_read_yaml(file)), str(file))


def with_current_names(tree: Any) -> Any:
    """A recorded configuration as a mapping, with the settings of earlier versions under their current names.

    One that states no version of the order is of a time when there was one.
    """
    if not isinstance(tree, dict):
        return tree
    renamed = dict(tree)
    for section, old, new in _RENAMED:
        settings = renamed.get(section)
        if isinstance(settings, dict) and old in settings:
            renamed[section] = {new if name == old else name: value for name, value in settings.items()}
    stream = renamed.get("stream")
    if isinstance(stream, dict):
        renamed["stream"] = {"order_version": FIRST_VERSION, **stream}
    return renamed


def _validated(tree: Mapping[str, Any], source: str) -> PretrainConfig:
    try:
        return pydantic.TypeAdapter(PretrainConfig).validate_python(tree, extra="forbid")
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "value_error":  # our own message names the field
            raise BadInput(f"{source}: {first['ctx']['error']}") from None
        if first["type"] == "unexpected_keyword_argument":
            raise BadInput(f"{source}: {where}: no such setting{did_you_mean(where, _flat_defaults())}") from None
        raise BadInput(f"{source}: {where}: {first['msg']}, found {first['input']!r}") from None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text())
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise BadInput(f"{file}: expected a mapping of settings")
    return tree


def _preset(name: object, source: str) -> Mapping[str, object]:
    """The model's sizes under that name."""
    if not isinstance(name, str) or name not in PRESETS:
        raise BadInput(
            f"{source}: preset: expected one of {', '.join(PRESETS)}, found {name}{did_you_mean(str(name), PRESETS)}"
        )
    return PRESETS[name]


def _over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lays settings over others, section by section."""
    laid = {**under, **over}
    for name, value in laid.items():
        if isinstance(value, Mapping):
            below = under.get(name)
            laid[name] = _over(below if isinstance(below, Mapping) else {}, value)
    return laid


def _section(tree: Mapping[str, Any], name: str, source: str) -> Mapping[str, object]:
    section = tree.get(name, {})
    if not isinstance(section, dict):
        raise BadInput(f"{source}: {name}: expected a mapping of settings")
    return section


def _parse_setting(setting: str) -> tuple[str, object]:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise BadInput(f"--set {setting}: expected key=value, such as model.depth=6")
    if not text:
        like = nearest(key, _flat_defaults()) or key
        example = f", such as {like}={_flat_defaults().get(like)}" if like in _flat_defaults() else ""
        raise BadInput(f"--set {setting}: expected a value after the equals sign{example}")
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError:
        raise BadInput(f"--set {setting}: the value is not YAML") from None


def flat_settings(config: PretrainConfig) -> dict[str, Any]:
    """Every setting's full name, such as ``model.depth``, with its value."""
    return _flat(asdict(config))


def _flat_defaults() -> dict[str, Any]:
    return flat_settings(PretrainConfig())


def _sections_and_settings() -> tuple[str, ...]:
    """What ``--set`` may name; a section takes a mapping."""
    names = tuple(_flat_defaults())
    sections = {name.rpartition(".")[0] for name in names} - {""}
    return (*names, *sorted(sections), "preset")


def _apply_setting(tree: dict[str, Any], key: str, value: object) -> None:
    *sections, name = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise BadInput(f"--set {key}: {section} is not a section")
    tree[name] = value


def same_run(config: PretrainConfig, other: PretrainConfig) -> tuple[str, ...]:
    """Fields in which two configurations differ such that one cannot resume the other's checkpoints.

    Settings that change no result may differ: workers, ZeRO stage, micro-batch, activation checkpointing, compiling,
    offload, loader processes, logs and checkpoints. So may the number of steps: the run then ends earlier or later.
    """
    free = {
        "archive", "run_dir", "storage_path", "workers", "min_workers", "zero_stage", "steps", "micro_batch",
        "activation_checkpointing", "compile", "tf32", "log_every", "log_format", "logger", "checkpoint_every",
        "keep_checkpoints", "reconstruct_windows", "max_failures", "timeout_s", "stream.loader_processes",
        "stream.gpu_cache_gib", "stream.verify", "offload.optimizer", "offload.parameters", "offload.folder",
        "probe.scene", "probe.archive", "probe.pixels",
    }  # fmt: skip
    ours, theirs = flat_settings(config), flat_settings(other)
    return tuple(name for name in ours if name not in free and ours[name] != theirs.get(name))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
