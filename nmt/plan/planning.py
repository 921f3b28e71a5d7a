"""A plan: a recipe on a topology, its step compiled and taken apart."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from nmt.config import ModelConfig, Recipe
from nmt.decode.beam import SEARCH
from nmt.models.building import count_parameters
from nmt.plan.chips import Chip, find_chip
from nmt.plan.compile import Compiled, Overflow, compile_decoding, compile_step, decoding_shapes, make_plan_trainer
from nmt.plan.decoding import Decoding, decoding_as_json, memory_of_search
from nmt.plan.flops import model_flops
from nmt.plan.hlo import Collective, Program, analyse, analyse_loop
from nmt.plan.memory import Parameters, bytes_by_class, elements_on_device
from nmt.plan.paper import Published, published
from nmt.plan.roofline import Roofline, estimate
from nmt.plan.topology import Topology, describe_devices
from nmt.sharding import Layout, make_layout
from nmt.train.step import Trainer

TRILLION = 1e12  # tokens of the paper's runs


@dataclass(frozen=True)
class Plan:
    """A recipe on a topology, measured and estimated; bytes are those of one device."""

    recipe: str
    topology: Topology
    mesh: dict[str, int]
    parameters: Parameters
    tokens: int  # of a batch, as `train.tokens_per_batch`; of a decoding step one for each row
    sparse_layers: int  # of encoder and decoder; where decoding is planned, of the decoder
    chip: Chip
    memory: dict[str, int] = field(default_factory=dict)  # by class; without temporaries where it does not fit
    outcome: Compiled | Overflow | None = None  # None: not compiled yet
    decoding: Decoding | None = None  # None: a train step is planned
    program: Program | None = None  # of a step; None: it does not fit
    model_flops: float = 0.0  # of a step on all devices, by the model's mathematics
    roofline: Roofline | None = None  # None: figures of the chip are not published
    paper: Published | None = None  # the same model, as published

    @property
    def fits(self) -> bool:
        """Whether the program fits the memory of a device."""
        return isinstance(self.outcome, Compiled)

    @property
    def devices(self) -> int:
        """Devices of all slices."""
        return self.topology.devices

    @property
    def decode(self) -> bool:
        """Whether decoding is planned and not training."""
        return self.decoding is not None

    @property
    def collectives(self) -> list[tuple[str, Collective]]:
        """All collectives, each with its phase: of a train step one of `hlo.PHASES`, else encoding or decoding."""
        assert self.program is not None
        if self.decoding is None or self.decoding.encoding is None:
            return [(one.phase, one) for one in self.program.collectives]
        before = [("encoding", one) for one in self.decoding.encoding.collectives]
        return before + [("decoding", one) for one in self.program.collectives]


def make_plan(recipe: Recipe, topology: Topology, decode: bool = False) -> Plan:
    """Compile the train step of a recipe for a topology, or its decoding of a batch, and analyse the program.

    Raises:
      UserError: the mesh does not fit the topology, the model or the batch.
    """
    layout = make_layout(recipe.mesh, describe_devices(topology))
    trainer = make_plan_trainer(recipe, layout)
    total, active = count_parameters(recipe.model, trainer.state.parameters)
    plan = Plan(
        recipe=recipe.name,
        topology=topology,
        mesh=dict(layout.mesh.shape),
        parameters=Parameters(total, active, elements_on_device(trainer.state.parameters)),
        tokens=recipe.train.tokens_per_batch,
        sparse_layers=count_sparse_layers(recipe.model),
        chip=find_chip(topology.kind),
    )
    return _decoding(plan, recipe, trainer, layout) if decode else _training(plan, recipe, trainer, layout)


def _training(plan: Plan, recipe: Recipe, trainer: Trainer, layout: Layout) -> Plan:
    outcome = compile_step(trainer, layout)
    temporaries = outcome.memory.temporaries if isinstance(outcome, Compiled) else 0
    memory = bytes_by_class(recipe, trainer.state, trainer.batch, temporaries, plan.devices)
    plan = replace(plan, outcome=outcome, memory=memory, paper=_paper(recipe, plan.parameters.total))
    if isinstance(outcome, Overflow):
        return plan
    flops = _training_flops(recipe)
    program = analyse(outcome.text)
    return replace(plan, program=program, model_flops=flops, roofline=_time(plan, program, plan.tokens, flops))


def _decoding(plan: Plan, recipe: Recipe, trainer: Trainer, layout: Layout) -> Plan:
    shapes = decoding_shapes(recipe, trainer, layout)
    outcome = compile_decoding(shapes, layout)
    decoding = Decoding(shapes.rows, shapes.beam, shapes.source, shapes.steps)
    used = outcome.memory if isinstance(outcome, Compiled) else None
    memory = memory_of_search(recipe, shapes, layout, used)
    sparse = count_sparse_layers(recipe.model, encoder=False)
    plan = replace(plan, outcome=outcome, memory=memory, tokens=shapes.rows, sparse_layers=sparse, decoding=decoding)
    if isinstance(outcome, Overflow):
        return plan
    encoding, step = analyse_loop(outcome.text, SEARCH)
    time = _time(plan, encoding, shapes.rows * shapes.source)
    decoding = replace(decoding, encoding=encoding, encoding_time=time)
    return replace(plan, program=step, decoding=decoding, roofline=_time(plan, step, plan.tokens))


def _time(plan: Plan, program: Program, tokens: int, model_flops: float = 0.0) -> Roofline | None:
    """Return the estimated time of a program, None where figures of the chip are not published."""
    chip, topology = plan.chip, plan.topology
    if chip.peak_flops is None or chip.hbm_bandwidth is None or chip.link_bandwidth is None:
        return None
    return estimate(program, chip, plan.devices, topology.shape, tokens, model_flops, slices=topology.slices)


def count_sparse_layers(model: ModelConfig, encoder: bool = True) -> int:
    """Return how many layers of encoder and decoder, or of the decoder alone, have experts."""
    return sum(len(layers) for stack, layers in model.sparse_layers.items() if encoder or stack == "decoder")


def _training_flops(recipe: Recipe) -> float:
    data = recipe.data
    lengths = data.source_length, data.target_length
    flops = model_flops(recipe.model, recipe.vocab.sizes, recipe.rows, *lengths, recipe.train.accumulate)
    return flops.total.training


def _paper(recipe: Recipe, parameters: int) -> Published | None:
    """Return GShard's published figures, if experts, layers and parameters (within 10%) are those of its model."""
    model = recipe.model
    row = published(model.moe.experts if model.moe else None, model.encoder_layers + model.decoder_layers)
    return row if row and abs(parameters / row.weights - 1.0) < 0.1 else None


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """Return the JSON object of a plan; bytes are those of one device, seconds are estimates but for compiling."""
    outcome, chip = plan.outcome, plan.chip
    assert outcome is not None
    result: dict[str, Any] = {
        "recipe": plan.recipe,
        "topology": str(plan.topology),
        "program": "decode" if plan.decode else "train",
        "devices": plan.devices,
        "mesh": plan.mesh,
        "parameters": asdict(plan.parameters),
        "tokens_per_step": plan.tokens,
        "fits": plan.fits,
        "hbm_bytes": chip.hbm_bytes,
        "memory_by_class": plan.memory,
        "compile_seconds": outcome.compile_seconds,
    }
    if plan.decoding is not None:
        result["decoding"] = decoding_as_json(plan.decoding, plan.roofline, plan.devices)
    if isinstance(outcome, Overflow):
        return result | {"needed_bytes": outcome.needed, "available_bytes": outcome.available}
    assert plan.program is not None
    result |= {
        "lower_seconds": outcome.lower_seconds,
        "host_peak_bytes": outcome.host_bytes,
        "memory": asdict(outcome.memory),
        "flops_per_device": plan.program.flops,
        "flops_per_step": plan.program.flops * plan.devices,
        "flops_per_token": plan.program.flops * plan.devices / plan.tokens,
        "hbm_bytes_accessed": plan.program.bytes_accessed,
        "collectives": {
            kind: {"executions": count, "bytes": size} for kind, (count, size) in plan.program.totals().items()
        },
        "all_to_all_per_sparse_layer": plan.program.per_layer(plan.sparse_layers) if plan.sparse_layers else {},
        "collective_list": [
            {
                "kind": one.kind,
                "phase": phase,
                "executions": one.executions,
                "payload_bytes": one.payload_bytes,
                "group_size": one.group_size,
                "across_slices": one.across_slices,
                "shapes": [f"{array.dtype}{list(array.dims)}" for array in one.shapes],
                "op_name": one.op_name,
                "source": one.source,
            }
            for phase, one in plan.collectives
        ],
        "notes": list(plan.program.notes),
    }
    if not plan.decode:
        result["model_flops_per_step"] = plan.model_flops
    if plan.roofline is not None:
        result["roofline"] = _roofline(plan.roofline, plan.decode)
    if plan.paper is not None:
        result["paper"] = asdict(plan.paper)
    return result


def _roofline(roofline: Roofline, decode: bool) -> dict[str, Any]:
    training = {"mfu": roofline.mfu(), "days_to_1e12_tokens": roofline.days(TRILLION)}
    return {
        "compute_seconds": roofline.compute,
        "memory_seconds": roofline.memory,
        "interconnect_seconds": roofline.interconnect,
        "step_seconds_at_least": roofline.shortest,
        "step_seconds_at_most": roofline.longest,
        "bound_by": roofline.bottleneck,
        "tokens_per_second": roofline.tokens_per_second(),
        "assumptions": list(roofline.assumptions),
    } | ({} if decode else training)
